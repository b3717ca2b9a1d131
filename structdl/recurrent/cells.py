"""Recurrent cells as pure steps, `(params, carry, x) -> (carry, y)`, for one element or a batch."""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class RNNParams(NamedTuple):
    """The parameters of `rnn_step`."""

    input_kernel: jax.Array  # [in_features, hidden]
    recurrent_kernel: jax.Array  # [hidden, hidden]
    bias: jax.Array  # [hidden]


def rnn_step(
    params: RNNParams,
    carry: Float[Array, "*batch hidden"],
    x: Float[Array, "*batch in_features"],
    *,
    activation: Callable = jnp.tanh,
) -> tuple[Float[Array, "*batch hidden"], Float[Array, "*batch hidden"]]:
    """One step of a plain recurrent network; the new state is both the carry and the output.

    hidden' = activation(x W + hidden U + b)

    Args:
      params: W, U and b.
      carry: hidden.
      x: the input of the step.
      activation: pointwise; it must be finite at 0.

    Raises:
      AssertionError: a parameter does not have a column for each unit of the carry.

    Reference: Elman (1990), "Finding structure in time", Cognitive Science 14.
    """
    hidden = carry.shape[-1]
    chex.assert_shape(params.input_kernel, (x.shape[-1], hidden))
    chex.assert_shape(params.recurrent_kernel, (hidden, hidden))
    chex.assert_shape(params.bias, (hidden,))
    new = activation(_affine(x, params.input_kernel, params.bias) + carry @ params.recurrent_kernel)
    return new, new


class GRUParams(NamedTuple):
    """The parameters of `gru_step`; columns are in thirds: reset, update, candidate."""

    input_kernel: jax.Array  # [in_features, 3 * hidden]
    recurrent_kernel: jax.Array  # [hidden, 3 * hidden]
    input_bias: jax.Array  # [3 * hidden]
    recurrent_bias: jax.Array  # [3 * hidden]


def gru_step(
    params: GRUParams,
    carry: Float[Array, "*batch hidden"],
    x: Float[Array, "*batch in_features"],
    *,
    update_keeps: bool = True,
    reset_after: bool = True,
) -> tuple[Float[Array, "*batch hidden"], Float[Array, "*batch hidden"]]:
    """One step of a gated recurrent unit; the new hidden state is both the carry and the output.

    reset     = sigmoid(W_r x + b_r + U_r h + c_r)
    update    = sigmoid(W_u x + b_u + U_u h + c_u)
    candidate = tanh(W x + b + reset * (U h + c))
    hidden    = update * h + (1 - update) * candidate

    Args:
      params: W, U, b, c.
      carry: h, the hidden state before the step.
      x: the input of the step.
      update_keeps: whether the update gate says how much of the old state is kept, as above, or,
        if False, how much of the candidate is written: (1 - update) * h + update * candidate.
      reset_after: whether the reset gate is applied after the recurrent product, as above, or, if
        False, before it: tanh(W x + b + U (reset * h) + c).

    Raises:
      AssertionError: a parameter does not have three columns for each unit of the carry.

    Reference: Cho, van Merrienboer, Gulcehre, Bahdanau, Bougares, Schwenk, Bengio (2014),
    "Learning phrase representations using RNN encoder-decoder for statistical machine
    translation", arXiv:1406.1078, eq. 5-8; with update_keeps=False Chung, Gulcehre, Cho, Bengio
    (2014), "Empirical evaluation of gated recurrent neural networks on sequence modeling",
    arXiv:1412.3555, section 3.2.
    Differs from the paper: it has reset_after=False. After the product is PyTorch's and cuDNN's
    form: all three gates in one product. The second bias matters in the candidate only.
    """
    hidden = carry.shape[-1]
    chex.assert_shape(params.input_kernel, (x.shape[-1], 3 * hidden))
    chex.assert_shape(params.recurrent_kernel, (hidden, 3 * hidden))
    chex.assert_shape([params.input_bias, params.recurrent_bias], (3 * hidden,))
    from_input = _affine(x, params.input_kernel, params.input_bias)
    # where the reset comes first, the candidate's third of this product waits for it
    width = 3 * hidden if reset_after else 2 * hidden
    kernel, bias = params.recurrent_kernel, params.recurrent_bias
    from_carry = _affine(carry, kernel[:, :width], bias[:width])
    gates = jax.nn.sigmoid(from_input[..., : 2 * hidden] + from_carry[..., : 2 * hidden])
    reset, update = jnp.split(gates, 2, axis=-1)
    if reset_after:
        recurrent = reset * from_carry[..., 2 * hidden :]
    else:
        recurrent = _affine(reset * carry, kernel[:, width:], bias[width:])
    candidate = jnp.tanh(from_input[..., 2 * hidden :] + recurrent)
    kept = update if update_keeps else 1 - update
    new = kept * carry + (1 - kept) * candidate
    return new, new


def _affine(x, kernel, bias):
    return x @ kernel + bias.reshape((1,) * (x.ndim - 1) + bias.shape)


class LSTMParams(NamedTuple):
    """The parameters of an LSTM; the gates lie side by side: input, forget, candidate, output."""

    input_kernel: jax.Array  # [in_features, 4 * hidden]
    recurrent_kernel: jax.Array  # [hidden, 4 * hidden]
    bias: jax.Array  # [4 * hidden]


def lstm_step(
    params: LSTMParams,
    carry: tuple[Float[Array, "*batch hidden"], Float[Array, "*batch hidden"]],
    x: Float[Array, "*batch in_features"],
) -> tuple[
    tuple[Float[Array, "*batch hidden"], Float[Array, "*batch hidden"]],
    Float[Array, "*batch hidden"],
]:
    """One step of an LSTM; the carry is (cell, hidden), and the output is the new hidden state.

    [i, f, g, o] = x W + hidden U + b
    cell' = sigmoid(f) cell + sigmoid(i) tanh(g);  hidden' = sigmoid(o) tanh(cell')

    Args:
      params: W, U and b.
      carry: (cell, hidden); zeros to begin with.
      x: the input of this time step.

    Raises:
      AssertionError: a parameter does not have four columns for each unit of the carry.

    Reference: Hochreiter, Schmidhuber (1997), "Long short-term memory", Neural Computation 9;
    the forget gate is that of Gers, Schmidhuber, Cummins (2000), "Learning to forget: continual
    prediction with LSTM", Neural Computation 12.
    """
    chex.assert_shape(params.input_kernel, (x.shape[-1], params.bias.shape[0]))
    return lstm_update(params, carry, x @ params.input_kernel)


def lstm_update(
    params: LSTMParams,
    carry: tuple[Float[Array, "*batch hidden"], Float[Array, "*batch hidden"]],
    projected: Float[Array, "*batch gates"],
) -> tuple[
    tuple[Float[Array, "*batch hidden"], Float[Array, "*batch hidden"]],
    Float[Array, "*batch hidden"],
]:
    """`lstm_step` for an input that has met its kernel before: projected = x W.

    It pays where one input serves several sequences, as a node does all its neighbours.
    """
    cell, hidden = carry
    chex.assert_shape(params.recurrent_kernel, (hidden.shape[-1], 4 * hidden.shape[-1]))
    chex.assert_shape(params.bias, (4 * hidden.shape[-1],))
    gates = projected + hidden @ params.recurrent_kernel
    gates += jnp.broadcast_to(params.bias, gates.shape)
    input_gate, forget_gate, candidate, output_gate = jnp.split(gates, 4, axis=-1)
    cell = jax.nn.sigmoid(forget_gate) * cell + jax.nn.sigmoid(input_gate) * jnp.tanh(candidate)
    hidden = jax.nn.sigmoid(output_gate) * jnp.tanh(cell)
    return (cell, hidden), hidden
