"""The contract: every optimizer of optax drives the experiment's default by the shared step."""

import inspect
import json

import jax
import numpy as np
import pytest

from experiments.node_classification.presets import KARATE
from experiments.node_classification.train import main, make_task
from structdl.training.optimizers import OptimizerConfig, available_optimizers, make_optimizer
from structdl.training.state import init_train_state
from structdl.training.step import make_train_step
from structdl.training.task import Inputs


@pytest.fixture(scope="module")
def task():
    return make_task(KARATE)


@pytest.mark.filterwarnings("ignore:`optimistic_adam` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", sorted(available_optimizers()))
def test_every_optimizer_of_optax_steps_with_one_trace(name, task):
    """One compile each, also at another learning rate, and finite parameters that move."""
    kwargs = {"key": 0} if name == "noisy_sgd" else {}
    # those that find their own rate start from one too small to see in a few steps
    rate = inspect.signature(available_optimizers()[name]).parameters.get("learning_rate")
    has_default = rate is not None and isinstance(rate.default, float)
    optimizer = make_optimizer(OptimizerConfig(name, None if has_default else 1e-3, kwargs))
    inputs = Inputs(task.data, task.seed_data(0), task.batch(0, 0))
    params, model_state = task.init(jax.random.key(1), inputs)
    step, traces = make_train_step(task, optimizer), []

    def counted(train_state, inputs):
        traces.append(name)
        return step(train_state, inputs)

    compiled = jax.jit(counted, donate_argnums=0)
    train_state = init_train_state(params, model_state, optimizer, jax.random.key(2))
    before = jax.tree.map(np.asarray, params)
    for _ in range(6):
        train_state, diagnostics = compiled(train_state, inputs)
    if rates := {key for key in train_state.hyperparams if key.endswith("learning_rate")}:
        changed = {key: train_state.hyperparams[key] * 3 for key in rates}
        train_state = train_state._replace(hyperparams=train_state.hyperparams | changed)
        train_state, diagnostics = compiled(train_state, inputs)
    assert traces == [name]
    assert np.isfinite(diagnostics["loss"])
    evaluated = optimizer.eval_params(train_state.opt_state, train_state.params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(evaluated))
    after = jax.tree.leaves(train_state.params)
    assert any((old != new).any() for old, new in zip(jax.tree.leaves(before), after, strict=True))


CARD = {
    "sgd": 0.1,
    "momentum": 0.05,
    "adagrad": 0.1,
    "rmsprop": 0.01,
    "adam": 0.01,
    "lbfgs": 1.0,
    "schedule_free_adamw": 0.01,
}


@pytest.mark.parametrize("name", CARD)
def test_the_command_line_learns_with_each_of_the_card(name, tmp_path):
    rate = ["--optimizer.learning-rate", str(CARD[name])]
    options = ["--num-steps", "40", "--steps-per-call", "10", "--log-every", "10"]
    main(["karate", "--workdir", str(tmp_path), "--optimizer.name", name, *rate, *options])
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
