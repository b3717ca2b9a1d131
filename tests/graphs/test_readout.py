"""Readouts against loops and PyTorch Geometric, and under changes that they must not feel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from structdl.errors import InputError
from structdl.graphs.graph import batch, graph_from_edges, node_graph_ids, node_mask, pad, unbatch
from structdl.graphs.readout import (
    GatedReadout,
    add_virtual_nodes,
    gated_readout,
    graph_max,
    graph_mean,
    graph_sum,
    softmax_readout,
    virtual_node_mask,
)

FEATURES = 3


def example_graphs():
    """Graphs of 4, 1 and 6 nodes, the last with a self-loop and a repeated edge."""
    rng = np.random.default_rng(0)
    ends = [([0, 1, 3], [1, 0, 2]), ([], []), ([0, 2, 2, 5], [0, 3, 3, 4])]
    return [
        graph_from_edges(
            senders,
            receivers,
            num_nodes,
            nodes=rng.normal(size=(num_nodes, FEATURES)).astype(np.float32),
            edges=np.arange(len(senders), dtype=np.int32),
        )
        for (senders, receivers), num_nodes in zip(ends, [4, 1, 6], strict=True)
    ]


def first_and_gate(values):
    """One logit a node, and as many as there are features, out of the values themselves."""
    return values[:, 0] * 2, jnp.flip(values, axis=1)


READOUTS = {
    "sum": graph_sum,
    "mean": graph_mean,
    "max": graph_max,
    "gated": lambda v, *args, **kwargs: gated_readout(first_and_gate(v)[1], v, *args, **kwargs),
    "softmax": lambda v, *args, **kwargs: softmax_readout(first_and_gate(v)[0], v, *args, **kwargs),
}


def slow_readout(name, values, graph_ids, num_graphs, mask):
    """Graph by graph and node by node, in float64."""
    values = np.asarray(values, np.float64)
    out = np.zeros((num_graphs, values.shape[1]))
    for graph in range(num_graphs):
        rows = [v for v, owner, counts in zip(values, graph_ids, mask, strict=True)
                if owner == graph and counts]  # fmt: skip
        if not rows:
            continue
        if name == "sum":
            out[graph] = sum(rows)
        elif name == "mean":
            out[graph] = sum(rows) / len(rows)
        elif name == "max":
            out[graph] = [max(row[f] for row in rows) for f in range(values.shape[1])]
        elif name == "gated":
            out[graph] = np.tanh(sum(np.tanh(row) / (1 + np.exp(-row[::-1])) for row in rows))
        else:
            powers = [np.exp(2 * row[0]) for row in rows]
            pairs = zip(powers, rows, strict=True)
            out[graph] = sum(power * row for power, row in pairs) / sum(powers)
    return out


@pytest.mark.parametrize("name", READOUTS)
@pytest.mark.parametrize("masked", [False, True])
def test_readout_equals_the_loop(name, masked):
    graph = batch(example_graphs())
    ids = node_graph_ids(graph)
    # nothing of graph 1 counts, and graph 3 has no nodes
    mask = np.array([True, False, True, True, False, True, False, True, True, False, True])
    out = READOUTS[name](
        jnp.asarray(graph.nodes), ids, 4, mask=jnp.asarray(mask) if masked else None
    )
    expected = slow_readout(name, graph.nodes, ids, 4, mask if masked else np.ones(11, bool))
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", READOUTS)
def test_order_of_the_nodes_and_graphs_does_not_matter(name):
    graph = batch(example_graphs())
    ids = np.asarray(node_graph_ids(graph))
    expected = READOUTS[name](jnp.asarray(graph.nodes), jnp.asarray(ids), 3)
    order = np.random.default_rng(1).permutation(graph.num_nodes)
    new_name = np.array([2, 0, 1])
    out = READOUTS[name](jnp.asarray(graph.nodes[order]), jnp.asarray(new_name[ids[order]]), 3)
    np.testing.assert_allclose(out[new_name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", READOUTS)
def test_padding_does_not_change_a_real_graph_and_gets_zero(name):
    graph = batch(example_graphs())
    expected = READOUTS[name](jnp.asarray(graph.nodes), node_graph_ids(graph), 3)

    @jax.jit
    def output_and_gradient(graph, nodes):
        def loss(nodes):
            out = READOUTS[name](nodes, node_graph_ids(graph), 6, mask=node_mask(graph))
            return jnp.sum(out**2), out

        gradient, out = jax.grad(loss, has_aux=True)(nodes)
        return out, gradient

    padded = pad(graph, num_nodes=15, num_edges=9, num_graphs=6)
    # a network leaves no zeros in the padding nodes
    nodes = jnp.asarray(padded.nodes).at[graph.num_nodes :].set(7.0)
    out, gradient = output_and_gradient(padded, nodes)
    np.testing.assert_allclose(out[:3], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(out[3:], 0)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[: graph.num_nodes]).max() > 0
    np.testing.assert_array_equal(gradient[graph.num_nodes :], 0)


@pytest.mark.parametrize("name", READOUTS)
def test_no_node_at_all(name):
    values, ids = jnp.zeros((0, FEATURES)), jnp.zeros((0,), jnp.int32)
    out, pullback = jax.vjp(lambda values: READOUTS[name](values, ids, 2), values)
    np.testing.assert_array_equal(out, np.zeros((2, FEATURES)))
    assert pullback(jnp.ones_like(out))[0].shape == values.shape


@pytest.mark.parametrize("name", ["gated", "softmax"])
def test_gradients_in_float64(name):
    with jax.enable_x64(True):
        graph = batch(example_graphs())
        mask = jnp.arange(graph.num_nodes) % 4 != 1
        nodes = jnp.asarray(graph.nodes, jnp.float64)
        ids = node_graph_ids(graph)
        check_grads(
            jax.jit(lambda nodes: READOUTS[name](nodes, ids, 4, mask=mask)), (nodes,), 1, "rev"
        )


def test_module_is_the_function_of_two_dense_layers():
    graph = batch(example_graphs())
    ids = node_graph_ids(graph)
    hidden = jax.random.normal(jax.random.key(0), (graph.num_nodes, 2))
    nodes = jnp.asarray(graph.nodes)
    model = GatedReadout(4)
    params = model.init(jax.random.key(1), hidden, nodes, ids, 3)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)  # biases start at 0
    out = model.apply(params, hidden, nodes, ids, 3)
    joined = np.concatenate([hidden, nodes], axis=1)
    gate, value = (
        joined @ np.array(params["params"][name]["kernel"])
        + np.array(params["params"][name]["bias"])
        for name in ("gate", "value")
    )
    expected = gated_readout(jnp.asarray(gate), jnp.asarray(value), ids, 3)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def test_virtual_nodes_by_hand():
    first = graph_from_edges([0], [1], 2, nodes=[[5.0], [6.0]], edges=np.array([3]))
    second = graph_from_edges([0], [0], 1, nodes=[[7.0]], edges=np.array([4]))
    graph = add_virtual_nodes(batch([first, second]), edge_types=(8, 9))
    assert graph.nodes.tolist() == [[5, 0], [6, 0], [0, 1], [7, 0], [0, 1]]
    assert graph.n_node.tolist() == [3, 2]
    assert graph.n_edge.tolist() == [5, 3]
    edges = set(zip(graph.senders.tolist(), graph.receivers.tolist(), graph.edges, strict=True))
    assert edges == {
        *((0, 1, 3), (0, 2, 8), (1, 2, 8), (2, 0, 9), (2, 1, 9)),
        *((3, 3, 4), (3, 4, 8), (4, 3, 9)),
    }
    # each graph of the batch is what it would be alone
    for part, alone in zip(unbatch(graph), (first, second), strict=True):
        expected = add_virtual_nodes(alone, edge_types=(8, 9))
        jax.tree.map(np.testing.assert_array_equal, part, expected)


def test_virtual_node_of_a_subset_reads_just_that_subset():
    graph = batch(example_graphs())
    subset = np.array([True, False, True, False, True, *[False] * 5, True])
    joined = add_virtual_nodes(graph, subset=subset, edge_types=(0, 0))
    padded = pad(joined, num_nodes=20, num_edges=30, num_graphs=5)
    is_virtual = virtual_node_mask(padded)
    assert np.flatnonzero(is_virtual).tolist() == [4, 6, 13]
    # one round of sums: what arrives at a virtual node is the sum over its subset
    received = np.zeros((20, FEATURES + 1), np.float32)
    np.add.at(received, padded.receivers, padded.nodes[padded.senders])
    ids = node_graph_ids(padded)
    out = graph_sum(jnp.asarray(received), ids, 5, mask=is_virtual)
    expected = graph_sum(
        jnp.asarray(graph.nodes), node_graph_ids(graph), 5, mask=jnp.asarray(subset)
    )
    np.testing.assert_allclose(out[:, :-1], expected, rtol=1e-5, atol=1e-6)
    # and what it sends reaches the subset alone
    reached = set(padded.receivers[np.asarray(is_virtual)[padded.senders]].tolist())
    place = np.arange(graph.num_nodes) + np.asarray(node_graph_ids(graph))
    assert reached == set(place[subset].tolist())


def test_an_empty_graph_gets_a_virtual_node():
    graph = add_virtual_nodes(graph_from_edges([], [], 0))
    assert graph.nodes.tolist() == [[1]]
    assert graph.num_edges == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edge_types": None}, r"edge_types = None .* are an array"),
        ({"subset": [0, 1]}, r"subset has shape \(2,\) .* bool \[4\]"),
        ({"subset": [0, 1, 1, 0]}, r"dtype int64.* np\.isin"),
    ],
)
def test_virtual_nodes_name_what_is_wrong(change, message):
    with pytest.raises(InputError, match=message):
        add_virtual_nodes(example_graphs()[0], **({"edge_types": (0, 0)} | change))


def test_virtual_nodes_need_features_of_rank_2():
    graph = graph_from_edges([0], [1], 2, nodes=[1.0, 2.0])
    with pytest.raises(InputError, match=r"nodes has shape \(2,\)"):
        add_virtual_nodes(graph)


@pytest.mark.peers
@pytest.mark.parametrize("name", ["sum", "mean", "max", "softmax"])
def test_readout_and_gradient_equal_torch_geometric(name):
    torch = pytest.importorskip("torch")
    geometric = pytest.importorskip("torch_geometric.nn")
    graph = batch(example_graphs())
    ids = node_graph_ids(graph)
    peers = {
        "sum": geometric.global_add_pool,
        "mean": geometric.global_mean_pool,
        "max": geometric.global_max_pool,
        "softmax": geometric.AttentionalAggregation(lambda values: 2 * values[:, :1]),
    }
    peer_nodes = torch.tensor(graph.nodes, requires_grad=True)
    peer_ids = torch.tensor(np.array(ids), dtype=torch.int64)
    peer_out = peers[name](peer_nodes, peer_ids)
    cotangent = np.random.default_rng(3).normal(size=(3, FEATURES)).astype(np.float32)
    peer_out.backward(torch.tensor(cotangent))
    out, pullback = jax.vjp(lambda nodes: READOUTS[name](nodes, ids, 3), jnp.asarray(graph.nodes))
    np.testing.assert_allclose(out, peer_out.detach(), rtol=1e-5, atol=1e-5)
    gradient = pullback(jnp.asarray(cotangent))[0]
    np.testing.assert_allclose(gradient, peer_nodes.grad, rtol=1e-5, atol=1e-5)
