"""Neural relational inference: which objects interact, and how, from nothing but trajectories.

An encoder reads whole trajectories and gives every ordered pair of objects logits of edge types; a
decoder predicts the next states, with a message network for each type. Together they are a
variational autoencoder whose latent variable is the graph. Arrays of edges are [batch, senders,
receivers, ...] with every object both a sender and a receiver; what stands on the diagonal does not
count.

Reference: Kipf, Fetaya, Wang, Welling, Zemel (2018), "Neural relational inference for interacting
systems", arXiv:1802.04687.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from structdl.core.distributions import categorical_kl, gaussian_log_prob
from structdl.errors import require_at_least


class MarkovParams(NamedTuple):
    """Of a decoder whose next state depends on the present one; see `markov_step`."""

    pair_kernels: jax.Array  # [sending_types, 2 * features, hidden], the sender's rows first
    pair_biases: jax.Array  # [sending_types, hidden]
    message_kernels: jax.Array  # [sending_types, hidden, hidden]
    message_biases: jax.Array  # [sending_types, hidden]
    output: tuple[tuple[jax.Array, jax.Array], ...]  # the kernels and biases of three layers


def between_objects(num_nodes: int) -> Bool[Array, "senders receivers"]:
    """The mask of the edges that there are: all but those of an object with itself."""
    return ~jnp.eye(num_nodes, dtype=bool)


def node_to_edge(
    nodes: Float[Array, "*batch num_nodes features"],
    kernel: Float[Array, "pair_features hidden"],
    bias: Float[Array, " hidden"],
) -> Float[Array, "*batch num_nodes num_nodes hidden"]:
    """A dense layer of every pair: out[i, j] = [h_i, h_j] W + b, of the sender i and receiver j.

    As h_i W_sender + h_j W_receiver + b the products are taken once an object, not once a pair.
    """
    for_senders, for_receivers = jnp.split(kernel, 2)
    received = _dense(nodes, for_receivers, bias)
    return (nodes @ for_senders)[..., :, None, :] + received[..., None, :, :]


def edge_to_node(
    edges: Float[Array, "*batch num_nodes num_nodes hidden"],
) -> Float[Array, "*batch num_nodes hidden"]:
    """What every object receives on average: out[j] = sum over i != j of h_(i,j) / (N - 1).

    Differs from the paper: section 3.1 sums, and the authors' code divides that sum by N.
    """
    num_nodes = edges.shape[-2]
    return jnp.sum(_without_diagonal(edges), axis=-3) / max(num_nodes - 1, 1)


def markov_step(
    params: MarkovParams,
    nodes: Float[Array, "*batch num_nodes features"],
    edge_types: Float[Array, "*shared num_nodes num_nodes types"],
) -> Float[Array, "*batch num_nodes features"]:
    """The mean of the next state: mu_j = x_j + f([x_j, sum over i != j of m_(i,j)]).

    m_(i,j) = sum over types k of z_(i,j),k f_k([x_i, x_j])

    f_k are perceptrons of two layers with relu after both; f has three layers and relu between
    (section 3.3).

    Args:
      params: where there are fewer f_k than types, they belong to the last types, and those before
        send nothing: with one less, type 0 means that there is no edge.
      nodes: x.
      edge_types: z, one-hot or a relaxation of it; of the rank of the messages, and dimensions of
        size 1 are shared.

    Raises:
      ValueError: there are more f_k than types.

    Differs from the paper: f is given x_j too, as in the authors' code.
    """
    num_silent = edge_types.shape[-1] - len(params.pair_kernels)
    if num_silent < 0:
        raise ValueError(
            f"{len(params.pair_kernels)} message networks for {edge_types.shape[-1]} edge types"
        )
    weights = _without_diagonal(edge_types)[..., num_silent:]
    messages = 0.0
    for number, layers in enumerate(zip(*params[:4], strict=True)):
        pair_kernel, pair_bias, kernel, bias = layers
        hidden = nn.relu(node_to_edge(nodes, pair_kernel, pair_bias))
        messages += nn.relu(_dense(hidden, kernel, bias)) * weights[..., number, None]
    change = jnp.concatenate([nodes, jnp.sum(messages, axis=-3)], axis=-1)
    for number, (kernel, bias) in enumerate(params.output):
        change = _dense(nn.relu(change) if number else change, kernel, bias)
    return nodes + change


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

    _, predictions = jax.lax.scan(step, nodes, length=num_steps)
    return jnp.moveaxis(predictions, 0, -3)


def teacher_forced(
    predict: Callable[[jax.Array], jax.Array],
    states: Float[Array, "batch time num_nodes features"],
    *,
    prediction_steps: int,
) -> Float[Array, "batch time-1 num_nodes features"]:
    """Predictions of states 1 to time - 1, with a true state for every M-th one to start from.

    All stretches of M steps are predicted side by side. Were only one step predicted from each
    true state, the edges would hardly matter (section 3.4).

    Args:
      predict: takes states, [batch, stretches, num_nodes, features], to the M that follow each,
        [batch, stretches, M, num_nodes, features].
      states: the trajectories.
      prediction_steps: M.

    Raises:
      InputError: prediction_steps is below 1.

    >>> states = jnp.arange(6.0).reshape(1, 6, 1, 1) ** 2
    >>> stay = lambda starts: jnp.repeat(starts[:, :, None], 3, axis=2)
    >>> teacher_forced(stay, states, prediction_steps=3).ravel()
    Array([0., 0., 0., 9., 9.], dtype=float32)
    """
    require_at_least("prediction_steps", prediction_steps, 1)
    batch, time, *rest = states.shape
    predictions = predict(states[:, : time - 1 : prediction_steps])
    return predictions.reshape(batch, -1, *rest)[:, : time - 1]  # [batch, stretches * M, ...]


def negative_elbo(
    predictions: Float[Array, "batch steps num_nodes features"],
    targets: Float[Array, "batch steps num_nodes features"],
    logits: Float[Array, "batch num_nodes num_nodes types"],
    *,
    variance: float,
    log_prior: Float[Array, " types"] | None = None,
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """What is minimised, as two terms: -log p(x | z) and KL(q(z | x) || p(z)).

    Both are sums for every trajectory: over steps, objects and features, and over edges.

    Args:
      predictions: the means of normal distributions, for one sample of z.
      targets: the states that came.
      logits: of q, from the encoder.
      variance: that of the states, fixed.
      log_prior: of edge types; None means that all are as likely.
    """
    log_prob = jnp.sum(gaussian_log_prob(targets, predictions, variance), axis=(1, 2, 3))
    divergences = categorical_kl(logits, log_prior)[..., None]
    return -log_prob, jnp.sum(_without_diagonal(divergences), axis=(1, 2, 3))


def edge_confusion(
    logits: Float[Array, "batch num_nodes num_nodes types"],
    edges: Int[Array, "batch num_nodes num_nodes"],
) -> Int[Array, "types types"]:
    """How often edges of type i were taken for type j: counts, to be added up over batches."""
    num_types = logits.shape[-1]
    found = jax.nn.one_hot(jnp.argmax(logits, axis=-1), num_types, dtype=jnp.int32)
    true = jax.nn.one_hot(edges, num_types, dtype=jnp.int32)
    return jnp.einsum("bijt,bijf->tf", _without_diagonal(true), found)


def edge_accuracy(
    confusion: Int[Array, "types types"],
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """How many edges got their type, and how many there are; what a type is called is free.

    Learned without labels, types are numbered as it happens: of all one-to-one namings the best
    one counts.

    >>> [int(number) for number in edge_accuracy(jnp.array([[1, 8], [6, 0]]))]
    [14, 15]
    """
    types = range(len(confusion))
    namings = [
        sum(confusion[true, found] for true, found in zip(types, naming, strict=True))
        for naming in itertools.permutations(types)
    ]
    return jnp.max(jnp.stack(namings)), jnp.sum(confusion)


class MLPEncoder(nn.Module):
    """Logits of the type of every edge, from whole trajectories (section 3.1).

    h_j = f_emb(x_j);  h_(i,j) = f_e([h_i, h_j]);  h_j = f_v(edge_to_node(h_(i,j)))
    logits_(i,j) = W f_e([h_i, h_j, h_(i,j) of the first round])

    Each f is a perceptron of two layers with elu after both, then batch normalisation; its
    statistics leave the diagonal out. In training the collection `batch_stats` must be mutable.

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
        mask = between_objects(num_nodes)[None, :, :, None]
        nodes = _AfterFirst(self.hidden)(self._layer(trajectories), train)
        first_round = _AfterFirst(self.hidden)(_PairDense(self.hidden)(nodes), train, mask)
        nodes = _AfterFirst(self.hidden)(self._layer(edge_to_node(first_round)), train)
        skipped = nn.Dense(self.hidden, use_bias=False, kernel_init=_GLOROT)(first_round)
        second_round = _PairDense(self.hidden)(nodes) + skipped
        edges = _AfterFirst(self.hidden)(second_round, train, mask)
        return nn.Dense(self.num_types, kernel_init=_GLOROT, bias_init=_TENTH)(edges)

    def _layer(self, x):
        return nn.Dense(self.hidden, kernel_init=_GLOROT, bias_init=_TENTH)(x)


class MarkovDecoder(nn.Module):
    """`rollout` with its parameters.

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
        nodes: Float[Array, "*batch num_nodes features"],
        edge_types: Float[Array, "*shared num_nodes num_nodes types"],
        *,
        num_steps: int,
    ) -> Float[Array, "*batch {num_steps} num_nodes features"]:
        features, width = nodes.shape[-1], self.hidden
        types = self.num_types - self.skip_first
        thirds = (1 / 3, "fan_in", "uniform")  # larger kernels let first rollouts explode
        per_type = nn.initializers.variance_scaling(*thirds, batch_axis=0)
        kernel_init, zeros = nn.initializers.variance_scaling(*thirds), nn.initializers.zeros
        widths = [features + width, width, width, features]
        output = [
            (
                self.param(f"output_kernel_{number}", kernel_init, (fan_in, fan_out)),
                self.param(f"output_bias_{number}", zeros, (fan_out,)),
            )
            for number, (fan_in, fan_out) in enumerate(itertools.pairwise(widths))
        ]
        params = MarkovParams(
            self.param("pair_kernels", per_type, (types, 2 * features, width)),
            self.param("pair_biases", zeros, (types, width)),
            self.param("message_kernels", per_type, (types, width, width)),
            self.param("message_biases", zeros, (types, width)),
            tuple(output),
        )
        return rollout(params, nodes, edge_types, num_steps=num_steps)


_GLOROT = nn.initializers.glorot_normal()
_TENTH = nn.initializers.constant(0.1)


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
        dense = nn.Dense(self.features, kernel_init=_GLOROT, bias_init=_TENTH)
        hidden = nn.elu(dense(nn.elu(x)))
        norm = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)
        return norm(hidden, mask=mask)


def _without_diagonal(
    edges: Num[Array, "*batch num_nodes num_nodes features"],
) -> Num[Array, "*batch num_nodes num_nodes features"]:
    mask = between_objects(edges.shape[-2])[..., None]
    return jnp.where(mask.reshape((1,) * (edges.ndim - 3) + mask.shape), edges, 0)


def _dense(x, kernel, bias):
    return x @ kernel + bias.reshape((1,) * (x.ndim - 1) + bias.shape)
