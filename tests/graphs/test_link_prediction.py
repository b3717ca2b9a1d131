"""Graph auto-encoders against dense formulas, torch and PyTorch Geometric."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from structdl.core.segment import edge_layout
from structdl.core.sparse import sparse_rows
from structdl.graphs import link_prediction
from structdl.graphs.gcn import symmetric_normalization
from structdl.graphs.graph import add_self_loops, graph_from_edges, symmetrize
from structdl.graphs.link_prediction import (
    GAE,
    VGAE,
    inner_product_decoder,
    inner_product_logits,
    kl_divergence,
    reconstruction_loss,
    sample_embeddings,
    sampled_reconstruction_loss,
)

NUM_NODES = 11


def example_graph(seed=0, num_nodes=NUM_NODES):
    """An undirected graph with a self-loop, whose last node is isolated."""
    senders, receivers = np.random.default_rng(seed).integers(0, num_nodes - 1, (2, 12))
    senders[0] = receivers[0]
    return symmetrize(graph_from_edges(senders, receivers, num_nodes))


def layout_of(graph):
    return edge_layout(graph.senders, graph.receivers, graph.num_nodes)


def normal(seed, *shape, scale=1.0):
    values = np.random.default_rng(seed).normal(size=shape, scale=scale)
    return jnp.asarray(values, jnp.float32)


def dense_labels(graph):
    labels = np.eye(graph.num_nodes)
    labels[graph.receivers, graph.senders] = 1
    return labels


def dense_loss(embeddings, graph):
    """The paper's cost by a loop over all pairs, in float64."""
    embeddings, labels = np.array(embeddings, float), dense_labels(graph)
    num_pairs = graph.num_nodes**2
    num_edges = np.sum(graph.senders != graph.receivers)
    pos_weight = (num_pairs - num_edges) / num_edges
    norm = num_pairs / (2 * (num_pairs - num_edges))
    total = 0
    for one, first in enumerate(embeddings):
        for other, second in enumerate(embeddings):
            probability = 1 / (1 + np.exp(-first @ second))
            is_edge = labels[one, other]
            total -= pos_weight * np.log(probability) if is_edge else np.log(1 - probability)
    return norm * total / num_pairs


@pytest.mark.parametrize("block", [3, 4, 512])  # with padding, 11 nodes in blocks; and one block
def test_reconstruction_loss_equals_the_loop_over_pairs(block, monkeypatch):
    monkeypatch.setattr(link_prediction, "_BLOCK", block)
    loss = jax.jit(reconstruction_loss)
    for seed in range(3):
        graph, embeddings = example_graph(seed), normal(seed, NUM_NODES, 4)
        expected = dense_loss(embeddings, graph)
        assert loss(embeddings, layout_of(graph)) == pytest.approx(expected, rel=1e-5)
        looped = add_self_loops(graph)  # the encoder's layout counts the same
        assert loss(embeddings, layout_of(looped)) == pytest.approx(expected, rel=1e-5)


def test_gradients_in_float64_to_second_order(monkeypatch):
    monkeypatch.setattr(link_prediction, "_BLOCK", 4)
    graph = example_graph()
    with jax.enable_x64(True):
        embeddings = jnp.asarray(np.random.default_rng(0).normal(size=(NUM_NODES, 2)))
        layout = layout_of(graph)
        check_grads(jax.jit(lambda z: link_prediction._sum_of_softplus(z)), (embeddings,), order=2)
        loss = jax.jit(lambda z: reconstruction_loss(z, layout))
        check_grads(loss, (embeddings,), order=1, modes="rev")
        assert loss(embeddings) == pytest.approx(dense_loss(embeddings, graph), rel=1e-12)


def test_the_gradient_keeps_no_array_of_all_pairs(monkeypatch):
    monkeypatch.setattr(link_prediction, "_BLOCK", 16)
    layout = edge_layout([0, 1], [1, 0], 512)
    gradient = jax.jit(jax.grad(reconstruction_loss)).lower(normal(0, 512, 2), layout).compile()
    assert gradient.memory_analysis().temp_size_in_bytes < 512**2  # a quarter of float32 pairs


def test_sampled_loss_of_all_non_edges_is_the_whole_loss():
    graph = example_graph()
    embeddings, layout = normal(0, NUM_NODES, 4), layout_of(graph)
    negatives = tuple(map(jnp.asarray, np.nonzero(dense_labels(graph) == 0)))

    def sampled(embeddings):
        return sampled_reconstruction_loss(embeddings, layout, *negatives)

    def whole(embeddings):
        return reconstruction_loss(embeddings, layout)

    actual = jax.jit(jax.value_and_grad(sampled))(embeddings)
    expected = jax.jit(jax.value_and_grad(whole))(embeddings)
    for mine, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_seeds_under_vmap_equal_one_after_another():
    layout, embeddings = layout_of(example_graph()), normal(0, 2, NUM_NODES, 3)
    loss = jax.jit(jax.value_and_grad(reconstruction_loss))
    together = jax.jit(jax.vmap(loss, in_axes=(0, None)))(embeddings, layout)
    for seed in range(2):
        for actual, expected in zip(together, loss(embeddings[seed], layout), strict=True):
            np.testing.assert_allclose(actual[seed], expected, rtol=1e-5, atol=1e-6)


def test_graphs_without_edges_or_nodes_have_finite_losses_and_gradients():
    nothing = jnp.zeros(0, int)
    losses = (
        reconstruction_loss,
        lambda z, layout: sampled_reconstruction_loss(z, layout, nothing, nothing),
        lambda z, layout: kl_divergence(z, z),
    )
    for num_nodes in (0, 1, 3):
        layout = edge_layout(np.array([], int), np.array([], int), num_nodes)
        for loss in losses:
            value, gradient = jax.jit(jax.value_and_grad(loss))(normal(0, num_nodes, 2), layout)
            assert np.isfinite(value)
            assert np.isfinite(gradient).all()
            assert (value == 0) == (num_nodes == 0)


def test_large_logits_stay_finite():
    layout = edge_layout([0, 1], [1, 0], 3)
    embeddings = jnp.array([[100.0], [-100.0], [100.0]])
    value, gradient = jax.value_and_grad(reconstruction_loss)(embeddings, layout)
    # pos_weight 3.5: edge 0-1 and the pair 0-2 are wrong by 10^4 each, in both directions
    assert value == pytest.approx((2 * 3.5 + 2) * 1e4 / 14, rel=1e-6)
    assert np.isfinite(gradient).all()


def test_divergence_of_normal_distributions():
    zeros = jnp.zeros((4, 3))
    assert kl_divergence(zeros, zeros) == 0
    mean, log_std = normal(0, 4, 3), normal(1, 4, 3, scale=0.3)
    mu, sigma = np.array(mean, float), np.exp(np.array(log_std, float))
    of_nodes = np.sum((sigma**2 + mu**2 - 1) / 2 - np.log(sigma), axis=1)
    assert kl_divergence(mean, log_std) == pytest.approx(of_nodes.mean() / 4, rel=1e-5)


def test_samples_have_the_mean_and_the_deviation():
    key = jax.random.key(0)
    mean, log_std = jnp.full((5000, 2), 3.0), jnp.tile(jnp.log(jnp.array([0.1, 2.0])), (5000, 1))
    samples = np.array(sample_embeddings(key, mean, log_std))
    np.testing.assert_allclose(samples.mean(axis=0), 3.0, atol=0.1)
    np.testing.assert_allclose(samples.std(axis=0), [0.1, 2.0], rtol=0.05)


@pytest.mark.parametrize("model", [GAE(4, 2), VGAE(4, 2)])
def test_encoders_equal_the_dense_formula(model):
    graph = add_self_loops(example_graph())
    layout = layout_of(graph)
    weights = symmetric_normalization(layout)
    adjacency = np.zeros((NUM_NODES, NUM_NODES))
    np.add.at(adjacency, (graph.receivers, graph.senders), np.array(weights))
    nodes = np.array(normal(0, NUM_NODES, 5))
    init, apply = (jax.jit(f, static_argnames="train") for f in (model.init, model.apply))
    for features, dense in (
        (jnp.array(nodes), nodes),
        (sparse_rows(nodes), nodes),
        (None, np.eye(NUM_NODES)),
    ):
        params = init(jax.random.key(0), features, layout, weights, train=False)
        kernels = {name: np.array(layer["kernel"]) for name, layer in params["params"].items()}
        hidden = np.maximum(adjacency @ dense @ kernels.pop("hidden_layer"), 0)
        actual = apply(params, features, layout, weights, train=True)  # without dropout, no key
        names = ["embedding"] if isinstance(model, GAE) else ["mean", "log_std"]
        assert sorted(kernels) == sorted(names)
        for name, out in zip(names, [actual] if len(names) == 1 else actual, strict=True):
            np.testing.assert_allclose(out, adjacency @ hidden @ kernels[name], atol=1e-5)


def test_dropout_precedes_every_layer_and_only_in_training():
    layout = layout_of(add_self_loops(example_graph()))
    weights = symmetric_normalization(layout)
    model = VGAE(4, 2, dropout_rate=0.5)
    params = model.init(jax.random.key(9), None, layout, weights, train=False)

    def draw(train, seed=0):
        rngs = {"dropout": jax.random.key(seed)}
        return np.array(model.apply(params, None, layout, weights, train=train, rngs=rngs))

    np.testing.assert_array_equal(draw(False), draw(False, seed=1))
    np.testing.assert_array_equal(draw(True), draw(True))
    assert np.all(np.abs(draw(True) - draw(True, seed=1)).max(axis=(1, 2)) > 1e-3)


def test_a_layout_of_other_nodes_is_refused():
    with pytest.raises(ValueError, match="4 nodes"):
        reconstruction_loss(normal(0, 3, 2), edge_layout([0], [1], 4))


@pytest.mark.peers
def test_decoder_and_gradients_equal_torch_geometric():
    torch = pytest.importorskip("torch")
    geometric = pytest.importorskip("torch_geometric.nn")
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, NUM_NODES, (2, 30))  # with self-loops and repetitions
    embeddings, cotangent = normal(0, NUM_NODES, 4), normal(1, 30)
    peer = geometric.InnerProductDecoder()
    peer_embeddings = torch.tensor(np.array(embeddings), requires_grad=True)
    peer_out = peer(peer_embeddings, torch.tensor(pairs), sigmoid=False)
    peer_out.backward(torch.tensor(np.array(cotangent)))

    decode = jax.jit(lambda z: inner_product_decoder(z, *jnp.asarray(pairs)))
    out, pullback = jax.vjp(decode, embeddings)
    np.testing.assert_allclose(out, peer_out.detach(), rtol=1e-5, atol=1e-5)
    (gradient,) = pullback(cotangent)
    np.testing.assert_allclose(gradient, peer_embeddings.grad, rtol=1e-5, atol=1e-5)
    every = peer.forward_all(peer_embeddings, sigmoid=False).detach()
    np.testing.assert_allclose(inner_product_logits(embeddings), every, rtol=1e-5, atol=1e-5)


@pytest.mark.peers
@pytest.mark.parametrize("block", [4, 512])
def test_loss_and_gradients_equal_torch_over_the_dense_matrix(block, monkeypatch):
    torch = pytest.importorskip("torch")
    geometric = pytest.importorskip("torch_geometric.nn")
    monkeypatch.setattr(link_prediction, "_BLOCK", block)
    graph, embeddings = example_graph(), normal(0, NUM_NODES, 4)
    mean, log_std = normal(1, NUM_NODES, 4), normal(2, NUM_NODES, 4, scale=0.3)
    num_pairs, num_edges = NUM_NODES**2, np.sum(graph.senders != graph.receivers)
    peers = [torch.tensor(np.array(x), requires_grad=True) for x in (embeddings, mean, log_std)]
    cost = num_pairs / (2 * (num_pairs - num_edges))
    cost = cost * torch.nn.functional.binary_cross_entropy_with_logits(
        peers[0] @ peers[0].T,
        torch.tensor(dense_labels(graph), dtype=torch.float32),
        pos_weight=torch.tensor((num_pairs - num_edges) / num_edges),
    )
    cost = cost + geometric.VGAE(torch.nn.Identity()).kl_loss(*peers[1:]) / NUM_NODES
    cost.backward()

    @jax.jit
    def loss(embeddings, mean, log_std):
        return reconstruction_loss(embeddings, layout_of_graph) + kl_divergence(mean, log_std)

    layout_of_graph = layout_of(graph)
    value, gradients = jax.value_and_grad(loss, argnums=(0, 1, 2))(embeddings, mean, log_std)
    assert value == pytest.approx(cost.item(), rel=1e-5)
    for mine, theirs in zip(gradients, peers, strict=True):
        np.testing.assert_allclose(mine, theirs.grad, rtol=1e-5, atol=1e-5)
