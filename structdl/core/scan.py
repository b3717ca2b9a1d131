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
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from structdl.core.linear import multilinear
from structdl.core.masks import length_mask, select
from structdl.errors import InputError


def check_lengths(lengths, *, batch, time, name: str = "lengths") -> None:
    """Refuses lengths that are not those of the sequences in an array [batch, time, ...].

    Every function that takes lengths calls it. Under jit lengths have a shape and a dtype but no
    values to check: there a length beyond the array counts as the whole array, and a negative one
    as 0. `batch` and `time` are ints, or symbolic sizes under `jax.export`.

    Raises:
      InputError: the lengths are not one integer per sequence, or one is below 0 or above `time`.

    >>> check_lengths(jnp.array([3, 0]), batch=2, time=3)
    """
    is_traced = isinstance(lengths, jax.core.Tracer)
    lengths = lengths if is_traced else np.asarray(lengths)
    whole = lengths.size == 0 or lengths.dtype.kind in "iu"
    if lengths.shape != (batch,) or not whole:
        raise InputError(
            f"{name} has shape {lengths.shape} and dtype {lengths.dtype}: it must be one integer "
            f"for each sequence of the batch, of shape ({batch},)"
        )
    if is_traced:
        return
    bad = np.flatnonzero((lengths < 0) | (lengths > time))
    if bad.size:
        raise InputError(
            f"{name}[{bad[0]}] = {lengths[bad[0]]} (one of {bad.size} such values): sequences in "
            f"an array of {time} elements have 0 to {time} of them; mend the length, or pad the "
            "array further"
        )


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
      InputError: xs has no arrays, or one without time; the lengths are not those of the sequences,
        see `check_lengths`.
      AssertionError: arrays of xs and carry disagree on batch or time.

    >>> running_sum = lambda params, carry, x: (carry + x, carry + x)
    >>> unroll(running_sum, (), jnp.zeros(2), jnp.ones((2, 3)), lengths=jnp.array([3, 1]))
    (Array([3., 1.], dtype=float32), Array([[1., 2., 3.],
           [1., 0., 0.]], dtype=float32))
    """

    def masked_step(carry, inputs):
        x, valid = inputs
        new_carry, y = step(params, carry, x)
        return _keep(valid, new_carry, carry), _keep(valid, y)

    time_major = _time_major(carry, xs, lengths)
    carry, ys = jax.lax.scan(masked_step, carry, time_major, reverse=reverse, unroll=unroll)
    return carry, _swap_batch_and_time(ys)


class AffineParams(NamedTuple):
    """The two products of a recurrent step; the gates of a cell lie side by side in the columns."""

    input_kernel: jax.Array  # W, [in_features, gates]
    input_bias: jax.Array  # b, [gates]
    recurrent_kernel: jax.Array  # U, [hidden, gates]
    recurrent_bias: jax.Array | None = None  # c, [gates]; None means 0


def unroll_affine(
    update: Callable[[Any, Any, Any], Any],
    params: AffineParams,
    carry: PyTree[Float[Array, "batch hidden"]],
    xs: Float[Array, "batch time in_features"],
    *,
    lengths: Int[Array, " batch"] | None = None,
    reverse: bool = False,
) -> tuple[PyTree[Float[Array, "batch hidden"]], Float[Array, "batch time hidden"]]:
    """`unroll` for cells of two products and a pointwise rest, with a faster derivative.

    carry_t = update(x_t W + b, hidden_{t-1} U + c, carry_{t-1}),  y_t = hidden_t

    hidden is the last leaf of the carry. The derivative is written by hand: the reverse loop
    differentiates `update` alone and takes one product with U a step, and the gradients of W, U and
    the biases are then one product each, over batch and time. On CPU a training step takes 0.5 to
    0.9 of the time of `unroll`'s, least where the layer is wide for its batch; 1.1 for tanh units
    whose inputs are narrow, of 1 or 2 features. Derivatives are reverse mode only;
    second ones equal those of `unroll`.

    Args:
      update: `(from_input, from_carry, carry) -> carry`, pointwise in the batch; it may not close
        over an array that is differentiated or traced. What its own derivative keeps is kept for
        every step: a `jax.custom_vjp` of it may keep less.
      params: W, b, U and c.
      carry, xs, lengths, reverse: as in `unroll`. Weight gradients sum over batch and time at
        once: more padding may change their last bits, what stands in it does not.

    Raises:
      InputError: the lengths are not those of the sequences; see `check_lengths`.
      AssertionError: other shapes disagree.
    """
    hidden = _hidden(carry).shape[-1]
    gates = params.recurrent_kernel.shape[1]
    chex.assert_shape(params.input_kernel, (xs.shape[-1], gates))
    chex.assert_shape(params.recurrent_kernel, (hidden, gates))
    biases = [bias for bias in (params.input_bias, params.recurrent_bias) if bias is not None]
    chex.assert_shape(biases, (gates,))
    xs, valid = _time_major(carry, xs, lengths)
    carry, states = _run_affine(update, reverse, params, carry, xs, valid)
    return carry, _swap_batch_and_time(_keep(valid, states))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _run_affine(update, reverse, params, carry, xs, valid):
    """The last carry and the hidden states, time first."""
    return _affine_forward(update, reverse, params, carry, xs, valid)[0]


def _affine_forward(update, reverse, params, carry, xs, valid):
    """The result, and what the derivative keeps of every step."""

    def step(carry, inputs):
        x, valid = inputs
        from_input = _affine(x, params.input_kernel, params.input_bias)
        from_carry = _affine(_hidden(carry), params.recurrent_kernel, params.recurrent_bias)
        new_carry, pullback = jax.vjp(update, from_input, from_carry, carry)
        new_carry = _keep(valid, new_carry, carry)
        return new_carry, (_hidden(new_carry), pullback)

    last, (states, pullbacks) = jax.lax.scan(step, carry, (xs, valid), reverse=reverse)
    return (last, states), (params, _hidden(carry), xs, valid, states, pullbacks)


def _affine_backward(update, reverse, kept, cotangents):
    """The cotangents of params, carry and xs: a loop, and then one product for each kernel."""
    params, first, xs, valid, states, pullbacks = kept
    transposed = params.recurrent_kernel.T  # once, not once a step

    def step(carry_bar, inputs):
        state_bar, valid, pullback = inputs
        carry_bar = _add_to_hidden(carry_bar, state_bar)
        input_bar, from_carry_bar, old_bar = pullback(_keep(valid, carry_bar))
        old_bar = _add_to_hidden(old_bar, from_carry_bar @ transposed)
        # where update adds the two, both cotangents are one array, which is stored once
        shared = from_carry_bar is input_bar
        return _keep(valid, old_bar, carry_bar), (input_bar, None if shared else from_carry_bar)

    last_bar, states_bar = cotangents
    carry_bar, (input_bar, from_carry_bar) = jax.lax.scan(
        step, last_bar, (states_bar, valid, pullbacks), reverse=not reverse
    )
    from_carry_bar = input_bar if from_carry_bar is None else from_carry_bar
    if reverse:
        before = jnp.concatenate([states, first[None]])[1:]
    else:
        before = jnp.concatenate([first[None], states])[:-1]
    has_bias = params.recurrent_bias is not None
    params_bar = AffineParams(
        _sum_outer(xs, input_bar),
        jnp.sum(input_bar, axis=(0, 1)),
        _sum_outer(before, from_carry_bar),
        jnp.sum(from_carry_bar, axis=(0, 1)) if has_bias else None,
    )
    return params_bar, carry_bar, input_bar @ params.input_kernel.T, None


_run_affine.defvjp(_affine_forward, _affine_backward)


def reverse_within(
    values: Shaped[Array, "batch time ..."], lengths: Int[Array, " batch"]
) -> Shaped[Array, "batch time ..."]:
    """Right-padded sequences from their own last element to their first; the padding stays.

    Raises:
      InputError: the lengths are not those of the sequences; see `check_lengths`.

    >>> reverse_within(jnp.array([[1.0, 2.0, 0.0]]), jnp.array([2])).tolist()
    [[2.0, 1.0, 0.0]]
    """
    batch, time = values.shape[:2]
    check_lengths(lengths, batch=batch, time=time)
    return _reverse(values, jnp.minimum(lengths, time))


def _reverse(values, lengths):
    # it undoes itself, so it is its own transpose; JAX's transpose of a gather is a slow scatter
    return multilinear(_reversed_within, (_reverse_cotangent,), (values,), lengths)


def _reverse_cotangent(cotangent, _, lengths):
    return _reverse(cotangent, lengths)


def _reversed_within(linear, lengths):
    (values,) = linear
    time = values.shape[1]
    places = jnp.broadcast_to(jnp.arange(time)[None], values.shape[:2])
    places = jnp.where(length_mask(lengths, time), lengths[:, None] - 1 - places, places)
    return jax.vmap(lambda row, order: row[order])(values, places)


def _hidden(carry):
    return jax.tree.leaves(carry)[-1]


def _add_to_hidden(carry, addend):
    *others, hidden = jax.tree.leaves(carry)
    return jax.tree.unflatten(jax.tree.structure(carry), [*others, hidden + addend])


def _affine(x, kernel, bias):
    product = x @ kernel
    return product if bias is None else product + bias[None]


def _sum_outer(left, right):
    """The sum over time and batch of the outer products of two sequences of vectors."""
    # axes merged by reshape would be gathered where the batch is divided over devices
    return jnp.tensordot(left, right, axes=((0, 1), (0, 1)))


def _time_major(carry, xs, lengths) -> tuple[PyTree[Array], Bool[Array, "time batch"] | None]:
    """The inputs with time in front, for a loop to slice, and where they are not padding."""
    leaves = jax.tree.leaves(xs)
    if not leaves or min(leaf.ndim for leaf in leaves) < 2:
        shapes = [leaf.shape for leaf in leaves]
        raise InputError(f"xs has arrays of the shapes {shapes}: give arrays [batch, time, ...]")
    batch, time = leaves[0].shape[:2]
    chex.assert_tree_shape_prefix(xs, (batch, time))
    chex.assert_tree_shape_prefix(carry, (batch,))
    valid = None
    if lengths is not None:
        check_lengths(lengths, batch=batch, time=time)
        valid = length_mask(lengths, time)
    # a NaN times a zero cotangent is a NaN: the padding goes before the step sees it
    return _swap_batch_and_time((_keep(valid, xs), valid))


def _swap_batch_and_time(tree):
    return jax.tree.map(lambda array: jnp.swapaxes(array, 0, 1), tree)


def _keep(valid: Array | None, tree, others=None):
    """The arrays where they are valid, the others (zeros) elsewhere; None is valid everywhere."""
    if valid is None:
        return tree
    others = jax.tree.map(jnp.zeros_like, tree) if others is None else others
    return jax.tree.map(partial(select, valid), tree, others)
