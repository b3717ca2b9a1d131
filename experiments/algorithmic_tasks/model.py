"""The models that are compared: 1-LSTM and feed-forward networks, 2-LSTM and stacked LSTM."""

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from experiments.algorithmic_tasks.presets import (
    Config,
    FeedForwardConfig,
    GridLSTMConfig,
    ModelConfig,
    StackedLSTMConfig,
)
from structdl.recurrent.grid_lstm import GridLSTM, as_state, as_values
from structdl.recurrent.stacked import LSTM
from structdl.recurrent.two_lstm import TwoLSTM

ACTIVATIONS = {"tanh": jax.numpy.tanh, "relu": jax.nn.relu}


class OneLSTM(nn.Module):
    """A 1-LSTM along depth: all of the input enters at once, as hidden and memory.

    Parameters: `projection`, `grid` and `readout`.
    """

    features: int
    num_layers: int
    tied: bool
    num_outputs: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch in_features"]) -> Float[Array, "batch outputs"]:
        entering = as_state(nn.Dense(2 * self.features, name="projection")(x))
        grid = GridLSTM((self.num_layers,), (self.features,), shared=(self.tied,), name="grid")
        (leaving,) = grid([entering])
        return nn.Dense(self.num_outputs, name="readout")(as_values(leaving))


class FeedForward(nn.Module):
    """A projection, layers of one width, and a read-out; tied, the layers are one, repeated.

    Parameters: `projection`, `layer_0` and on, and `readout`.
    """

    features: int
    num_layers: int
    tied: bool
    activation: str
    num_outputs: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch in_features"]) -> Float[Array, "batch outputs"]:
        activation = ACTIVATIONS[self.activation]
        own = 1 if self.tied else self.num_layers
        layers = [nn.Dense(self.features, name=f"layer_{place}") for place in range(own)]
        x = activation(nn.Dense(self.features, name="projection")(x))
        for place in range(self.num_layers):
            x = activation(layers[place % own](x))
        return nn.Dense(self.num_outputs, name="readout")(x)


class Sequences(nn.Module):
    """A 2-LSTM or a stacked LSTM, and what it says after each step.

    Parameters: `encoder` and `readout`.
    """

    config: ModelConfig
    num_outputs: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch time in_features"]
    ) -> Float[Array, "batch time outputs"]:
        match self.config:
            case GridLSTMConfig(hidden, num_layers, tied):
                outputs, _ = TwoLSTM(hidden, num_layers, tied, name="encoder")(x)
            case StackedLSTMConfig(hidden, num_layers):
                outputs, _ = LSTM(hidden, num_layers, name="encoder")(x, train=False)
        return nn.Dense(self.num_outputs, name="readout")(outputs)


def make_model(config: Config, num_outputs: int) -> nn.Module:
    """The model of a config, for the problem of that config; see `check`."""
    match config.problem, config.model:
        case "parity", GridLSTMConfig(hidden, num_layers, tied):
            return OneLSTM(hidden, num_layers, tied, num_outputs)
        case "parity", FeedForwardConfig(hidden, num_layers, tied, activation):
            return FeedForward(hidden, num_layers, tied, activation, num_outputs)
        case _:
            return Sequences(config.model, num_outputs)
