"""GraphSAGE: each node joined with an aggregate of its neighbours, whole or sampled.

Reference: Hamilton, Ying, Leskovec (2017), "Inductive representation learning on large graphs",
arXiv:1706.02216.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from structdl.core.masks import masked_mean, select
from structdl.core.scan import unroll
from structdl.core.segment import (
    EdgeLayout,
    edge_layout,
    gather_senders,
    gather_sum,
    segment_max,
)
from structdl.core.sparse import SparseRows, dropout, matmul
from structdl.errors import InputError
from structdl.graphs.sampling import Blocks
from structdl.recurrent.cells import LSTMParams, lstm_step, lstm_update

Aggregator = Literal["gcn", "mean", "max_pool", "mean_pool", "lstm"]
Combine = Literal["concat", "sum"]


class OrderedEdges(NamedTuple):
    """The edges of a graph, of which each receiver has at most max_neighbours, in an order."""

    layout: EdgeLayout
    slots: jax.Array  # [num_edges], int32: the place of each edge among those of its receiver
    mask: jax.Array  # [num_nodes, max_neighbours], True at the slots in use


class SampledNeighbours(NamedTuple):
    """The features of sampled neighbours: [..., fan_out, features], with a mask [..., fan_out].

    What the mask excludes stands on the right, as `sample_neighbours` has it.
    """

    values: jax.Array
    mask: jax.Array


Neighbours = EdgeLayout | OrderedEdges | SampledNeighbours


class PoolParams(NamedTuple):
    """The dense layer before a pooling."""

    kernel: jax.Array  # [in_features, pooled]
    bias: jax.Array  # [pooled]


class SageParams(NamedTuple):
    """The parameters of one layer."""

    self_kernel: jax.Array | None  # [in_features, features]; None for "gcn"
    neighbour_kernel: jax.Array  # [aggregated, features]
    aggregator: PoolParams | LSTMParams | None = None  # None for "gcn" and "mean"
    bias: jax.Array | None = None  # the width of the result


def order_edges(
    senders, receivers, num_nodes: int, *, max_neighbours: int, generator=None
) -> OrderedEdges:
    """Numbers the edges into each node, in edge order, at most max_neighbours of them; on the host.

    Args:
      senders: the node each edge starts from, an index per edge.
      receivers: the node it points to.
      num_nodes: how many nodes there are, isolated ones included.
      max_neighbours: the cap; the paper's code has 128.
      generator: a np.random.Generator that chooses which edges of a node beyond the cap stay; None
        makes such a node an error.

    Raises:
      InputError: an index out of range, a cap below 1, or a node of more edges than the cap where
        there is no generator.
    """
    if max_neighbours < 1:
        raise InputError(f"max_neighbours = {max_neighbours}: it must be 1 or more; raise it")
    full = edge_layout(senders, receivers, num_nodes)  # checks the indices
    senders, receivers = np.asarray(full.senders), np.asarray(full.receivers)
    degrees = np.asarray(full.in_degrees)
    largest = degrees.max(initial=0)
    if largest > max_neighbours and generator is None:
        raise InputError(
            f"node {degrees.argmax()} has {largest} neighbours: at most max_neighbours = "
            f"{max_neighbours} are allowed; raise it, or give a generator to draw that many"
        )
    layout = full
    if largest > max_neighbours:
        order = generator.permutation(len(receivers))
        kept = np.sort(order[_places(receivers[order], degrees) < max_neighbours])
        senders, receivers = senders[kept], receivers[kept]
        layout = edge_layout(senders, receivers, num_nodes)
        degrees = np.asarray(layout.in_degrees)
    mask = np.arange(max_neighbours)[None] < degrees[:, None]
    return OrderedEdges(
        layout, jnp.asarray(_places(receivers, degrees), jnp.int32), jnp.asarray(mask)
    )


def _places(receivers: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """How many earlier edges have the same receiver, for each edge."""
    order = np.argsort(receivers, kind="stable")
    firsts = np.cumsum(degrees) - degrees
    places = np.empty(len(receivers), np.int64)
    places[order] = np.arange(len(receivers)) - np.repeat(firsts, degrees)
    return places


# Aggregators: functions of (nodes, neighbours). On a graph, neighbours is its layout and nodes
# [num_nodes, features] what its edges carry. Sampled neighbours bring their own values, and nodes
# [..., features] is the receivers' side, which only gcn_aggregate reads.


def mean_aggregate(
    nodes: Float[Array, "*nodes features"], neighbours: Neighbours
) -> Float[Array, "*nodes aggregated"]:
    """The mean over the neighbours: sum over u in N(v) of h_u / |N(v)|; 0 without neighbours.

    >>> mean_aggregate(jnp.array([[1.0], [3.0]]), edge_layout([0, 1], [1, 1], 2))
    Array([[0.],
           [2.]], dtype=float32)
    """
    if isinstance(neighbours, SampledNeighbours):
        return masked_mean(neighbours.values, neighbours.mask, axis=-2)
    layout = _layout(neighbours)
    counts = jnp.maximum(layout.in_degrees, 1).astype(nodes.dtype)
    return gather_sum(nodes, layout) / counts[:, None]


def gcn_aggregate(
    nodes: Float[Array, "*nodes features"], neighbours: Neighbours
) -> Float[Array, "*nodes features"]:
    """The mean over the neighbours and the node: (h_v + sum of h_u) / (|N(v)| + 1), eq. 2."""
    if isinstance(neighbours, SampledNeighbours):
        count = jnp.sum(neighbours.mask, axis=-1, keepdims=True).astype(nodes.dtype)
        total = jnp.sum(select(neighbours.mask, neighbours.values, 0), axis=-2)
    else:
        layout = _layout(neighbours)
        count = layout.in_degrees.astype(nodes.dtype)[:, None]
        total = gather_sum(nodes, layout)
    return (nodes + total) / (count + 1)


def max_aggregate(
    nodes: Float[Array, "*nodes features"], neighbours: Neighbours
) -> Float[Array, "*nodes aggregated"]:
    """The elementwise maximum over the neighbours; 0 without neighbours.

    The gradient is shared evenly between equal maxima.
    """
    if isinstance(neighbours, SampledNeighbours):
        values, mask = neighbours
        largest = jnp.max(select(mask, values, -jnp.inf), axis=-2)
        # without neighbours the maximum of -inf has a gradient only to what is masked
        return select(jnp.any(mask, axis=-1), largest, 0)
    layout = _layout(neighbours)
    on_edges = gather_senders(nodes, layout)
    return segment_max(on_edges, layout.receivers, layout.num_receivers, layout=layout)


def pool_aggregate(
    nodes: Float[Array, "*nodes in_features"] | SparseRows,
    neighbours: Neighbours,
    params: PoolParams,
    *,
    reduce: Callable = max_aggregate,
) -> Float[Array, "*nodes pooled"]:
    """Pools what a dense layer makes of each neighbour, eq. 3: max over u of relu(W h_u + b).

    Args:
      nodes: h, see `sage_convolution`.
      neighbours: the graph, or the sampled neighbours' own features.
      params: W and b.
      reduce: `max_aggregate`, or `mean_aggregate` for the authors' mean pooling.
    """

    def dense(x):
        out = _product(x, params.kernel)
        return nn.relu(out + jnp.broadcast_to(params.bias, out.shape))

    if isinstance(neighbours, SampledNeighbours):
        # a NaN behind the mask would reach the kernel's gradient
        values = select(neighbours.mask, neighbours.values, 0)
        return reduce(nodes, neighbours._replace(values=dense(values)))
    return reduce(dense(nodes), neighbours)


def lstm_aggregate(
    nodes: Float[Array, "*nodes in_features"] | SparseRows,
    neighbours: Neighbours,
    params: LSTMParams,
    *,
    key: Key[Array, ""] | None = None,
) -> Float[Array, "*nodes hidden"]:
    """The last hidden state of an LSTM that reads the neighbours one by one; 0 without neighbours.

    On a graph the nodes meet the input kernel once, before the edges: a node is the neighbour of
    many, and sparse rows need not be made dense.

    Args:
      nodes: h, see `sage_convolution`.
      neighbours: the edges of a graph from `order_edges`, or the sampled neighbours.
      params: of the LSTM.
      key: draws a new uniform order for every node; None keeps the order given.

    Raises:
      ValueError: neighbours is a layout, which says no order.
    """
    if isinstance(neighbours, EdgeLayout):
        raise ValueError("the lstm aggregator reads neighbours in order: give it order_edges(...)")
    mask = neighbours.mask
    if isinstance(neighbours, SampledNeighbours):
        step, values = lstm_step, neighbours.values
        if key is not None:
            order = _random_order(key, mask)
            values = jnp.take_along_axis(values, order[..., None], axis=-2)
    else:
        step, values = lstm_update, _in_slots(_product(nodes, params.input_kernel), neighbours, key)
    batch, hidden = mask.shape[:-1], params.recurrent_kernel.shape[0]
    sequences = values.reshape(-1, *values.shape[-2:])  # [nodes, max_neighbours, ...]
    zeros = jnp.zeros((len(sequences), hidden), values.dtype)
    lengths = jnp.sum(mask, axis=-1, dtype=jnp.int32).reshape(-1)
    (_, last), _ = unroll(step, params, (zeros, zeros), sequences, lengths=lengths)
    return last.reshape(*batch, hidden)


def _random_order(key, mask):
    """A uniform permutation of the slots in use, which stay on the left."""
    return jnp.argsort(jnp.where(mask, jax.random.uniform(key, mask.shape), 2), axis=-1)


def _in_slots(nodes, edges: OrderedEdges, key):
    """Each receiver's neighbours side by side: [num_nodes, max_neighbours, features]."""
    num_nodes, width = edges.mask.shape
    receivers, slots = edges.layout.receivers, edges.slots
    if key is not None:
        slots = _random_order(key, edges.mask)[receivers, slots]
    # every edge has a slot of its own: what scatters here is as fixed as a gather
    flat = jnp.zeros((num_nodes * width, nodes.shape[1]), nodes.dtype)
    flat = flat.at[receivers * width + slots].set(
        gather_senders(nodes, edges.layout), unique_indices=True, mode="promise_in_bounds"
    )
    return flat.reshape(num_nodes, width, nodes.shape[1])


def _layout(neighbours: EdgeLayout | OrderedEdges) -> EdgeLayout:
    return neighbours.layout if isinstance(neighbours, OrderedEdges) else neighbours


def _product(x, kernel):
    return matmul(x, kernel) if isinstance(x, SparseRows) else x @ kernel


def sage_convolution(
    params: SageParams,
    nodes: Float[Array, "*nodes in_features"] | SparseRows,
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

    Differs from the paper: one kernel for each half, as the authors' code has it, where the paper
    writes one for both; the same function for "sum", twice the width for "concat".
    """
    if aggregator == "lstm":
        aggregated = lstm_aggregate(nodes, neighbours, params.aggregator, key=key)
    elif aggregator in ("max_pool", "mean_pool"):
        reduce = max_aggregate if aggregator == "max_pool" else mean_aggregate
        aggregated = pool_aggregate(nodes, neighbours, params.aggregator, reduce=reduce)
    else:
        return _finish(*_linear_halves(params, nodes, neighbours, aggregator), params.bias, combine)
    halves = _product(nodes, params.self_kernel), aggregated @ params.neighbour_kernel
    return _finish(*halves, params.bias, combine)


def _linear_halves(params, nodes, neighbours, aggregator):
    """Both halves of "mean" and "gcn": the narrower side of the neighbours' product is averaged."""
    self_kernel, kernel = params.self_kernel, params.neighbour_kernel
    aggregate = gcn_aggregate if aggregator == "gcn" else mean_aggregate
    is_sparse = isinstance(nodes, SparseRows)
    is_sampled = isinstance(neighbours, SampledNeighbours)  # fan_out rows become one: first that
    if is_sampled or not (is_sparse or kernel.shape[1] <= kernel.shape[0]):
        own = None if self_kernel is None else nodes @ self_kernel
        return own, aggregate(nodes, neighbours) @ kernel
    if self_kernel is None:
        return None, aggregate(_product(nodes, kernel), neighbours)
    # one pass over wide features for both kernels
    own, other = jnp.split(_product(nodes, jnp.concatenate([self_kernel, kernel], axis=1)), 2, 1)
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
        nodes: Float[Array, "*nodes in_features"] | SparseRows,
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
      activation: what follows each layer but the last before the classifier's input or embedding.
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
        nodes: Float[Array, "num_nodes in_features"] | SparseRows,
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
        return self.head(self._drop(hidden, train)) if self.dense_head else hidden

    def embed(
        self,
        nodes: Float[Array, "num_nodes in_features"] | SparseRows,
        neighbours: EdgeLayout | OrderedEdges | Blocks,
        *,
        train: bool,
    ) -> Float[Array, "rows hidden"]:
        """z, what enters the classifier; call it by `apply(..., method=GraphSAGE.embed)`."""
        return self._run(self.layers, nodes, neighbours, train)

    def _run(self, layers, nodes, neighbours, train: bool):
        if not isinstance(neighbours, Blocks):
            for layer in layers:
                nodes = layer(self._drop(nodes, train), neighbours, train=train)
            return nodes
        if len(neighbours.masks) != len(layers):
            raise ValueError(f"{len(neighbours.masks)} hops of blocks for {len(layers)} layers")
        hops = [nodes[ids] for ids in neighbours.nodes]
        for layer in layers:  # each one consumes the outermost hop
            hops = [self._drop(hop, train) for hop in hops]
            inner, outer = hops[:-1], hops[1:]
            hops = [
                layer(own, SampledNeighbours(values, mask), train=train)
                for own, values, mask in zip(inner, outer, neighbours.masks, strict=False)
            ]
        return hops[0]

    def _drop(self, x, train: bool):
        if not train or self.dropout_rate == 0:
            return x
        return dropout(self.make_rng("dropout"), x, self.dropout_rate)
