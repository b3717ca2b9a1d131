"""The models that the sequence experiments compare: tanh RNN, GRU, LSTM, TCN and 2-LSTM."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from annotated_types import Ge, Le
from jaxtyping import Array, Float, Int

from structdl.core.sparse import dropout
from structdl.recurrent.grid_orders import State
from structdl.recurrent.stacked import GRU, LSTM, RNN
from structdl.recurrent.two_lstm import TwoLSTM
from structdl.temporal.tcn import TCN, fold_weight_norm, init_state, tcn_params, tcn_step
from structdl.training.ranges import AnyFloat, Depth, DropoutRate, PositiveInt, in_range
from structdl.training.run import FREE


@dataclasses.dataclass(frozen=True)
class RNNConfig:
    """A recurrent network of tanh units."""

    hidden: PositiveInt = 100
    """Units of each layer."""
    num_layers: Depth = 1
    dropout: DropoutRate = 0.0
    """Of what leaves each layer."""


@dataclasses.dataclass(frozen=True)
class GRUConfig:
    """Gated recurrent units."""

    hidden: PositiveInt = 46
    """Units of each layer."""
    num_layers: Depth = 1
    dropout: DropoutRate = 0.0
    """Of what leaves each layer."""


@dataclasses.dataclass(frozen=True)
class LSTMConfig:
    """Long short-term memory."""

    hidden: PositiveInt = 36
    """Units of each layer."""
    num_layers: Depth = 1
    dropout: DropoutRate = 0.0
    """Of what leaves each layer."""
    forget_bias: AnyFloat = 1.0
    """Where the forget gate's bias starts."""


@dataclasses.dataclass(frozen=True)
class TCNConfig:
    """A temporal convolutional network; level k has a dilation of 2^k."""

    channels: PositiveInt = 25
    """Of each level."""
    num_levels: in_range(int, Ge(1), Le(30)) = 4
    kernel_size: PositiveInt = 5
    dropout: DropoutRate = 0.0
    """After each convolution."""
    warn_beyond: bool = dataclasses.field(default=True, metadata=FREE)
    """Warn of a receptive field that is larger than the sequence, as the papers' own are."""


@dataclasses.dataclass(frozen=True)
class GridLSTMConfig:
    """A 2-LSTM: a Grid LSTM over time and depth."""

    hidden: PositiveInt = 34
    """Units of each block along time, and as many along depth."""
    num_layers: Depth = 3
    """The extent of depth."""
    tied: bool = True
    """Whether all layers have the same weights."""
    dropout: DropoutRate = 0.0
    """Of what leaves the last layer."""
    forget_bias: AnyFloat = 1.0
    """Where the forget gates' biases start."""


SequenceConfig = RNNConfig | GRUConfig | LSTMConfig | TCNConfig | GridLSTMConfig


class SequenceModel(nn.Module):
    """One of the models and a linear read-out of each step, or of the last alone.

    Parameters: `encoder` and `readout`.
    """

    config: SequenceConfig
    num_outputs: int
    last: bool = False

    def setup(self):
        self.encoder = _encoder(self.config)
        self.readout = nn.Dense(self.num_outputs)

    def __call__(
        self,
        x: Float[Array, "batch time in_features"],
        lengths: Int[Array, " batch"] | None = None,
        *,
        train: bool,
    ) -> Float[Array, "batch time outputs"] | Float[Array, "batch outputs"]:
        """What is said after each step, or after each sequence's last one."""
        hidden, _ = self._encoded(x, train=train, lengths=lengths)
        if self.last:
            ends = jnp.full(x.shape[0], x.shape[1]) if lengths is None else lengths
            places = jnp.clip(ends - 1, 0, x.shape[1] - 1)[:, None, None]
            hidden = jnp.take_along_axis(hidden, places, axis=1)[:, 0]
        return self.readout(hidden)

    def initial_state(self, batch: int) -> Any:
        """What `step` starts from, as `__call__` does."""
        if isinstance(self.config, TCNConfig):
            return init_state(self._levels(), batch)
        num_layers, hidden = self.config.num_layers, self.config.hidden
        if isinstance(self.config, GridLSTMConfig):
            return State(*(jnp.zeros((batch, num_layers, hidden)) for _ in State._fields))
        zeros = jnp.zeros((num_layers, batch, hidden))
        return (zeros, zeros) if isinstance(self.config, LSTMConfig) else zeros

    def step(
        self, state: Any, x: Float[Array, "batch in_features"]
    ) -> tuple[Any, Float[Array, "batch outputs"]]:
        """Reads one time step, without dropout: the new state and what is said after it."""
        if isinstance(self.config, TCNConfig):
            state, hidden = tcn_step(self._levels(), state, x)
            return state, self.readout(hidden)
        state, outputs = self.continued(state, x[:, None], train=False)
        return state, outputs[:, 0]

    def continued(
        self, state: Any, x: Float[Array, "batch time in_features"], *, train: bool
    ) -> tuple[Any, Float[Array, "batch time outputs"]]:
        """Reads on from a state: the new one and what is said after each step. Not for a TCN."""
        hidden, state = self._encoded(x, train=train, carry=state)
        return state, self.readout(hidden)

    def _encoded(self, x, *, train: bool, **options):
        """What leaves the encoder and, but of a TCN, its last carry."""
        match self.config:
            case TCNConfig():  # whose last layer drops out itself
                return self.encoder(x, train=train, **options), None
            case GridLSTMConfig():  # which drops nothing out inside
                hidden, carry = self.encoder(x, **options)
            case _:
                hidden, carry = self.encoder(x, train=train, **options)
        if train and self.config.dropout > 0:
            hidden = dropout(self.make_rng("dropout"), hidden, self.config.dropout)
        return hidden, carry

    def _levels(self):
        return fold_weight_norm(tcn_params(self.encoder.variables["params"]))


def _encoder(config: SequenceConfig) -> nn.Module:
    match config:
        case RNNConfig(hidden, num_layers, rate):
            return RNN(hidden, num_layers, dropout_rate=rate)
        case GRUConfig(hidden, num_layers, rate):
            return GRU(hidden, num_layers, dropout_rate=rate)
        case LSTMConfig(hidden, num_layers, rate, bias):
            return LSTM(hidden, num_layers, dropout_rate=rate, forget_bias=bias)
        case TCNConfig(channels, num_levels, kernel_size, rate, warn):
            widths = (channels,) * num_levels
            return TCN(widths, kernel_size, dropout_rate=rate, warn_beyond=warn)
        case GridLSTMConfig():
            return TwoLSTM(
                config.hidden, config.num_layers, config.tied, forget_bias=config.forget_bias
            )


def totals_in_parts(
    totals: Callable[[Any], tuple[Array, Array]], batch: Any, size: int
) -> tuple[Array, Array]:
    """The sums of `totals(part) -> (total, count)` over parts of `size` rows of a batch.

    The parts are unrolled in the program: within its loops a convolution on CPU takes 18 times as
    long.
    """
    sums = (jnp.zeros(()), jnp.zeros((), jnp.int32))
    for start in range(0, len(jax.tree.leaves(batch)[0]), size):
        part = jax.tree.map(lambda leaf, start=start: leaf[start : start + size], batch)
        # each waits for the one before it, so that memory holds but one
        part, sums = jax.lax.optimization_barrier((part, sums))
        sums = jax.tree.map(jnp.add, sums, totals(part))
    return sums


def add_noise(key, params, deviation: float):
    """Normal noise on every parameter, as Chung et al. (2014), section 4.3, train with."""
    if deviation == 0:
        return params
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    return structure.unflatten(
        leaf + deviation * jax.random.normal(key, leaf.shape, leaf.dtype)
        for leaf, key in zip(leaves, keys, strict=True)
    )
