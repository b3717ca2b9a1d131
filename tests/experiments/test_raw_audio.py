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
from experiments.raw_audio.data import INPUTS, TARGETS, load, train_batches, whole
from experiments.raw_audio.figures import predictions
from experiments.raw_audio.mixture import (
    LOG_SCALE_FLOOR,
    log_density,
    mixture_of,
    moments,
    num_outputs,
)
from experiments.raw_audio.model import make_model
from experiments.raw_audio.presets import PRESETS, Config
from experiments.raw_audio.train import EXPERIMENT, frames_of, main, make_task
from experiments.sequence_model import RNNConfig, encoder_size
from structdl.datasets import decaying_tones
from structdl.datasets.spoken_digits import frames
from structdl.training.loop import fit
from structdl.training.optimizers import OptimizerConfig, make_optimizer
from structdl.training.profiling import Profile
from structdl.training.run import DataConfig, Run
from structdl.training.task import Inputs

TINY = ["--model.hidden", "4", "--parameters", "0", "--batch-size", "8", "--components", "2"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return Config(
        model=RNNConfig(4),
        parameters=0,
        components=3,
        batch_size=8,
        max_steps=40,
        data=DataConfig(dir=tmp_path_factory.mktemp("data")),
        run=Run(num_steps=6, eval_every=0, steps_per_call=2),
    )


@pytest.fixture(scope="module")
def task(config):
    return make_task(config)


def initial(task):
    inputs = Inputs(task.data, (), task.batch(0, 0))
    return jax.jit(task.init)(jax.random.key(0), inputs)[0]


def metrics_of(task, params, batch):
    """Compiled anew each time, since what is monkeypatched stands in the program."""
    return jax.jit(lambda *args: task.metrics(*args, None))(
        params, (), Inputs(task.data, (), batch)
    )


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


def test_the_loss_is_that_of_a_loop_over_recordings_and_steps(config, task):
    params = initial(task)
    (batch,) = task.eval_batches("validation")
    some = type(batch)(*(leaf[:2] for leaf in batch))
    total, count = metrics_of(task, params, some)["loss"]
    model = make_model(config)
    expected, steps = 0.0, 0
    for recording in some.examples:
        x, targets = frames(task.data.waves[recording])
        outputs = jax.jit(partial(model.apply, train=False))({"params": params}, x[None])[0]
        length = int(task.data.steps[recording])
        densities = log_density(mixture_of(outputs, 3, TARGETS), jnp.asarray(targets))
        expected -= np.asarray(densities, np.float64)[:length].sum()
        steps += length
    assert int(count) == steps
    np.testing.assert_allclose(total, expected, rtol=1e-4)


def test_parts_and_missing_recordings_change_nothing(task, monkeypatch):
    params = initial(task)
    (batch,) = task.eval_batches("test")
    some = type(batch)(*(leaf[:5] for leaf in batch))
    more = type(batch)(np.append(some.examples, -1), np.append(some.starts, 0))
    expected = metrics_of(task, params, some)
    monkeypatch.setattr(train, "EVAL_RECORDINGS", 2)
    chex.assert_trees_all_close(metrics_of(task, params, more), expected, rtol=1e-5)


def test_what_stands_after_the_end_of_a_recording_does_not_count(task):
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


def test_every_sample_but_the_first_is_expected_once(config, task):
    mean, deviation = predictions(config, initial(task), task.data.waves[0, :1000])
    assert mean.shape == deviation.shape == (980,)
    assert (deviation > 0).all()


@pytest.mark.parametrize("name", PRESETS)
def test_the_models_that_are_compared_have_one_size(name):
    config = PRESETS[name].config
    size = encoder_size(config.model, 300, INPUTS)
    assert abs(size - config.parameters) <= 0.05 * config.parameters


def test_a_few_steps_lower_the_loss_and_compile_once(config, task, tmp_path):
    profile = Profile(tmp_path)
    optimizer = make_optimizer(OptimizerConfig("adam", 0.02))
    noisy = make_task(dataclasses.replace(config, weight_noise=0.01))
    result = fit(noisy, optimizer, config.run, profile=profile)
    params = jax.tree.map(lambda leaf: leaf[0], result.selected[0])
    (batch,) = task.eval_batches("validation")
    some = type(batch)(*(leaf[:8] for leaf in batch))
    before, after = (metrics_of(task, each, some)["loss"] for each in (initial(task), params))
    assert float(after[0]) < float(before[0])
    assert profile.recompilations == []


def test_every_optimizer_takes_steps(config, task, optimizer_takes_steps):
    optimizer_takes_steps(task, config.run)


def test_a_run_that_goes_on_equals_one_that_was_not_interrupted(config, resumed_equals_whole):
    figures = resumed_equals_whole(EXPERIMENT, [*TINY, "--data.dir", str(config.data.dir)])
    assert (figures / "wave.png").exists()


def test_the_least_loss_of_the_readme():
    readme = (EXPERIMENT.directory / "README.md").read_text()
    assert f"below {decaying_tones.least_loss(TARGETS):.1f} nats" in readme


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "digits"], "--dataset is 'digits'"),
        (["--max-steps", "0"], "--max-steps is 0"),
        (["--max-samples", "29"], "--max-samples is 29"),
        (["--batch-size", "201"], "--batch-size is 201"),
        (["--components", "0"], "--components is 0"),
    ],
)
def test_bad_options_are_named(words, message, config, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main([*TINY, "--data.dir", str(config.data.dir), "--workdir", str(tmp_path), *words])
    assert exit_info.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
