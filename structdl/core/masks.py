"""Masks, and the means and softmaxes that honour them: what is masked out never leaks.

A mask is True where a value counts. It has the rank of the values, or fewer: the trailing
dimensions that it lacks are shared, and so are its dimensions of size 1.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

Axis = int | tuple[int, ...]


def length_mask(lengths: Int[Array, "*batch"], size: int) -> Bool[Array, "*batch {size}"]:
    """The mask of right-padded sequences: mask[..., t] = t < lengths[...].

    >>> length_mask(jnp.array([2, 0]), 3)
    Array([[ True,  True, False],
           [False, False, False]], dtype=bool)
    """
    positions = jnp.arange(size).reshape((1,) * lengths.ndim + (size,))
    return positions < lengths[..., None]


def select(
    mask: Bool[Array, "..."],
    values: Shaped[Array, "*shape"],
    others: Shaped[Array, "..."] | float | int,
) -> Shaped[Array, "*shape"]:
    """`values` where the mask is True, `others` elsewhere; the mask is shared as said above."""
    shared = mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim))
    return jnp.where(shared, values, others)


def masked_mean(
    values: Float[Array, "*shape"], mask: Bool[Array, "..."], axis: Axis | None = None
) -> Float[Array, "..."]:
    """The mean over the values that count: sum(mask * values) / sum(mask).

    A mean over nothing is 0, and its gradient is 0. A NaN at a masked place changes neither the
    mean nor the gradient.

    >>> float(masked_mean(jnp.array([1.0, 2.0, jnp.nan]), jnp.array([True, True, False])))
    1.5
    """
    total = jnp.sum(select(mask, values, 0), axis=axis)
    count = jnp.sum(select(mask, jnp.ones_like(values), 0), axis=axis)
    return total / jnp.maximum(count, 1)


def masked_softmax(
    logits: Float[Array, "*shape"], mask: Bool[Array, "..."], axis: Axis = -1
) -> Float[Array, "*shape"]:
    """The softmax over the logits that count; the others get 0.

    A row without any logit that counts is zeros, and so is its gradient. A NaN at a masked place
    changes neither the result nor the gradient.

    >>> masked_softmax(jnp.array([[0.0, 0.0, jnp.nan]]), jnp.array([[True, True, False]]))
    Array([[0.5, 0.5, 0. ]], dtype=float32)
    """
    # initial: there may be no logits at all
    largest = jnp.max(select(mask, logits, -jnp.inf), axis=axis, keepdims=True, initial=-jnp.inf)
    shift = jax.lax.stop_gradient(jnp.where(jnp.isfinite(largest), largest, 0))
    # masked logits become the shift itself: exp(0) has a finite gradient, exp(0 - shift) may not
    powers = jnp.exp(select(mask, logits, shift) - shift)
    weights = select(mask, powers, 0)
    total = jnp.sum(weights, axis=axis, keepdims=True)
    return weights / jnp.where(total == 0, 1, total)
