"""The raw audio experiment on generated tones."""

import dataclasses
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy import stats
from jax.test_util import check_grads

from experiments.raw_audio import train
from experiments.raw_audio.data import load, train_batches, whole
from experiments.raw_audio.figures import predictions
from experiments.raw_audio.mixture import (
    LOG_SCALE_FLOOR,
    log_density,
    mixture_of,
    moments,
    num_outputs,
)
from experiments.raw_audio.model import make_model
from experiments.raw_audio.presets import INPUTS, PRESETS, TARGETS, Config
from experiments.raw_audio.train import EXPERIMENT, frames_of, main, make_task
from experiments.sequence_model import RNNConfig
from structdl.datasets import decaying_tones
from structdl.datasets.spoken_digits import frames
from structdl.training.run import DataConfig, Run
from structdl.training.task import Inputs

TINY = ["--model.hidden", "4", "--parameters", "0", "--batch-size", "8", "--components", "2"]


@pytest.fixture(scope="module")
def config(data_dir):
    return Config(
        model=RNNConfig(4),
        parameters=0,
        components=3,
        batch_size=8,
        max_steps=100,
        data=DataConfig(dir=data_dir),
        run=Run(num_steps=6, eval_every=0, steps_per_call=2),
    )


@pytest.fixture(scope="module")
def task(config):
    return make_task(config)


def test_the_density_is_that_of_a_loop_over_components_and_features():
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(2, 4, num_outputs(3, 5))).astype(np.float32)
    x = rng.normal(size=(2, 4, 5)).astype(np.float32)
    mixture = mixture_of(jnp.asarray(outputs), 3, 5)
    found = log_density(mixture, jnp.asarray(x))
    for place in np.ndindex(2, 4):
        logits, means, raw = np.split(outputs[place].astype(float), [3, 18])
        density = 0.0
        for k in range(3):
            weight = np.exp(logits[k]) / np.exp(logits).sum()
            for d in range(5):
                scale = np.exp(-7 + np.log1p(np.exp(raw[5 * k + d] + 7)))
                z = (x[place][d] - means[5 * k + d]) / scale
                weight *= np.exp(-0.5 * z**2) / scale / np.sqrt(2 * np.pi)
            density += weight
        assert float(found[place]) == pytest.approx(np.log(density), rel=1e-4, abs=1e-4)


def test_one_component_is_a_normal_distribution_and_its_moments():
    outputs = jnp.array([3.0, 0.5, -1.0, 0.2, 1.0])  # a weight, two means, two log scales
    mixture = mixture_of(outputs, 1, 2)
    mean, deviation = moments(mixture)
    np.testing.assert_allclose(mean, [0.5, -1.0], rtol=1e-6)
    np.testing.assert_allclose(deviation, np.exp([0.2, 1.0]), rtol=2e-3)
    x = jnp.array([0.1, 0.3])
    expected = stats.norm.logpdf(x, mean, deviation).sum()
    assert float(log_density(mixture, x)) == pytest.approx(float(expected), rel=1e-5)


def test_moments_are_those_of_draws():
    rng = np.random.default_rng(0)
    mixture = mixture_of(jnp.asarray(rng.normal(size=num_outputs(3, 2)), float), 3, 2)
    chosen = rng.choice(3, 200_000, p=np.exp(mixture.log_weights))
    scales = np.exp(np.asarray(mixture.log_scales))
    draws = np.asarray(mixture.means)[chosen] + scales[chosen] * rng.normal(size=(200_000, 2))
    mean, deviation = moments(mixture)
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=0.02)
    np.testing.assert_allclose(draws.std(axis=0), deviation, rtol=0.02)


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_outputs_far_out_give_finite_densities_and_gradients(size):
    outputs = jnp.full(num_outputs(2, 3), size)
    x = jnp.array([0.0, 1.0, -1.0])
    if size < 0:
        outputs = outputs.at[2:8].set(0.0)  # means at a sample, and next to none spread
        assert float(mixture_of(outputs, 2, 3).log_scales.min()) == LOG_SCALE_FLOOR
    value, gradient = jax.value_and_grad(lambda out: log_density(mixture_of(out, 2, 3), x))(outputs)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_the_gradient_of_the_density():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        outputs = jnp.asarray(rng.normal(size=num_outputs(2, 3)))
        x = jnp.asarray(rng.normal(size=3))
        check_grads(lambda out, x: log_density(mixture_of(out, 2, 3), x), (outputs, x), 1, ["rev"])


def test_frames_on_the_device_are_those_of_the_data_set(task):
    recordings, starts = np.array([0, 3, -1], np.int32), np.array([0, 7, 0], np.int32)
    batch = task.batch(0, 0)._replace(examples=recordings, starts=starts)
    x, targets, steps = frames_of(Inputs(task.data, (), batch), 30)
    for row in range(2):
        seen, expected = frames(task.data.waves[recordings[row]])
        at = slice(starts[row], starts[row] + 30)
        np.testing.assert_array_equal(x[row], seen[at])
        np.testing.assert_array_equal(targets[row], expected[at])
    assert steps.tolist() == [30, 30, 0]


def loop_over_steps(config, task, params, recordings, starts, most):
    """(total, count) of the loss, of stretches of at most so many steps of recordings."""
    outputs_of = jax.jit(partial(make_model(config).apply, train=False))
    total, count = 0.0, 0
    for recording, start in zip(recordings, starts, strict=True):
        x, targets = frames(task.data.waves[recording])
        number = min(most, task.data.steps[recording] - start)
        seen = np.zeros((1, most, INPUTS), np.float32)
        seen[0, :number] = x[start : start + number]
        mixture = mixture_of(outputs_of({"params": params}, seen)[0, :number], 3, TARGETS)
        densities = log_density(mixture, jnp.asarray(targets[start : start + number]))
        total -= np.asarray(densities, np.float64).sum()
        count += number
    return total, count


def test_the_loss_is_that_of_a_loop_over_recordings_and_steps(config, task, initial, metrics_of):
    params = initial(task)
    (batch,) = task.eval_batches("validation")
    some = type(batch)(*(leaf[:2] for leaf in batch))
    total, count = metrics_of(task, params, some)["loss"]
    expected, steps = loop_over_steps(config, task, params, *some, int(task.data.steps.max()))
    assert int(count) == steps
    np.testing.assert_allclose(total, expected, rtol=1e-4)


def test_training_sees_the_stretches_of_its_batch(config, task, initial, loss_of):
    params, batch = initial(task), task.batch(0, 0)
    assert np.any(batch.starts > 0)
    assert np.any(task.data.steps[batch.examples] < config.max_steps)
    total, count = loss_of(task, params, batch)
    expected, steps = loop_over_steps(config, task, params, *batch, config.max_steps)
    assert int(count) == steps
    np.testing.assert_allclose(total, expected, rtol=1e-4)


def test_batches_are_of_their_splits(config, task, batches_are_of_their_splits):
    splits = decaying_tones.load(data_dir=config.data.dir)
    expected = {
        # what is left of whole tens after the first twenty is cut off
        name: [
            wave[: length // TARGETS * TARGETS].tolist()
            for wave, length in zip(*split, strict=True)
        ]
        for name, split in splits._asdict().items()
    }

    def contents(recordings):
        waves, steps = task.data
        return [waves[each, : INPUTS + TARGETS * steps[each]].tolist() for each in recordings]

    trained = batches_are_of_their_splits(
        task, expected, lambda batch: batch.examples, contents, steps=25
    )
    assert trained == 200


@pytest.mark.parametrize(("noise", "dropout"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.5)])
def test_only_noise_and_dropout_draw(config, noise, dropout, only_noise_draws):
    model = dataclasses.replace(config.model, dropout=dropout)
    task = make_task(dataclasses.replace(config, model=model, weight_noise=noise))
    only_noise_draws(task, draws=bool(noise or dropout))


def test_parts_and_missing_recordings_change_nothing(task, initial, metrics_of, monkeypatch):
    params = initial(task)
    (batch,) = task.eval_batches("test")
    some = type(batch)(*(leaf[:5] for leaf in batch))
    more = type(batch)(np.append(some.examples, -1), np.append(some.starts, 0))
    expected = metrics_of(task, params, some)
    monkeypatch.setattr(train, "EVAL_RECORDINGS", 2)
    chex.assert_trees_all_close(metrics_of(task, params, more), expected, rtol=1e-5)


def test_what_stands_after_the_end_of_a_recording_does_not_count(task, initial, metrics_of):
    params = initial(task)
    (batch,) = task.eval_batches("test")
    some = type(batch)(*(leaf[:3] for leaf in batch))
    waves = np.array(task.data.waves)
    for recording in some.examples:
        waves[recording, INPUTS + TARGETS * task.data.steps[recording] :] = np.nan
    changed = task._replace(data=task.data._replace(waves=waves))
    found, expected = (metrics_of(each, params, some) for each in (changed, task))
    chex.assert_trees_all_close(found, expected, rtol=1e-6)


def test_stretches_lie_within_their_recordings():
    steps = np.array([3, 10, 20, 7])
    batch = train_batches(steps, np.arange(4), 2, max_steps=8)
    starts = {number: set() for number in range(4)}
    for step in range(60):
        for recording, start in zip(*batch(step, 0), strict=True):
            starts[int(recording)].add(int(start))
    assert starts[0] == starts[3] == {0}
    assert starts[1] == {0, 1, 2}
    assert len(starts[2]) > 4
    assert max(starts[2]) <= 12
    np.testing.assert_array_equal(whole(np.arange(2)).examples, [0, 1])


def test_a_longer_recording_is_cut(config):
    data, _ = load(dataclasses.replace(config, max_samples=1000))
    uncut, _ = load(config)
    assert data.steps.max() == (1000 - INPUTS) // TARGETS
    np.testing.assert_array_equal(data.steps, np.minimum(uncut.steps, data.steps.max()))
    np.testing.assert_array_equal(data.waves, uncut.waves[:, : data.waves.shape[1]])


def test_every_sample_but_the_first_is_expected_once(config, task, initial):
    mean, deviation = predictions(config, initial(task), task.data.waves[0, :1000])
    assert mean.shape == deviation.shape == (980,)
    assert (deviation > 0).all()


@pytest.mark.parametrize("name", PRESETS)
def test_the_models_that_are_compared_have_one_size(name, has_its_stated_size):
    has_its_stated_size(PRESETS[name].config, 300, INPUTS)


def test_a_few_steps_lower_the_loss_and_compile_once(config, task, few_steps_lower_the_loss):
    few_steps_lower_the_loss(task, config.run, task.batch(0, 0))


def test_every_optimizer_takes_steps(config, task, optimizer_takes_steps):
    optimizer_takes_steps(task, config.run)


def test_a_run_that_goes_on_equals_one_that_was_not_interrupted(resumed_equals_whole):
    figures = resumed_equals_whole(EXPERIMENT, [*TINY, "--weight-noise", "0.05"])
    assert (figures / "wave.png").exists()


def test_the_least_loss_of_the_readme():
    readme = (EXPERIMENT.directory / "README.md").read_text()
    assert f"below {decaying_tones.least_loss(TARGETS):.1f} nats" in readme


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "digits"], "--dataset is 'digits'"),
        (["--weight-noise", "nan"], "--weight-noise is nan"),
        (["--max-steps", "0"], "--max-steps is 0"),
        (["--max-samples", "29"], "--max-samples is 29"),
        (["--batch-size", "201"], "--batch-size is 201"),
        (["--components", "0"], "--components is 0"),
        (["--parameters", "1000"], "give --parameters 0"),
    ],
)
def test_bad_options_are_named(words, message, is_refused):
    is_refused(main, [*TINY, *words], message)
