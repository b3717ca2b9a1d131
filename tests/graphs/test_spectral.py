"""The graph Fourier transform against classical ones, and spectral against Chebyshev filters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.interpolate
import scipy.linalg
from hypothesis import given, strategies as st
from jax.test_util import check_grads

from structdl.core.edge_layout import EdgeLayout
from structdl.core.segment import edge_layout
from structdl.core.sparse import sparse_rows
from structdl.errors import InputError
from structdl.graphs.chebyshev import (
    chebyshev_convolution,
    normalized_laplacian,
    rescaled_laplacian,
)
from structdl.graphs.spectral import (
    SpectralConvolution,
    SpectralNet,
    fourier_transform,
    interpolation_matrix,
    inverse_fourier_transform,
    laplacian_eigenvectors,
    spectral_convolution,
)

NUM_NODES = 8


def example_graph(seed=0):
    """A layout and weights, both ways: a self-loop, a repeated edge, a last node alone."""
    rng = np.random.default_rng(seed)
    one, other = rng.integers(0, NUM_NODES - 1, (2, 10))
    one[0] = other[0]
    one[1], other[1] = one[2], other[2]
    weights = jnp.asarray(rng.uniform(0.5, 2.0, 10), jnp.float32)
    layout = edge_layout(np.append(one, other), np.append(other, one), NUM_NODES)
    return layout, jnp.concatenate([weights, weights])


def ring(num_nodes):
    one = np.arange(num_nodes)
    other = (one + 1) % num_nodes
    return edge_layout(np.append(one, other), np.append(other, one), num_nodes)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@given(st.integers(0, 100))
def test_eigenvectors_are_orthonormal_and_diagonalise_the_laplacian(seed):
    layout, weights = example_graph(seed)
    eigenvalues, eigenvectors = map(np.array, laplacian_eigenvectors(layout, weights))
    np.testing.assert_allclose(eigenvectors.T @ eigenvectors, np.eye(NUM_NODES), atol=1e-5)
    laplacian = normalized_laplacian(layout, weights).toarray()
    np.testing.assert_allclose(laplacian @ eigenvectors, eigenvalues * eigenvectors, atol=1e-5)
    assert np.all(np.diff(eigenvalues) >= 0)
    assert abs(eigenvalues[0]) < 1e-6
    assert eigenvalues[-1] < 2 + 1e-6


def test_fewer_frequencies_are_the_smallest():
    layout, weights = example_graph()
    all_values, all_vectors = laplacian_eigenvectors(layout, weights)
    eigenvalues, eigenvectors = laplacian_eigenvectors(layout, weights, num_frequencies=3)
    np.testing.assert_allclose(eigenvalues, all_values[:3], atol=1e-6)
    # up to signs and rotations among equal eigenvalues: the projections on both are the same
    projections = [np.array(x) @ np.array(x).T for x in (eigenvectors, all_vectors[:, :3])]
    np.testing.assert_allclose(*projections, atol=1e-5)


def test_transform_keeps_energy_and_has_an_inverse():
    _, eigenvectors = laplacian_eigenvectors(*example_graph())
    signal, other = normal(0, NUM_NODES, 2), normal(1, NUM_NODES, 2)
    spectrum, other_spectrum = (fourier_transform(x, eigenvectors) for x in (signal, other))
    # Parseval: scalar products are kept
    np.testing.assert_allclose(
        np.sum(spectrum * other_spectrum, axis=0), np.sum(signal * other, axis=0), rtol=1e-5
    )
    np.testing.assert_allclose(inverse_fourier_transform(spectrum, eigenvectors), signal, atol=1e-5)


def test_spectrum_of_an_eigenvector_is_one_hot():
    _, eigenvectors = laplacian_eigenvectors(*example_graph())
    spectrum = fourier_transform(eigenvectors[:, 3:4], eigenvectors)
    np.testing.assert_allclose(spectrum, np.eye(NUM_NODES)[:, 3:4], atol=1e-5)


@pytest.mark.parametrize("lambda_max", [2.0, 1.7])
def test_polynomial_filter_equals_chebyshev_convolution(lambda_max):
    layout, weights = example_graph()
    eigenvalues, eigenvectors = laplacian_eigenvectors(layout, weights)
    nodes, kernels = normal(0, NUM_NODES, 3), normal(1, 4, 3, 2)
    laplacian = rescaled_laplacian(layout, weights, lambda_max)
    expected = chebyshev_convolution(nodes, kernels, layout, laplacian)
    # g(lambda) = sum over k of T_k(2 lambda / lambda_max - 1) W_k
    places = 2 * np.array(eigenvalues) / lambda_max - 1
    filters = jnp.asarray(np.polynomial.chebyshev.chebval(places, np.array(kernels)))
    filters = jnp.moveaxis(filters, -1, 0)
    actual = spectral_convolution(nodes, filters, eigenvectors)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_nodes", [8, 9])
def test_on_a_ring_it_is_circular_convolution(num_nodes):
    signal = np.random.default_rng(0).normal(size=num_nodes)
    kernel = np.zeros(num_nodes)
    kernel[[0, 1, -1, 3, -3]] = 0.5, 2.0, 2.0, -1.0, -1.0  # symmetric
    expected = np.fft.ifft(np.fft.fft(signal) * np.fft.fft(kernel)).real

    eigenvalues, eigenvectors = laplacian_eigenvectors(ring(num_nodes))
    # lambda = 1 - cos(2 pi k / n), and cos(3 a) follows from cos(a)
    cosine = np.clip(1 - np.array(eigenvalues, float), -1, 1)
    classical = 1 - np.cos(2 * np.pi * np.arange(num_nodes) / num_nodes)
    np.testing.assert_allclose(eigenvalues, np.sort(classical), atol=1e-6)
    response = 0.5 + 4 * cosine - 2 * np.cos(3 * np.arccos(cosine))
    filters = jnp.asarray(response[:, None, None], jnp.float32)
    actual = spectral_convolution(jnp.asarray(signal[:, None], jnp.float32), filters, eigenvectors)
    np.testing.assert_allclose(actual[:, 0], expected, atol=1e-5)


def test_heat_kernel_equals_the_matrix_exponential():
    layout, weights = example_graph()
    eigenvalues, eigenvectors = laplacian_eigenvectors(layout, weights)
    signal = normal(0, NUM_NODES, 1)
    filters = jnp.exp(-1.5 * eigenvalues)[:, None, None]
    actual = spectral_convolution(signal, filters, eigenvectors)
    laplacian = normalized_laplacian(layout, weights).toarray()
    expected = scipy.linalg.expm(-1.5 * laplacian) @ np.array(signal)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_convolution_is_a_sum_over_input_channels():
    _, eigenvectors = laplacian_eigenvectors(*example_graph())
    eigenvectors = eigenvectors[:, :5]
    nodes, filters = np.array(normal(0, NUM_NODES, 3)), np.array(normal(1, 5, 3, 2))
    bias = jnp.array([1.0, -1.0])
    basis, expected = np.array(eigenvectors), np.tile(np.array(bias), (NUM_NODES, 1))
    for f in range(3):
        for o in range(2):
            expected[:, o] += basis @ np.diag(filters[:, f, o]) @ basis.T @ nodes[:, f]
    actual = spectral_convolution(jnp.array(nodes), jnp.array(filters), eigenvectors, bias)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_gradients_in_float64():
    layout, weights = example_graph()
    with jax.enable_x64(True):
        _, eigenvectors = laplacian_eigenvectors(layout, weights)
        assert eigenvectors.dtype == jnp.float64
        rng = np.random.default_rng(0)
        arguments = rng.normal(size=(NUM_NODES, 3)), rng.normal(size=(NUM_NODES, 3, 2))
        check_grads(
            jax.jit(lambda nodes, filters: spectral_convolution(nodes, filters, eigenvectors)),
            tuple(map(jnp.asarray, arguments)),
            order=1,
        )


def test_interpolation_passes_through_its_control_points():
    for kind in ("cubic", "linear"):
        matrix = np.array(interpolation_matrix(13, 4, kind))
        np.testing.assert_allclose(matrix[::4], np.eye(4), atol=1e-6)
        np.testing.assert_allclose(matrix @ np.ones(4), np.ones(13), atol=1e-6)  # a constant
        np.testing.assert_allclose(matrix @ [0, 4, 8, 12], np.arange(13), atol=1e-5)  # a line
        np.testing.assert_allclose(interpolation_matrix(5, 5, kind), np.eye(5), atol=1e-6)
    values = np.array([1.0, -2.0, 0.5, 3.0])
    spline = scipy.interpolate.CubicSpline([0, 4, 8, 12], values, bc_type="natural")
    actual = np.array(interpolation_matrix(13, 4)) @ values
    np.testing.assert_allclose(actual, spline(np.arange(13)), atol=1e-5)
    expected = np.interp(np.arange(13), [0, 4, 8, 12], values)
    np.testing.assert_allclose(
        np.array(interpolation_matrix(13, 4, "linear")) @ values, expected, atol=1e-5
    )
    np.testing.assert_array_equal(interpolation_matrix(3, 1), np.ones((3, 1)))


def test_layer_with_control_points_has_the_filters_that_they_draw():
    _, eigenvectors = laplacian_eigenvectors(*example_graph())
    nodes = normal(0, NUM_NODES, 3)
    for kind in ("cubic", "linear"):
        layer = SpectralConvolution(2, num_control_points=4, interpolation=kind, use_bias=True)
        params = layer.init(jax.random.key(0), nodes, eigenvectors)["params"]
        assert jax.tree.map(jnp.shape, params) == {"filters": (4, 3, 2), "bias": (2,)}
        params["bias"] = jnp.array([1.0, -1.0])
        filters = np.tensordot(interpolation_matrix(NUM_NODES, 4, kind), params["filters"], 1)
        expected = spectral_convolution(nodes, jnp.array(filters), eigenvectors, params["bias"])
        actual = layer.apply({"params": params}, nodes, eigenvectors)
        np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_model_commutes_with_a_permutation_of_the_nodes():
    senders, receivers = np.array([0, *range(7)]), np.array([2, *range(1, 8)])
    nodes = np.array(normal(0, NUM_NODES, 3))
    model = SpectralNet(3, (4,), 2)

    def eigenvectors(place):
        ends = place[np.append(senders, receivers)], place[np.append(receivers, senders)]
        return laplacian_eigenvectors(edge_layout(*ends, NUM_NODES))

    eigenvalues, basis = eigenvectors(np.arange(NUM_NODES))
    assert np.diff(eigenvalues).min() > 1e-3, "the basis must be unique but for signs"
    params = model.init(jax.random.key(0), jnp.array(nodes), basis, train=False)
    logits = model.apply(params, jnp.array(nodes), basis, train=False)
    assert np.ptp(logits) > 1e-2
    order = np.array([3, 0, 4, 1, 7, 5, 2, 6])
    _, basis = eigenvectors(np.argsort(order))
    actual = model.apply(params, jnp.array(nodes[order]), basis, train=False)
    np.testing.assert_allclose(actual, logits[order], atol=1e-5)


def test_logits_are_the_layers_after_one_another_and_dropout_is_for_training():
    _, eigenvectors = laplacian_eigenvectors(*example_graph())
    nodes = np.array(normal(0, NUM_NODES, 5))
    model = SpectralNet(3, (4,), 2, activation=jnp.tanh, dropout_rate=0.5)
    apply = jax.jit(model.apply, static_argnames=("train", "method"))
    for features in (jnp.array(nodes), sparse_rows(nodes)):
        params = model.init(jax.random.key(0), features, eigenvectors, train=False)
        layers = params["params"]

        def draw(train, seed=0, params=params, features=features, **options):
            rngs = {"dropout": jax.random.key(seed)}
            return apply(params, features, eigenvectors, train=train, rngs=rngs, **options)

        hidden = jnp.array(nodes) @ layers["projection"]
        hidden = spectral_convolution(hidden, layers["layers_0"]["filters"], eigenvectors)
        hidden = jnp.tanh(hidden)
        np.testing.assert_allclose(draw(False, method=SpectralNet.embed), hidden, atol=1e-5)
        expected = spectral_convolution(hidden, layers["head"]["filters"], eigenvectors)
        np.testing.assert_allclose(draw(False), expected, atol=1e-5)
        np.testing.assert_array_equal(draw(True), draw(True))
        assert np.abs(draw(True) - draw(True, seed=1)).max() > 1e-3


def test_graphs_without_edges_or_nodes():
    nothing = np.array([], int)
    eigenvalues, eigenvectors = laplacian_eigenvectors(edge_layout(nothing, nothing, 3))
    np.testing.assert_array_equal(eigenvalues, np.ones(3))
    filters = jnp.full((3, 1, 1), 2.0)  # the Laplacian is the identity: a factor of 2 everywhere
    np.testing.assert_allclose(
        spectral_convolution(normal(0, 3, 1), filters, eigenvectors), 2 * normal(0, 3, 1), rtol=1e-6
    )
    eigenvalues, eigenvectors = laplacian_eigenvectors(edge_layout(nothing, nothing, 0))
    assert eigenvectors.shape == (0, 0)
    assert eigenvalues.shape == (0,)


def test_bad_input_is_refused_with_the_fix():
    with pytest.raises(InputError, match="symmetrize"):
        laplacian_eigenvectors(edge_layout([0, 1], [1, 2], 3))
    for count in (0, 9):
        with pytest.raises(InputError, match=f"num_frequencies = {count}.*1 to 8"):
            laplacian_eigenvectors(ring(8), num_frequencies=count)
        with pytest.raises(InputError, match=f"num_control_points = {count}.*1 to 8"):
            interpolation_matrix(8, count)
    with pytest.raises(InputError, match="'quadratic': 'cubic' or 'linear'"):
        interpolation_matrix(8, 3, "quadratic")
    many = EdgeLayout(*[jnp.zeros(0, jnp.int32)] * 4, None, None, 100_000, 100_000)
    with pytest.raises(InputError, match=r"100000 nodes.*298 GiB.*chebyshev"):
        laplacian_eigenvectors(many)
