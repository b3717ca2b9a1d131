"""Optimizers by name: every one of optax through the shared step, and what is put around them."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from structdl.errors import InputError
from structdl.training.loop import fit
from structdl.training.optimizers import OptimizerConfig, available_optimizers, make_optimizer
from structdl.training.run import Run
from structdl.training.task import Inputs


def train(task, config: OptimizerConfig, num_steps: int, eval_every: int = 0):
    run = Run(num_steps=num_steps, steps_per_call=num_steps, eval_every=eval_every)
    return fit(task, make_optimizer(config), run)


def kernel_after(task, config: OptimizerConfig, num_steps: int) -> np.ndarray:
    return np.asarray(train(task, config, num_steps).state.train.params["kernel"][0])


def by_hand(task, transform, num_steps: int, accumulate: int = 1):
    """Every kernel of a run in plain optax, averaging the gradients of `accumulate` steps."""
    init_key, _ = jax.random.split(jax.random.key(0))
    params, _ = task.init(init_key, Inputs(task.data, (), task.batch(0, 0)))
    opt_state, kernels, waiting = transform.init(params), [], []
    for step in range(num_steps):

        def loss(params, step=step):
            inputs = Inputs(task.data, (), task.batch(step, 0))
            (total, count), _ = task.loss_fn(params, (), inputs, None)
            return total / count

        waiting.append(jax.grad(loss)(params)["kernel"])
        if len(waiting) == accumulate:
            grads = {"kernel": jnp.mean(jnp.stack(waiting), axis=0)}
            updates, opt_state = transform.update(grads, opt_state, params)
            params, waiting = optax.apply_updates(params, updates), []
        kernels.append(np.asarray(params["kernel"]))
    return kernels


def test_the_list_of_optimizers_holds_the_card_and_no_building_blocks():
    known = available_optimizers()
    assert {"sgd", "momentum", "adagrad", "rmsprop", "adam", "lbfgs", "schedule_free_sgd"} <= set(
        known
    )
    assert len(known) >= 45
    assert not any(name.startswith("scale_by") for name in known)


def test_momentum_is_sgd_with_momentum(regression):
    given = kernel_after(regression, OptimizerConfig("momentum", 0.1), 5)
    np.testing.assert_allclose(given, by_hand(regression, optax.sgd(0.1, 0.9), 5)[-1], rtol=1e-5)


def test_keywords_reach_optax_and_floats_are_traced(regression):
    config = OptimizerConfig("sgd", 0.1, {"momentum": 0.5, "nesterov": True})
    expected = by_hand(regression, optax.sgd(0.1, 0.5, nesterov=True), 5)[-1]
    np.testing.assert_allclose(kernel_after(regression, config, 5), expected, rtol=1e-5)
    assert make_optimizer(config).hyperparams == {"learning_rate": 0.1, "momentum": 0.5}


def test_schedule_with_warmup(regression):
    config = OptimizerConfig("sgd", 0.2, schedule="cosine", schedule_steps=8, warmup_steps=3)
    rate = optax.join_schedules(
        [optax.linear_schedule(0.0, 0.2, 3), optax.cosine_decay_schedule(0.2, 5)], [3]
    )
    expected = by_hand(regression, optax.sgd(rate), 8)[-1]
    np.testing.assert_allclose(kernel_after(regression, config, 8), expected, rtol=1e-5)


def test_clipping(regression):
    config = OptimizerConfig("sgd", 0.2, clip_norm=0.1)
    transform = optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.2))
    expected = by_hand(regression, transform, 4)[-1]
    np.testing.assert_allclose(kernel_after(regression, config, 4), expected, rtol=1e-5)


def test_accumulation_averages_gradients(regression):
    config = OptimizerConfig("adam", 0.1, accumulate=3)
    expected = by_hand(regression, optax.adam(0.1), 6, accumulate=3)[-1]
    np.testing.assert_allclose(kernel_after(regression, config, 6), expected, rtol=1e-5)


def test_average_of_the_parameters_is_what_is_evaluated(regression):
    result = train(regression, OptimizerConfig("sgd", 0.1, ema=0.8), 6)
    kernels = np.stack(by_hand(regression, optax.sgd(0.1), 6))
    weights = 0.8 ** np.arange(5, -1, -1)
    expected = weights @ kernels / weights.sum()
    np.testing.assert_allclose(result.selected[0]["kernel"][0], expected, rtol=1e-5)
    np.testing.assert_allclose(result.state.train.params["kernel"][0], kernels[-1], rtol=1e-5)


def test_before_any_update_the_average_is_the_start(regression):
    result = train(regression, OptimizerConfig("sgd", 0.1, ema=0.8, accumulate=4), 3)
    np.testing.assert_array_equal(result.selected[0]["kernel"], result.state.train.params["kernel"])


def test_schedule_free_evaluates_its_average(regression):
    result = train(regression, OptimizerConfig("schedule_free_sgd", 0.5), 5)
    trained, tested = result.state.train.params["kernel"], result.selected[0]["kernel"]
    assert not np.allclose(trained, tested)


def first_update(config: OptimizerConfig, grads, step: int = 0):
    optimizer = make_optimizer(config)
    transform = optimizer.make(optimizer.hyperparams, step)
    return transform.update(grads, transform.init(grads), grads)[0]


def test_muon_takes_each_of_many_kernels_as_a_matrix():
    rng = np.random.default_rng(0)
    shapes = {"kernels": (3, 5, 4), "biases": (3, 4), "embedding": (6, 4)}
    grads = {name: jnp.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}
    updates = first_update(OptimizerConfig("muon", 1.0), grads)
    alone = optax.contrib.muon(1.0)
    for grad, update in zip(grads["kernels"], updates["kernels"], strict=True):
        expected, _ = alone.update(grad, alone.init(grad), grad)
        np.testing.assert_allclose(update, expected, rtol=1e-4, atol=1e-6)
        values = np.linalg.svd(np.asarray(update), compute_uv=False)
        assert np.all((values > 0.6) & (values < 1.3))
    for name in ("biases", "embedding"):  # what Adam does with a vector
        vector = jnp.ravel(grads[name])
        expected, _ = alone.update(vector, alone.init(vector), vector)
        np.testing.assert_allclose(jnp.ravel(updates[name]), expected, rtol=1e-4)


def test_both_rates_of_muon_follow_the_schedule():
    config = OptimizerConfig(
        "muon", 0.1, {"adam_learning_rate": 0.2}, schedule="linear", schedule_steps=4
    )
    grads = {"kernel": jnp.eye(3), "bias": jnp.ones(3)}
    at_first, halfway = (first_update(config, grads, step) for step in (0, 2))
    for name, update in at_first.items():
        np.testing.assert_allclose(halfway[name], update / 2, rtol=1e-5)


def with_a_default_rate() -> list[str]:
    factories = available_optimizers().items()
    signatures = {name: inspect.signature(factory).parameters for name, factory in factories}
    rates = ("learning_rate", "max_learning_rate")
    defaults = {
        name: next(parameters[rate].default for rate in rates if rate in parameters)
        for name, parameters in signatures.items()
    }
    return [name for name, rate in defaults.items() if rate is not inspect.Parameter.empty]


@pytest.mark.parametrize("name", with_a_default_rate())
def test_a_schedule_scales_the_rate_that_optax_gives_or_is_refused(name):
    linear = OptimizerConfig(name, schedule="linear", schedule_steps=4)
    warm = OptimizerConfig(name, warmup_steps=4)
    assert not make_optimizer(OptimizerConfig(name)).hyperparams
    if name in ("adadelta", "adafactor", "lbfgs"):
        for config in (linear, warm):
            with pytest.raises(InputError, match=f"'{name}' has no learning rate of its own"):
                make_optimizer(config)
        return

    def last_update(config, *steps):
        optimizer, grads = make_optimizer(config), {"kernel": jnp.ones((2, 3))}
        state = optimizer.make(optimizer.hyperparams, 0).init(grads)
        for step in steps:
            transform = optimizer.make(optimizer.hyperparams, step)
            # a loss so large that no Polyak step is shorter than its longest
            updates, state = optax.with_extra_args_support(transform).update(
                grads, state, grads, value=jnp.array(1e9)
            )
        return np.asarray(updates["kernel"])

    constant = last_update(OptimizerConfig(name), 0, 0)
    np.testing.assert_array_equal(last_update(linear, 0, 0), constant)
    for config in (linear, warm):
        assert not np.allclose(last_update(config, 1, 3), constant, rtol=0.05)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (OptimizerConfig("rmsprob", 0.1), "did you mean 'rmsprop'"),
        (OptimizerConfig("sgd", 0.1, {"momentun": 0.9}), "momentun.*momentum=None"),
        (OptimizerConfig("sgd"), "learning_rate"),
        (OptimizerConfig("adam", 0.1, {"b1": "high"}), "a word where"),
        (OptimizerConfig("adam", 0.1, schedule="cosine"), "schedule-steps"),
        (OptimizerConfig("adam", 0.1, accumulate=0), "accumulate"),
        (OptimizerConfig("adam", 0.1, ema=1.5), "ema"),
        (OptimizerConfig("adam", 0.1, clip_norm=-1.0), "clip-norm"),
        (OptimizerConfig("adam", float("nan")), "learning-rate"),
        (OptimizerConfig("adam", -0.1), "learning-rate is -0.1: it must be at least 0"),
    ],
)
def test_bad_input_is_named(config, words):
    with pytest.raises(InputError, match=words):
        make_optimizer(config)
