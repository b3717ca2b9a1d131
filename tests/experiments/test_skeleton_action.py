"""Actions of skeletons: how sequences are brought to one form, the networks, and the contracts."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.skeleton_action.data import CENTRE, Augmentation, prepare
from experiments.skeleton_action.model import as_parts, make_model, with_differences
from experiments.skeleton_action.presets import (
    PARAMETERS,
    PRESETS,
    AGCLSTMConfig,
    Config,
    GCNConfig,
    LSTMConfig,
    SRTSLConfig,
)
from experiments.skeleton_action.train import EXPERIMENT, main, make_task
from structdl.datasets import motion_primitives
from structdl.datasets.msraction3d import JOINTS, PARTS
from structdl.graphs.sr_tsl import SRTSL
from structdl.training.run import DataConfig, Run

TINY = ["--frames", "8", "--model.hidden", "4", "--batch-size", "8"]
MODELS = [
    AGCLSTMConfig(4, dropout=0.0),
    SRTSLConfig(4, 4, clip=4, dropout=0.0),
    LSTMConfig(4, dropout=0.0),
    GCNConfig(4, dropout=0.0),
]


@pytest.fixture(scope="module")
def config(data_dir):
    run = Run(num_steps=6, eval_every=0, steps_per_call=2)
    data = DataConfig(dir=data_dir)
    still = {"rotation": 0.0, "scaling": 0.0, "cropping": 0.0}
    return Config(frames=8, model=MODELS[1], batch_size=8, data=data, run=run, **still)


@pytest.fixture(scope="module")
def task(config):
    return make_task(config)


def sequences():
    """Two straight motions of 3 and 5 frames, padded with NaN."""
    positions = np.full((2, 5, len(JOINTS), 3), np.nan, np.float32)
    places = np.random.default_rng(0).normal(size=(2, 2, len(JOINTS), 3))
    for number, length in enumerate((3, 5)):
        share = np.linspace(0, 1, length)[:, None, None]
        start, end = places[number]
        positions[number, :length] = (1 - share) * start + share * end
    return jnp.asarray(positions), jnp.array([3, 5]), places


def test_sequences_are_interpolated_and_begin_at_the_centre():
    positions, lengths, places = sequences()
    found = prepare(positions, lengths, 9)
    share = np.linspace(0, 1, 9)[None, :, None, None]
    expected = (1 - share) * places[:, :1] + share * places[:, 1:]
    expected -= expected[:, :1, CENTRE, None]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_turn_keeps_heights_and_distances():
    positions, lengths, _ = sequences()
    still = np.asarray(prepare(positions, lengths, 9))
    turned = np.asarray(prepare(positions, lengths, 9, Augmentation(1.0, 0, 0), jax.random.key(0)))
    np.testing.assert_allclose(turned[..., 1], still[..., 1], atol=1e-5)
    for one, other in zip(turned, still, strict=True):
        angle = np.angle(one[..., 0] + 1j * one[..., 2]) - np.angle(
            other[..., 0] + 1j * other[..., 2]
        )
        known = np.abs(other[..., 0] + 1j * other[..., 2]) > 1e-2
        turns = np.exp(1j * angle[known])
        np.testing.assert_allclose(turns, turns[0], atol=1e-3)
        assert 0.01 < abs(np.angle(turns[0])) <= 1.0


def test_a_size_is_one_factor_and_a_crop_one_stretch():
    positions, lengths, places = sequences()
    still = np.asarray(prepare(positions, lengths, 9))
    changed = prepare(positions, lengths, 9, Augmentation(0, 0.3, 0), jax.random.key(0))
    factors = np.asarray(changed)[:, -1] / still[:, -1]
    for factor in factors:
        np.testing.assert_allclose(factor, factor[0, 0], rtol=1e-3)
        assert 0.001 < abs(factor[0, 0] - 1) <= 0.3
    cropped = np.asarray(prepare(positions, lengths, 9, Augmentation(0, 0, 0.5), jax.random.key(0)))
    speeds = np.diff(cropped, axis=1) / (places[:, 1:] - places[:, :1])
    for speed in speeds:  # a straight motion stays one, and is slower
        np.testing.assert_allclose(speed, speed[0, 0, 0], rtol=1e-2)
        assert 0.5 / 8 - 1e-3 <= speed[0, 0, 0] < 1 / 8


@pytest.mark.parametrize("model", MODELS)
def test_training_computes_what_evaluation_does(config, model, initial, loss_of, metrics_of):
    task = make_task(dataclasses.replace(config, model=model))
    args = task, initial(task), task.batch(0, 0)
    chex.assert_trees_all_close(loss_of(*args), metrics_of(*args)["loss"], rtol=1e-4)


def test_the_loss_weighs_clips_and_the_last_one_answers(config, task, initial, metrics_of):
    params, batch = initial(task), task.eval_batches("validation")[0]
    positions, lengths, labels = (jnp.asarray(leaf[batch]) for leaf in task.data[:3])
    xs = prepare(positions, lengths, 8)
    logits = SRTSL(8, 4, 4, clip=4).apply({"params": params["SRTSL_0"]}, as_parts(xs), train=False)
    losses = [
        optax.softmax_cross_entropy_with_integer_labels(logits[:, clip], labels).sum()
        for clip in range(2)
    ]
    found = metrics_of(task, params, batch)
    np.testing.assert_allclose(found["loss"][0], losses[0] / 3 + losses[1] * 2 / 3, rtol=1e-4)
    assert int(found["accuracy"][0]) == np.sum(logits[:, 1].argmax(axis=1) == labels)
    assert int(found["loss"][1]) == 32


def test_parts_are_their_joints_side_by_side():
    xs = np.asarray(sequences()[0])
    for found, joints in zip(as_parts(jnp.asarray(xs)), PARTS.values(), strict=True):
        expected = np.concatenate([xs[:, :, joint] for joint in joints], axis=-1)
        np.testing.assert_array_equal(found, expected)
    both = np.asarray(with_differences(jnp.asarray(xs)))
    np.testing.assert_array_equal(both[1, 2, :, 3:], xs[1, 2] - xs[1, 1])


def test_batches_are_of_their_splits(config, task, batches_are_of_their_splits):
    splits = motion_primitives.load(data_dir=config.data.dir)
    expected = {name: split.positions[:, 0].tolist() for name, split in splits._asdict().items()}
    batches_are_of_their_splits(
        task,
        expected,
        lambda batch: batch[batch >= 0],
        lambda numbers: task.data.positions[numbers, 0].tolist(),
        steps=16,
    )


@pytest.mark.parametrize("changes", [{}, {"rotation": 0.1}, {"scaling": 0.1}, {"cropping": 0.1}])
def test_only_dropout_and_augmentation_draw(config, changes, only_noise_draws):
    only_noise_draws(make_task(dataclasses.replace(config, **changes)), draws=bool(changes))


@pytest.mark.parametrize("model", MODELS)
def test_dropout_draws(config, model, only_noise_draws):
    model = dataclasses.replace(model, dropout=0.5)
    only_noise_draws(make_task(dataclasses.replace(config, model=model)), draws=True)


@pytest.mark.parametrize("streams", ["joints", "parts", "both"])
def test_the_scores_of_streams_are_added(config, streams):
    models = {
        name: make_model(
            dataclasses.replace(config, model=AGCLSTMConfig(4, streams=name, dropout=0.0))
        )
        for name in ("joints", "parts", "both")
    }
    xs = jnp.asarray(np.random.default_rng(1).normal(size=(2, 8, len(JOINTS), 3)), jnp.float32)
    params = models["both"].init(jax.random.key(0), xs, train=False)["params"]
    found = {
        name: model.apply(
            {"params": {key: params[key] for key in params if name in (key, "both")}},
            xs,
            train=False,
        )
        for name, model in models.items()
    }
    both = found["joints"][0] + found["parts"][0]
    np.testing.assert_allclose(found["both"][0], both, rtol=1e-4, atol=1e-5)
    assert len(found[streams][1]) == (0 if streams == "parts" else 3)


@pytest.mark.parametrize("name", ["agc-lstm", "sr-tsl", "lstm", "gcn"])
def test_the_models_that_are_compared_have_one_size(name, capsys):
    config = PRESETS[name].config
    assert config.parameters == PARAMETERS
    make_model(config)  # which refuses another size
    assert f"of {PARAMETERS}" in capsys.readouterr().out
    assert config.validation_subjects == ()


def test_without_people_for_validation_all_odd_ones_train(config):
    task = make_task(dataclasses.replace(config, validation_subjects=()))
    assert len(task.eval_batches("validation")) == 0
    trained = np.concatenate([task.batch(step, 0) for step in range(20)])
    assert np.unique(task.data.subjects[trained]).tolist() == [1, 3, 5, 7, 9]


def test_a_few_steps_lower_the_loss_and_compile_once(config, task, few_steps_lower_the_loss):
    few_steps_lower_the_loss(task, config.run, task.batch(0, 0))


def test_every_optimizer_takes_steps(config, optimizer_takes_steps):
    model = AGCLSTMConfig(4, streams="joints", dropout=0.0)
    optimizer_takes_steps(make_task(dataclasses.replace(config, model=model)), config.run)


def test_a_run_that_goes_on_equals_one_that_was_not_interrupted(resumed_equals_whole):
    figures = resumed_equals_whole(EXPERIMENT, TINY)
    assert {path.stem for path in figures.iterdir()} == {
        "learning_curves",
        "actions",
        "attention",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--frames", "1"], "--frames is 1: it must be at least 2"),
        (["--frames", "2", "--model.num-layers", "3"], "1 frame cannot be halved"),
        (["--rotation", "-1"], "--rotation is -1.0: it must be at least 0"),
        (["--cropping", "1"], "--cropping is 1.0: it must be at least 0 and below 1"),
        (["--model.hidden", "0"], "--model.hidden is 0"),
        (["--model.dropout", "1"], "--model.dropout is 1.0"),
        (["--validation-subjects", "2"], "validation_subjects are (2,)"),
        (["--parameters", "9"], "--parameters asks for 9 within 5%"),
        (["--batch-size", "129"], "--batch-size is 129"),
    ],
)
def test_bad_options_are_named(words, message, is_refused):
    is_refused(main, [*TINY, *words], message)
