"""GraphSAGE against loops over nodes, against PyTorch Geometric, and whole against sampled."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from structdl.core.segment import edge_layout
from structdl.core.sparse import sparse_rows
from structdl.errors import InputError
from structdl.graphs.aggregators import (
    PoolParams,
    SampledNeighbours,
    lstm_aggregate,
    order_edges,
)
from structdl.graphs.graph import graph_from_edges
from structdl.graphs.sage import (
    GraphSAGE,
    SageConvolution,
    SageParams,
    l2_normalize,
    sage_convolution,
)
from structdl.graphs.sampling import neighbour_lists, sample_blocks
from structdl.recurrent.cells import LSTMParams, lstm_step

AGGREGATORS = ("gcn", "mean", "max_pool", "mean_pool", "lstm")
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def example_graph(seed=0, num_nodes=7, num_edges=14, width=3):
    """A graph whose last node is isolated, with a self-loop and a repeated edge."""
    rng = np.random.default_rng(seed)
    senders, receivers = rng.integers(0, num_nodes - 1, (2, num_edges))
    senders[0] = receivers[0]
    senders[1], receivers[1] = senders[2], receivers[2]
    nodes = rng.normal(size=(num_nodes, width)).astype(np.float32)
    return graph_from_edges(senders, receivers, num_nodes, nodes=nodes)


def edges_of(graph, max_neighbours=None):
    largest = int(np.bincount(graph.receivers, minlength=1).max(initial=1))
    return order_edges(
        graph.senders, graph.receivers, graph.num_nodes, max_neighbours=max_neighbours or largest
    )


def example_params(aggregator, in_features=3, features=2, aggregated=4, bias=None, seed=0):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    own = None if aggregator == "gcn" else normal(in_features, features)
    learned = None
    if aggregator.endswith("pool"):
        learned = PoolParams(normal(in_features, aggregated), normal(aggregated))
    elif aggregator == "lstm":
        gates = 4 * aggregated
        learned = LSTMParams(normal(in_features, gates), normal(aggregated, gates), normal(gates))
    else:
        aggregated = in_features
    return SageParams(own, normal(aggregated, features), learned, bias)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_by_hand(params, sequence):
    """The last hidden state, gate by gate."""
    input_kernel, recurrent_kernel, bias = (np.asarray(leaf, float) for leaf in params)
    size = len(recurrent_kernel)
    cell, hidden = np.zeros(size), np.zeros(size)
    for x in sequence:
        gates = x @ input_kernel + hidden @ recurrent_kernel + bias
        enter, keep, candidate, leave = gates.reshape(4, size)
        cell = sigmoid(keep) * cell + sigmoid(enter) * np.tanh(candidate)
        hidden = sigmoid(leave) * np.tanh(cell)
    return hidden


def by_hand(params, nodes, graph, aggregator, combine):
    """Algorithm 1, line 4 and 5, node by node in float64."""
    rows = []
    for node in range(graph.num_nodes):
        neighbours = [
            nodes[s] for s, r in zip(graph.senders, graph.receivers, strict=True) if r == node
        ]
        kernel = np.asarray(params.neighbour_kernel, float)
        if aggregator == "gcn":
            rows.append(np.mean([nodes[node], *neighbours], axis=0) @ kernel)
            continue
        aggregated = np.zeros(len(kernel))
        if aggregator == "lstm":
            aggregated = lstm_by_hand(params.aggregator, neighbours)
        elif neighbours:
            if aggregator != "mean":
                kernel_in, bias = map(np.asarray, params.aggregator)
                neighbours = np.maximum(np.asarray(neighbours) @ kernel_in + bias, 0)
            aggregated = (
                np.max(neighbours, axis=0) if "max" in aggregator else np.mean(neighbours, 0)
            )
        own, other = nodes[node] @ np.asarray(params.self_kernel, float), aggregated @ kernel
        rows.append(np.concatenate([own, other]) if combine == "concat" else own + other)
    return np.asarray(rows)


@pytest.mark.parametrize("aggregator", ["gcn", "mean"])
def test_summed_halves_equal_a_loop_over_the_nodes(aggregator):
    graph = example_graph()
    params = example_params(aggregator, bias=jnp.array([5.0, -5.0]))
    convolve = jax.jit(sage_convolution, static_argnames=("aggregator", "combine"))
    edges = edges_of(graph)
    out = convolve(params, jnp.asarray(graph.nodes), edges, aggregator=aggregator, combine="sum")
    expected = by_hand(params, graph.nodes, graph, aggregator, "sum") + np.array([5.0, -5.0])
    np.testing.assert_allclose(out, expected, **CLOSE)


@pytest.mark.parametrize(
    ("aggregator", "features"),
    [*((name, 2) for name in AGGREGATORS), ("gcn", 5), ("mean", 5)],  # the other order of products
)
def test_dense_sparse_and_sampled_neighbours_agree(aggregator, features):
    graph = example_graph()
    params, edges = example_params(aggregator, features=features), edges_of(graph)
    table = np.zeros(edges.mask.shape, int)
    table[graph.receivers, edges.slots] = graph.senders

    @functools.partial(jax.jit, static_argnums=2)
    def output_and_gradient(params, nodes, sampled):
        def loss(params):
            neighbours = edges
            if sampled:  # the NaN stands behind the mask
                values = jnp.where(edges.mask[..., None], nodes[table], jnp.nan)
                neighbours = SampledNeighbours(values, edges.mask)
            out = sage_convolution(params, nodes, neighbours, aggregator=aggregator)
            return jnp.sum(jnp.sin(out)), out

        gradient, out = jax.grad(loss, has_aux=True)(params)
        return out, gradient

    dense = output_and_gradient(params, jnp.asarray(graph.nodes), False)
    expected = by_hand(params, graph.nodes, graph, aggregator, "concat")
    np.testing.assert_allclose(dense[0], expected, **CLOSE)
    sampled = output_and_gradient(params, jnp.asarray(graph.nodes), True)
    sparse = output_and_gradient(params, sparse_rows(graph.nodes), False)
    for actual in (sampled, sparse):
        jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, **CLOSE), actual, dense)


@pytest.mark.parametrize("aggregator", ["gcn", "mean", "max_pool", "lstm"])
def test_gradients_in_float64(aggregator):
    graph = example_graph()
    with jax.enable_x64(True):
        edges = edges_of(graph)
        params, nodes = jax.tree.map(
            lambda leaf: jnp.asarray(leaf, jnp.float64), (example_params(aggregator), graph.nodes)
        )

        @jax.jit
        def output(params, nodes):
            out = sage_convolution(params, nodes, edges, aggregator=aggregator)
            return l2_normalize(out)

        check_grads(output, (params, nodes), order=1, modes="rev")


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_a_graph_without_edges_has_zero_aggregates_and_finite_gradients(aggregator):
    params, edges = example_params(aggregator), order_edges([], [], 3, max_neighbours=2)
    sampled = SampledNeighbours(jnp.full((3, 2, 3), jnp.nan), jnp.zeros((3, 2), bool))

    @jax.jit
    def output_and_gradients(params, nodes, neighbours):
        def loss(params, nodes):
            out = sage_convolution(params, nodes, neighbours, aggregator=aggregator)
            return jnp.sum(l2_normalize(out)), out

        gradients, out = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, nodes)
        return out, gradients

    nodes = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)), jnp.float32)
    for neighbours in (edges, sampled):
        for at in (nodes, jnp.zeros((3, 3))):  # where the rows to normalise are zeros as well
            out, gradients = output_and_gradients(params, at, neighbours)
            if aggregator == "gcn":
                np.testing.assert_allclose(
                    out, np.asarray(at) @ np.asarray(params.neighbour_kernel), **CLOSE
                )
            else:
                np.testing.assert_array_equal(np.asarray(out)[:, 2:], 0)
            for leaf in jax.tree.leaves(gradients):
                assert np.isfinite(leaf).all()


def test_zero_rows_stay_zero_under_normalization():
    rows = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    jacobian = jax.jacobian(l2_normalize)(rows)
    np.testing.assert_allclose(jacobian[0, :, 0], [[0.128, -0.096], [-0.096, 0.072]], atol=1e-6)
    np.testing.assert_array_equal(jacobian[1], 0)


def test_lstm_reads_each_order_equally_often_under_a_key():
    edges = order_edges([0, 1, 2, 0], [3, 3, 3, 4], 5, max_neighbours=4)
    nodes = jnp.eye(5)[:, :3]
    params = example_params("lstm").aggregator
    keys = jax.random.split(jax.random.key(0), 1200)
    run = jax.jit(jax.vmap(lambda key: lstm_aggregate(nodes, edges, params, key=key)))
    outputs = np.asarray(run(keys[:600]))
    eye = np.eye(3)
    orders = [lstm_by_hand(params, eye[list(o)]) for o in itertools.permutations(range(3))]
    distances = np.abs(outputs[:, 3, None] - np.asarray(orders)[None]).max(axis=2)
    assert (distances.min(axis=1) < 1e-5).all()
    counts = np.bincount(distances.argmin(axis=1), minlength=6)
    assert np.sum((counts - 100) ** 2 / 100) < 20.5  # chi-square of 5 degrees, p = 0.001
    np.testing.assert_allclose(
        outputs[:, 4], np.tile(lstm_by_hand(params, eye[:1]), (600, 1)), **CLOSE
    )
    np.testing.assert_array_equal(outputs[:, :3], 0)
    sampled = SampledNeighbours(
        jnp.stack([jnp.eye(3)[jnp.array([0, 1, 2, 0])]]), jnp.array([[True, True, True, False]])
    )
    drawn = np.asarray(
        jax.jit(jax.vmap(lambda key: lstm_aggregate(nodes[:1], sampled, params, key=key)))(
            keys[600:]
        )
    )
    distances = np.abs(drawn[:, 0, None] - np.asarray(orders)[None]).max(axis=2)
    assert (distances.min(axis=1) < 1e-5).all()
    assert (np.bincount(distances.argmin(axis=1), minlength=6) > 60).all()


def test_lstm_step_without_and_with_batch_axes():
    params = example_params("lstm").aggregator
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 3)), jnp.float32)
    carry = jnp.zeros((2, 5, 4)), jnp.zeros((2, 5, 4))
    (_, hidden), y = lstm_step(params, lstm_step(params, carry, x)[0], x)
    np.testing.assert_array_equal(hidden, y)
    alone = lstm_step(params, (jnp.zeros(4), jnp.zeros(4)), x[1, 2])[0]
    np.testing.assert_allclose(lstm_step(params, alone, x[1, 2])[1], y[1, 2], **CLOSE)
    np.testing.assert_allclose(y[1, 2], lstm_by_hand(params, [x[1, 2]] * 2), **CLOSE)


def test_neighbours_beyond_the_cap_are_refused_or_drawn():
    senders, receivers = np.arange(6), np.array([0, 0, 0, 0, 0, 1])
    with pytest.raises(InputError, match=r"node 0 has 5 neighbours.* max_neighbours = 2"):
        order_edges(senders, receivers, 6, max_neighbours=2)
    with pytest.raises(InputError, match="max_neighbours = 0"):
        order_edges(senders, receivers, 6, max_neighbours=0)
    with pytest.raises(InputError, match=r"outside 0\.\.5"):
        order_edges([6], [0], 6, max_neighbours=2)
    counts = np.zeros(6)
    for seed in range(100):
        edges = order_edges(
            senders, receivers, 6, max_neighbours=2, generator=np.random.default_rng(seed)
        )
        kept = np.asarray(edges.layout.senders)
        np.testing.assert_array_equal(edges.layout.in_degrees, [2, 1, 0, 0, 0, 0])
        np.testing.assert_array_equal(edges.slots, [0, 1, 0])
        assert len(set(kept)) == 3
        counts[kept] += 1
    assert counts[5] == 100
    assert np.sum((counts[:5] - 40) ** 2 / 40) < 18.5  # chi-square of 4 degrees, p = 0.001
    layout = edge_layout(senders, receivers, 6)
    with pytest.raises(ValueError, match="order_edges"):
        lstm_aggregate(jnp.ones((6, 3)), layout, example_params("lstm").aggregator)


def filled(model, nodes, neighbours, seed=0):
    """Parameters of the model's shapes; init would compile a generator for each."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(
        lambda key: model.init(key, nodes, neighbours, train=False), jax.random.key(0)
    )
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes)


def filled_and_applied(model, nodes, neighbours, method=None):
    params = filled(model, nodes, neighbours)
    apply = jax.jit(functools.partial(model.apply, train=False, method=method))
    return params, apply(params, nodes, neighbours)


@pytest.mark.parametrize("aggregator", ["mean", "max_pool"])
def test_model_commutes_with_a_permutation_of_the_nodes(aggregator):
    graph = example_graph()
    model = GraphSAGE((4, 4), 2, aggregator, aggregator_features=5)
    nodes, edges = jnp.asarray(graph.nodes), edges_of(graph)
    params, logits = filled_and_applied(model, nodes, edges)
    order = np.array([3, 0, 4, 1, 6, 5, 2])
    place = np.argsort(order)
    shuffled = np.random.default_rng(0).permutation(graph.num_edges)
    permuted = graph_from_edges(
        place[graph.senders][shuffled], place[graph.receivers][shuffled], graph.num_nodes
    )
    apply = jax.jit(functools.partial(model.apply, train=False))
    actual = apply(params, jnp.asarray(graph.nodes[order]), edges_of(permuted))
    np.testing.assert_allclose(actual, np.asarray(logits)[order], **CLOSE)


@pytest.mark.parametrize(
    ("aggregator", "dense_head"), [("mean", True), ("mean", False), ("lstm", True)]
)
def test_blocks_that_hold_all_neighbours_give_the_result_of_the_graph(aggregator, dense_head):
    graph = example_graph()
    model = GraphSAGE((4, 3), 2, aggregator, aggregator_features=5, dense_head=dense_head)
    nodes, edges = jnp.asarray(graph.nodes), edges_of(graph)
    params, expected = filled_and_applied(model, nodes, edges)
    lists = neighbour_lists(graph.senders, graph.receivers, graph.num_nodes)
    seeds = jnp.array([6, 2, 2, 0])
    fan_outs = (edges.mask.shape[1],) * (2 if dense_head else 3)

    @jax.jit
    def logits(params, lists, seeds):
        blocks = sample_blocks(jax.random.key(1), lists, seeds, fan_outs, replace=False)
        return model.apply(params, nodes, blocks, train=False)

    np.testing.assert_allclose(logits(params, lists, seeds), np.asarray(expected)[seeds], **CLOSE)


def test_a_model_refuses_blocks_of_too_few_hops():
    graph = example_graph()
    lists = neighbour_lists(graph.senders, graph.receivers, graph.num_nodes)
    blocks = sample_blocks(jax.random.key(1), lists, jnp.arange(3), (2,), replace=True)
    with pytest.raises(ValueError, match="1 hops of blocks for 2 layers"):
        jax.eval_shape(
            lambda: GraphSAGE((4, 3), 2).init(
                jax.random.key(0), jnp.asarray(graph.nodes), blocks, train=False
            )
        )


def test_options_of_the_model_do_what_they_say():
    graph = example_graph()
    nodes, edges = jnp.asarray(graph.nodes), edges_of(graph)

    def embedding(**options):
        model = GraphSAGE((4, 3), 2, **options)
        params, embedded = filled_and_applied(model, nodes, edges, GraphSAGE.embed)
        return params["params"], np.asarray(embedded)

    params, every = embedding()
    assert {name: leaf.shape for name, leaf in params["layers_1"].items()} == {
        "self_kernel": (8, 3),
        "neighbour_kernel": (8, 3),
    }
    assert params["head"]["kernel"].shape == (6, 2)
    assert (every < 0).any(), "an activation after the last layer"
    last, never = embedding(normalize="last")[1], embedding(normalize="never")[1]
    np.testing.assert_allclose(last, l2_normalize(jnp.asarray(never)), **CLOSE)
    assert np.abs(every - last).max() > 1e-3
    lengths = np.linalg.norm(every, axis=1)
    assert (np.isclose(lengths, 1) | (lengths == 0)).all()
    first = params["layers_0"]
    learned = SageParams(first["self_kernel"], first["neighbour_kernel"])
    hidden = l2_normalize(
        jax.nn.relu(sage_convolution(learned, nodes, edges, aggregator="mean", combine="concat"))
    )
    second = params["layers_1"]
    learned = SageParams(second["self_kernel"], second["neighbour_kernel"])
    expected = l2_normalize(sage_convolution(learned, hidden, edges, aggregator="mean"))
    np.testing.assert_allclose(every, expected, **CLOSE)
    assert (embedding(dense_head=False)[1] >= 0).all()

    def shapes(**options):
        init = functools.partial(GraphSAGE((4, 3), 2, **options).init, train=False)
        return jax.eval_shape(init, jax.random.key(0), nodes, edges)["params"]

    assert shapes(aggregator="gcn")["head"]["kernel"].shape == (3, 2)
    assert shapes(use_bias=True)["layers_0"]["bias"].shape == (8,)
    assert shapes(combine="sum", dense_head=False)["head"]["self_kernel"].shape == (3, 2)
    assert shapes(aggregator="max_pool")["layers_0"]["pool_kernel"].shape == (3, 512)
    assert shapes(aggregator="lstm")["layers_0"]["lstm_recurrent_kernel"].shape == (128, 512)


def test_an_lstm_starts_with_an_open_forget_gate():
    edges = order_edges([0], [1], 2, max_neighbours=1)
    model = SageConvolution(2, "lstm", aggregator_features=2)
    init = jax.jit(functools.partial(model.init, train=False))
    biases = init(jax.random.key(0), jnp.ones((2, 2)), edges)["params"]["lstm_bias"]
    np.testing.assert_array_equal(biases, [0, 0, 1, 1, 0, 0, 0, 0])


def test_dropout_and_shuffling_happen_only_in_training():
    graph = example_graph()
    nodes, edges = jnp.asarray(graph.nodes), edges_of(graph)

    def make_draw(neighbours=edges, **options):
        model = GraphSAGE((4,), 2, aggregator_features=4, **options)
        params = filled(model, nodes, neighbours)

        @functools.partial(jax.jit, static_argnums=0)
        def draw_at(train, seed):
            dropping, shuffling = jax.random.split(jax.random.key(seed))
            rngs = {"dropout": dropping, "permutation": shuffling}
            return model.apply(params, nodes, neighbours, train=train, rngs=rngs)

        return lambda train, seed=0: draw_at(train, jnp.int32(seed))

    lists = neighbour_lists(graph.senders, graph.receivers, graph.num_nodes)
    blocks = sample_blocks(jax.random.key(0), lists, jnp.arange(7), (4,), replace=True)
    for draw in (
        make_draw(dropout_rate=0.5),
        make_draw(aggregator="lstm"),
        make_draw(blocks, aggregator="lstm"),
    ):
        np.testing.assert_array_equal(draw(True), draw(True))
        assert np.abs(draw(True) - draw(True, 1)).max() > 1e-4
        np.testing.assert_array_equal(draw(False), draw(False, 1))


def test_seeds_under_vmap_equal_one_after_another():
    graph = example_graph()
    nodes, edges = jnp.asarray(graph.nodes), edges_of(graph)
    model = SageConvolution(4, "lstm", aggregator_features=3)

    params = filled(model, nodes, edges)

    def gradient(key, params, nodes, edges):
        rngs = {"permutation": key}

        def loss(params):
            return jnp.sum(model.apply(params, nodes, edges, train=True, rngs=rngs) ** 3)

        return jax.grad(loss)(params)

    keys, data = jax.random.split(jax.random.key(0), 3), (params, nodes, edges)
    together = jax.jit(jax.vmap(gradient, in_axes=(0, None, None, None)))(
        jax.random.clone(keys), *data
    )
    alone = jax.jit(gradient)
    for seed in range(3):
        jax.tree.map(
            lambda a, e, seed=seed: np.testing.assert_allclose(a[seed], e, rtol=1e-4, atol=1e-5),
            together,
            alone(keys[seed], *data),
        )
    assert np.ptp(together["params"]["lstm_bias"], axis=0).max() > 1e-4


def peer_of(aggregator, torch, geometric):
    options = {"mean": {}, "max_pool": {"project": True}, "lstm": {}}[aggregator]
    torch.manual_seed(0)
    peer = geometric.SAGEConv(
        3, 4, aggr=aggregator.removesuffix("_pool"), normalize=True, **options
    )
    with torch.no_grad():
        peer.lin_l.bias.copy_(torch.arange(4.0))
    return peer


def params_of(peer, aggregator, read):
    """The peer's parameters, or what `read` makes of them, as ours."""
    learned = None
    if aggregator == "max_pool":
        learned = PoolParams(read(peer.lin.weight).T, read(peer.lin.bias))
    elif aggregator == "lstm":  # torch has our order of the gates, and two biases that are added
        lstm = peer.aggr_module.lstm
        kernels = read(lstm.weight_ih_l0).T, read(lstm.weight_hh_l0).T
        learned = LSTMParams(*kernels, read(lstm.bias_ih_l0) + read(lstm.bias_hh_l0))
    return SageParams(
        read(peer.lin_r.weight).T, read(peer.lin_l.weight).T, learned, read(peer.lin_l.bias)
    )


@pytest.mark.peers
@pytest.mark.parametrize("aggregator", ["mean", "max_pool", "lstm"])
def test_layer_and_gradients_equal_torch_geometric(aggregator):
    torch = pytest.importorskip("torch")
    geometric = pytest.importorskip("torch_geometric.nn")
    graph = example_graph(num_nodes=30, num_edges=80)
    order = np.argsort(graph.receivers, kind="stable")  # what the peer's LSTM asks for
    graph = graph._replace(senders=graph.senders[order], receivers=graph.receivers[order])
    if aggregator == "lstm":
        # the peer steps its LSTM over padding too: give every node the same number of neighbours
        receivers = np.repeat(np.arange(30, dtype=np.int32), 3)
        senders = np.random.default_rng(0).integers(0, 30, 90)
        senders[3], senders[7] = 1, senders[6]  # a self-loop and a repeated edge
        graph = graph_from_edges(senders, receivers, 30, nodes=graph.nodes)
    cotangent = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)

    peer = peer_of(aggregator, torch, geometric)
    peer_nodes = torch.tensor(graph.nodes, requires_grad=True)
    peer_edges = torch.tensor(np.stack([graph.senders, graph.receivers]), dtype=torch.int64)
    peer_out = peer(peer_nodes, peer_edges)
    peer_out.backward(torch.tensor(cotangent))

    edges = edges_of(graph)

    @jax.jit
    def output(params, nodes):
        return l2_normalize(
            sage_convolution(params, nodes, edges, aggregator=aggregator, combine="sum")
        )

    params = params_of(peer, aggregator, lambda leaf: jnp.array(leaf.detach().numpy()))
    out, pullback = jax.vjp(output, params, jnp.asarray(graph.nodes))
    np.testing.assert_allclose(out, peer_out.detach(), **CLOSE)
    gradients, nodes_bar = pullback(jnp.asarray(cotangent))
    np.testing.assert_allclose(nodes_bar, peer_nodes.grad, **CLOSE)
    expected = params_of(peer, aggregator, lambda leaf: leaf.grad.numpy())
    if aggregator == "lstm":  # each of the two biases has the gradient of their sum
        expected = expected._replace(
            aggregator=expected.aggregator._replace(bias=expected.aggregator.bias / 2)
        )
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, **CLOSE), gradients, expected)
