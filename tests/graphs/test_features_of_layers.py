"""The features that every graph layer takes: NumPy arrays too, and float32 also under x64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structdl.core.segment import edge_layout
from structdl.graphs.aggregators import order_edges
from structdl.graphs.chebyshev import ChebNet, rescaled_laplacian
from structdl.graphs.gat import GAT
from structdl.graphs.gcn import GCN, symmetric_normalization
from structdl.graphs.ggnn import GGNN
from structdl.graphs.gin import GIN
from structdl.graphs.graph import add_self_loops, graph_from_edges, symmetrize
from structdl.graphs.label_propagation import propagate_labels, spread_labels
from structdl.graphs.link_prediction import GAE, VGAE
from structdl.graphs.readout import graph_max, graph_mean, graph_sum, softmax_readout
from structdl.graphs.sage import GraphSAGE
from structdl.graphs.spectral import SpectralNet, laplacian_eigenvectors

SENDERS, RECEIVERS, NUM_NODES = [0, 1, 2, 3, 1], [1, 2, 3, 0, 3], 5
SAGE = functools.partial(GraphSAGE, (8,), 2, aggregator_features=8)
LAYERS = {
    "gcn": lambda: (GCN((16,), 2), ["layout", "weights"]),
    "chebyshev": lambda: (ChebNet((16,), 2, order=2), ["layout", "laplacian"]),
    "gat": lambda: (GAT((2,), 2, heads=2), ["layout"]),
    "sage-mean": lambda: (SAGE("mean"), ["layout"]),
    "sage-gcn": lambda: (SAGE("gcn"), ["layout"]),
    "sage-max": lambda: (SAGE("max_pool"), ["layout"]),
    "sage-lstm": lambda: (SAGE("lstm"), ["ordered"]),
    "ggnn": lambda: (GGNN(64, 2), ["layout"]),
    "ggnn-projected": lambda: (GGNN(8, 2, project=True), ["layout"]),
    "gin": lambda: (GIN(8, 1), ["layout"]),
    "gae": lambda: (GAE(8, 2), ["layout", "weights"]),
    "vgae": lambda: (VGAE(8, 2), ["layout", "weights"]),
    "spectral": lambda: (SpectralNet(2, (4,), 2, num_control_points=3), ["eigenvectors"]),
}
FUNCTIONS = {
    "propagate_labels": lambda x, inputs: propagate_labels(
        x, inputs["is_labelled"], inputs["layout"], num_iterations=2
    ),
    "spread_labels": lambda x, inputs: spread_labels(
        x, inputs["is_labelled"], inputs["layout"], num_iterations=2
    ),
    "graph_sum": lambda x, inputs: graph_sum(x, inputs["graph_ids"], 2),
    "graph_mean": lambda x, inputs: graph_mean(x, inputs["graph_ids"], 2),
    "graph_max": lambda x, inputs: graph_max(x, inputs["graph_ids"], 2),
    "softmax_readout": lambda x, inputs: softmax_readout(x[:, 0], x, inputs["graph_ids"], 2),
}


def make_inputs():
    graph = add_self_loops(symmetrize(graph_from_edges(SENDERS, RECEIVERS, NUM_NODES)))
    layout = edge_layout(graph.senders, graph.receivers, NUM_NODES)
    return {
        "layout": layout,
        "weights": symmetric_normalization(layout),
        "laplacian": rescaled_laplacian(layout),
        "ordered": order_edges(graph.senders, graph.receivers, NUM_NODES, max_neighbours=5),
        "eigenvectors": laplacian_eigenvectors(layout)[1],
        "is_labelled": jnp.arange(NUM_NODES) < 2,
        "graph_ids": jnp.arange(NUM_NODES) // 3,
    }


def features(width, kind=np.asarray):
    values = np.random.default_rng(0).normal(size=(NUM_NODES, width)).astype(np.float32)
    return kind(values)


def outputs(name, nodes, inputs):
    if name in FUNCTIONS:
        return FUNCTIONS[name](nodes, inputs)
    layer, arguments = LAYERS[name]()
    arguments = [inputs[argument] for argument in arguments]
    return layer.init_with_output(jax.random.key(0), nodes, *arguments, train=False)[0]


@pytest.fixture(scope="module")
def inputs():
    return make_inputs()


@pytest.fixture(scope="module")
def wide_inputs():
    with jax.enable_x64(True):
        return make_inputs()


@pytest.mark.parametrize("width", [4, 64])
@pytest.mark.parametrize("name", [*LAYERS, *FUNCTIONS])
def test_numpy_features_are_taken_as_those_of_jax(name, width, inputs):
    """Features of both precisions, which no jit has turned into arrays of JAX."""
    expected = jax.eval_shape(lambda x: outputs(name, x, inputs), features(width, jnp.asarray))
    for kind in (np.asarray, np.float64):
        actual = jax.eval_shape(lambda kind=kind: outputs(name, features(width, kind), inputs))
        assert actual == expected


@pytest.mark.parametrize("width", [4, 64])
def test_numpy_features_outside_of_jit_give_the_same_values(width, inputs):
    expected = jax.jit(lambda x: outputs("gcn", x, inputs))(features(width, jnp.asarray))
    actual = outputs("gcn", features(width), inputs)
    np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_under_x64_float32_nodes_and_parameters_stay_float32(name, inputs, wide_inputs):
    layer, arguments = LAYERS[name]()
    nodes, key = features(4, jnp.asarray), jax.random.key(0)

    def call(method, first, inputs):
        arrays = [inputs[argument] for argument in arguments]
        return jax.eval_shape(lambda first, x: method(first, x, *arrays, train=False), first, nodes)

    variables = call(layer.init, key, inputs)
    with jax.enable_x64(True):
        out = call(layer.apply, variables, wide_inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_under_x64_functions_of_float32_nodes_stay_float32(name, wide_inputs):
    nodes = features(4, jnp.asarray)
    with jax.enable_x64(True):
        out = jax.eval_shape(lambda x: FUNCTIONS[name](x, wide_inputs), nodes)
    assert out.dtype == jnp.float32
