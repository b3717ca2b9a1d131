"""Edges whose ids are out of range are as if they were not there, under jit or not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structdl.core import segment
from structdl.core.segment import edge_list, gather_sum
from structdl.graphs.gat import AttentionParams, graph_attention
from structdl.graphs.gcn import symmetric_normalization
from structdl.graphs.ggnn import typed_edge_list

# the first four are in range; the others have a bad sender, a bad receiver, or both
SENDERS = np.array([0, 1, 2, 2, -1, 3, 0, 1, 7, -2])
RECEIVERS = np.array([1, 1, 0, 2, 1, 0, -1, 3, -3, 2**30])
IS_INSIDE = np.arange(10) < 4
NODES = jnp.array([[1.0, -2.0], [3.0, 0.5], [-1.0, 4.0]])
ON_EDGES = jnp.asarray(np.random.default_rng(0).normal(size=(10, 2)), jnp.float32)
GOOD = SENDERS[IS_INSIDE], RECEIVERS[IS_INSIDE]


def value_and_gradients(function, *args):
    """The value, and the gradients of a loss that weighs every element differently."""

    def loss(*args):
        out = function(*args)
        weights = jnp.sin(1.0 + jnp.arange(out.size)).reshape(out.shape)
        return jnp.sum(weights * jnp.where(out > 0, out, 2 * out)), out

    (_, out), gradients = jax.value_and_grad(loss, tuple(range(len(args))), has_aux=True)(*args)
    return out, gradients


def assert_equal(actual, expected):
    jax.tree.map(lambda *pair: np.testing.assert_allclose(*pair, rtol=1e-6), actual, expected)


def maybe_jit(function, is_jit):
    return jax.jit(function) if is_jit else function


@pytest.mark.parametrize(
    ("name", "is_jit"),
    [("sum", False), ("sum", True), ("mean", True), ("max", False), ("max", True), ("min", True)],
)
def test_reductions_drop_ids_out_of_range(name, is_jit):
    reduction = getattr(segment, f"segment_{name}")
    actual = maybe_jit(
        lambda ids, values: value_and_gradients(lambda x: reduction(x, ids, 3), values), is_jit
    )(jnp.asarray(RECEIVERS), ON_EDGES)
    kept = (RECEIVERS >= 0) & (RECEIVERS < 3)
    expected, (gradient,) = value_and_gradients(
        lambda x: reduction(x, jnp.asarray(RECEIVERS[kept]), 3), ON_EDGES[kept]
    )
    assert_equal(actual, (expected, (jnp.zeros((10, 2)).at[kept].set(gradient),)))


@pytest.mark.parametrize("is_jit", [False, True])
def test_softmax_gives_0_to_ids_out_of_range_and_stays_finite(is_jit):
    logits = ON_EDGES.at[-1].set(200.0)  # exp overflows
    softmax = maybe_jit(
        lambda ids, x: value_and_gradients(lambda x: segment.segment_softmax(x, ids, 3), x), is_jit
    )
    out, (gradient,) = softmax(jnp.asarray(RECEIVERS), logits)
    kept = (RECEIVERS >= 0) & (RECEIVERS < 3)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(out[~kept], 0)
    np.testing.assert_array_equal(gradient[~kept], 0)
    expected = segment.segment_softmax(logits[kept], jnp.asarray(RECEIVERS[kept]), 3)
    np.testing.assert_allclose(out[kept], expected, rtol=1e-6)


def attend(layout, nodes):
    rng = np.random.default_rng(1)
    arrays = [
        jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in [(2, 6), (3, 2), (3, 2)]
    ]
    return graph_attention(AttentionParams(*arrays), nodes, layout)


def normalize(layout, nodes, weights):
    return gather_sum(nodes, layout, symmetric_normalization(layout, jnp.exp(weights[:, 0])))


OVER_LISTS = {
    "sum": lambda layout, nodes, weights: gather_sum(nodes, layout, weights[:, 0]),
    "sum by heads": lambda layout, nodes, weights: gather_sum(nodes, layout, weights),
    "sum without weights": lambda layout, nodes, _: gather_sum(nodes, layout),
    "sum of the transpose": lambda layout, nodes, _: gather_sum(nodes, layout.transpose),
    "normalization": normalize,
    "attention": lambda layout, nodes, _: attend(layout, nodes)[0],
    "attention weights": lambda layout, nodes, _: attend(layout, nodes)[1],
    "softmax": lambda layout, nodes, weights: segment.segment_softmax(
        100 * weights, layout.receivers, 3, layout
    ),
    "mean": lambda layout, nodes, weights: segment.segment_mean(
        weights, layout.receivers, 3, layout
    ),
    "senders": lambda layout, nodes, _: segment.gather_senders(nodes, layout),
    "receivers": lambda layout, nodes, _: segment.gather_receivers(nodes, layout),
}


@pytest.mark.parametrize("is_jit", [False, True])
def test_an_edge_list_drops_edges_with_an_end_out_of_range(is_jit):
    functions = OVER_LISTS if is_jit else {"sum": OVER_LISTS["sum"]}

    def everything(senders, receivers, weights):
        layout = edge_list(senders, receivers, 3)
        results = {
            name: value_and_gradients(functools.partial(function, layout), NODES, weights)
            for name, function in functions.items()
        }
        return layout.in_degrees, layout.out_degrees, results

    run = maybe_jit(everything, is_jit)
    *degrees, actual = run(jnp.asarray(SENDERS), jnp.asarray(RECEIVERS), ON_EDGES)
    *expected_degrees, expected = jax.jit(everything)(*map(jnp.asarray, GOOD), ON_EDGES[:4])
    assert_equal(degrees, expected_degrees)
    for name in functions:
        leaves = map(jax.tree.leaves, (actual[name], expected[name]))
        for actual_leaf, leaf in zip(*leaves, strict=True):
            if actual_leaf.shape != leaf.shape:
                np.testing.assert_array_equal(np.asarray(actual_leaf)[4:], 0, err_msg=name)
                actual_leaf = actual_leaf[:4]
            np.testing.assert_allclose(actual_leaf, leaf, rtol=1e-5, atol=1e-6, err_msg=name)


def test_typed_edges_out_of_range_are_dropped():
    types = jnp.array([0, 1, 1, 0, 2, -1])
    layout = jax.jit(lambda *ends: typed_edge_list(*ends, num_nodes=3, num_edge_types=2))(
        jnp.array([0, 1, -1, 3, 0, 1]), jnp.array([1, 1, 0, 0, 0, 0]), types
    )
    np.testing.assert_array_equal(layout.senders, [0, 3, 6, 6, 6, 6])
    np.testing.assert_array_equal(layout.in_degrees, [0, 2, 0])


def test_ids_beyond_int32_are_dropped_and_not_wrapped():
    values, ids = jnp.array([1.0, 2.0, 4.0]), np.array([0, 2**32 + 1, 2**31])
    for is_jit in (False, True):
        total = maybe_jit(lambda values: segment.segment_sum(values, ids, 3), is_jit)(values)
        assert total.tolist() == [1, 0, 0]
