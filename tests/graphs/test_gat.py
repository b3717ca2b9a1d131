"""GAT against a loop over nodes, against PyTorch Geometric, and on nodes without edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from structdl.core.segment import edge_layout, edge_list
from structdl.core.sparse import sparse_rows
from structdl.graphs.gat import GAT, AttentionParams, attention_weights, graph_attention

NUM_NODES, IN_FEATURES, FEATURES = 7, 4, 3


def example(seed=0, heads=2, dtype=np.float32):
    """Edges with a repeated one, a self-loop and an isolated last node; nodes; parameters."""
    rng = np.random.default_rng(seed)
    senders, receivers = rng.integers(0, NUM_NODES - 1, (2, 14))
    senders[0] = receivers[0]
    senders[1], receivers[1] = senders[2], receivers[2]
    shapes = (NUM_NODES, IN_FEATURES), (IN_FEATURES, heads * FEATURES)
    nodes, kernel = (jnp.asarray(rng.normal(size=shape).astype(dtype)) for shape in shapes)
    vectors = jnp.asarray(rng.normal(size=(2, heads, FEATURES)).astype(dtype))
    return senders, receivers, nodes, AttentionParams(kernel, *vectors)


def by_hand(params, nodes, senders, receivers, combine):
    """Node by node, head by head, as the equations are written; float64."""
    heads = params.sender_vector.shape[0]
    projected = np.asarray(nodes, float) @ np.asarray(params.kernel, float)
    projected = projected.reshape(len(nodes), heads, -1)
    out = np.zeros_like(projected)
    weights = np.zeros((len(senders), heads))
    for node in range(len(nodes)):
        edges = np.flatnonzero(receivers == node)
        for head in range(heads):
            pairs = [
                np.concatenate([projected[node, head], projected[senders[edge], head]])
                for edge in edges
            ]
            vector = np.concatenate([params.receiver_vector[head], params.sender_vector[head]])
            logits = np.array([vector @ pair for pair in pairs])
            logits = np.where(logits > 0, logits, 0.2 * logits)
            if len(edges):
                weights[edges, head] = np.exp(logits) / np.exp(logits).sum()
            for edge in edges:
                out[node, head] += weights[edge, head] * projected[senders[edge], head]
    return out.reshape(len(nodes), -1) if combine == "concat" else out.mean(axis=1), weights


@pytest.mark.parametrize("combine", ["concat", "mean"])
@pytest.mark.parametrize("heads", [1, 3])
def test_equals_the_equations(combine, heads):
    senders, receivers, nodes, params = example(heads=heads)
    expected, expected_weights = by_hand(params, nodes, senders, receivers, combine)
    for layout in (
        edge_layout(senders, receivers, NUM_NODES),
        edge_list(jnp.asarray(senders), jnp.asarray(receivers), NUM_NODES),
    ):
        out, weights = graph_attention(params, nodes, layout, combine=combine)
        np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(weights, expected_weights, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(out[-1], 0)  # the isolated node


def test_sparse_features_agree_with_dense_ones():
    senders, receivers, nodes, params = example()
    layout = edge_layout(senders, receivers, NUM_NODES)
    nodes = jnp.where(nodes > 0, nodes, 0)
    dense, _ = graph_attention(params, nodes, layout)
    sparse, _ = graph_attention(params, sparse_rows(np.asarray(nodes)), layout)
    np.testing.assert_allclose(sparse, dense, rtol=1e-5, atol=1e-6)


def test_gradients_in_float64():
    with jax.enable_x64(True):
        senders, receivers, nodes, params = example(dtype=np.float64)
        layout = edge_layout(senders, receivers, NUM_NODES)

        @jax.jit
        def output(params, nodes):
            return graph_attention(params, nodes, layout)

        check_grads(output, (params, nodes), order=1, modes="rev")


@pytest.mark.parametrize("dropped_part", ["dropout_rate", "value_dropout_rate"])
def test_dropout_keeps_the_mean_and_the_returned_weights(dropped_part):
    senders, receivers, nodes, params = example()
    layout = edge_layout(senders, receivers, NUM_NODES)
    expected, weights = graph_attention(params, nodes, layout)

    def dropped(key):
        return graph_attention(params, nodes, layout, **{dropped_part: 0.5}, key=key)

    outs, all_weights = jax.vmap(dropped)(jax.random.split(jax.random.key(0), 2000))
    np.testing.assert_allclose(all_weights[0], weights, rtol=1e-5)
    assert float(jnp.abs(outs[0] - outs[1]).max()) > 0.1
    spread = np.asarray(jnp.std(outs, axis=0)) / 2000**0.5
    assert np.all(np.abs(np.mean(outs, axis=0) - expected) <= 5 * spread + 1e-5)


def test_values_are_dropped_in_training_only_and_where_asked():
    senders, receivers, nodes, _ = example()
    layout = edge_layout(senders, receivers, NUM_NODES)
    rngs = {"dropout": jax.random.key(3)}
    plain, dropping = (GAT((3,), 2, dropout_rate=0.5, drop_values=drop) for drop in (False, True))
    params = plain.init(jax.random.key(0), nodes, layout, train=False)
    calm = [model.apply(params, nodes, layout, train=False) for model in (plain, dropping)]
    np.testing.assert_array_equal(*calm)
    rough = [
        model.apply(params, nodes, layout, train=True, rngs=rngs) for model in (plain, dropping)
    ]
    assert float(jnp.abs(rough[0] - rough[1]).max()) > 1e-3


def test_extreme_scores_and_no_edges_stay_finite():
    layout = edge_layout([0, 1], [1, 1], 3)

    def total(by_sender):
        weights = attention_weights(by_sender, jnp.zeros((3, 1)), layout)
        return jnp.sum(weights**2), weights

    scores = jnp.array([[1e4], [-1e4], [0.0]])
    (_, weights), gradient = jax.value_and_grad(total, has_aux=True)(scores)
    np.testing.assert_allclose(weights[:, 0], [1, 0])
    assert np.isfinite(gradient).all()
    _, _, nodes, params = example()
    empty = edge_layout(np.zeros(0, int), np.zeros(0, int), NUM_NODES)
    gradients = jax.grad(lambda nodes: jnp.sum(graph_attention(params, nodes, empty)[0]))(nodes)
    np.testing.assert_array_equal(gradients, 0)


def test_a_renumbering_of_nodes_renumbers_the_logits():
    senders, receivers, nodes, _ = example()
    model = GAT((3,), 2, heads=2)
    layout = edge_layout(senders, receivers, NUM_NODES)
    params = model.init(jax.random.key(0), nodes, layout, train=False)
    new_place = np.random.default_rng(1).permutation(NUM_NODES)
    order = np.argsort(new_place)
    moved = edge_layout(new_place[senders], new_place[receivers], NUM_NODES)
    out = model.apply(params, nodes, layout, train=False)
    np.testing.assert_allclose(
        model.apply(params, nodes[order], moved, train=False)[new_place], out, rtol=1e-4, atol=1e-5
    )
    weights = model.apply(params, nodes, layout, method=GAT.attention)
    assert [each.shape[1] for each in weights] == [2, 1]
    for each in weights:
        sums = np.zeros((NUM_NODES, each.shape[1]))
        np.add.at(sums, receivers, np.asarray(each))
        np.testing.assert_allclose(sums[np.unique(receivers)], 1, rtol=1e-5)


@pytest.mark.peers
@pytest.mark.parametrize(("heads", "combine"), [(1, "concat"), (3, "concat"), (3, "mean")])
def test_equals_pytorch_geometric(heads, combine):
    torch = pytest.importorskip("torch")
    pyg = pytest.importorskip("torch_geometric.nn")
    senders, receivers, nodes, params = example(heads=heads)
    layer = pyg.GATConv(
        IN_FEATURES, FEATURES, heads, combine == "concat", add_self_loops=False, bias=True
    )
    bias = np.random.default_rng(2).normal(size=layer.bias.shape).astype(np.float32)
    params = params._replace(bias=jnp.asarray(bias))
    with torch.no_grad():
        layer.lin.weight.copy_(torch.tensor(np.array(params.kernel.T)))
        layer.att_src.copy_(torch.tensor(np.array(params.sender_vector))[None])
        layer.att_dst.copy_(torch.tensor(np.array(params.receiver_vector))[None])
        layer.bias.copy_(torch.tensor(bias))
    there = torch.tensor(np.array(nodes), requires_grad=True)
    edges = torch.tensor(np.stack([senders, receivers]))
    expected, (_, expected_weights) = layer(there, edges, return_attention_weights=True)
    expected.sin().sum().backward()
    layout = edge_layout(senders, receivers, NUM_NODES)

    def loss(params, nodes):
        out, weights = graph_attention(params, nodes, layout, combine=combine)
        return jnp.sum(jnp.sin(out)), (out, weights)

    gradients, (out, weights) = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, nodes)
    close = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(out, expected.detach().numpy(), **close)
    np.testing.assert_allclose(weights, expected_weights.detach().numpy(), **close)
    np.testing.assert_allclose(gradients[1], there.grad.numpy(), **close)
    np.testing.assert_allclose(gradients[0].kernel, layer.lin.weight.grad.numpy().T, **close)
    np.testing.assert_allclose(gradients[0].sender_vector, layer.att_src.grad.numpy()[0], **close)
    np.testing.assert_allclose(gradients[0].receiver_vector, layer.att_dst.grad.numpy()[0], **close)
    np.testing.assert_allclose(gradients[0].bias, layer.bias.grad.numpy(), **close)
