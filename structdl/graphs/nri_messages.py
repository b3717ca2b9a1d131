"""Messages along typed edges: what each object receives from all others, summed.

Inside, features are the first axis and systems the last, so that all products and sums are of long
rows; and pairs are those of every object and the one that stands k places after it, k from 1 to
N - 1, so that no object hears itself. Who composes a step of several layers stays in that form.

Reference: Kipf, Fetaya, Wang, Welling, Zemel (2018), "Neural relational inference for interacting
systems", arXiv:1802.04687, section 3.3.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class MessageParams(NamedTuple):
    """A perceptron of two layers for each type that sends; see `received_messages`."""

    pair_kernels: jax.Array  # [sending_types, 2 * features, hidden], the sender's rows first
    pair_biases: jax.Array  # [sending_types, hidden]
    kernels: jax.Array  # [sending_types, hidden, hidden]
    biases: jax.Array  # [sending_types, hidden]


def received_messages(
    params: MessageParams,
    nodes: Float[Array, "*batch num_nodes features"],
    edge_types: Float[Array, "*shared num_nodes num_nodes types"],
    *,
    activation: Callable,
) -> Float[Array, "*batch num_nodes hidden"]:
    """received_j = sum over i != j and types k of z_(i,j),k f_k([x_i, x_j]).

    Args:
      params: those of f_k. Where there are fewer than types, they belong to the last types, and
        those before send nothing: with one less, type 0 means that there is no edge.
      nodes: x.
      edge_types: z, one-hot or a relaxation of it, [senders, receivers]; of the rank of the pairs,
        and dimensions of size 1 are shared.
      activation: after both layers of f_k.

    Raises:
      ValueError: there are more f_k than types.
    """
    weights = weights_by_offset(params, edge_types, nodes.shape[:-2])
    received = receive(params, features_first(nodes), weights, activation=activation)
    return features_last(received, nodes.shape[:-2])


def receive(
    params: MessageParams,
    nodes: Float[Array, "features num_nodes systems"],
    weights: Float[Array, "sending_types offsets num_nodes systems"],
    *,
    activation: Callable,
) -> Float[Array, "hidden num_nodes systems"]:
    """`received_messages` of nodes whose features are first, and of `weights_by_offset`."""
    features, num_nodes, systems = nodes.shape
    received = jnp.zeros((params.biases.shape[-1], num_nodes, systems), nodes.dtype)
    if num_nodes == 1:
        return received
    for number, layers in enumerate(zip(*params, strict=True)):
        pair_kernel, pair_bias, kernel, bias = layers
        sent = dense_features_first(nodes, pair_kernel[:features])
        heard = dense_features_first(nodes, pair_kernel[features:], pair_bias)
        hidden = [activation(jnp.roll(sent, -k, axis=1) + heard) for k in range(1, num_nodes)]
        messages = activation(dense_features_first(jnp.stack(hidden, axis=1), kernel, bias))
        received += jnp.sum(messages * weights[number][None], axis=1)
    return received


def weights_by_offset(
    params: MessageParams,
    edge_types: Float[Array, "*shared num_nodes num_nodes types"],
    batch: tuple[int, ...],
) -> Float[Array, "sending_types offsets num_nodes systems"]:
    """z of the types that send: entry [k, o - 1, j] is that of the edge from j + o, modulo N, to j.

    Raises:
      ValueError: see `received_messages`.
    """
    num_sending, (*_, num_nodes, types) = len(params.pair_kernels), edge_types.shape
    if num_sending > types:
        raise ValueError(f"{num_sending} message networks for {types} edge types")
    sending = edge_types[..., types - num_sending :]
    edges = jnp.broadcast_to(sending, (*batch, *sending.shape[-3:]))
    receivers = np.arange(num_nodes)[None]
    senders = (receivers + np.arange(1, num_nodes)[:, None]) % num_nodes
    by_offset = edges.reshape(-1, *sending.shape[-3:])[:, senders, receivers]
    return jnp.moveaxis(by_offset, (0, 3), (3, 0))


def features_first(
    nodes: Float[Array, "*batch num_nodes features"],
) -> Float[Array, "features num_nodes systems"]:
    """All of the batch side by side, the features first."""
    return nodes.reshape(-1, *nodes.shape[-2:]).T


def features_last(
    nodes: Float[Array, "features num_nodes systems"], batch: tuple[int, ...]
) -> Float[Array, "*batch num_nodes features"]:
    """The inverse of `features_first`."""
    return nodes.T.reshape(*batch, *nodes.shape[1::-1])


def dense_features_first(
    x: Float[Array, "inputs ..."],
    kernel: Float[Array, "inputs outputs"],
    bias: Float[Array, " outputs"] | None = None,
) -> Float[Array, "outputs ..."]:
    """W^T x + b, of the first axis."""
    product = (kernel.T @ x.reshape(len(x), -1)).reshape(-1, *x.shape[1:])
    return product if bias is None else product + bias.reshape(-1, *[1] * (x.ndim - 1))
