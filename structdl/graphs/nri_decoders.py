"""Decoders of neural relational inference: the next states, given the types of the edges.

Both send messages along edges, with a network for each type, and predict how a state changes from
what an object receives.

Reference: Kipf, Fetaya, Wang, Welling, Zemel (2018), "Neural relational inference for interacting
systems", arXiv:1802.04687, sections 3.3 and 3.5.
"""

import itertools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from structdl.errors import require_at_least
from structdl.graphs.nri import dense, teacher_forced
from structdl.graphs.nri_messages import (
    MessageParams,
    dense_features_first,
    features_first,
    features_last,
    receive,
    received_messages,
    weights_by_offset,
)
from structdl.recurrent.cells import GRUParams, gru_step

UNROLLED = 10  # steps

Layers = tuple[tuple[jax.Array, jax.Array], ...]  # kernels and biases, relu between


class MarkovParams(NamedTuple):
    """Of a decoder whose next state depends on the present one; see `markov_step`."""

    messages: MessageParams
    output: Layers  # three, of [features + hidden] inputs


class RecurrentParams(NamedTuple):
    """Of a decoder that remembers; see `recurrent_step`."""

    messages: MessageParams  # of hidden states: features are hidden
    cell: GRUParams  # its inputs are [hidden + features]
    output: Layers  # three, of [hidden] inputs


def markov_step(
    params: MarkovParams,
    nodes: Float[Array, "*batch num_nodes features"],
    edge_types: Float[Array, "*shared num_nodes num_nodes types"],
) -> Float[Array, "*batch num_nodes features"]:
    """The mean of the next state: mu_j = x_j + f([x_j, received_j]).

    received is that of `received_messages` with relu; f has three layers and relu between (section
    3.3).

    Differs from the paper: f is given x_j too, as in the authors' code.
    """
    batch = nodes.shape[:-2]
    x = features_first(nodes)
    weights = weights_by_offset(params.messages, edge_types, batch)
    x = jnp.concatenate([x, receive(params.messages, x, weights, activation=nn.relu)])
    for number, layer in enumerate(params.output):
        x = dense_features_first(nn.relu(x) if number else x, *layer)
    return nodes + features_last(x, batch)


def rollout(
    params: MarkovParams,
    nodes: Float[Array, "*batch num_nodes features"],
    edge_types: Float[Array, "*shared num_nodes num_nodes types"],
    *,
    num_steps: int,
) -> Float[Array, "*batch {num_steps} num_nodes features"]:
    """The next `num_steps` states, each predicted from the prediction before it."""

    def step(nodes, _):
        nodes = markov_step(params, nodes, edge_types)
        return nodes, nodes

    # the compiler divides a product among cores where no loop is around it
    _, predictions = jax.lax.scan(step, nodes, length=num_steps, unroll=min(num_steps, UNROLLED))
    return jnp.moveaxis(predictions, 0, -3)


def recurrent_step(
    params: RecurrentParams,
    hidden: Float[Array, "*batch num_nodes hidden"],
    nodes: Float[Array, "*batch num_nodes features"],
    edge_types: Float[Array, "*shared num_nodes num_nodes types"],
) -> tuple[Float[Array, "*batch num_nodes hidden"], Float[Array, "*batch num_nodes features"]]:
    """The next hidden states, and the mean of the next states.

    message_j = received_j / (N - 1), that of `received_messages` of hidden states, with tanh
    h'_j = GRU([message_j, x_j], h_j);  mu_j = x_j + f(h'_j)

    Reference: section 3.5, eq. 15-18.
    Differs from the paper: messages are averaged, not added. (In the authors' code the message
    takes the place of the hidden state in the gates.)
    """
    received = received_messages(params.messages, hidden, edge_types, activation=jnp.tanh)
    messages = received / max(nodes.shape[-2] - 1, 1)
    hidden, _ = gru_step(params.cell, hidden, jnp.concatenate([messages, nodes], axis=-1))
    return hidden, nodes + _perceptron(params.output, hidden)


def recurrent_predictions(
    params: RecurrentParams,
    states: Float[Array, "batch time num_nodes features"],
    edge_types: Float[Array, "batch num_nodes num_nodes types"],
    *,
    prediction_steps: int,
    burn_in: int = 0,
) -> Float[Array, "batch time-1 num_nodes features"]:
    """Predictions of states 1 to time - 1, with a true state for every M-th to start from.

    Hidden states begin at 0 and pass through the whole trajectory.

    Args:
      params: those of `recurrent_step`.
      states: the trajectories.
      edge_types: z, as in `received_messages`.
      prediction_steps: M; between, predictions are the inputs.
      burn_in: this many first inputs are true all the same.

    Raises:
      InputError: prediction_steps is below 1.
    """
    require_at_least("prediction_steps", prediction_steps, 1)
    steps = jnp.arange(states.shape[1] - 1)
    is_true = (steps % prediction_steps == 0) | (steps < burn_in)

    def step(carry, x):
        hidden, predicted = carry
        state, is_true = x
        hidden, predicted = recurrent_step(
            params, hidden, jnp.where(is_true, state, predicted), edge_types
        )
        return (hidden, predicted), predicted

    start = states[:, 0]
    hidden = jnp.zeros((*start.shape[:-1], params.cell.recurrent_kernel.shape[0]), start.dtype)
    given = jnp.moveaxis(states[:, :-1], 1, 0)
    _, predictions = jax.lax.scan(step, (hidden, start), (given, is_true))
    return jnp.moveaxis(predictions, 0, 1)


class MarkovDecoder(nn.Module):
    """`rollout` with its parameters, from every M-th true state: see `teacher_forced`.

    Attributes:
      hidden: the width of messages and of all layers.
      num_types: how many edge types.
      skip_first: whether type 0 means that there is no edge, and sends nothing.

    Parameters: those of `MarkovParams`; kernels start uniform in +-1 / sqrt(inputs), as in the
    authors' code, biases at 0.
    """

    hidden: int
    num_types: int
    skip_first: bool = False

    @nn.compact
    def __call__(
        self,
        states: Float[Array, "batch time num_nodes features"],
        edge_types: Float[Array, "batch num_nodes num_nodes types"],
        *,
        prediction_steps: int,
    ) -> Float[Array, "batch time-1 num_nodes features"]:
        features, width = states.shape[-1], self.hidden
        widths = [features + width, width, width, features]
        messages = _message_params(self, features, self.num_types - self.skip_first)
        params = MarkovParams(messages, _output_params(self, widths))

        def predict(starts):
            return rollout(params, starts, edge_types[:, None], num_steps=prediction_steps)

        return teacher_forced(predict, states, prediction_steps=prediction_steps)


class RecurrentDecoder(nn.Module):
    """`recurrent_predictions` with its parameters; attributes are those of `MarkovDecoder`."""

    hidden: int
    num_types: int
    skip_first: bool = False

    @nn.compact
    def __call__(
        self,
        states: Float[Array, "batch time num_nodes features"],
        edge_types: Float[Array, "batch num_nodes num_nodes types"],
        *,
        prediction_steps: int,
        burn_in: int = 0,
    ) -> Float[Array, "batch time-1 num_nodes features"]:
        features, width = states.shape[-1], self.hidden
        zeros, gates = nn.initializers.zeros, (3 * width,)
        cell = GRUParams(
            self.param("input_kernel", _KERNEL, (width + features, *gates)),
            self.param("recurrent_kernel", _KERNEL, (width, *gates)),
            self.param("input_bias", zeros, gates),
            self.param("recurrent_bias", zeros, gates),
        )
        messages = _message_params(self, width, self.num_types - self.skip_first)
        output = _output_params(self, [width, width, width, features])
        return recurrent_predictions(
            RecurrentParams(messages, cell, output),
            states,
            edge_types,
            prediction_steps=prediction_steps,
            burn_in=burn_in,
        )


_THIRDS = (1 / 3, "fan_in", "uniform")  # larger kernels let first rollouts explode
_KERNEL = nn.initializers.variance_scaling(*_THIRDS)


def _message_params(module: nn.Module, features: int, types: int) -> MessageParams:
    per_type = nn.initializers.variance_scaling(*_THIRDS, batch_axis=0)
    zeros, width = nn.initializers.zeros, module.hidden
    return MessageParams(
        module.param("pair_kernels", per_type, (types, 2 * features, width)),
        module.param("pair_biases", zeros, (types, width)),
        module.param("message_kernels", per_type, (types, width, width)),
        module.param("message_biases", zeros, (types, width)),
    )


def _output_params(module: nn.Module, widths: list[int]) -> Layers:
    return tuple(
        (
            module.param(f"output_kernel_{number}", _KERNEL, (fan_in, fan_out)),
            module.param(f"output_bias_{number}", nn.initializers.zeros, (fan_out,)),
        )
        for number, (fan_in, fan_out) in enumerate(itertools.pairwise(widths))
    )


def _perceptron(layers: Layers, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
    """Dense layers with relu between."""
    for number, (kernel, bias) in enumerate(layers):
        x = dense(nn.relu(x) if number else x, kernel, bias)
    return x
