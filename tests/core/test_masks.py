"""Masked means and softmaxes against NumPy on the values that count, and what must not leak."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st
from jax.test_util import check_grads

from structdl.core.masks import length_mask, masked_mean, masked_softmax

SHAPE = (3, 4)


@st.composite
def masked_values(draw):
    """Values of one shape with any mask, rows without anything that counts included."""
    bits = st.lists(st.booleans(), min_size=12, max_size=12)
    mask = np.array(draw(bits)).reshape(SHAPE)
    values = np.random.default_rng(int(mask.sum())).normal(scale=5, size=SHAPE)
    return values.astype(np.float32), mask


def test_length_mask_by_hand():
    mask = length_mask(jnp.array([[0, 1], [3, 9]]), 3)
    expected = [[[0, 0, 0], [1, 0, 0]], [[1, 1, 1], [1, 1, 1]]]
    np.testing.assert_array_equal(mask, np.array(expected, bool))


@given(masked_values())
def test_masked_mean_equals_numpy_on_what_counts(case):
    values, mask = case
    expected = [
        row[kept].mean() if kept.any() else 0 for row, kept in zip(values, mask, strict=True)
    ]
    actual = masked_mean(jnp.array(np.where(mask, values, np.nan)), jnp.array(mask), axis=1)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    overall = values[mask].mean() if mask.any() else 0
    actual = masked_mean(jnp.array(values), jnp.array(mask))
    np.testing.assert_allclose(actual, overall, rtol=1e-5, atol=1e-6)


def test_masked_mean_shares_the_mask_among_missing_and_unit_dimensions():
    values = jnp.arange(12.0).reshape(2, 3, 2)  # [batch, time, features]
    mask = jnp.array([[True, True, False], [False, True, False]])
    expected = [[1.0, 2.0], [8.0, 9.0]]
    np.testing.assert_allclose(masked_mean(values, mask, axis=1), expected)
    np.testing.assert_allclose(masked_mean(values, mask[..., None], axis=1), expected)
    np.testing.assert_allclose(masked_mean(values, mask, axis=(1, 2)), [1.5, 8.5])


@given(masked_values())
def test_masked_softmax_equals_numpy_on_what_counts(case):
    values, mask = case
    expected = np.zeros(SHAPE)
    for row, kept in enumerate(mask):
        powers = np.exp(values[row, kept].astype(float))
        expected[row, kept] = powers / powers.sum()
    actual = masked_softmax(jnp.array(np.where(mask, values, np.nan)), jnp.array(mask))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    transposed = masked_softmax(jnp.array(values.T), jnp.array(mask.T), axis=0)
    np.testing.assert_allclose(transposed, expected.T, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("function", [masked_mean, masked_softmax])
@pytest.mark.parametrize("padding", [jnp.nan, jnp.inf, -jnp.inf, 1e30])
def test_padding_changes_neither_result_nor_gradient(function, padding):
    mask = jnp.array([[True, True, False], [False, False, False], [True, False, False]])
    values = jnp.array([[1.0, -2.0, 0.0], [0.0, 0.0, 0.0], [-1000.0, 0.0, 0.0]])

    def total(values):
        return jnp.sum(jnp.sin(function(values, mask, axis=1)))

    value_and_grad = jax.jit(jax.value_and_grad(total))
    expected, expected_grad = value_and_grad(values)
    actual, actual_grad = value_and_grad(jnp.where(mask, values, padding))
    assert np.isfinite(expected)
    assert np.isfinite(expected_grad).all()
    assert expected_grad[0, 0] != 0
    np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(actual_grad, expected_grad)
    np.testing.assert_array_equal(expected_grad[~np.array(mask)], 0)


def test_a_nan_that_counts_is_not_hidden():
    mask = jnp.array([True, True, False])
    assert np.isnan(masked_mean(jnp.array([1.0, jnp.nan, 0.0]), mask))
    assert np.isnan(masked_softmax(jnp.array([1.0, jnp.nan, 0.0]), mask)[:2]).all()


def test_gradients_in_float64():
    mask = jnp.array([[True, True, False], [False, False, False]])
    with jax.enable_x64(True):
        values = jnp.array([[0.3, -1.2, 0.7], [0.1, 0.2, 0.3]], dtype=jnp.float64)
        for function in (masked_mean, masked_softmax):
            jitted = jax.jit(partial(function, mask=mask, axis=1))
            check_grads(jitted, (values,), order=2)
