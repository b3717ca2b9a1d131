"""Relational inference: what is minimised, how edges are scored, and its contracts, on springs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.relational_inference.accuracy import (
    apply_threshold,
    approach_of,
    best_threshold,
    between,
    score,
    simple_errors,
)
from experiments.relational_inference.data import load, scale
from experiments.relational_inference.figures import best_naming
from experiments.relational_inference.model import correlations, make_approach
from experiments.relational_inference.presets import (
    PRESETS,
    Config,
    CorrelationConfig,
    LSTMConfig,
    NRIConfig,
    SupervisedConfig,
)
from experiments.relational_inference.train import EXPERIMENT, main, make_task
from structdl.core.distributions import gaussian_log_prob, gumbel_softmax
from structdl.datasets import particles
from structdl.datasets.sequences import Splits
from structdl.errors import InputError
from structdl.graphs.nri import negative_elbo
from structdl.graphs.nri_decoders import MarkovDecoder
from structdl.graphs.nri_encoders import MLPEncoder
from structdl.training.cli import run_experiment
from structdl.training.loop import fit
from structdl.training.optimizers import OptimizerConfig, make_optimizer
from structdl.training.profiling import Profile
from structdl.training.run import DataConfig, Run
from structdl.training.task import Inputs

NRI = NRIConfig(encoder_hidden=8, decoder_hidden=8, prior=(0.8, 0.2))
MODELS = [NRI, SupervisedConfig(hidden=8), LSTMConfig(hidden=8), CorrelationConfig()]
TINY = ["--objects", "3", "--num-train", "40", "--num-validation", "9", "--num-test", "12"]
TINY += ["--batch-size", "8"]


@pytest.fixture(scope="module")
def config(data_dir):
    run = Run(num_steps=20, eval_every=0, steps_per_call=5)
    data = DataConfig(dir=data_dir)
    return Config("springs", 3, 40, 9, 12, NRI, batch_size=8, data=data, run=run)


def with_model(config, model):
    return make_task(dataclasses.replace(config, model=model))


def begin(task):
    """Parameters and statistics before training, and the inputs of a batch."""
    inputs = Inputs(task.data, (), task.batch(0, 0))
    return *jax.jit(task.init)(jax.random.key(0), inputs), inputs


def test_the_loss_is_the_negative_elbo_of_a_sample(config):
    task = with_model(config, NRI)
    params, model_state, inputs = begin(task)
    drawn = jax.random.key(3)
    (total, count), (new_state, _) = jax.jit(task.loss_fn)(params, model_state, inputs, drawn)
    states = jnp.asarray(task.data.states[inputs.batch])
    logits, expected_state = MLPEncoder(8, 2).apply(
        {"params": params["encoder"], **model_state}, states, train=True, mutable=["batch_stats"]
    )
    edges = gumbel_softmax(jax.random.key(3), logits, 0.5)
    predictions = MarkovDecoder(8, 2).apply(
        {"params": params["decoder"]}, states, edges, prediction_steps=10
    )
    errors, divergences = negative_elbo(
        predictions, states[:, 1:], logits, variance=5e-5, log_prior=jnp.log(jnp.array([0.8, 0.2]))
    )
    np.testing.assert_allclose(total, (errors + divergences).sum(), rtol=1e-4)
    assert int(count) == 8
    for new, expected in zip(*map(jax.tree.leaves, (new_state, expected_state)), strict=True):
        np.testing.assert_allclose(new, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("num", "length"), [(48, 1), (5, 1), (4, 3), (1, 48)])
def test_stretches_stand_for_whole_trajectories(config, num, length):
    """The loss of training is, scaled up, that of stretches that start at one of these frames."""
    model = dataclasses.replace(NRI, prediction_steps=length, stretches=num)
    task = with_model(config, model)
    params, model_state, inputs = begin(task)
    states = jnp.asarray(task.data.states[inputs.batch])

    @jax.jit
    def of_each_start(edges):
        """The negative log-likelihood of what follows each frame, cut out of the trajectories."""

        def one(start):
            cut = jax.lax.dynamic_slice_in_dim(states, start, length + 1, axis=1)
            variables = {"params": params["decoder"]}
            predicted = MarkovDecoder(8, 2).apply(variables, cut, edges, prediction_steps=length)
            return -jnp.sum(gaussian_log_prob(cut[:, 1:], predicted, model.variance))

        return jax.lax.map(one, jnp.arange(49 - length))

    loss_fn, firsts = jax.jit(task.loss_fn), set()
    apart = 48 // num
    variables = {"params": params["encoder"], **model_state}
    logits, _ = MLPEncoder(8, 2).apply(variables, states, train=True, mutable=["batch_stats"])
    for seed in range(6):
        (total, _), (_, found) = loss_fn(params, model_state, inputs, jax.random.key(seed))
        key, _ = jax.random.split(jax.random.key(seed))
        errors = np.asarray(of_each_start(gumbel_softmax(key, logits, model.temperature)))
        starts = [slice(first, first + (num - 1) * apart + 1, apart) for first in range(49)]
        fitting = [one for one in starts if one.stop <= len(errors)]
        expected = np.array([errors[one].sum() for one in fitting]) * 48 / (num * length)
        off = np.abs(float(total - found["kl"][0]) / expected - 1)
        assert off.min() < 1e-4
        firsts.add(int(off.argmin()))
    assert len(firsts) > 1 or len(fitting) == 1


@pytest.mark.parametrize("model", MODELS)
def test_systems_that_are_none_do_not_count(config, model):
    task = with_model(config, model)
    params, model_state, inputs = begin(task)
    whole = jax.jit(task.metrics)(params, model_state, inputs, None)
    padded = np.concatenate([inputs.batch, [-1, -1, -1]]).astype(np.int32)
    found = jax.jit(task.metrics)(params, model_state, inputs._replace(batch=padded), None)
    assert found.keys() == whole.keys()
    for name in whole:
        np.testing.assert_allclose(found[name], whole[name], rtol=1e-4)
    nothing = jax.jit(task.metrics)(
        params, model_state, inputs._replace(batch=np.full(4, -1, np.int32)), None
    )
    assert all((float(total), int(count)) == (0, 0) for total, count in nothing.values())


def test_edges_are_the_true_ones_in_supervised_training(config):
    task = with_model(config, SupervisedConfig(hidden=8))
    params, model_state, inputs = begin(task)
    approach = make_approach(SupervisedConfig(hidden=8))
    systems = jax.tree.map(lambda leaf: jnp.asarray(leaf[inputs.batch]), task.data)
    logits = between(np.asarray(approach.find(params, model_state, systems.states))[..., 1:])
    others = between(np.asarray(approach.find(params, model_state, systems.states))[..., :1])
    edges = between(systems.edges)
    chances = 1 / (1 + np.exp((others - logits) * (2 * edges - 1)))
    found = task.metrics(params, model_state, inputs, None)
    np.testing.assert_allclose(found["loss"][0], -np.log(chances).sum(), rtol=1e-4)
    assert int(found["loss"][1]) == 8 * 6
    assert int(found["edge_accuracy"][0]) == np.sum((logits > others) == edges)


@pytest.mark.parametrize("model", MODELS[:3])
def test_a_few_steps_lower_the_loss_and_compile_once(config, model, tmp_path):
    task = with_model(config, model)
    profile = Profile(tmp_path)
    result = fit(task, make_optimizer(OptimizerConfig("adam", 0.01)), config.run, profile=profile)
    assert profile.recompilations == []
    *before, inputs = begin(task)
    after = jax.tree.map(lambda leaf: leaf[0], result.selected)

    def loss(params, model_state):
        (total, count), _ = task.loss_fn(params, model_state, inputs, jax.random.key(0))
        return float(total / count)

    assert loss(*after) < loss(*before)


@pytest.mark.parametrize("decoder", ["markov", "recurrent"])
@pytest.mark.parametrize("encoder", ["mlp", "cnn"])
def test_every_encoder_goes_with_every_decoder(config, encoder, decoder):
    model = dataclasses.replace(NRI, encoder=encoder, decoder=decoder, burn_in=5, hard=True)
    task = with_model(config, model)
    params, model_state, inputs = begin(task)
    states = jnp.asarray(task.data.states[inputs.batch])
    forced = make_approach(model).predict(params, model_state, states, num_steps=1)
    free = make_approach(model).predict(params, model_state, states, num_steps=99)
    assert forced.shape == free.shape == (8, 48, 3, 4)
    np.testing.assert_allclose(forced[:, 0], free[:, 0], rtol=1e-4, atol=1e-5)
    same = np.isclose(forced, free, rtol=1e-4, atol=1e-5).all(axis=(0, 2, 3))
    # a recurrent decoder is shown the first states
    assert same.sum() == (5 if decoder == "recurrent" else 1)


def test_every_optimizer_takes_steps(config, optimizer_takes_steps):
    # a small variance leaves the encoder's gradients small beside the decoder's
    optimizer_takes_steps(with_model(config, dataclasses.replace(NRI, variance=1.0)), config.run)


def test_batches_are_of_their_splits(config, batches_are_of_their_splits):
    sizes = {"num_train": 40, "num_validation": 9, "num_test": 12}
    splits = particles.load("springs", objects=3, data_dir=config.data.dir, **sizes)
    expected = {name: split.edges.tolist() for name, split in splits._asdict().items()}
    task = with_model(config, NRI)
    batches_are_of_their_splits(
        task,
        expected,
        lambda batch: batch[batch >= 0],
        lambda systems: task.data.edges[systems].tolist(),
        steps=5,
    )


def test_training_is_what_is_scaled_to_one(config):
    data, splits = load(config)
    for group in ((0, 1), (2, 3)):
        values = data.states[splits.train][..., group]
        np.testing.assert_allclose([values.min(), values.max()], [-1, 1], atol=1e-6)
    states = np.array([[[[0.0, 5.0]]], [[[4.0, 5.0]]]])
    scaled = scale(states, states, ((0,), (1,)))
    np.testing.assert_array_equal(scaled[:, 0, 0, 0], [-1, 1])
    assert np.isfinite(scaled).all()  # what never changes


def test_correlations_are_pearsons():
    vectors = np.random.default_rng(0).normal(size=(2, 3, 7))
    vectors[1, 2] = 4.0  # does not vary
    found = np.asarray(correlations(jnp.asarray(vectors, jnp.float32)))
    np.testing.assert_allclose(found[0], np.corrcoef(vectors[0]), atol=1e-5)
    np.testing.assert_allclose(found[1, :2, :2], np.corrcoef(vectors[1, :2]), atol=1e-5)
    np.testing.assert_array_equal(found[1, 2], 0)


@pytest.mark.parametrize("seed", range(8))
def test_no_threshold_is_better_than_the_best(seed):
    rng = np.random.default_rng(seed)
    values, edges = rng.integers(0, 6, 12) / 6, rng.integers(0, 2, 12)
    shares = [
        np.mean((((values > value) == above).astype(int)) == edges)
        for value in [-1, *values]
        for above in (True, False)
    ]
    rule = best_threshold(values, edges)
    assert np.mean(apply_threshold(rule, values) == edges) == max(shares)


@pytest.mark.parametrize("model", MODELS)
def test_the_score_is_of_the_test_systems(config, model):
    config = dataclasses.replace(config, model=model)
    task = make_task(config)
    run = dataclasses.replace(config.run, num_steps=5)
    result = fit(task, make_optimizer(OptimizerConfig("adam", 0.01)), run)
    (found,) = score(config, task, result)["test_edge_accuracy"]
    selected = jax.tree.map(lambda leaf: leaf[0], result.selected)
    edges = np.asarray(make_approach(model).find(*selected, jnp.asarray(task.data.states)))
    true = between(task.data.edges[49:])
    if edges.ndim == 3:
        rule = best_threshold(between(edges[:40]), between(task.data.edges[:40]))
        expected = np.mean(apply_threshold(rule, between(edges[49:])) == true)
    else:
        share = np.mean(between(edges[49:].argmax(axis=-1)) == true)
        expected = max(share, 1 - share)
    assert found == pytest.approx(expected)


def test_a_naming_is_one_to_one():
    confusion = np.array([[5, 4, 0], [9, 8, 0], [0, 1, 2]])
    assert best_naming(confusion).tolist() == [1, 0, 2] or best_naming(confusion).tolist() == [
        0,
        1,
        2,
    ]
    assert best_naming(np.array([[0, 3, 1], [0, 0, 9], [2, 0, 0]])).tolist() == [2, 0, 1]


def test_a_run_that_goes_on_equals_one_that_was_not_interrupted(resumed_equals_whole):
    words = [*TINY, "--model.encoder-hidden", "8", "--model.decoder-hidden", "8"]
    figures = resumed_equals_whole(EXPERIMENT, words, noise=[])
    assert {path.stem for path in figures.iterdir()} == {"learning_curves", "systems"}


def test_correlations_need_no_training(tmp_path):
    words = ["springs-correlation", *TINY, "--workdir", str(tmp_path)]
    summary = run_experiment(EXPERIMENT, words)
    assert 0.4 < summary["metrics"]["test_edge_accuracy"]["mean"] < 1
    assert summary["steps"]["mean"] == 0


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_its_model(name):
    config = PRESETS[name].config
    objects, frames = config.objects, 49
    features = len(particles.FEATURES.get(config.dataset, range(6)))
    states = jax.ShapeDtypeStruct((1, frames, objects, features), jnp.float32)
    approach = approach_of(config)
    params, model_state = jax.eval_shape(lambda x: approach.init(jax.random.key(0), x), states)
    found = jax.eval_shape(approach.find, params, model_state, states)
    assert found.shape[:3] == (1, objects, objects)
    assert config.run.num_steps == config.optimizer.schedule_steps


@pytest.fixture
def walking(monkeypatch):
    """Rotations of three joints for the set's; the second half of those of each split is unused."""
    rng = np.random.default_rng(0)
    splits = Splits(*(rng.normal(size=(2 * num, 20, 3, 3)) for num in (40, 9, 12)))
    monkeypatch.setattr("structdl.datasets.cmu_mocap.load", lambda action, **where: splits)
    return splits


def test_of_walking_rotations_and_their_changes_are_seen(walking, config):
    data, indices = load(dataclasses.replace(config, dataset="walking"))
    assert list(map(len, indices)) == [40, 9, 12]
    assert (data.edges == -1).all()
    rotations = np.concatenate([walking.train[:40], walking.validation[:9], walking.test[:12]])
    low, high = walking.train[:40].min(), walking.train[:40].max()
    np.testing.assert_allclose(
        (data.states[..., :3] + 1) / 2 * (high - low) + low, rotations, atol=1e-6
    )
    changes, expected = data.states[..., 3:], np.diff(rotations, axis=1)
    assert np.ptp(changes[:, 0]) < 1e-6  # no change at first
    correlation = np.corrcoef(changes[:, 1:].ravel(), expected.ravel())[0, 1]
    assert correlation == pytest.approx(1)


def test_simple_predictions_of_a_steady_motion():
    rotations = np.arange(7.0).reshape(1, 7, 1, 1) * 0.1
    states = jnp.asarray(np.concatenate([rotations, np.full_like(rotations, 0.3)], axis=-1))
    found = simple_errors(states, 3)
    # of every true state but the first, which has no change yet, what comes is known
    assert found["test_squared_error_going_on"] == pytest.approx((0.01 + 0.04 + 0.09) / 12)
    assert found["test_squared_error_unchanged"] == pytest.approx(2 * (0.01 + 0.04 + 0.09) / 12)


def test_without_known_edges_errors_are_scored_and_shares_drawn(walking, tmp_path):
    words = ["walking", *TINY, "--model.encoder-hidden", "8", "--model.decoder-hidden", "8"]
    words += ["--num-steps", "4", "--eval-every", "2", "--steps-per-call", "2"]
    words += ["--workdir", str(tmp_path)]
    metrics = run_experiment(EXPERIMENT, words)["metrics"]
    assert not any("accuracy" in name for name in metrics)
    for name in PRESETS["walking"].metrics:
        assert 0 < metrics[name]["mean"] < 100
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {"learning_curves", "edges"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--objects", "5"], "--objects is 5: of walking give 3, its joints"),
        (["--num-test", "25"], "--num-test is 25: it must be at most 24"),
    ],
)
def test_what_walking_has_not_is_named(walking, words, message, is_refused):
    is_refused(main, ["walking", *TINY, *words], message)


def test_approaches_that_need_edges_are_refused_without(walking, config):
    for model in MODELS[1:]:
        with pytest.raises(InputError, match="needs true edges, and here none are known"):
            make_task(dataclasses.replace(config, dataset="walking", model=model))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--objects", "1"], "objects is 1"),
        (["--model.encoder-hidden", "0"], "--model.encoder-hidden is 0"),
        (["--model.num-types", "1"], "--model.num-types is 1"),
        (["--model.prior", "0.5", "0.6"], "probabilities sum to 1"),
        (["--model.prior", "0.5", "0.3", "0.2"], "--model.prior has 3 numbers"),
        (["--model.variance", "0"], "--model.variance is 0.0: it must be above 0"),
        (["--model.temperature", "-1"], "--model.temperature is -1.0"),
        (["--model.prediction-steps", "0"], "--model.prediction-steps is 0"),
        (["--model.stretches", "-1"], "--model.stretches is -1"),
        (["--model.stretches", "5"], "has 48 to predict: give at most 4 stretches"),
        (["--model.stretches", "2", "--model.decoder", "recurrent"], "remembers: leave it at 0"),
        (["--batch-size", "41"], "--batch-size is 41"),
    ],
)
def test_bad_options_are_named(words, message, is_refused):
    is_refused(main, [*TINY, *words], message)
