"""GIN against a loop over edges, against PyTorch Geometric, and on padded batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st
from jax.test_util import check_grads

from structdl.core.segment import edge_layout, edge_list
from structdl.graphs.gin import GIN, GINConvolution, NodeNorm, sum_with_self
from structdl.graphs.graph import batch, graph_from_edges, node_mask, pad

NUM_NODES, NUM_EDGES, IN_FEATURES = 6, 9, 3


def example_graph(seed=0, num_nodes=NUM_NODES, num_edges=NUM_EDGES):
    """A graph whose last node is isolated, with a self-loop and a repeated edge."""
    rng = np.random.default_rng(seed)
    senders, receivers = rng.integers(0, num_nodes - 1, (2, num_edges))
    senders[0] = receivers[0]
    senders[1], receivers[1] = senders[2], receivers[2]
    nodes = rng.normal(size=(num_nodes, IN_FEATURES)).astype(np.float32)
    return graph_from_edges(senders, receivers, num_nodes, nodes=nodes)


def layout_of(graph):
    return edge_layout(graph.senders, graph.receivers, graph.num_nodes)


@given(st.integers(0, 1000), st.sampled_from([-1.0, 0.0, 0.5]))
def test_sum_with_self_equals_a_loop_over_edges(seed, epsilon):
    graph = example_graph(seed)
    expected = (1 + epsilon) * graph.nodes
    for sender, receiver in zip(graph.senders, graph.receivers, strict=True):
        expected[receiver] += graph.nodes[sender]
    actual = sum_with_self(jnp.asarray(graph.nodes), layout_of(graph), epsilon)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_gradients_in_float64():
    graph = example_graph()
    with jax.enable_x64(True):
        layout, nodes = layout_of(graph), jnp.asarray(graph.nodes, jnp.float64)
        check_grads(
            jax.jit(lambda nodes, epsilon: sum_with_self(nodes, layout, epsilon)),
            (nodes, jnp.asarray(0.3)),
            order=2,
            modes="rev",
        )


def test_a_graph_without_edges_keeps_its_nodes():
    layout, nodes = edge_layout([], [], 2), jnp.array([[1.0], [2.0]])
    np.testing.assert_array_equal(sum_with_self(nodes, layout, 0.5), 1.5 * nodes)
    empty = sum_with_self(jnp.zeros((0, 3)), edge_layout([], [], 0))
    assert empty.shape == (0, 3)


def test_network_commutes_with_a_permutation_of_the_nodes():
    graph, network = example_graph(), GIN(4, num_layers=2)
    nodes, order = jnp.asarray(graph.nodes), np.array([3, 0, 5, 4, 1, 2])
    place = np.argsort(order)
    permuted = edge_layout(place[graph.senders], place[graph.receivers], NUM_NODES)
    variables = network.init(jax.random.key(0), nodes, layout_of(graph), train=False)

    def states(nodes, layout):
        return network.apply(variables, nodes, layout, train=True, mutable="batch_stats")[0]

    pairs = zip(states(nodes, layout_of(graph)), states(nodes[order], permuted), strict=True)
    for original, moved in pairs:
        np.testing.assert_allclose(moved, original[order], rtol=1e-4, atol=1e-5)


def test_padding_changes_neither_states_nor_statistics():
    graphs = [example_graph(0), graph_from_edges([], [], 1, nodes=np.ones((1, 3), np.float32))]
    graphs.append(graph_from_edges([], [], 0, nodes=np.zeros((0, 3), np.float32)))
    whole = batch(graphs)
    padded = pad(whole, num_nodes=11, num_edges=20, num_graphs=5)
    network = GIN(4, num_layers=2, train_epsilon=True)
    variables = network.init(
        jax.random.key(0), jnp.asarray(whole.nodes), layout_of(whole), train=False
    )

    def output(graph, layout, mask):
        nodes = jnp.asarray(graph.nodes)
        kwargs = {"train": True, "mask": mask, "mutable": "batch_stats"}
        states, updated = network.apply(variables, nodes, layout, **kwargs)
        return [state[: whole.num_nodes] for state in states], updated

    layout = edge_list(jnp.asarray(padded.senders), jnp.asarray(padded.receivers), 11)
    expected = output(whole, layout_of(whole), None)
    actual = output(padded, layout, node_mask(padded))
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_normalising_no_node_at_all_is_finite():
    norm, nodes = NodeNorm(), jnp.zeros((3, 2))
    variables = norm.init(jax.random.key(0), nodes, train=False)

    def total(nodes):
        out, updated = norm.apply(
            variables, nodes, train=True, mask=jnp.zeros(3, bool), mutable="batch_stats"
        )
        return jnp.sum(out), updated

    gradient, updated = jax.grad(total, has_aux=True)(nodes)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((gradient, updated)))


@pytest.mark.peers
@pytest.mark.parametrize("batch_norm", [False, True])
def test_layer_and_gradients_equal_torch_geometric(batch_norm):
    torch = pytest.importorskip("torch")
    geometric = pytest.importorskip("torch_geometric.nn")
    graph, widths = example_graph(3, num_nodes=12, num_edges=30), (5, 2)
    dense = [torch.nn.Linear(IN_FEATURES, 5), torch.nn.Linear(5, 2)]
    norm = [torch.nn.BatchNorm1d(5)] if batch_norm else []
    network = torch.nn.Sequential(dense[0], *norm, torch.nn.ReLU(), dense[1])
    peer = geometric.GINConv(network, eps=0.3, train_eps=True)

    def array(tensor):
        return jnp.asarray(tensor.detach().numpy())

    params = {
        f"dense_{number}": {"kernel": array(layer.weight).T, "bias": array(layer.bias)}
        for number, layer in enumerate(dense)
    } | {"epsilon": array(peer.eps)[0]}
    variables = {"params": params}
    if batch_norm:
        params["norm_0"] = {"norm": {"scale": jnp.ones(5), "bias": jnp.zeros(5)}}
        statistics = {"norm": {"mean": jnp.zeros(5), "var": jnp.ones(5)}}
        variables["batch_stats"] = {"norm_0": statistics}

    peer_nodes = torch.tensor(graph.nodes, requires_grad=True)
    peer_edges = torch.tensor(np.stack([graph.senders, graph.receivers]), dtype=torch.int64)
    peer_out = peer(peer_nodes, peer_edges)
    cotangent = np.random.default_rng(1).normal(size=(12, 2)).astype(np.float32)
    peer_out.backward(torch.tensor(cotangent))

    layer = GINConvolution(widths, train_epsilon=True, batch_norm=batch_norm)

    def output(params, nodes):
        given = variables | {"params": params}
        return layer.apply(given, nodes, layout_of(graph), train=True, mutable="batch_stats")

    out, pullback, updated = jax.vjp(output, params, jnp.asarray(graph.nodes), has_aux=True)
    np.testing.assert_allclose(out, array(peer_out), rtol=1e-5, atol=1e-5)
    params_bar, nodes_bar = pullback(jnp.asarray(cotangent))
    np.testing.assert_allclose(nodes_bar, peer_nodes.grad, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(params_bar["epsilon"], peer.eps.grad[0], rtol=1e-5, atol=1e-5)
    for number, theirs in enumerate(dense):
        mine = params_bar[f"dense_{number}"]
        np.testing.assert_allclose(mine["kernel"], theirs.weight.grad.T, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(mine["bias"], theirs.bias.grad, rtol=1e-5, atol=1e-5)
    if batch_norm:
        mean = updated["batch_stats"]["norm_0"]["norm"]["mean"]
        np.testing.assert_allclose(mean, array(norm[0].running_mean), rtol=1e-5, atol=1e-5)
