"""GCN against the dense formula, against PyTorch Geometric, and under changes it must not feel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st
from jax.test_util import check_grads

from structdl.core.segment import edge_layout, edge_list
from structdl.core.sparse import sparse_rows
from structdl.graphs.gcn import GCN, GraphConvolution, graph_convolution, symmetric_normalization
from structdl.graphs.graph import add_self_loops, batch, graph_from_edges, pad

NUM_NODES, NUM_EDGES = 6, 8


@st.composite
def graphs(draw):
    """Graphs of one size, with isolated nodes, self-loops and repeated edges."""
    node = st.integers(0, NUM_NODES - 1)
    ends = st.lists(node, min_size=NUM_EDGES, max_size=NUM_EDGES)
    senders, receivers = draw(ends), draw(ends)
    rng = np.random.default_rng(sum(senders))
    weights = rng.uniform(0.5, 2.0, size=NUM_EDGES)
    return graph_from_edges(
        senders, receivers, NUM_NODES, nodes=rng.normal(size=(NUM_NODES, 3)), edges=weights
    )


def example_graph(seed=0, num_nodes=NUM_NODES, num_edges=NUM_EDGES):
    """A graph whose last node is isolated, with a self-loop and a repeated edge."""
    rng = np.random.default_rng(seed)
    senders, receivers = rng.integers(0, num_nodes - 1, (2, num_edges))
    senders[0] = receivers[0]
    senders[1], receivers[1] = senders[2], receivers[2]
    return graph_from_edges(senders, receivers, num_nodes, nodes=rng.normal(size=(num_nodes, 3)))


def layout_and_weights(graph):
    layout = edge_layout(graph.senders, graph.receivers, graph.num_nodes)
    edge_weights = None if graph.edges is None else jnp.asarray(graph.edges)
    return layout, symmetric_normalization(layout, edge_weights)


def dense_normalized_adjacency(graph):
    """D^-1/2 A D^-1/2 by a loop over the edges, in float64."""
    adjacency = np.zeros((graph.num_nodes, graph.num_nodes))
    weights = np.ones(graph.num_edges) if graph.edges is None else graph.edges.astype(float)
    for sender, receiver, weight in zip(graph.senders, graph.receivers, weights, strict=True):
        adjacency[receiver, sender] += weight
    degrees = adjacency.sum(axis=1)
    roots = np.array([0 if degree == 0 else degree**-0.5 for degree in degrees])
    return roots[:, None] * adjacency * roots[None]


@given(graphs(), st.booleans())
def test_convolution_equals_the_dense_formula(graph, with_self_loops):
    graph = add_self_loops(graph) if with_self_loops else graph
    layout, weights = layout_and_weights(graph)
    kernel = jax.random.normal(jax.random.key(0), (3, 2))
    bias = jnp.array([1.0, -1.0])
    actual = graph_convolution(jnp.asarray(graph.nodes), kernel, layout, weights, bias)
    expected = dense_normalized_adjacency(graph) @ graph.nodes @ np.array(kernel) + np.array(bias)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("features", [2, 5])  # one for each order of the products
def test_dense_sparse_and_absent_features_agree(features):
    graph = add_self_loops(example_graph())
    layout, weights = layout_and_weights(graph)
    kernel = jax.random.normal(jax.random.key(0), (3, features))
    adjacency = dense_normalized_adjacency(graph)

    def output_and_gradient(nodes, kernel):
        def loss(kernel):
            out = graph_convolution(nodes, kernel, layout, weights)
            return jnp.sum(jnp.sin(out)), out

        gradient, out = jax.grad(loss, has_aux=True)(kernel)
        return out, gradient

    expected = adjacency @ graph.nodes @ np.array(kernel)
    expected_gradient = (adjacency @ graph.nodes).T @ np.cos(expected)
    for nodes in (jnp.asarray(graph.nodes), sparse_rows(graph.nodes)):
        out, gradient = jax.jit(output_and_gradient)(nodes, kernel)
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-5)

    kernel = jax.random.normal(jax.random.key(1), (NUM_NODES, features))
    out, gradient = output_and_gradient(None, kernel)
    expected = adjacency @ np.array(kernel)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, adjacency.T @ np.cos(expected), rtol=1e-5, atol=1e-5)


def test_gradients_in_float64():
    graph = add_self_loops(example_graph())
    with jax.enable_x64(True):
        layout = edge_layout(graph.senders, graph.receivers, graph.num_nodes)
        rng = np.random.default_rng(0)
        edge_weights = jnp.asarray(rng.uniform(0.5, 2.0, graph.num_edges))
        nodes, kernel = jnp.asarray(rng.normal(size=(6, 3))), jnp.asarray(rng.normal(size=(3, 2)))

        @jax.jit
        def output(nodes, kernel, edge_weights):
            weights = symmetric_normalization(layout, edge_weights)
            return graph_convolution(nodes, kernel, layout, weights)

        check_grads(output, (nodes, kernel, edge_weights), order=1, modes="rev")


def test_nodes_without_edges_get_zero_and_finite_gradients():
    layout = edge_layout([0, 1], [1, 2], 4)

    def output(nodes, kernel, edge_weights):
        weights = symmetric_normalization(layout, edge_weights)
        return graph_convolution(nodes, kernel, layout, weights)

    # an edge from a node of degree 0, and an edge of weight 0 into one
    arguments = (jnp.ones((4, 3)), jnp.ones((3, 2)), jnp.array([1.0, 0.0]))
    np.testing.assert_array_equal(output(*arguments), np.zeros((4, 2)))
    gradients = jax.grad(
        lambda *args: jnp.sum(output(*args) ** 2 + output(*args)), argnums=(0, 1, 2)
    )
    for gradient in gradients(*arguments):
        assert np.isfinite(gradient).all()


def init_and_apply(model, nodes, layout, weights):
    params = model.init(jax.random.key(0), nodes, layout, weights, train=False)
    return params, model.apply(params, nodes, layout, weights, train=False)


def test_model_commutes_with_a_permutation_of_the_nodes():
    graph = add_self_loops(example_graph())
    model = GCN((4,), 2)
    params, logits = init_and_apply(model, jnp.asarray(graph.nodes), *layout_and_weights(graph))
    order = np.array([3, 0, 4, 1, 5, 2])
    place = np.argsort(order)
    shuffled = np.random.default_rng(0).permutation(graph.num_edges)
    permuted = graph._replace(
        nodes=graph.nodes[order],
        senders=place[graph.senders][shuffled],
        receivers=place[graph.receivers][shuffled],
    )
    actual = model.apply(
        params, jnp.asarray(permuted.nodes), *layout_and_weights(permuted), train=False
    )
    np.testing.assert_allclose(actual, logits[order], rtol=1e-5, atol=1e-6)


def test_batching_and_padding_do_not_change_the_nodes():
    parts = [add_self_loops(example_graph(seed, num_nodes=4 + seed)) for seed in range(3)]
    model = GCN((4,), 2)
    params, _ = init_and_apply(model, jnp.asarray(parts[0].nodes), *layout_and_weights(parts[0]))
    alone = [
        model.apply(params, jnp.asarray(part.nodes), *layout_and_weights(part), train=False)
        for part in parts
    ]

    traces = []

    @jax.jit
    def logits_of(graph):
        traces.append(graph)
        layout = edge_list(graph.senders, graph.receivers, graph.num_nodes)
        weights = symmetric_normalization(layout)
        return model.apply(params, graph.nodes, layout, weights, train=False)

    for order in ([0, 1, 2], [2, 0]):
        joined = batch([parts[place] for place in order])
        padded = pad(joined, num_nodes=20, num_edges=60, num_graphs=4)
        expected = jnp.concatenate([alone[place] for place in order])
        actual = logits_of(padded)[: len(expected)]
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    assert len(traces) == 1, "a second batch of the same budgets compiled again"


def test_citation_model_has_the_parameters_of_the_paper():
    layout, weights = layout_and_weights(add_self_loops(example_graph()))
    nodes = sparse_rows(np.eye(NUM_NODES, 1433, dtype=np.float32))
    params = GCN((16,), 7, dropout_rate=0.5).init(
        jax.random.key(0), nodes, layout, weights, train=False
    )["params"]
    assert {name: layer["kernel"].shape for name, layer in params.items()} == {
        "layers_0": (1433, 16),
        "head": (16, 7),
    }
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 23040
    bound = np.sqrt(6 / (1433 + 16))  # Glorot's
    largest = np.abs(params["layers_0"]["kernel"]).max()
    assert 0.99 * bound < largest <= bound


def test_karate_model_draws_its_nodes_in_a_plane():
    layout, weights = layout_and_weights(add_self_loops(example_graph()))
    model = GCN((4, 4, 2), 4, jnp.tanh, dense_head=True)
    params, logits = init_and_apply(model, None, layout, weights)
    plane = model.apply(params, None, layout, weights, train=False, method=GCN.embed)
    adjacency = dense_normalized_adjacency(add_self_loops(example_graph()))
    hidden = np.eye(NUM_NODES)
    for name in ("layers_0", "layers_1", "layers_2"):
        hidden = np.tanh(adjacency @ hidden @ np.array(params["params"][name]["kernel"]))
    assert plane.shape == (NUM_NODES, 2)
    np.testing.assert_allclose(plane, hidden, rtol=1e-5, atol=1e-6)
    head = params["params"]["head"]
    expected = hidden @ np.array(head["kernel"]) + np.array(head["bias"])
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def test_bias_is_a_parameter_of_each_convolution():
    layout, weights = layout_and_weights(add_self_loops(example_graph()))
    layer = GraphConvolution(2, use_bias=True)
    params = layer.init(jax.random.key(0), None, layout, weights)["params"]
    moved = {"kernel": params["kernel"], "bias": jnp.array([1.0, -2.0])}
    difference = layer.apply({"params": moved}, None, layout, weights) - layer.apply(
        {"params": params}, None, layout, weights
    )
    np.testing.assert_allclose(difference, np.tile([1.0, -2.0], (NUM_NODES, 1)), atol=1e-5)


def test_dropout_precedes_every_layer_and_only_in_training():
    graph = add_self_loops(example_graph())
    layout, weights = layout_and_weights(graph)
    nodes = jnp.asarray(graph.nodes)

    def make_draw(model, nodes, **kwargs):
        params = model.init(jax.random.key(9), nodes, layout, weights, train=False)

        def draw(train, seed=0):
            rngs = {"dropout": jax.random.key(seed)}
            out = model.apply(params, nodes, layout, weights, train=train, rngs=rngs, **kwargs)
            return np.array(out)

        return draw

    for features in (nodes, sparse_rows(graph.nodes)):
        draw = make_draw(GCN((), 2, dropout_rate=0.5), features)
        np.testing.assert_array_equal(draw(True), draw(True))
        assert np.abs(draw(True) - draw(True, seed=1)).max() > 1e-3
        np.testing.assert_array_equal(draw(False), draw(False, seed=1))
    draw = make_draw(GCN((8,), 2, dropout_rate=0.5), nodes, method=GCN.embed)
    assert np.abs(draw(True) - draw(False)).max() > 1e-3
    # without features there is nothing to drop at the input, but the hidden layer is dropped from
    model = GCN((8,), 2, dropout_rate=0.5)
    draw = make_draw(model, None, method=GCN.embed)
    np.testing.assert_array_equal(draw(False), draw(True))
    draw = make_draw(model, None)
    assert np.abs(draw(False) - draw(True)).max() > 1e-3


def test_seeds_under_vmap_equal_one_after_another():
    graph = add_self_loops(example_graph())
    layout, weights = layout_and_weights(graph)
    nodes = sparse_rows(graph.nodes)
    model = GCN((4,), 2, dropout_rate=0.5)

    def loss_and_gradient(seed, nodes, layout, weights):
        init_key, dropout_key = jax.random.split(jax.random.key(seed))
        params = model.init(init_key, nodes, layout, weights, train=False)

        def loss(params):
            rngs = {"dropout": dropout_key}
            logits = model.apply(params, nodes, layout, weights, train=True, rngs=rngs)
            return jnp.sum(jnp.sin(logits))

        return jax.value_and_grad(loss)(params)

    seeds = jnp.arange(3)
    data = (nodes, layout, weights)
    together = jax.jit(jax.vmap(loss_and_gradient, in_axes=(0, None, None, None)))(seeds, *data)
    alone = jax.jit(loss_and_gradient)
    for seed in range(3):
        expected = alone(seeds[seed], *data)
        jax.tree.map(
            lambda a, e, seed=seed: np.testing.assert_allclose(a[seed], e, rtol=1e-4, atol=1e-5),
            together,
            expected,
        )
    assert np.ptp(together[0]) > 1e-3


@pytest.mark.peers
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("weighted", [False, True])
def test_layer_and_gradients_equal_torch_geometric(seed, weighted):
    torch = pytest.importorskip("torch")
    geometric = pytest.importorskip("torch_geometric.nn")
    graph = example_graph(seed, num_nodes=12, num_edges=30)
    rng = np.random.default_rng(seed)
    edge_weights = rng.uniform(0.5, 2.0, 30).astype(np.float32) if weighted else None
    cotangent = rng.normal(size=(12, 4)).astype(np.float32)

    peer = geometric.GCNConv(3, 4)
    with torch.no_grad():
        peer.bias.copy_(torch.arange(4.0))
    peer_nodes = torch.tensor(graph.nodes, requires_grad=True)
    peer_weights = torch.tensor(edge_weights, requires_grad=True) if weighted else None
    peer_edges = torch.tensor(np.stack([graph.senders, graph.receivers]), dtype=torch.int64)
    peer_out = peer(peer_nodes, peer_edges, peer_weights)
    peer_out.backward(torch.tensor(cotangent))

    looped = add_self_loops(graph._replace(edges=edge_weights), only_missing=True)
    layout = edge_layout(looped.senders, looped.receivers, looped.num_nodes)

    def output(nodes, kernel, bias, edge_weights):
        weights = symmetric_normalization(layout, edge_weights)
        return graph_convolution(nodes, kernel, layout, weights, bias)

    kernel, bias = jnp.array(peer.lin.weight.detach().numpy().T), jnp.arange(4.0)
    all_weights = jnp.ones(looped.num_edges) if looped.edges is None else jnp.asarray(looped.edges)
    out, pullback = jax.vjp(output, jnp.asarray(graph.nodes), kernel, bias, all_weights)
    np.testing.assert_allclose(out, peer_out.detach(), rtol=1e-5, atol=1e-5)
    actual = pullback(jnp.asarray(cotangent))
    expected = (peer_nodes.grad, peer.lin.weight.grad.T, peer.bias.grad)
    for mine, theirs in zip(actual[:3], expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)
    if weighted:
        others = graph.senders != graph.receivers  # self-loops of the peer move to the end
        np.testing.assert_allclose(
            actual[3][: others.sum()], peer_weights.grad[others], rtol=1e-5, atol=1e-5
        )
