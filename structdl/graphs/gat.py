"""Graph attention network: each node weighs its neighbours by what they and it hold.

Reference: Velickovic, Cucurull, Casanova, Romero, Lio, Bengio (2018), "Graph attention networks",
arXiv:1710.10903.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Key

from structdl.core.segment import (
    EdgeLayout,
    gather_receivers,
    gather_senders,
    gather_sum,
    segment_max,
    segment_softmax,
    segment_sum,
)
from structdl.core.sparse import SparseRows, dropout, matmul
from structdl.graphs.layer_dropout import drop_input

Combine = Literal["concat", "mean"]


class AttentionParams(NamedTuple):
    """The parameters of one layer."""

    kernel: jax.Array  # [in_features, heads * features], W of each head side by side
    sender_vector: jax.Array  # [heads, features], the half of a that meets W h of the neighbour
    receiver_vector: jax.Array  # [heads, features], the half that meets W h of the node itself
    bias: jax.Array | None = None  # the width of the result


def attention_logits(
    by_sender: Float[Array, "num_senders heads"],
    by_receiver: Float[Array, "num_receivers heads"],
    layout: EdgeLayout,
    *,
    negative_slope: float = 0.2,
) -> Float[Array, "num_edges heads"]:
    """LeakyReLU(by_sender[s] + by_receiver[r]) of each edge s -> r, eq. 1 and the inside of eq. 3.

    The product of a with [W h_r, W h_s] is a sum of two products, each taken once a node and not
    once an edge: those are the arguments.
    """
    logits = gather_senders(by_sender, layout) + gather_receivers(by_receiver, layout)
    return jax.nn.leaky_relu(logits, negative_slope)


def attention_weights(
    by_sender: Float[Array, "num_senders heads"],
    by_receiver: Float[Array, "num_receivers heads"],
    layout: EdgeLayout,
    *,
    negative_slope: float = 0.2,
) -> Float[Array, "num_edges heads"]:
    """How much each receiver attends to the sender of each of its edges; they sum to 1.

    alpha_rs = softmax over the edges into r of `attention_logits`

    Reference: Velickovic et al. (2018), eq. 1-3.

    >>> from structdl.core.segment import edge_layout
    >>> layout = edge_layout([0, 1, 1], [0, 0, 1], 2)
    >>> scores = jnp.log(jnp.array([[1.0], [3.0]]))
    >>> weights = attention_weights(scores, jnp.zeros((2, 1)), layout, negative_slope=1.0)
    >>> [round(weight, 3) for weight in weights[:, 0].tolist()]
    [0.25, 0.75, 1.0]
    """
    logits = attention_logits(by_sender, by_receiver, layout, negative_slope=negative_slope)
    return segment_softmax(logits, layout.receivers, layout.num_receivers, layout)


def graph_attention(
    params: AttentionParams,
    nodes: Float[Array | np.ndarray, "num_nodes in_features"] | SparseRows,
    layout: EdgeLayout,
    *,
    combine: Combine = "concat",
    negative_slope: float = 0.2,
    dropout_rate: float = 0.0,
    value_dropout_rate: float = 0.0,
    key: Key[Array, ""] | None = None,
) -> tuple[Float[Array, "num_nodes out_features"], Float[Array, "num_edges heads"]]:
    """One layer before its activation, and the weights of its attention.

    out_r = concat over heads, or their mean, of sum over s of alpha_rs W h_s, plus b

    A node without edges gets b: it attends to itself only where it has a self-loop.

    Args:
      params: W, a and b.
      nodes: h.
      layout: the edges s -> r, self-loops included (see `structdl.graphs.graph.add_self_loops`).
      combine: "concat" in hidden layers (eq. 5), "mean" in the last one (eq. 6).
      negative_slope: of LeakyReLU.
      dropout_rate: of the weights, so that a node sees a part of its neighbours.
      value_dropout_rate: of W h where it is summed, not where it is attended by; the authors' code
        has it, and their text does not.
      key: draws what is dropped; None drops nothing. The weights returned are those before, and
        cost nothing under jit unless they are used.

    Reference: Velickovic et al. (2018), eq. 4-6.
    """
    chex.assert_equal(layout.num_senders, layout.num_receivers)
    heads, features = params.sender_vector.shape
    projected = matmul(nodes, params.kernel).reshape(-1, heads, features)
    by_sender, by_receiver = (
        jnp.einsum("nhf,hf->nh", projected, vector)
        for vector in (params.sender_vector, params.receiver_vector)
    )
    logits = attention_logits(by_sender, by_receiver, layout, negative_slope=negative_slope)
    receivers, num_nodes = layout.receivers, layout.num_receivers
    largest = segment_max(lax.stop_gradient(logits), receivers, num_nodes, layout)
    scores = jnp.exp(logits - gather_receivers(largest, layout))
    totals = segment_sum(scores, receivers, num_nodes, layout)
    totals = jnp.where(totals == 0, 1, totals)
    kept, values = scores, projected
    if key is not None:
        weights_key, values_key = jax.random.split(key)
        kept = dropout(weights_key, scores, dropout_rate)
        values = dropout(values_key, projected, value_dropout_rate)
    # divided once a node and not once an edge: a quarter off a training step on Cora
    out = gather_sum(values, layout, weights=kept) / totals[:, :, None]
    on_edges = gather_receivers(totals, layout)  # 0 on an edge that edge_list has dropped
    weights = jnp.where(on_edges > 0, scores / jnp.where(on_edges > 0, on_edges, 1), 0)
    if combine == "concat":
        out = out.reshape(-1, heads * features)
    else:
        out = jnp.mean(out, axis=1)
    return out if params.bias is None else out + params.bias[None], weights


class GraphAttention(nn.Module):
    """A layer of graph attention with its parameters; see `graph_attention`.

    Attributes:
      features: of each head.
      heads: how many.
      combine: "concat" gives heads * features, "mean" gives features.
      negative_slope: of LeakyReLU.
      dropout_rate: of the attention weights (key: `rngs={"dropout": key}`).
      value_dropout_rate: of W h where it is summed.
      use_bias: whether b is added.
      kernel_init: how W starts, each head for itself; Glorot and Bengio's uniform in the paper.
    """

    features: int
    heads: int = 1
    combine: Combine = "concat"
    negative_slope: float = 0.2
    dropout_rate: float = 0.0
    value_dropout_rate: float = 0.0
    use_bias: bool = True
    kernel_init: Callable = nn.initializers.glorot_uniform()

    @nn.compact
    def __call__(
        self,
        nodes: Float[Array | np.ndarray, "num_nodes in_features"] | SparseRows,
        layout: EdgeLayout,
        *,
        train: bool,
    ) -> tuple[Float[Array, "num_nodes out_features"], Float[Array, "num_edges heads"]]:
        """The result, and the weights of the attention."""
        in_features = nodes.num_columns if isinstance(nodes, SparseRows) else nodes.shape[1]
        width = self.heads * self.features
        bias_width = width if self.combine == "concat" else self.features
        vector = (self.heads, self.features)
        params = AttentionParams(
            self.param("kernel", self._kernel, (in_features, width)),
            self.param("sender_vector", self._vector, vector),
            self.param("receiver_vector", self._vector, vector),
            self.param("bias", nn.initializers.zeros, (bias_width,)) if self.use_bias else None,
        )
        drops = train and max(self.dropout_rate, self.value_dropout_rate) > 0
        return graph_attention(
            params,
            nodes,
            layout,
            combine=self.combine,
            negative_slope=self.negative_slope,
            dropout_rate=self.dropout_rate,
            value_dropout_rate=self.value_dropout_rate,
            key=self.make_rng("dropout") if drops else None,
        )

    def _kernel(self, key, shape):
        keys = jax.random.split(key, self.heads)
        one_head = (shape[0], self.features)
        return jnp.concatenate([self.kernel_init(key, one_head) for key in keys], axis=1)

    def _vector(self, key, shape):
        """As two dense layers from W h to one number, one for each end of an edge."""
        limit = (6 / (self.features + 1)) ** 0.5
        return jax.random.uniform(key, shape, minval=-limit, maxval=limit)


class GAT(nn.Module):
    """Layers of graph attention with an activation, the last of which gives the logits.

    The paper's model for Cora and Citeseer is `GAT((8,), num_classes, heads=8, dropout_rate=0.6)`,
    that for Pubmed has `output_heads=8`.

    Attributes:
      hidden: the features of a head in each hidden layer.
      num_classes: the width of the logits.
      heads: of each hidden layer, concatenated.
      output_heads: of the last layer, averaged.
      activation: what follows each hidden layer.
      dropout_rate: of what enters each layer, the features included, and of the attention weights
        (key: `rngs={"dropout": key}`).
      drop_values: whether W h is dropped out too where it is summed, as in the authors' code.

    Parameters: `layers_0/kernel`, `layers_0/sender_vector` and on, then `head/...`.
    """

    hidden: Sequence[int]
    num_classes: int
    heads: int = 8
    output_heads: int = 1
    activation: Callable = nn.elu
    dropout_rate: float = 0.0
    drop_values: bool = False

    def setup(self):
        rates = dict(
            dropout_rate=self.dropout_rate,
            value_dropout_rate=self.dropout_rate if self.drop_values else 0.0,
        )
        self.layers = [GraphAttention(width, self.heads, **rates) for width in self.hidden]
        self.head = GraphAttention(self.num_classes, self.output_heads, combine="mean", **rates)

    def __call__(
        self,
        nodes: Float[Array | np.ndarray, "num_nodes in_features"] | SparseRows,
        layout: EdgeLayout,
        *,
        train: bool,
    ) -> Float[Array, "num_nodes num_classes"]:
        """The logits of every node."""
        hidden = self.embed(nodes, layout, train=train)
        return self.head(drop_input(self, hidden, train), layout, train=train)[0]

    def embed(
        self,
        nodes: Float[Array | np.ndarray, "num_nodes in_features"] | SparseRows,
        layout: EdgeLayout,
        *,
        train: bool,
    ) -> Float[Array, "num_nodes hidden"] | SparseRows:
        """What enters the last layer. Call it by `apply(..., method=GAT.embed)`."""
        for layer in self.layers:
            hidden, _ = layer(drop_input(self, nodes, train), layout, train=train)
            nodes = self.activation(hidden)
        return nodes

    def attention(
        self,
        nodes: Float[Array | np.ndarray, "num_nodes in_features"] | SparseRows,
        layout: EdgeLayout,
    ) -> list[Float[Array, "num_edges layer_heads"]]:
        """The attention weights of every layer, in evaluation mode.

        Call it by `apply(..., method=GAT.attention)`.
        """
        found = []
        for layer in (*self.layers, self.head):
            hidden, weights = layer(nodes, layout, train=False)
            nodes = self.activation(hidden)
            found.append(weights)
        return found
