"""Recurrences over time: the one place that handles time axes and sequence lengths.

Lengths are those of right-padded sequences. Past its end a sequence's carry is frozen and its
outputs are zeros, so that the carry returned is the state at each sequence's own end; a sequence
of length 0 returns the carry that it came with. In reverse a sequence starts at its own last
element, and the carry returned is the state after its element 0. What stands in the padding, NaN
included, changes no bit of a result or of a gradient: the step sees zeros there, at which it must
be finite.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree, Shaped

from structdl.core.masks import length_mask, select


def unroll(
    step: Callable[[Any, Any, Any], tuple[Any, Any]],
    params: Any,
    carry: PyTree[Shaped[Array, "batch ..."]],
    xs: PyTree[Shaped[Array, "batch time ..."]],
    *,
    lengths: Int[Array, " batch"] | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
) -> tuple[PyTree[Shaped[Array, "batch ..."]], PyTree[Shaped[Array, "batch time ..."]]]:
    """Runs a recurrent step over time: carry_t, y_t = step(params, carry_{t-1}, x_t).

    Returns the last carry and the outputs, batch first, each at the time of its input; see the top
    of this file for lengths and padding. What is random in a step is drawn beforehand, into xs.

    Args:
      step: a pure function of one time step for the whole batch, `(params, carry, x) -> (carry,
        y)`; carry, x and y are pytrees of arrays [batch, ...].
      params: what every step shares; a pytree of any shapes.
      carry: the initial carry; every step must keep its structure, shapes and dtypes.
      xs: the inputs, a pytree with at least one array.
      lengths: the number of elements of each sequence; None means all of them.
      reverse: whether time runs from the last element to the first.
      unroll: how many steps one iteration of the compiled loop holds (True: all, no loop). The
        result does not depend on it; on CPU a convolution inside the loop is many times slower
        than one outside it.

    Raises:
      AssertionError: arrays of xs, carry or lengths disagree on batch or time.

    >>> running_sum = lambda params, carry, x: (carry + x, carry + x)
    >>> unroll(running_sum, (), jnp.zeros(2), jnp.ones((2, 3)), lengths=jnp.array([3, 1]))
    (Array([3., 1.], dtype=float32), Array([[1., 2., 3.],
           [1., 0., 0.]], dtype=float32))
    """
    batch, time = jax.tree.leaves(xs)[0].shape[:2]
    chex.assert_tree_shape_prefix(xs, (batch, time))
    chex.assert_tree_shape_prefix(carry, (batch,))
    valid = None
    if lengths is not None:
        chex.assert_shape(lengths, (batch,))
        valid = length_mask(lengths, time)
        # a NaN times a zero cotangent is a NaN: the padding goes before the step sees it
        xs = jax.tree.map(partial(_keep, valid), xs)

    def masked_step(carry, inputs):
        x, valid_now = inputs
        new_carry, y = step(params, carry, x)
        if valid_now is not None:
            new_carry = jax.tree.map(partial(_keep, valid_now), new_carry, carry)
            y = jax.tree.map(partial(_keep, valid_now), y)
        return new_carry, y

    # the loop slices its leading axis: one transposition before it, one after
    time_major = jax.tree.map(_swap_batch_and_time, (xs, valid))
    carry, ys = jax.lax.scan(masked_step, carry, time_major, reverse=reverse, unroll=unroll)
    return carry, jax.tree.map(_swap_batch_and_time, ys)


def _swap_batch_and_time(array: Array) -> Array:
    return jnp.swapaxes(array, 0, 1)


def _keep(valid: Array, array: Array, other: Array | None = None) -> Array:
    """The array where it is valid, the other (zeros) elsewhere."""
    return select(valid, array, jnp.zeros_like(array) if other is None else other)
