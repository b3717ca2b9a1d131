"""GGNN against loops over edges, against PyTorch Geometric, and over many steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from structdl.core.segment import edge_layout
from structdl.core.sparse import sparse_rows
from structdl.errors import InputError
from structdl.graphs.ggnn import (
    GGNN,
    GatedGraphConvolution,
    GatedGraphParams,
    edge_messages,
    gated_graph_convolution,
    node_log_probabilities,
    typed_edge_layout,
    typed_edge_list,
)
from structdl.graphs.graph import batch, graph_from_edges, node_graph_ids, node_mask, pad
from structdl.graphs.readout import gated_readout
from structdl.recurrent.cells import GRUParams, gru_step

NUM_NODES, NUM_EDGES, IN_FEATURES, HIDDEN, TYPES = 6, 9, 2, 4, 3


def example_graph(seed=0, num_nodes=NUM_NODES, num_edges=NUM_EDGES):
    """A graph whose last node is isolated, with a self-loop and edges repeated in two types."""
    rng = np.random.default_rng(seed)
    senders, receivers = rng.integers(0, num_nodes - 1, (2, num_edges))
    types = rng.integers(0, TYPES, num_edges)
    senders[0] = receivers[0]
    senders[1:4], receivers[1:4] = senders[4], receivers[4]
    types[1:4] = [0, 0, 2]
    nodes = rng.normal(size=(num_nodes, IN_FEATURES)).astype(np.float32)
    return graph_from_edges(senders, receivers, num_nodes, nodes=nodes, edges=types)


def typed_layout(graph):
    return typed_edge_layout(graph.senders, graph.receivers, graph.edges, graph.num_nodes, TYPES)


def random_params(seed=0, num_types=TYPES, dtype=np.float32, scale=0.5):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(scale * rng.normal(size=shape).astype(dtype))

    gru = GRUParams(
        normal(HIDDEN, 3 * HIDDEN),
        normal(HIDDEN, 3 * HIDDEN),
        normal(3 * HIDDEN),
        normal(3 * HIDDEN),
    )
    return GatedGraphParams(normal(num_types, HIDDEN, HIDDEN), normal(num_types, HIDDEN), gru)


def slow_messages(graph, hidden, kernels, biases):
    """Edge by edge, in float64."""
    messages = np.zeros((graph.num_nodes, kernels.shape[2]))
    for sender, receiver, kind in zip(graph.senders, graph.receivers, graph.edges, strict=True):
        messages[receiver] += np.float64(hidden[sender]) @ np.float64(kernels[kind])
        messages[receiver] += np.float64(biases[kind])
    return messages


def slow_convolution(graph, params, num_steps, reset_after):
    """Step by step and node by node; the unit itself is tested where it lives."""
    hidden = np.zeros((graph.num_nodes, HIDDEN), np.float32)
    hidden[:, :IN_FEATURES] = graph.nodes
    for _ in range(num_steps):
        messages = slow_messages(graph, hidden, params.kernels, params.biases)
        messages = jnp.asarray(messages, jnp.float32)
        rows = [
            gru_step(params.gru, jnp.asarray(row), message, reset_after=reset_after)[0]
            for row, message in zip(hidden, messages, strict=True)
        ]
        hidden = np.stack(rows)
    return hidden


@pytest.mark.parametrize("seed", range(3))
def test_messages_equal_the_loop_over_edges(seed):
    graph, params = example_graph(seed), random_params(seed)
    hidden = jax.random.normal(jax.random.key(seed), (NUM_NODES, HIDDEN))
    expected = slow_messages(graph, hidden, params.kernels, params.biases)
    layouts = {
        "tables": typed_layout(graph),
        "scatter": typed_edge_list(
            *map(jnp.asarray, (graph.senders, graph.receivers, graph.edges)), NUM_NODES, TYPES
        ),
    }
    for name, layout in layouts.items():
        actual = edge_messages(hidden, params.kernels, params.biases, layout)
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(actual[-1], 0)  # the isolated node


@pytest.mark.parametrize("reset_after", [True, False])
def test_convolution_equals_the_loop(reset_after):
    graph, params = example_graph(), random_params()
    actual = gated_graph_convolution(
        params, jnp.asarray(graph.nodes), typed_layout(graph), num_steps=3, reset_after=reset_after
    )
    expected = slow_convolution(graph, params, 3, reset_after)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_one_type_takes_a_plain_layout():
    graph, params = example_graph(), random_params(num_types=1)
    graph = graph._replace(edges=np.zeros_like(graph.edges))
    layout = edge_layout(graph.senders, graph.receivers, NUM_NODES)
    actual = gated_graph_convolution(params, jnp.asarray(graph.nodes), layout, num_steps=2)
    expected = slow_convolution(graph, params, 2, True)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_information_travels_one_edge_a_step():
    params = random_params(num_types=1)
    path = edge_layout(np.arange(5), np.arange(1, 6), NUM_NODES)

    def last_node(first, num_steps):
        nodes = jnp.zeros((NUM_NODES, IN_FEATURES)).at[0].set(first)
        return gated_graph_convolution(params, nodes, path, num_steps=num_steps)[5]

    first = jnp.ones(IN_FEATURES)
    assert np.abs(jax.jacobian(last_node)(first, 4)).max() == 0
    assert np.abs(jax.jacobian(last_node)(first, 5)).max() > 0


def test_gradients_in_float64():
    graph = example_graph()
    with jax.enable_x64(True):
        layout = typed_layout(graph)
        params = random_params(dtype=np.float64)
        nodes = jnp.asarray(graph.nodes, jnp.float64)

        @jax.jit
        def output(params, nodes):
            return gated_graph_convolution(params, nodes, layout, num_steps=3)

        check_grads(output, (params, nodes), order=1, modes="rev")


@pytest.mark.parametrize("scale", [0.5, 5.0])
def test_32_steps_have_finite_gradients(scale):
    graph, params = example_graph(), random_params(scale=scale)
    layout = typed_layout(graph)

    @jax.jit
    def gradients(params, nodes):
        def loss(params, nodes):
            out = gated_graph_convolution(params, nodes, layout, num_steps=32)
            return jnp.sum(jnp.sin(out)), out

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, nodes)

    gradient, out = gradients(params, jnp.asarray(graph.nodes))
    assert np.abs(out).max() <= max(1, np.abs(graph.nodes).max())  # the gates average
    for leaf in jax.tree.leaves(gradient):
        assert np.isfinite(leaf).all()
    assert np.abs(gradient[0].kernels).max() > 0


def test_empty_graph_and_no_edges():
    params = random_params()

    def loss(params, nodes, layout):
        return jnp.sum(gated_graph_convolution(params, nodes, layout, num_steps=2) ** 2)

    for num_nodes in (0, 2):
        layout = typed_edge_layout([], [], [], num_nodes, TYPES)
        value, gradient = jax.value_and_grad(loss)(
            params, jnp.ones((num_nodes, IN_FEATURES)), layout
        )
        assert (value > 0) == (num_nodes > 0)
        for leaf in jax.tree.leaves(gradient):
            assert np.isfinite(leaf).all()
        np.testing.assert_array_equal(gradient.kernels, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edge_types": [0, 3]}, r"edge_types\[1\] = 3 .* types are 0 to 2"),
        ({"edge_types": [-1, 0]}, r"edge_types\[0\] = -1"),
        ({"edge_types": [0]}, r"edge_types has shape \(1,\) .* each of 2 edges"),
        ({"edge_types": [0.0, 1.0]}, r"dtype float64"),
        ({"senders": [0, 2]}, r"senders\[1\] = 2 .* indices 0 to 1"),
        ({"receivers": [0, 2]}, r"receivers\[1\] is 2"),
    ],
)
def test_typed_layout_names_what_is_wrong(change, message):
    arguments = {"senders": [0, 1], "receivers": [1, 0], "edge_types": [0, 1]} | change
    with pytest.raises(InputError, match=message):
        typed_edge_layout(**arguments, num_nodes=2, num_edge_types=TYPES)


def test_shapes_that_do_not_fit_raise():
    graph, params = example_graph(), random_params()
    wide = jnp.ones((NUM_NODES, HIDDEN + 1))
    with pytest.raises(ValueError, match="width 5 for a hidden width of 4"):
        gated_graph_convolution(params, wide, typed_layout(graph), num_steps=1)
    plain = edge_layout(graph.senders, graph.receivers, NUM_NODES)
    with pytest.raises(AssertionError):
        gated_graph_convolution(params, jnp.asarray(graph.nodes), plain, num_steps=1)
    with pytest.raises(ValueError, match="project=True"):
        GGNN(HIDDEN, 1).init(jax.random.key(0), sparse_rows(graph.nodes), plain, train=False)


def test_selection_is_a_softmax_within_each_graph():
    scores = jnp.array([1.0, -2.0, 100.0, 99.0, 0.0])
    ids = jnp.array([0, 0, 2, 2, 2])
    actual = node_log_probabilities(scores, ids, 4)
    for graph in (0, 2):
        row = np.float64(scores[ids == graph])
        expected = row - row.max() - np.log(np.exp(row - row.max()).sum())
        np.testing.assert_allclose(actual[ids == graph], expected, rtol=1e-5, atol=1e-6)
    with jax.enable_x64(True):
        scores = jnp.asarray(scores, jnp.float64) / 50
        check_grads(jax.jit(lambda s: node_log_probabilities(s, ids, 4)), (scores,), 1, "rev")


def init_and_apply(model, *args, method):
    @jax.jit
    def run(key):
        params = model.init(key, *args, train=False, method=method)
        return params, model.apply(params, *args, train=False, method=method)

    return run(jax.random.key(0))


def test_outputs_read_the_state_and_the_annotation():
    graph = example_graph()
    layout, nodes = typed_layout(graph), jnp.asarray(graph.nodes)
    ids = jnp.array([0, 0, 0, 1, 1, 1])
    model = GGNN(HIDDEN, num_steps=3, num_classes=2, num_edge_types=TYPES, head=(5,))

    def joined_and_dense(params):
        hidden = GatedGraphConvolution(HIDDEN, 3, TYPES).apply(
            {"params": params["convolution"]}, nodes, layout
        )

        def dense(x, layer):
            return x @ np.array(layer["kernel"]) + np.array(layer["bias"])

        return np.concatenate([hidden, nodes], axis=1), dense

    for method, last in ((GGNN.__call__, "output"), (GGNN.node_scores, "score")):
        params, actual = init_and_apply(model, nodes, layout, method=method)
        params = params["params"]
        assert set(params) == {"convolution", "head_layers_0", last}
        joined, dense = joined_and_dense(params)
        expected = dense(np.tanh(dense(joined, params["head_layers_0"])), params[last])
        np.testing.assert_allclose(actual, expected.reshape(actual.shape), rtol=1e-5, atol=1e-6)

    def graph_logits(model, nodes, layout, *, train):
        return model.graph_logits(nodes, layout, ids, 3, train=train)

    params, actual = init_and_apply(model, nodes, layout, method=graph_logits)
    params = params["params"]
    joined, dense = joined_and_dense(params)
    gate, value = (dense(joined, params["readout"][name]) for name in ("gate", "value"))
    graphs = gated_readout(jnp.asarray(gate), jnp.asarray(value), ids, 3)
    expected = dense(np.tanh(dense(np.array(graphs), params["head_layers_0"])), params["output"])
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_sparse_features_are_projected():
    graph = example_graph()
    layout = typed_layout(graph)
    model = GGNN(HIDDEN, 2, num_edge_types=TYPES, project=True, dropout_rate=0.5)
    dense, sparse = jnp.asarray(graph.nodes), sparse_rows(graph.nodes)
    params, logits = init_and_apply(model, sparse, layout, method=GGNN.__call__)
    np.testing.assert_allclose(
        logits, model.apply(params, dense, layout, train=False), rtol=1e-5, atol=1e-6
    )
    draws = [
        model.apply(params, sparse, layout, train=True, rngs={"dropout": jax.random.key(seed)})
        for seed in (0, 1)
    ]
    assert np.abs(draws[0] - draws[1]).max() > 1e-4


def test_nodes_commute_with_a_permutation():
    graph = example_graph()
    model = GGNN(HIDDEN, 3, num_edge_types=TYPES)
    params, logits = init_and_apply(
        model, jnp.asarray(graph.nodes), typed_layout(graph), method=GGNN.__call__
    )
    rng = np.random.default_rng(0)
    order, edge_order = rng.permutation(NUM_NODES), rng.permutation(NUM_EDGES)
    place = np.argsort(order)
    permuted = graph._replace(
        nodes=graph.nodes[order],
        senders=place[graph.senders][edge_order],
        receivers=place[graph.receivers][edge_order],
        edges=graph.edges[edge_order],
    )
    actual = model.apply(params, jnp.asarray(permuted.nodes), typed_layout(permuted), train=False)
    np.testing.assert_allclose(actual, logits[order], rtol=1e-5, atol=1e-6)


def test_batching_and_padding_do_not_change_a_graph():
    parts = [example_graph(seed, num_nodes=4 + seed) for seed in range(3)]
    model = GGNN(HIDDEN, 2, num_classes=2, num_edge_types=TYPES)

    traces = []

    @jax.jit
    def logits_of(params, graph):
        traces.append(graph)
        ends = (graph.senders, graph.receivers, graph.edges)
        return model.apply(
            params,
            graph.nodes,
            typed_edge_list(*ends, graph.num_nodes, TYPES),
            node_graph_ids(graph),
            graph.num_graphs,
            mask=node_mask(graph),
            train=False,
            method=GGNN.graph_logits,
        )

    def padded(graphs):
        return pad(batch(graphs), num_nodes=20, num_edges=40, num_graphs=5)

    def alone(model, nodes, layout, *, train):
        ids = jnp.zeros(len(nodes), jnp.int32)
        return model.graph_logits(nodes, layout, ids, 1, train=train)

    inputs = (jnp.asarray(parts[0].nodes), typed_layout(parts[0]))
    params, expected = init_and_apply(model, *inputs, method=alone)
    all_parts = logits_of(params, padded(parts))
    two_parts = logits_of(params, padded([parts[2], parts[0]]))
    np.testing.assert_allclose(all_parts[0], expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(two_parts[:2], all_parts[np.array([2, 0])], rtol=1e-5, atol=1e-6)
    assert np.ptp(all_parts[:3]) > 1e-3
    assert len(traces) == 1, "a second batch of the same budgets compiled again"


def test_parameters_under_vmap_equal_one_after_another():
    graph = example_graph()
    layout, nodes = typed_layout(graph), jnp.asarray(graph.nodes)
    seeds = [random_params(seed) for seed in range(2)]

    def output(params):
        return gated_graph_convolution(params, nodes, layout, num_steps=3)

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)
    together = jax.jit(jax.vmap(output))(stacked)
    np.testing.assert_allclose(together[1], output(seeds[1]), rtol=1e-5, atol=1e-6)


@pytest.mark.peers
def test_convolution_and_gradients_equal_torch_geometric():
    torch = pytest.importorskip("torch")
    geometric = pytest.importorskip("torch_geometric.nn")
    seed, num_nodes, num_steps = 0, 12, 4
    graph = example_graph(seed, num_nodes=num_nodes, num_edges=30)
    params = random_params(seed, num_types=1)._replace(biases=None)
    cotangent = np.random.default_rng(seed).normal(size=(num_nodes, HIDDEN)).astype(np.float32)

    # the peer has a kernel a layer: the same in all of them, so that its gradients are summed
    peer = geometric.GatedGraphConv(HIDDEN, num_steps)
    weights = (peer.rnn.weight_ih, peer.rnn.weight_hh, peer.rnn.bias_ih, peer.rnn.bias_hh)
    with torch.no_grad():
        peer.weight.copy_(torch.tensor(np.array(params.kernels)).expand(num_steps, -1, -1))
        for weight, array in zip(weights, params.gru, strict=True):
            weight.copy_(torch.tensor(np.array(array).T))
    peer_nodes = torch.tensor(graph.nodes, requires_grad=True)
    peer_edges = torch.tensor(np.stack([graph.senders, graph.receivers]), dtype=torch.int64)
    peer_out = peer(peer_nodes, peer_edges)
    peer_out.backward(torch.tensor(cotangent))

    layout = edge_layout(graph.senders, graph.receivers, num_nodes)
    out, pullback = jax.vjp(
        lambda params, nodes: gated_graph_convolution(params, nodes, layout, num_steps=num_steps),
        params,
        jnp.asarray(graph.nodes),
    )
    np.testing.assert_allclose(out, peer_out.detach(), rtol=1e-5, atol=1e-5)
    params_bar, nodes_bar = pullback(jnp.asarray(cotangent))
    np.testing.assert_allclose(nodes_bar, peer_nodes.grad, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        params_bar.kernels[0], peer.weight.grad.sum(dim=0), rtol=1e-5, atol=1e-5
    )
    for mine, theirs in zip(params_bar.gru, weights, strict=True):
        np.testing.assert_allclose(mine, theirs.grad.numpy().T, rtol=1e-5, atol=1e-5)
