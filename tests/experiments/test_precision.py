"""In bfloat16 every experiment's products are of bfloat16, and what is kept and summed is not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import get, names
from experiments.node_classification.model import DeepWalkConfig
from structdl.training.logging import MetricsLog
from structdl.training.loop import fit
from structdl.training.optimizers import make_optimizer
from structdl.training.precision import in_precision
from structdl.training.task import Inputs

PRODUCTS = ("dot_general", "conv_general_dilated")
# the loss of an auto-encoder is itself made of products, of embeddings in float32
OF_LOSSES = {"link_prediction"}


def default(name: str, **changes):
    experiment = get(name)
    config = next(iter(experiment.presets.values())).config
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, **changes))
    return config, experiment.make_task(config)


def equations(jaxpr):
    """Those of a jaxpr and of all that it calls."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def products_of(task, precision: str) -> list[tuple]:
    """The dtypes of the operands of every product in a gradient of the loss."""
    task = in_precision(task, precision)
    inputs = Inputs(task.data, task.seed_data(0), task.batch(0, 0))
    params, model_state = jax.jit(task.init)(jax.random.key(0), inputs)

    def loss(params, inputs):
        (total, count), _ = task.loss_fn(params, model_state, inputs, jax.random.key(1))
        return total / count

    traced = jax.make_jaxpr(jax.value_and_grad(loss))(params, inputs)
    assert {leaf.dtype for leaf in traced.out_avals} == {jnp.dtype("float32")}
    return [
        tuple(operand.aval.dtype.name for operand in equation.invars)
        for equation in equations(traced.jaxpr)
        if equation.primitive.name in PRODUCTS
    ]


@pytest.mark.parametrize("name", names())
def test_products_are_of_bfloat16(name):
    _, task = default(name)
    full, half = products_of(task, "float32"), products_of(task, "bfloat16")
    assert len(full) == len(half) > 0
    assert {dtype for operands in full for dtype in operands} == {"float32"}
    found = {dtype for operands in half for dtype in operands}
    assert found == {"bfloat16"} | ({"float32"} if name in OF_LOSSES else set())


@pytest.mark.parametrize(
    ("name", "model"),
    [*((name, None) for name in names()), ("node_classification", DeepWalkConfig())],
)
def test_losses_and_metrics_are_of_float32(name, model):
    """As the task's own functions give them, from parameters in bfloat16."""
    experiment = get(name)
    config = next(iter(experiment.presets.values())).config
    config = config if model is None else dataclasses.replace(config, model=model)
    task = experiment.make_task(config)
    inputs = Inputs(task.data, task.seed_data(0), task.batch(0, 0))
    params, state = jax.eval_shape(task.init, jax.random.key(0), inputs)
    half = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), params)
    loss, (_, training) = jax.eval_shape(task.loss_fn, half, state, inputs, jax.random.key(0))
    batch = [*task.eval_batches("validation"), *task.eval_batches("test")][0]
    metrics = jax.eval_shape(
        task.metrics, half, state, inputs._replace(batch=batch), jax.random.key(0)
    )
    for leaf in jax.tree.leaves((loss, training, metrics)):
        assert leaf.dtype != jnp.bfloat16


@pytest.mark.slow
@pytest.mark.parametrize("name", ["node_classification", "polyphonic_music"])
def test_a_default_learns_as_in_float32(name):
    losses = {}
    for precision in ("float32", "bfloat16"):
        short = dict(num_steps=20, steps_per_call=5, eval_every=20, stopping="none", num_seeds=1)
        config, task = default(name, precision=precision, **short)
        log = MetricsLog(None, every=5)
        result = fit(task, make_optimizer(config.optimizer), config.run, log=log)
        kept = jax.tree.leaves((result.state.train.params, result.state.train.opt_state))
        assert jnp.bfloat16 not in {leaf.dtype for leaf in kept}
        losses[precision] = np.array([row["train_loss"] for row in log.rows])
    assert not np.array_equal(losses["bfloat16"], losses["float32"])
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.05)
