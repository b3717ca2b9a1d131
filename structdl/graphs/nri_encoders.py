"""Encoders of neural relational inference: from trajectories to logits of edge types.

Both give every pair of objects an embedding of its own first, and then what the pair's objects
have heard of their other pairs. In training the collection `batch_stats` must be mutable.

Reference: Kipf, Fetaya, Wang, Welling, Zemel (2018), "Neural relational inference for interacting
systems", arXiv:1802.04687, section 3.1.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from structdl.errors import InputError
from structdl.graphs.nri import between_objects, edge_to_node, node_to_edge, pair_sums

_GLOROT = nn.initializers.glorot_normal()
_TENTH = nn.initializers.constant(0.1)


class MLPEncoder(nn.Module):
    """The first embedding is that of two whole trajectories.

    h_j = f_emb(x_j);  h_(i,j) = f_e([h_i, h_j]);  h_j = f_v(edge_to_node(h_(i,j)))
    logits_(i,j) = W f_e([h_i, h_j, h_(i,j) of the first round])

    Each f is a perceptron of two layers with elu after both, then batch normalisation; its
    statistics leave the diagonal out.

    Attributes:
      hidden: the width of all layers.
      num_types: how many edge types.

    Differs from the paper: `edge_to_node` is a mean. Kernels start as Glorot's normal and biases at
    0.1, as in the authors' code, but the last f_e's first kernel starts as two, for [h_i, h_j] and
    for h_(i,j).
    """

    hidden: int
    num_types: int

    @nn.compact
    def __call__(
        self, states: Float[Array, "batch time num_nodes features"], *, train: bool
    ) -> Float[Array, "batch num_nodes num_nodes types"]:
        batch, _, num_nodes, _ = states.shape
        trajectories = jnp.swapaxes(states, 1, 2).reshape(batch, num_nodes, -1)
        nodes = _AfterFirst(self.hidden)(_dense(self.hidden)(trajectories), train)
        mask = between_objects(num_nodes)[None, :, :, None]
        edges = _AfterFirst(self.hidden)(_PairDense(self.hidden)(nodes), train, mask)
        return _SecondRound(self.hidden, self.num_types)(edges, train)


class CNNEncoder(nn.Module):
    """The first embedding is a convolution over the time of two trajectories, and attention to it.

    Two layers of convolution, relu and batch normalisation, with a pooling of every two frames
    between; what comes out at time t gives values p_t and scores a_t:
    h_(i,j) = sum over t of softmax(a)_t p_t;  from there on as `MLPEncoder`.

    Attributes:
      hidden: the width of all layers.
      num_types: how many edge types.
      kernel_size: how many frames a convolution sees.

    Raises:
      InputError: too few frames for both convolutions.

    Differs from the paper: `edge_to_node` is a mean.
    """

    hidden: int
    num_types: int
    kernel_size: int = 5

    @nn.compact
    def __call__(
        self, states: Float[Array, "batch time num_nodes features"], *, train: bool
    ) -> Float[Array, "batch num_nodes num_nodes types"]:
        self._require_frames(states.shape[1])
        nodes = jnp.swapaxes(states, 1, 2)  # [batch, num_nodes, time, features]
        mask = between_objects(nodes.shape[1])[None, :, :, None, None]
        convolved = jnp.moveaxis(self._convolution(2 * self.hidden)(nodes), 2, 1)
        pairs = pair_sums(*jnp.split(convolved, 2, axis=-1))  # [batch, time, num_nodes, num_nodes,
        pairs = _norm(train)(nn.relu(jnp.moveaxis(pairs, 1, 3)), mask=mask)
        batch, num_nodes, _, *rest = pairs.shape
        flat = nn.max_pool(pairs.reshape(-1, *rest), (2,), (2,))
        flat = self._convolution(self.hidden)(flat)
        pairs = flat.reshape(batch, num_nodes, num_nodes, *flat.shape[1:])
        pairs = _norm(train)(nn.relu(pairs), mask=mask)
        attention = jax.nn.softmax(nn.Dense(1, use_bias=False, kernel_init=_GLOROT)(pairs), axis=3)
        edges = jnp.sum(attention * _dense(self.hidden)(pairs), axis=3)
        return _SecondRound(self.hidden, self.num_types)(edges, train)

    def _convolution(self, features: int) -> nn.Conv:
        size = (self.kernel_size,)
        return nn.Conv(features, size, padding="VALID", kernel_init=_GLOROT, bias_init=_TENTH)

    def _require_frames(self, time: int) -> None:
        least = 3 * self.kernel_size - 1  # so that the second convolution sees what it needs
        if time < least:
            raise InputError(
                f"trajectories of {time} frames: two convolutions over {self.kernel_size} of them, "
                f"with a pooling between, need {least} or more"
            )


class _SecondRound(nn.Module):
    """What objects hear of their pairs, and what their pairs hear of them, to logits."""

    hidden: int
    num_types: int

    @nn.compact
    def __call__(self, first_round, train):
        nodes = _dense(self.hidden)(edge_to_node(first_round))
        nodes = _AfterFirst(self.hidden)(nodes, train)
        skipped = nn.Dense(self.hidden, use_bias=False, kernel_init=_GLOROT)(first_round)
        mask = between_objects(first_round.shape[1])[None, :, :, None]
        second_round = _PairDense(self.hidden)(nodes) + skipped
        edges = _AfterFirst(self.hidden)(second_round, train, mask)
        return _dense(self.num_types)(edges)


class _PairDense(nn.Module):
    """`node_to_edge` with its parameters."""

    features: int

    @nn.compact
    def __call__(self, nodes):
        kernel = self.param("kernel", _GLOROT, (2 * nodes.shape[-1], self.features))
        return node_to_edge(nodes, kernel, self.param("bias", _TENTH, (self.features,)))


class _AfterFirst(nn.Module):
    """What follows the first dense layer of the encoder's perceptrons."""

    features: int

    @nn.compact
    def __call__(self, x, train, mask=None):
        return _norm(train)(nn.elu(_dense(self.features)(nn.elu(x))), mask=mask)


def _dense(features: int) -> nn.Dense:
    return nn.Dense(features, kernel_init=_GLOROT, bias_init=_TENTH)


def _norm(train: bool) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)
