"""Recurrent layers one upon another, in one direction or in both, as a function and as modules.

A carry of a stack has leaves [num_layers * num_directions, batch, hidden]: those of layer 0
forward, layer 0 backward, layer 1 forward and on (PyTorch's order). An LSTM's is (cell, hidden),
that of the others one array. The forward state at the end is that at each sequence's own end, the
backward state that after element 0; a sequence of length 0 keeps its initial state, and its outputs
are zeros.

The modules raise InputError where features or num_layers is below 1, where lengths are not those of
the sequences, and where a dropout rate that is used is out of its range.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from structdl.core.sparse import dropout
from structdl.errors import InputError, require_at_least
from structdl.recurrent.cells import GRUParams, LSTMParams, RNNParams
from structdl.recurrent.gates import gate_biases, gate_kernels
from structdl.recurrent.layers import LSTMMethod, Method, gru_layer, lstm_layer, rnn_layer

glorot, orthogonal = nn.initializers.glorot_uniform(), nn.initializers.orthogonal()
States = Float[Array, "layers_and_directions batch hidden"]
Inputs = Float[Array, "batch time in_features"]
Outputs = Float[Array, "batch time out_features"]


def run_stack(
    layers: Sequence[Sequence[Callable[..., Any]]],
    carry: PyTree[States],
    xs: Inputs,
    *,
    lengths: Int[Array, " batch"] | None = None,
    dropout_rate: float = 0.0,
    key: Key[Array, ""] | None = None,
) -> tuple[Outputs, PyTree[States]]:
    """Runs recurrent layers, each on the outputs of the one below: (outputs, last carry).

    Args:
      layers: for each layer one direction or two, forward and backward, whose outputs are
        concatenated; a direction is a function of this project's form with its parameters bound,
        `partial(gru_layer, params)`.
      carry: the initial states, see the top of this file.
      xs: what the first layer reads.
      lengths: of right-padded sequences; None means all of the array.
      dropout_rate: of what enters each layer but the first.
      key: draws what is dropped; None drops nothing.

    Raises:
      InputError: no layers, or one without a direction; lengths that are not those of the
        sequences, see `structdl.core.scan.check_lengths`.
      AssertionError: the carry does not have a state for each layer and direction.

    >>> from structdl.recurrent.cells import RNNParams
    >>> ones = RNNParams(jnp.ones((1, 1)), jnp.ones((1, 1)), jnp.zeros(1))
    >>> counter = partial(rnn_layer, ones, activation=lambda value: value)
    >>> both = [[counter, counter]]
    >>> outputs, last = run_stack(both, jnp.zeros((2, 1, 1)), jnp.ones((1, 3, 1)))
    >>> outputs[0].tolist(), last[:, 0, 0].tolist()
    ([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]], [3.0, 3.0])
    """
    if not layers or not all(layers):
        raise InputError("a stack needs one layer or more, each of one direction or two")
    chex.assert_tree_shape_prefix(carry, (sum(map(len, layers)), xs.shape[0]))
    keys = [None] * len(layers) if key is None else jax.random.split(key, len(layers))
    last = []
    for place, directions in enumerate(layers):
        if place > 0 and key is not None:
            xs = dropout(keys[place], xs, dropout_rate)
        outputs = []
        for direction, layer in enumerate(directions):
            initial = jax.tree.map(lambda leaf, at=len(last): leaf[at], carry)
            new, ys = layer(initial, xs, lengths=lengths, reverse=direction == 1)
            last.append(new)
            outputs.append(ys)
        xs = jnp.concatenate(outputs, axis=-1) if len(outputs) > 1 else outputs[0]
    return xs, jax.tree.map(lambda *leaves: jnp.stack(leaves), *last)


class RNN(nn.Module):
    """Stacked layers of `rnn_step`; returns (outputs, last carry), see the top of this file.

    Attributes:
      features: the hidden units of each layer and direction.
      num_layers: how many layers.
      bidirectional: whether each layer runs both ways; the outputs are forward | backward.
      dropout_rate: of what enters each layer but the first (key: `rngs={"dropout": key}`).
      learn_initial_state: whether the initial state is a parameter, shared by all sequences, which
        starts at 0; else it is 0.
      activation: of the unit.
      method: see `structdl.recurrent.layers`.
      input_kernel_init: how W starts.
      recurrent_kernel_init: how U starts. Biases start at 0.

    Parameters: `layers_0/input_kernel` and on, as in `RNNParams`; `layers_0_backward/...`, and
    `initial_hidden` [num_layers * num_directions, features].
    """

    features: int
    num_layers: int = 1
    bidirectional: bool = False
    dropout_rate: float = 0.0
    learn_initial_state: bool = False
    activation: Callable = jnp.tanh
    method: Method = "auto"
    input_kernel_init: Callable = glorot
    recurrent_kernel_init: Callable = orthogonal

    @nn.compact
    def __call__(
        self,
        xs: Inputs,
        *,
        train: bool,
        lengths: Int[Array, " batch"] | None = None,
        carry: States | None = None,
    ) -> tuple[Outputs, States]:
        """Runs from the given carry, or where there is none from the initial state."""
        layer = partial(rnn_layer, activation=self.activation, method=self.method)
        kernels = partial(_Kernels, self.features, 1, ("bias",))
        if carry is None:
            (carry,) = _initial_states(self, xs, ("initial_hidden",))
        return _run(self, layer, RNNParams, kernels, carry, xs, lengths, train)


class GRU(nn.Module):
    """Stacked layers of `gru_step`; returns (outputs, last carry), see the top of this file.

    Attributes, parameters and initial values are those of `RNN` and of `GRUParams`, but for
    activation; the kernels of each gate start for themselves.

    Attributes:
      update_keeps, reset_after: see `structdl.recurrent.cells.gru_step`.
    """

    features: int
    num_layers: int = 1
    bidirectional: bool = False
    dropout_rate: float = 0.0
    learn_initial_state: bool = False
    update_keeps: bool = True
    reset_after: bool = True
    method: Method = "auto"
    input_kernel_init: Callable = glorot
    recurrent_kernel_init: Callable = orthogonal

    @nn.compact
    def __call__(
        self,
        xs: Inputs,
        *,
        train: bool,
        lengths: Int[Array, " batch"] | None = None,
        carry: States | None = None,
    ) -> tuple[Outputs, States]:
        """Runs from the given carry, or where there is none from the initial state."""
        layer = partial(
            gru_layer,
            update_keeps=self.update_keeps,
            reset_after=self.reset_after,
            method=self.method,
        )
        kernels = partial(_Kernels, self.features, 3, ("input_bias", "recurrent_bias"))
        if carry is None:
            (carry,) = _initial_states(self, xs, ("initial_hidden",))
        return _run(self, layer, GRUParams, kernels, carry, xs, lengths, train)


class LSTM(nn.Module):
    """Stacked layers of `lstm_step`; returns (outputs, last carry), see the top of this file.

    Attributes, parameters and initial values are those of `RNN` and of `LSTMParams`, but for
    activation; the kernels of each gate start for themselves. The initial state has
    `initial_cell` besides `initial_hidden`.

    Attributes:
      forget_bias: at which the forget gate's bias starts; 1 lets the cell remember from the first
        step on (PyTorch and flax.linen have 0). The other biases start at 0.

    Reference: Jozefowicz, Zaremba, Sutskever (2015), "An empirical exploration of recurrent network
    architectures", ICML, for the forget bias of 1.
    """

    features: int
    num_layers: int = 1
    bidirectional: bool = False
    dropout_rate: float = 0.0
    learn_initial_state: bool = False
    forget_bias: float = 1.0
    method: LSTMMethod = "auto"
    input_kernel_init: Callable = glorot
    recurrent_kernel_init: Callable = orthogonal

    @nn.compact
    def __call__(
        self,
        xs: Inputs,
        *,
        train: bool,
        lengths: Int[Array, " batch"] | None = None,
        carry: tuple[States, States] | None = None,
    ) -> tuple[Outputs, tuple[States, States]]:
        """Runs from the given carry (cell, hidden), or from the initial state."""
        layer = partial(lstm_layer, method=self.method)
        bias_init = gate_biases(self.forget_bias)
        kernels = partial(_Kernels, self.features, 4, ("bias",), bias_init=bias_init)
        if carry is None:
            carry = _initial_states(self, xs, ("initial_cell", "initial_hidden"))
        return _run(self, layer, LSTMParams, kernels, carry, xs, lengths, train)


class _Kernels(nn.Module):
    """The parameters of one layer in one direction, by name; each gate's kernels for themselves."""

    features: int
    gates: int
    biases: Sequence[str]
    input_kernel_init: Callable
    recurrent_kernel_init: Callable
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, in_features: int) -> dict[str, Array]:
        width = self.gates * self.features
        rows = {"input_kernel": in_features, "recurrent_kernel": self.features}
        inits = {name: gate_kernels(getattr(self, f"{name}_init"), self.gates) for name in rows}
        kernels = {name: self.param(name, inits[name], (rows[name], width)) for name in rows}
        return kernels | {name: self.param(name, self.bias_init, (width,)) for name in self.biases}


def _initial_states(module, xs, names) -> tuple[States, ...]:
    """The module's initial states for this batch, one for each name."""
    count = module.num_layers * (1 + module.bidirectional)
    shape = (count, module.features)
    if module.learn_initial_state:
        states = [module.param(name, nn.initializers.zeros, shape) for name in names]
    else:
        states = [jnp.zeros(shape, xs.dtype) for _ in names]
    return tuple(
        jnp.broadcast_to(state[:, None], (count, xs.shape[0], module.features)) for state in states
    )


def _run(module, layer, make_params, kernels, carry, xs, lengths, train):
    """Fetches the parameters of every layer and direction, and runs the stack."""
    for name in ("features", "num_layers"):
        require_at_least(name, getattr(module, name), 1)
    suffixes = ("", "_backward") if module.bidirectional else ("",)
    layers, width = [], xs.shape[-1]
    for place in range(module.num_layers):
        directions = []
        for suffix in suffixes:
            fetch = kernels(
                input_kernel_init=module.input_kernel_init,
                recurrent_kernel_init=module.recurrent_kernel_init,
                name=f"layers_{place}{suffix}",
            )
            directions.append(partial(layer, make_params(**fetch(width))))
        layers.append(directions)
        width = module.features * len(suffixes)
    drops = train and module.dropout_rate != 0 and module.num_layers > 1
    return run_stack(
        layers,
        carry,
        xs,
        lengths=lengths,
        dropout_rate=module.dropout_rate,
        key=module.make_rng("dropout") if drops else None,
    )
