"""GraphSAGE: each node joined with an aggregate of its neighbours, whole or sampled.

Reference: Hamilton, Ying, Leskovec (2017), "Inductive representation learning on large graphs",
arXiv:1706.02216.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from structdl.core.segment import EdgeLayout
from structdl.core.sparse import SparseRows, as_features
from structdl.graphs.aggregators import (
    Neighbours,
    OrderedEdges,
    PoolParams,
    SampledNeighbours,
    gcn_aggregate,
    lstm_aggregate,
    max_aggregate,
    mean_aggregate,
    pool_aggregate,
    project,
)
from structdl.graphs.layer_dropout import drop_input
from structdl.graphs.sampling import Blocks
from structdl.recurrent.cells import LSTMParams

Aggregator = Literal["gcn", "mean", "max_pool", "mean_pool", "lstm"]
Combine = Literal["concat", "sum"]


class SageParams(NamedTuple):
    """The parameters of one layer."""

    self_kernel: jax.Array | None  # [in_features, features]; None for "gcn"
    neighbour_kernel: jax.Array  # [aggregated, features]
    aggregator: PoolParams | LSTMParams | None = None  # None for "gcn" and "mean"
    bias: jax.Array | None = None  # the width of the result


def sage_convolution(
    params: SageParams,
    nodes: Float[Array | np.ndarray, "*nodes in_features"] | SparseRows,
    neighbours: Neighbours,
    *,
    aggregator: Aggregator,
    combine: Combine = "concat",
    key: Key[Array, ""] | None = None,
) -> Float[Array, "*nodes out_features"]:
    """One layer before its activation (Algorithm 1, line 5).

    concat: [h_v W_self, AGG(h_u : u in N(v)) W_neighbour] + b;  sum: the sum of the two halves.
    The gcn aggregator takes the node itself in, and has the second half only.

    Args:
      params: the kernels, and what the aggregator itself learns.
      nodes: h: of the whole graph [num_nodes, in_features], dense or, on a graph, SparseRows; or
        of the receivers of sampled neighbours, [..., in_features].
      neighbours: the edges of the graph (`edge_layout`, or `order_edges` for "lstm"), or the
        features of sampled neighbours.
      aggregator: "gcn", "mean", "max_pool", "mean_pool" or "lstm".
      combine: "concat", whose result is twice as wide as a kernel, or "sum".
      key: for "lstm", see `lstm_aggregate`.

    Raises:
      ValueError: an unknown aggregator or combination, or "lstm" with edges in no order.

    Differs from the paper: one kernel for each half, as the authors' code has it, where the paper
    writes one for both; the same function for "sum", twice the width for "concat".
    """
    if aggregator not in get_args(Aggregator) or combine not in get_args(Combine):
        raise ValueError(
            f"aggregator {aggregator!r}, combine {combine!r}: choose of {get_args(Aggregator)} and "
            f"{get_args(Combine)}"
        )
    if aggregator == "lstm":
        aggregated = lstm_aggregate(nodes, neighbours, params.aggregator, key=key)
    elif aggregator in ("max_pool", "mean_pool"):
        reduce = max_aggregate if aggregator == "max_pool" else mean_aggregate
        aggregated = pool_aggregate(nodes, neighbours, params.aggregator, reduce=reduce)
    else:
        return _finish(*_linear_halves(params, nodes, neighbours, aggregator), params.bias, combine)
    halves = project(nodes, params.self_kernel), aggregated @ params.neighbour_kernel
    return _finish(*halves, params.bias, combine)


def _linear_halves(params, nodes, neighbours, aggregator):
    """Both halves of "mean" and "gcn": the narrower side of the neighbours' product is averaged."""
    self_kernel, kernel = params.self_kernel, params.neighbour_kernel
    aggregate = gcn_aggregate if aggregator == "gcn" else mean_aggregate
    is_sparse = isinstance(nodes, SparseRows)
    is_sampled = isinstance(neighbours, SampledNeighbours)  # fan_out rows become one: first that
    if is_sampled or not (is_sparse or kernel.shape[1] <= kernel.shape[0]):
        own = None if self_kernel is None else project(nodes, self_kernel)
        return own, aggregate(nodes, neighbours) @ kernel
    if self_kernel is None:
        return None, aggregate(project(nodes, kernel), neighbours)
    # one pass over wide features for both kernels
    own, other = jnp.split(project(nodes, jnp.concatenate([self_kernel, kernel], axis=1)), 2, 1)
    return own, aggregate(other, neighbours)


def _finish(own, aggregated, bias, combine):
    if own is None:
        out = aggregated
    elif combine == "concat":
        out = jnp.concatenate([own, aggregated], axis=-1)
    else:
        out = own + aggregated
    return out if bias is None else out + jnp.broadcast_to(bias, out.shape)


def l2_normalize(x: Float[Array, "*nodes features"]) -> Float[Array, "*nodes features"]:
    """Divides each row by its Euclidean norm; a row of zeros, and its gradient, stay zeros.

    >>> l2_normalize(jnp.array([[3.0, 4.0], [0.0, 0.0]]))
    Array([[0.6, 0.8],
           [0. , 0. ]], dtype=float32)
    """
    squared = jnp.sum(x * x, axis=-1, keepdims=True)
    # the inner where keeps the gradient of the root finite
    return jnp.where(squared > 0, x / jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)


class SageConvolution(nn.Module):
    """One layer with its parameters: see `sage_convolution`; then activation and normalisation.

    Attributes:
      features: the width of each half; "concat" gives twice that, but for "gcn".
      aggregator: "gcn", "mean", "max_pool", "mean_pool" or "lstm".
      combine: "concat" or "sum".
      activation: what follows, or None.
      normalize: whether rows of the result get length 1 (Algorithm 1, line 7).
      use_bias: whether b is added; the authors' code has none.
      aggregator_features: the width of the pool, or of the LSTM; None means that of the authors'
        code, 512 and 128.

    With train=True the lstm aggregator shuffles the neighbours (key: `rngs={"permutation": key}`).
    """

    features: int
    aggregator: Aggregator = "mean"
    combine: Combine = "concat"
    activation: Callable | None = nn.relu
    normalize: bool = True
    use_bias: bool = False
    aggregator_features: int | None = None

    @nn.compact
    def __call__(
        self,
        nodes: Float[Array | np.ndarray, "*nodes in_features"] | SparseRows,
        neighbours: Neighbours,
        *,
        train: bool,
    ) -> Float[Array, "*nodes out_features"]:
        in_features = nodes.num_columns if isinstance(nodes, SparseRows) else nodes.shape[-1]
        shuffle = self.aggregator == "lstm" and train
        out = sage_convolution(
            self._params(in_features),
            nodes,
            neighbours,
            aggregator=self.aggregator,
            combine=self.combine,
            key=self.make_rng("permutation") if shuffle else None,
        )
        out = out if self.activation is None else self.activation(out)
        return l2_normalize(out) if self.normalize else out

    def _params(self, in_features: int) -> SageParams:
        glorot, zeros = nn.initializers.glorot_uniform(), nn.initializers.zeros
        aggregated, aggregator = in_features, None
        if self.aggregator in ("max_pool", "mean_pool"):
            aggregated = self.aggregator_features or 512
            aggregator = PoolParams(
                self.param("pool_kernel", glorot, (in_features, aggregated)),
                self.param("pool_bias", zeros, (aggregated,)),
            )
        elif self.aggregator == "lstm":
            aggregated = self.aggregator_features or 128
            aggregator = LSTMParams(
                self.param("lstm_input_kernel", glorot, (in_features, 4 * aggregated)),
                self.param("lstm_recurrent_kernel", glorot, (aggregated, 4 * aggregated)),
                self.param("lstm_bias", _open_forget_gate, (4 * aggregated,)),
            )
        shape = (self.features,)
        own = None
        if self.aggregator != "gcn":
            own = self.param("self_kernel", glorot, (in_features, *shape))
            shape = (2 * self.features,) if self.combine == "concat" else shape
        kernel = self.param("neighbour_kernel", glorot, (aggregated, self.features))
        bias = self.param("bias", zeros, shape) if self.use_bias else None
        return SageParams(own, kernel, aggregator, bias)


def _open_forget_gate(key, shape):
    """1 for the forget gate, 0 for the others, as in the authors' code."""
    return jnp.repeat(jnp.array([0.0, 1.0, 0.0, 0.0]), shape[0] // 4)


class GraphSAGE(nn.Module):
    """Layers of GraphSAGE, then a classifier; for a whole graph or for sampled neighbourhoods.

    The paper's supervised model is `GraphSAGE((128, 128), num_classes)` on blocks of fan-outs
    (25, 10).

    Attributes:
      hidden: the width of each layer, see `SageConvolution.features`.
      num_classes: the width of the logits.
      aggregator, combine, use_bias, aggregator_features: of each layer, see `SageConvolution`.
      activation: what follows each layer of `hidden`, but for the last where dense_head is True.
      normalize: which layers' rows get length 1: "every" (Algorithm 1), "last" (the authors' code)
        or "never".
      dropout_rate: of what enters each layer and the classifier (key: `rngs={"dropout": key}`).
      dense_head: whether the classifier is a dense layer, or else one more layer without
        activation and normalisation whose halves are summed; blocks then need one hop more.

    Differs from the paper: the last layer of `hidden` has no activation where a dense layer
    follows, as in the authors' code: rows without negative entries could not be dissimilar in the
    unsupervised loss.
    """

    hidden: Sequence[int]
    num_classes: int
    aggregator: Aggregator = "mean"
    combine: Combine = "concat"
    activation: Callable = nn.relu
    normalize: Literal["every", "last", "never"] = "every"
    dropout_rate: float = 0.0
    use_bias: bool = False
    aggregator_features: int | None = None
    dense_head: bool = True

    def setup(self):
        last = len(self.hidden) - 1

        def layer(features, combine, activation, normalize):
            return SageConvolution(
                features,
                self.aggregator,
                combine,
                activation,
                normalize,
                self.use_bias,
                self.aggregator_features,
            )

        self.layers = [
            layer(
                width,
                self.combine,
                None if place == last and self.dense_head else self.activation,
                self.normalize == "every" or (self.normalize == "last" and place == last),
            )
            for place, width in enumerate(self.hidden)
        ]
        if self.dense_head:
            self.head = nn.Dense(self.num_classes, kernel_init=nn.initializers.glorot_uniform())
        else:
            self.head = layer(self.num_classes, "sum", None, False)

    def __call__(
        self,
        nodes: Float[Array | np.ndarray, "num_nodes in_features"] | SparseRows,
        neighbours: EdgeLayout | OrderedEdges | Blocks,
        *,
        train: bool,
    ) -> Float[Array, "rows num_classes"]:
        """The logits of every node, or of the seeds of the blocks.

        Args:
          nodes: the features of the whole graph; dense where neighbours are blocks.
          neighbours: the edges of the graph, or what `sample_blocks` drew from it.
          train: whether to drop and to shuffle.
        """
        layers = self.layers if self.dense_head else [*self.layers, self.head]
        hidden = self._run(layers, nodes, neighbours, train)
        return self.head(drop_input(self, hidden, train)) if self.dense_head else hidden

    def embed(
        self,
        nodes: Float[Array | np.ndarray, "num_nodes in_features"] | SparseRows,
        neighbours: EdgeLayout | OrderedEdges | Blocks,
        *,
        train: bool,
    ) -> Float[Array, "rows hidden"]:
        """z, what enters the classifier; call it by `apply(..., method=GraphSAGE.embed)`."""
        return self._run(self.layers, nodes, neighbours, train)

    def _run(self, layers, nodes, neighbours, train: bool):
        nodes = as_features(nodes)
        if not isinstance(neighbours, Blocks):
            for layer in layers:
                nodes = layer(drop_input(self, nodes, train), neighbours, train=train)
            return nodes
        if len(neighbours.masks) != len(layers):
            raise ValueError(f"{len(neighbours.masks)} hops of blocks for {len(layers)} layers")
        hops = [nodes[ids] for ids in neighbours.nodes]
        for layer in layers:  # each one consumes the outermost hop
            hops = [drop_input(self, hop, train) for hop in hops]
            inner, outer = hops[:-1], hops[1:]
            hops = [
                layer(own, SampledNeighbours(values, mask), train=train)
                for own, values, mask in zip(inner, outer, neighbours.masks, strict=False)
            ]
        return hops[0]
