"""Chebyshev filters against the dense polynomial, eigenvalues and PyTorch Geometric."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st
from jax.test_util import check_grads

from structdl.core.segment import edge_layout
from structdl.core.sparse import sparse_rows
from structdl.errors import InputError
from structdl.graphs.chebyshev import (
    ChebNet,
    ChebyshevConvolution,
    chebyshev_convolution,
    largest_eigenvalue,
    normalized_laplacian,
    rescaled_laplacian,
)

NUM_NODES = 7


def example_edges(seed=0, num_nodes=NUM_NODES, num_pairs=8):
    """(senders, receivers, weights) both ways: self-loops, a repeated edge, a last node alone."""
    rng = np.random.default_rng(seed)
    one, other = rng.integers(0, num_nodes - 1, (2, num_pairs))
    one[0] = other[0]
    one[1], other[1] = one[2], other[2]
    weights = rng.uniform(0.5, 2.0, num_pairs)
    return np.append(one, other), np.append(other, one), np.append(weights, weights)


def example(seed=0, lambda_max=2.0, weighted=True):
    senders, receivers, weights = example_edges(seed)
    layout = edge_layout(senders, receivers, NUM_NODES)
    return layout, rescaled_laplacian(layout, jnp.array(weights) if weighted else None, lambda_max)


def dense_rescaled_laplacian(seed=0, lambda_max=2.0, weighted=True):
    """2 L / lambda_max - I by a loop over the edges."""
    adjacency = np.zeros((NUM_NODES, NUM_NODES))
    for sender, receiver, weight in zip(*example_edges(seed), strict=True):
        if sender != receiver:
            adjacency[receiver, sender] += weight if weighted else 1
    degrees = adjacency.sum(axis=1)
    roots = np.array([0 if degree == 0 else degree**-0.5 for degree in degrees])
    laplacian = np.eye(NUM_NODES) - roots[:, None] * adjacency * roots[None]
    return 2 * laplacian / lambda_max - np.eye(NUM_NODES)


def init(model, *arguments):
    return jax.jit(model.init, static_argnames="train")(jax.random.key(0), *arguments, train=False)


def dense_formula(nodes, kernels, laplacian):
    """The sum of cos(k arccos L~) X W_k: the polynomials as they are defined."""
    eigenvalues, eigenvectors = np.linalg.eigh(laplacian)
    angles = np.arccos(eigenvalues.astype(complex))  # complex outside [-1, 1]
    total = 0
    for k, kernel in enumerate(np.array(kernels, float)):
        polynomial = (eigenvectors * np.cos(k * angles).real) @ eigenvectors.T
        total = total + polynomial @ nodes @ kernel
    return total


@given(st.integers(0, 100), st.integers(0, 3), st.sampled_from([2.0, 1.6]), st.booleans())
def test_convolution_equals_the_dense_formula(seed, order, lambda_max, weighted):
    rng = np.random.default_rng(seed)
    nodes, kernels = rng.normal(size=(NUM_NODES, 3)), rng.normal(size=(order + 1, 3, 2))
    layout, laplacian = example(seed, lambda_max, weighted)
    actual = chebyshev_convolution(jnp.array(nodes), jnp.array(kernels), layout, laplacian)
    expected = dense_formula(nodes, kernels, dense_rescaled_laplacian(seed, lambda_max, weighted))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("features", [2, 5])  # one for each order of the products
def test_dense_sparse_and_absent_features_agree(features):
    rng = np.random.default_rng(0)
    nodes = rng.normal(size=(NUM_NODES, 3)).astype(np.float32)
    layout, laplacian = example(lambda_max=1.8)
    dense = dense_rescaled_laplacian(lambda_max=1.8)
    kernels = jnp.asarray(rng.normal(size=(4, 3, features)), jnp.float32)
    bias = jnp.arange(1.0, features + 1)

    @jax.jit
    def output_and_gradient(nodes, kernels):
        def loss(kernels):
            out = chebyshev_convolution(nodes, kernels, layout, laplacian, bias)
            return jnp.sum(jnp.sin(out)), out

        gradient, out = jax.grad(loss, has_aux=True)(kernels)
        return out, gradient

    expected = dense_formula(nodes, kernels, dense) + np.array(bias)
    # the gradient of W_k is (T_k X)^T G, and T_k X is what the identity in place of W_k gives
    identity = np.eye(3)
    expected_gradient = [
        dense_formula(nodes, [identity * (i == k) for i in range(4)], dense).T @ np.cos(expected)
        for k in range(4)
    ]
    for given_nodes in (jnp.asarray(nodes), sparse_rows(nodes)):
        out, gradient = output_and_gradient(given_nodes, kernels)
        np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-4)
    kernels = jnp.asarray(rng.normal(size=(3, NUM_NODES, features)), jnp.float32)
    out, _ = output_and_gradient(None, kernels)
    expected = dense_formula(np.eye(NUM_NODES), kernels, dense) + np.array(bias)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_a_filter_of_order_k_reaches_k_edges_far():
    path = np.arange(5)
    layout = edge_layout(np.append(path, path + 1), np.append(path + 1, path), 6)
    nodes = jnp.zeros((6, 1)).at[0].set(1.0)
    for order in range(4):
        kernels = 0.5 ** jnp.arange(order + 1.0)[:, None, None]
        out = chebyshev_convolution(nodes, kernels, layout, rescaled_laplacian(layout))
        assert np.all(out[: order + 1] != 0), "not as far as it should"
        np.testing.assert_array_equal(out[order + 1 :], 0)


def test_gradients_in_float64():
    senders, receivers, weights = example_edges()
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        layout = edge_layout(senders, receivers, NUM_NODES)

        @jax.jit
        def output(nodes, kernels, edge_weights, lambda_max):
            laplacian = rescaled_laplacian(layout, edge_weights, lambda_max)
            return chebyshev_convolution(nodes, kernels, layout, laplacian)

        nodes, kernels = rng.normal(size=(NUM_NODES, 3)), rng.normal(size=(3, 3, 2))
        arguments = (nodes, kernels, weights, np.array(1.7))
        check_grads(output, tuple(map(jnp.asarray, arguments)), order=1, modes="rev")


def test_nodes_without_edges_keep_their_own_terms_and_finite_gradients():
    @jax.jit
    def output(nodes, kernels, edge_weights, layout):
        laplacian = rescaled_laplacian(layout, edge_weights)
        return chebyshev_convolution(nodes, kernels, layout, laplacian)

    kernels = jnp.stack([jnp.full((2, 1), 10.0**k) for k in range(3)])
    # T_0 = 1, T_1 = 0, T_2 = -1 at L~ = 0, the row of a node without edges
    for ends, weights in (([], []), ([0], [0.0])):
        layout = edge_layout(np.array(ends, int), np.array(ends, int) + 1, 3)
        arguments = (jnp.ones((3, 2)), kernels, jnp.array(weights, jnp.float32))
        np.testing.assert_allclose(output(*arguments, layout), np.full((3, 1), 2 * (1 - 100.0)))
        gradients = jax.jit(jax.grad(lambda *args: jnp.sum(output(*args) ** 2), argnums=(0, 1, 2)))
        for gradient in gradients(*arguments, layout):
            assert np.isfinite(gradient).all()
    empty = edge_layout(np.array([], int), np.array([], int), 0)
    assert output(jnp.ones((0, 2)), kernels, jnp.ones(0), empty).shape == (0, 1)


def test_largest_eigenvalue_of_known_graphs():
    def both_ways(one, other, num_nodes):
        return edge_layout(np.append(one, other), np.append(other, one), num_nodes)

    # complete: n / (n - 1); a ring of an odd length: 1 + cos(pi / n); bipartite: 2
    complete = both_ways(*np.triu_indices(80, 1), 80)
    assert largest_eigenvalue(complete) == pytest.approx(80 / 79, abs=1e-9)
    ring = both_ways(np.arange(101), (np.arange(101) + 1) % 101, 101)
    assert largest_eigenvalue(ring) == pytest.approx(1 + np.cos(np.pi / 101), abs=1e-9)
    star = both_ways(np.zeros(9, int), np.arange(1, 10), 10)
    assert largest_eigenvalue(star) == pytest.approx(2, abs=1e-9)
    assert largest_eigenvalue(edge_layout(np.array([], int), np.array([], int), 3)) == 1


def test_lambda_max_puts_the_spectrum_into_the_unit_interval():
    senders, receivers, weights = example_edges()
    layout, weights = edge_layout(senders, receivers, NUM_NODES), jnp.array(weights)
    lambda_max = largest_eigenvalue(layout, weights)
    rescaled = dense_rescaled_laplacian(lambda_max=lambda_max)
    assert np.linalg.eigvalsh(rescaled)[-1] == pytest.approx(1, abs=1e-6)
    expected = (rescaled + np.eye(NUM_NODES)) * lambda_max / 2
    np.testing.assert_allclose(normalized_laplacian(layout, weights).toarray(), expected, atol=1e-6)


def test_bad_input_is_refused_with_the_fix():
    one_way = edge_layout([0, 1], [1, 2], 3)
    with pytest.raises(InputError, match=r"0 -> 1 weighs 1 and 1 -> 0 weighs 0.*symmetrize"):
        largest_eigenvalue(one_way)
    both_ways = edge_layout([0, 1], [1, 0], 2)
    with pytest.raises(InputError, match="weighs 3"):
        largest_eigenvalue(both_ways, jnp.array([1.0, 3.0]))
    with pytest.raises(InputError, match="0 nodes"):
        largest_eigenvalue(edge_layout(np.array([], int), np.array([], int), 0))
    for lambda_max in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="lambda_max"):
            rescaled_laplacian(both_ways, lambda_max=lambda_max)
    layer = ChebyshevConvolution(2, order=-1)
    with pytest.raises(InputError, match="order = -1"):
        layer.init(jax.random.key(0), None, both_ways, rescaled_laplacian(both_ways))


def test_model_commutes_with_a_permutation_of_the_nodes():
    senders, receivers, weights = example_edges()
    nodes = np.random.default_rng(0).normal(size=(NUM_NODES, 3)).astype(np.float32)
    model = ChebNet((4,), 2, order=2)

    def graph(place):
        layout = edge_layout(place[senders], place[receivers], NUM_NODES)
        return layout, rescaled_laplacian(layout, jnp.array(weights))

    where = graph(np.arange(NUM_NODES))
    params = init(model, jnp.array(nodes), *where)
    apply = jax.jit(model.apply, static_argnames="train")
    logits = apply(params, jnp.array(nodes), *where, train=False)
    assert np.ptp(logits) > 1e-2
    order = np.random.default_rng(1).permutation(NUM_NODES)
    where = graph(np.argsort(order))
    actual = apply(params, jnp.array(nodes[order]), *where, train=False)
    np.testing.assert_allclose(actual, logits[order], rtol=1e-5, atol=1e-6)


def test_citation_model_has_the_parameters_of_the_paper():
    layout, laplacian = example()
    nodes = sparse_rows(np.eye(NUM_NODES, 1433, dtype=np.float32))
    model = ChebNet((16,), 7, order=2, use_bias=True)
    params = init(model, nodes, layout, laplacian)["params"]
    assert jax.tree.map(jnp.shape, params) == {
        "layers_0": {"kernels": (3, 1433, 16), "bias": (16,)},
        "head": {"kernels": (3, 16, 7), "bias": (7,)},
    }
    bound = np.sqrt(6 / (1433 + 16))  # Glorot's, of each term by itself
    largest = np.abs(params["layers_0"]["kernels"]).max(axis=(1, 2))
    assert np.all((0.99 * bound < largest) & (largest <= bound))


def test_logits_are_the_layers_after_one_another_and_dropout_is_for_training():
    layout, laplacian = example()
    nodes = np.random.default_rng(0).normal(size=(NUM_NODES, 3)).astype(np.float32)
    model = ChebNet((4,), 2, order=1, activation=jnp.tanh, dropout_rate=0.5)
    for features in (jnp.array(nodes), sparse_rows(nodes)):
        params = init(model, features, layout, laplacian)
        apply = jax.jit(model.apply, static_argnames=("train", "method"))

        def draw(train, seed=0, data=(params, features, layout, laplacian), apply=apply, **options):
            return apply(*data, train=train, rngs={"dropout": jax.random.key(seed)}, **options)

        layers = params["params"]
        dense = dense_rescaled_laplacian()
        hidden = np.tanh(dense_formula(nodes, layers["layers_0"]["kernels"], dense))
        expected = dense_formula(hidden, layers["head"]["kernels"], dense)
        np.testing.assert_allclose(draw(False, method=ChebNet.embed), hidden, atol=1e-5)
        np.testing.assert_allclose(draw(False), expected, atol=1e-5)
        np.testing.assert_array_equal(draw(True), draw(True))
        assert np.abs(draw(True) - draw(True, seed=1)).max() > 1e-3


def test_seeds_under_vmap_equal_one_after_another():
    layout, laplacian = example()
    nodes = sparse_rows(np.random.default_rng(0).normal(size=(NUM_NODES, 3)).astype(np.float32))
    kernels = jax.random.normal(jax.random.key(0), (2, 3, 3, 2))

    def loss_and_gradient(kernels, nodes, layout, laplacian):
        def loss(kernels):
            return jnp.sum(jnp.sin(chebyshev_convolution(nodes, kernels, layout, laplacian)))

        return jax.value_and_grad(loss)(kernels)

    data = (nodes, layout, laplacian)
    together = jax.jit(jax.vmap(loss_and_gradient, in_axes=(0, None, None, None)))(kernels, *data)
    alone = jax.jit(loss_and_gradient)
    for seed in range(2):
        expected = alone(kernels[seed], *data)
        for actual, value in zip(together, expected, strict=True):
            np.testing.assert_allclose(actual[seed], value, rtol=1e-4, atol=1e-5)


@pytest.mark.peers
@pytest.mark.parametrize("features", [2, 5])  # one for each order of the products
@pytest.mark.parametrize("num_terms", [1, 2, 3])
def test_layer_and_gradients_equal_torch_geometric(num_terms, features):
    torch = pytest.importorskip("torch")
    geometric = pytest.importorskip("torch_geometric.nn")
    senders, receivers, weights = example_edges(num_terms)
    rng = np.random.default_rng(num_terms)
    nodes, cotangent = (
        rng.normal(size=(NUM_NODES, width)).astype(np.float32) for width in (3, features)
    )
    lambda_max = 1.7

    peer = geometric.ChebConv(3, features, K=num_terms, normalization="sym")
    with torch.no_grad():
        peer.bias.copy_(torch.arange(float(features)))
    peer_nodes = torch.tensor(nodes, requires_grad=True)
    peer_weights = torch.tensor(weights, dtype=torch.float32, requires_grad=True)
    peer_edges = torch.tensor(np.stack([senders, receivers]), dtype=torch.int64)
    peer_out = peer(peer_nodes, peer_edges, peer_weights, lambda_max=lambda_max)
    peer_out.backward(torch.tensor(cotangent))

    layout = edge_layout(senders, receivers, NUM_NODES)

    @jax.jit
    def output(nodes, kernels, bias, edge_weights):
        laplacian = rescaled_laplacian(layout, edge_weights, lambda_max)
        return chebyshev_convolution(nodes, kernels, layout, laplacian, bias)

    kernels = jnp.stack([jnp.array(lin.weight.detach().numpy().T) for lin in peer.lins])
    bias = jnp.arange(float(features))
    arguments = (jnp.array(nodes), kernels, bias, jnp.asarray(weights, jnp.float32))
    out, pullback = jax.vjp(output, *arguments)
    np.testing.assert_allclose(out, peer_out.detach(), rtol=1e-5, atol=1e-5)
    *actual, weights_bar = pullback(jnp.array(cotangent))
    kernels_bar = np.stack([lin.weight.grad.T for lin in peer.lins])
    expected = [peer_nodes.grad, kernels_bar, peer.bias.grad]
    for mine, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)
    if num_terms > 1:
        # the degree of a node is that of its incoming edges here and of its outgoing ones there,
        # so that only what both directions of an edge get together is comparable
        bars = (weights_bar, peer_weights.grad.numpy())
        both = [np.reshape(bar, (2, -1)).sum(axis=0) for bar in bars]
        np.testing.assert_allclose(*both, rtol=1e-5, atol=1e-5)
