"""Sparse rows against the same matrix kept dense: products, gradients, dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, strategies as st
from jax.test_util import check_grads

from structdl.core.sparse import as_features, dropout, matmul, normalize_rows, sparse_rows
from structdl.errors import InputError


def make_matrix(seed=0, shape=(5, 4)):
    """A random matrix with an empty row and an empty column."""
    matrix = np.random.default_rng(seed).normal(size=shape) * (np.arange(20).reshape(shape) % 3 < 2)
    matrix[2], matrix[:, 1] = 0, 0
    return matrix.astype(np.float32)


def make_kernel(seed=0):
    return jax.random.normal(jax.random.key(seed), (4, 3))


def ones_matrix():
    return scipy.sparse.csr_array(np.ones((60, 100), np.float32))


@given(st.integers(0, 10**6), st.sampled_from(["csr", "csc", "coo", "lil"]))
def test_product_equals_a_loop_over_the_entries(seed, form):
    matrix, kernel = make_matrix(seed), make_kernel(seed)
    expected = np.zeros((5, 3))
    for row, column in np.argwhere(matrix):
        expected[row] += float(matrix[row, column]) * np.array(kernel[column], float)
    sparse = sparse_rows(scipy.sparse.coo_array(matrix).asformat(form))
    assert (sparse.num_rows, sparse.num_columns) == (5, 4)
    np.testing.assert_allclose(matmul(sparse, kernel), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(matmul(jnp.array(matrix), kernel), expected, rtol=1e-5, atol=1e-6)


def test_gradient_of_the_kernel_equals_that_of_the_dense_product():
    matrix, kernel = make_matrix(), make_kernel()

    @jax.jit
    def gradient(x, kernel):
        return jax.grad(lambda kernel: jnp.sum(jnp.sin(matmul(x, kernel))))(kernel)

    expected = gradient(jnp.array(matrix), kernel)
    np.testing.assert_allclose(
        gradient(sparse_rows(matrix), kernel), expected, rtol=1e-5, atol=1e-6
    )
    assert np.abs(expected).max() > 0.1


def test_gradients_in_float64():
    with jax.enable_x64(True):
        sparse = sparse_rows(make_matrix().astype(np.float64))
        assert sparse.values.dtype == jnp.float64

        @jax.jit
        def product(values, kernel):
            return matmul(sparse._replace(values=values), kernel)

        arguments = (sparse.values, make_kernel().astype(jnp.float64))
        check_grads(product, arguments, order=2, modes="rev")


def test_duplicates_are_summed_and_integers_become_floats():
    matrix = scipy.sparse.csr_array(([1, 2, 4], [1, 1, 0], [0, 2, 3]), shape=(2, 2))
    product = matmul(sparse_rows(matrix), jnp.eye(2))
    assert product.dtype == jnp.float32
    np.testing.assert_array_equal(product, [[0, 3], [4, 0]])
    np.testing.assert_array_equal(matrix.data, [1, 2, 4], err_msg="the given matrix was changed")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("column", [0, 2])
@pytest.mark.parametrize("function", [sparse_rows, normalize_rows])
def test_what_is_not_finite_is_named_with_its_place(function, column, bad):
    matrix = make_matrix()
    matrix[3, column] = bad
    with pytest.raises(InputError, match=rf"matrix\[3, {column}\] = {bad}.*finite"):
        function(matrix)


def test_normalize_rows_by_hand():
    matrix = np.array([[1, 0, 3], [0, 0, 0], [2, -2, 0]])
    for given_matrix in (matrix, scipy.sparse.csc_matrix(matrix)):
        rows = normalize_rows(given_matrix)
        assert scipy.sparse.issparse(rows)
        np.testing.assert_allclose(rows.toarray(), [[0.25, 0, 0.75], [0, 0, 0], [0, 0, 0]])
    assert normalize_rows(matrix.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("make", [sparse_rows, lambda matrix: jnp.array(matrix.toarray())])
def test_dropout_keeps_the_mean_and_drops_at_its_rate(make):
    rate, x = 0.3, make(ones_matrix())

    def draw(seed):
        dropped = dropout(jax.random.key(seed), x, rate)
        return np.array(getattr(dropped, "values", dropped)).ravel()

    values = draw(0)
    dropped = np.mean(values == 0)
    # 6000 draws: five standard errors
    assert abs(dropped - rate) < 5 * np.sqrt(rate * (1 - rate) / values.size)
    np.testing.assert_allclose(values[values != 0], 1 / (1 - rate), rtol=1e-6)
    np.testing.assert_array_equal(values, draw(0))
    assert np.mean(values != draw(1)) > 0.3


def test_dropout_at_rate_zero_returns_its_input():
    x = sparse_rows(ones_matrix())
    assert dropout(jax.random.key(0), x, 0.0) is x
    assert dropout(jax.random.key(0), x.values, 0.0) is x.values


@pytest.mark.parametrize("rate", [-0.1, 1.0, 50.0, float("nan")])
def test_dropout_names_a_rate_out_of_range(rate):
    with pytest.raises(InputError, match=rf"rate = {rate}.*0 <= rate < 1"):
        dropout(jax.random.key(0), jnp.ones(2), rate)


def test_seeds_under_vmap_equal_one_after_another():
    sparse, kernels = sparse_rows(make_matrix()), jnp.stack([make_kernel(0), make_kernel(1)])
    keys = jax.random.split(jax.random.key(2), 2)

    def loss(kernel, key, x):
        return jnp.sum(jnp.sin(matmul(dropout(key, x, 0.5), kernel)))

    value_and_grad = jax.value_and_grad(loss)
    together = jax.jit(jax.vmap(value_and_grad, in_axes=(0, 0, None)))(kernels, keys, sparse)
    alone = jax.jit(value_and_grad)
    for seed, key in enumerate(jax.random.split(jax.random.key(2), 2)):
        value, gradient = alone(kernels[seed], key, sparse)
        np.testing.assert_allclose(together[0][seed], value, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(together[1][seed], gradient, rtol=1e-5, atol=1e-6)
    assert abs(together[0][0] - together[0][1]) > 1e-3


def test_a_scipy_matrix_is_refused_with_the_way_out():
    """By the seam of all layers: its layout is built once, and not in every call."""
    with pytest.raises(InputError, match=r"\(2, 3\).*sparse_rows\(matrix\)"):
        as_features(scipy.sparse.csr_array((2, 3)))
    assert as_features(None) is None
