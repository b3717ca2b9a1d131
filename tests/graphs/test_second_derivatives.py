"""Derivatives of second order through reductions inside of `lax.scan`, in both modes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structdl.core.segment import edge_layout, edge_list
from structdl.graphs.ggnn import GatedGraphParams, gated_graph_convolution
from structdl.graphs.label_propagation import propagate_labels, spread_labels
from structdl.recurrent.cells import GRUParams

NUM_NODES, NUM_EDGES = 12, 1100  # from 1024 edges on, CPU takes the tables
IS_LABELLED = jnp.arange(NUM_NODES) < 4


def gated(nodes, edge_scales, layout, params):
    """A GGNN has no weights on its edges: a scale of its kernel stands for them."""
    params = params._replace(kernels=params.kernels * jnp.mean(edge_scales))
    return gated_graph_convolution(params, nodes, layout, num_steps=2)


def propagated(nodes, edge_weights, layout, _):
    return propagate_labels(nodes, IS_LABELLED, layout, edge_weights, num_iterations=3)


def spreading(nodes, edge_weights, layout, _):
    return spread_labels(nodes, IS_LABELLED, layout, edge_weights, num_iterations=3)


def gated_params(rng):
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape) / 4)  # noqa: E731
    gru = GRUParams(draw(3, 9), draw(3, 9), draw(9), draw(9))
    return GatedGraphParams(draw(1, 3, 3), draw(1, 3), gru)


def second_derivatives(function, nodes, edge_weights, layout, params):
    """Reverse over reverse, and forward over reverse, of a scalar loss."""

    def loss(nodes, edge_weights):
        return jnp.sum(jnp.sin(function(nodes, edge_weights, layout, params)) ** 2)

    def squared(*args):
        return sum(jnp.sum(jnp.cos(each)) for each in jax.grad(loss, (0, 1))(*args))

    args = nodes, edge_weights
    tangents = jax.tree.map(jnp.cos, args)
    return jax.grad(squared, (0, 1))(*args), jax.jvp(jax.grad(loss, (0, 1)), args, tangents)[1]


@pytest.mark.parametrize("function", [gated, propagated, spreading])
def test_tables_in_scan_equal_scatter_in_float64(function):
    """The tables under vmap with mapped nodes and weights, the scatter without."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        ends = rng.integers(0, NUM_NODES, (2, NUM_EDGES))
        by_tables, by_scatter = (
            edge_layout(*ends, NUM_NODES),
            edge_list(*map(jnp.asarray, ends), NUM_NODES),
        )
        nodes = jnp.asarray(rng.uniform(size=(2, NUM_NODES, 3)))
        weights = jnp.asarray(rng.uniform(0.5, 1.5, size=(2, NUM_EDGES)))
        params = gated_params(rng)
        run = jax.jit(second_derivatives, static_argnums=0)
        mapped = jax.jit(jax.vmap(second_derivatives, (None, 0, 0, None, None)), static_argnums=0)
        expected = run(function, nodes[0], weights[0], by_scatter, params)
        together = mapped(function, nodes, weights, by_tables, params)
        for leaf, mapped_leaf in zip(*map(jax.tree.leaves, (expected, together)), strict=True):
            assert np.abs(leaf).max() > 1e-6
            np.testing.assert_allclose(mapped_leaf[0], leaf, rtol=1e-9, atol=1e-14)
