"""One recurrent layer over time, in one direction: `(params, carry, xs) -> (carry, ys)`.

Lengths are those of right-padded sequences, as in `structdl.core.scan`: the carry returned is the
state at each sequence's own end, in reverse that after element 0, and outputs are zeros past it.

How it is computed is `method`:
  "auto"            "fused_backward" where the cell has that form and gains by it, else "scan".
  "fused_backward"  `unroll_affine`: weight gradients by one product after the reverse loop.
  "scan"            `unroll` and JAX's own derivative: also forward mode and higher orders.
  "cudnn"           the LSTM of cuDNN, on an NVIDIA GPU, in float32, and not under vmap. No GPU was
                    at hand: its packing is tested, its speed is unmeasured, and "auto" does not
                    choose it.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from structdl.core.masks import length_mask, select
from structdl.core.scan import (
    AffineParams,
    check_lengths,
    reverse_within,
    unroll,
    unroll_affine,
)
from structdl.errors import InputError, require_known
from structdl.recurrent.cells import (
    GRUParams,
    LSTMParams,
    RNNParams,
    gru_step,
    lstm_step,
    rnn_step,
)

Method = Literal["auto", "fused_backward", "scan"]
LSTMMethod = Literal["auto", "fused_backward", "scan", "cudnn"]
State = Float[Array, "batch hidden"]
Inputs = Float[Array, "batch time in_features"]
Outputs = Float[Array, "batch time hidden"]


def rnn_layer(
    params: RNNParams,
    carry: State,
    xs: Inputs,
    *,
    activation: Callable = jnp.tanh,
    lengths: Int[Array, " batch"] | None = None,
    reverse: bool = False,
    method: Method = "auto",
) -> tuple[State, Outputs]:
    """`rnn_step` over time; see the top of this file.

    An activation with arrays of its own that are to be learned needs method="scan".

    Raises:
      InputError: an unknown method.
    """
    require_known("method", method, get_args(Method))
    in_features, hidden = params.input_kernel.shape
    # measured on CPU: of a narrow input storing the units' cotangents costs more than it saves
    narrow = 16 * in_features <= hidden
    if method == "scan" or (method == "auto" and narrow):
        step = partial(rnn_step, activation=activation)
        return unroll(step, params, carry, xs, lengths=lengths, reverse=reverse)

    def update(from_input, from_carry, carry):
        return activation(from_input + from_carry)

    products = AffineParams(params.input_kernel, params.bias, params.recurrent_kernel)
    return unroll_affine(update, products, carry, xs, lengths=lengths, reverse=reverse)


def gru_layer(
    params: GRUParams,
    carry: State,
    xs: Inputs,
    *,
    update_keeps: bool = True,
    reset_after: bool = True,
    lengths: Int[Array, " batch"] | None = None,
    reverse: bool = False,
    method: Method = "auto",
) -> tuple[State, Outputs]:
    """`gru_step` over time; see the top of this file.

    Raises:
      InputError: an unknown method, or "fused_backward" with reset_after=False, whose second
        product waits for the first.
    """
    require_known("method", method, get_args(Method))
    if method == "fused_backward" and not reset_after:
        raise InputError('reset_after=False is not of the form of "fused_backward": use "auto"')
    if method == "scan" or not reset_after:
        step = partial(gru_step, update_keeps=update_keeps, reset_after=reset_after)
        return unroll(step, params, carry, xs, lengths=lengths, reverse=reverse)
    update = _gru_keeps if update_keeps else _gru_writes
    products = AffineParams(
        params.input_kernel, params.input_bias, params.recurrent_kernel, params.recurrent_bias
    )
    return unroll_affine(update, products, carry, xs, lengths=lengths, reverse=reverse)


def lstm_layer(
    params: LSTMParams,
    carry: tuple[State, State],
    xs: Inputs,
    *,
    lengths: Int[Array, " batch"] | None = None,
    reverse: bool = False,
    method: LSTMMethod = "auto",
) -> tuple[tuple[State, State], Outputs]:
    """`lstm_step` over time; the carry is (cell, hidden). See the top of this file.

    Raises:
      InputError: an unknown method, or "cudnn" elsewhere than on a GPU.
    """
    require_known("method", method, get_args(LSTMMethod))
    if method == "cudnn":
        return _lstm_of_cudnn(params, carry, xs, lengths, reverse)
    if method == "scan":
        return unroll(lstm_step, params, carry, xs, lengths=lengths, reverse=reverse)
    products = AffineParams(params.input_kernel, params.bias, params.recurrent_kernel)
    return unroll_affine(_lstm_update, products, carry, xs, lengths=lengths, reverse=reverse)


@jax.custom_vjp
def _lstm_update(from_input, from_carry, carry):
    """The pointwise part of `lstm_step`; its derivative keeps five arrays, JAX's own twelve."""
    return _lstm_forward(from_input, from_carry, carry)[0]


def _lstm_forward(from_input, from_carry, carry):
    old, _ = carry
    gates = jnp.split(from_input + from_carry, 4, axis=-1)
    input_gate, forget_gate, output_gate = (jax.nn.sigmoid(gates[place]) for place in (0, 1, 3))
    candidate = jnp.tanh(gates[2])
    cell = forget_gate * old + input_gate * candidate
    kept = (input_gate, forget_gate, candidate, output_gate, old)
    return (cell, output_gate * jnp.tanh(cell)), kept


def _lstm_backward(kept, cotangents):
    input_gate, forget_gate, candidate, output_gate, old = kept
    cell_bar, hidden_bar = cotangents
    squashed = jnp.tanh(forget_gate * old + input_gate * candidate)
    cell_bar = cell_bar + hidden_bar * output_gate * (1 - squashed * squashed)
    gates_bar = jnp.concatenate(
        [
            cell_bar * candidate * input_gate * (1 - input_gate),
            cell_bar * old * forget_gate * (1 - forget_gate),
            cell_bar * input_gate * (1 - candidate * candidate),
            hidden_bar * squashed * output_gate * (1 - output_gate),
        ],
        axis=-1,
    )
    return gates_bar, gates_bar, (cell_bar * forget_gate, jnp.zeros_like(hidden_bar))


_lstm_update.defvjp(_lstm_forward, _lstm_backward)


def _gru_forward(update_keeps, from_input, from_carry, old):
    input_gates, input_candidate = jnp.split(from_input, [2 * old.shape[-1]], axis=-1)
    carry_gates, carry_candidate = jnp.split(from_carry, [2 * old.shape[-1]], axis=-1)
    reset, update = jnp.split(jax.nn.sigmoid(input_gates + carry_gates), 2, axis=-1)
    candidate = jnp.tanh(input_candidate + reset * carry_candidate)
    gate, other = (update, 1 - update) if update_keeps else (1 - update, update)
    return gate * old + other * candidate, (reset, update, candidate, carry_candidate, old)


def _gru_backward(update_keeps, kept, new_bar):
    reset, update, candidate, carry_candidate, old = kept
    gate, other = (update, 1 - update) if update_keeps else (1 - update, update)
    candidate_bar = new_bar * other * (1 - candidate * candidate)
    reset_bar = candidate_bar * carry_candidate * reset * (1 - reset)
    change = old - candidate if update_keeps else candidate - old
    update_bar = new_bar * change * update * (1 - update)
    from_input_bar = jnp.concatenate([reset_bar, update_bar, candidate_bar], axis=-1)
    from_carry_bar = jnp.concatenate([reset_bar, update_bar, candidate_bar * reset], axis=-1)
    return from_input_bar, from_carry_bar, new_bar * gate


def _gru_update(update_keeps: bool):
    """The pointwise part of `gru_step` with reset_after, with a derivative that keeps less."""
    update = jax.custom_vjp(lambda *operands: _gru_forward(update_keeps, *operands)[0])
    update.defvjp(partial(_gru_forward, update_keeps), partial(_gru_backward, update_keeps))
    return update


_gru_keeps, _gru_writes = _gru_update(True), _gru_update(False)


def _lstm_of_cudnn(params, carry, xs, lengths, reverse):
    """cuDNN's LSTM runs forward and wants a length of at least 1: both are mended around it."""
    if jax.default_backend() != "gpu":
        raise InputError(f'method="cudnn" needs a GPU and not {jax.default_backend()}: use "auto"')
    from jax.experimental import rnn as jax_rnn  # only here: it is experimental

    batch, time, in_features = xs.shape
    hidden = params.recurrent_kernel.shape[0]
    if lengths is None:
        lengths = jnp.full(batch, time)
    check_lengths(lengths, batch=batch, time=time)
    valid = length_mask(lengths, time)
    xs = select(valid, xs, 0)
    if reverse:
        xs = reverse_within(xs, lengths)
    # its order: input, forget, candidate, output, as ours; it has a second bias
    weights = (params.input_kernel.T, params.recurrent_kernel.T, params.bias)
    weights = jnp.concatenate([*(w.reshape(-1) for w in weights), jnp.zeros_like(params.bias)])
    ys, *last = jax_rnn.lstm(
        xs,
        *(state[None] for state in carry[::-1]),
        weights,
        jnp.maximum(lengths, 1).astype(jnp.int32),
        in_features,
        hidden,
        1,
        0.0,
        False,
    )
    if reverse:
        ys = reverse_within(ys, lengths)
    cell, state = (
        select(lengths > 0, new[0], old) for new, old in zip(last[::-1], carry, strict=True)
    )
    return (cell, state), select(valid, ys, 0)
