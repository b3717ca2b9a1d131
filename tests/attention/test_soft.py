"""Soft attention against a loop in NumPy, and against PyTorch."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structdl.attention.soft import (
    GlobalAttention,
    dot_scores,
    general_scores,
    soft_attention,
)

MASK = np.array([[True, True, False, True], [True, False, False, False], [False] * 4])


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    shapes = ((3, 2, 5), (3, 4, 6), (3, 4, 7), (5, 6))
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def by_hand(queries, keys, values, kernel):
    """Contexts and weights, query by query and place by place."""
    contexts = np.zeros((3, 2, values.shape[-1]))
    weights = np.zeros((3, 2, 4))
    for b, q in np.ndindex(3, 2):
        places = np.flatnonzero(MASK[b])
        scores = [float(queries[b, q] @ kernel @ keys[b, place]) for place in places]
        powers = np.exp(np.array(scores) - max(scores, default=0))
        for place, power in zip(places, powers, strict=True):
            weights[b, q, place] = power / powers.sum()
            contexts[b, q] += weights[b, q, place] * values[b, place]
    return contexts, weights


def test_it_equals_a_loop(arrays):
    queries, keys, values, kernel = arrays
    scores = general_scores(queries, keys, kernel)
    found = soft_attention(scores, values, jnp.asarray(MASK))
    for array, expected in zip(found, by_hand(*map(np.asarray, arrays)), strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-6)


def test_what_is_masked_out_changes_neither_result_nor_gradient(arrays):
    queries, keys, values, kernel = arrays

    def total(keys, values):
        context, weights = soft_attention(
            general_scores(queries, keys, kernel), values, jnp.asarray(MASK)
        )
        return jnp.sum(context**2) + jnp.sum(weights**2)

    found = jax.value_and_grad(total, argnums=(0, 1))(keys, values)
    hidden = ~jnp.asarray(MASK)[..., None]
    changed = jnp.where(hidden, 100.0, keys), jnp.where(hidden, jnp.nan, values)
    chex.assert_trees_all_equal(found, jax.value_and_grad(total, argnums=(0, 1))(*changed))
    chex.assert_tree_all_finite(found)


def test_without_a_mask_all_places_count(arrays):
    queries, keys, values, kernel = arrays
    scores = dot_scores(queries @ kernel, keys)
    chex.assert_trees_all_equal(
        soft_attention(scores, values),
        soft_attention(scores, values, jnp.ones((3, 4), bool)),
    )
    np.testing.assert_allclose(soft_attention(scores, values)[1].sum(axis=-1), 1, rtol=1e-6)


@pytest.mark.parametrize("without_batch", [False, True])
def test_axes_in_front_are_shared(arrays, without_batch):
    queries, keys, values, kernel = arrays
    scores, mask = general_scores(queries, keys, kernel), jnp.asarray(MASK)
    whole = soft_attention(scores, values, mask)
    if without_batch:
        found = soft_attention(scores[0], values[0], mask[0])
        chex.assert_trees_all_close(found, jax.tree.map(lambda leaf: leaf[0], whole), rtol=1e-6)
    else:
        chex.assert_trees_all_close(
            jax.vmap(soft_attention)(scores, values, mask), whole, rtol=1e-6
        )


@pytest.mark.peers
def test_it_equals_pytorch(arrays):
    torch = pytest.importorskip("torch")
    queries, keys, values, kernel = arrays
    projected = queries @ kernel
    scores = dot_scores(projected, keys) / np.sqrt(projected.shape[-1])
    found, _ = soft_attention(scores[:2], values[:2], jnp.asarray(MASK[:2]))
    tensors = [torch.tensor(np.asarray(array)[:2]) for array in (projected, keys, values)]
    expected = torch.nn.functional.scaled_dot_product_attention(
        *tensors, attn_mask=torch.tensor(MASK[:2])[:, None]
    )
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_the_module_is_the_equation(arrays):
    queries, keys, _, _ = arrays
    module, mask = GlobalAttention(3), jnp.asarray(MASK)
    variables = module.init(jax.random.key(0), queries, keys, mask)
    kernel = variables["params"]["kernel"]
    combine = np.asarray(variables["params"]["combine"]["kernel"])
    contexts, _ = by_hand(*map(np.asarray, (queries, keys, keys, kernel)))
    expected = np.tanh(np.concatenate([contexts, queries], axis=-1) @ combine)
    found = module.apply(variables, queries, keys, mask)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_masked_places_change_no_gradient_of_the_module(arrays):
    queries, keys, _, _ = arrays
    module, mask = GlobalAttention(3), jnp.asarray(MASK)
    variables = module.init(jax.random.key(0), queries, keys, mask)

    @jax.jit
    def gradients(keys):
        total = lambda *args: jnp.sum(module.apply(*args, keys, mask))  # noqa: E731
        return jax.grad(total, argnums=(0, 1))(variables, queries)

    found = gradients(jnp.where(mask[..., None], keys, jnp.nan))
    chex.assert_tree_all_finite(found)
    chex.assert_trees_all_equal(found, gradients(jnp.where(mask[..., None], keys, 7.0)))


def test_without_any_place_the_context_is_zeros():
    context, weights = soft_attention(jnp.zeros((2, 0)), jnp.zeros((0, 3)))
    assert context.tolist() == [[0.0] * 3] * 2
    assert weights.shape == (2, 0)
