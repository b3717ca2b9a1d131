"""The aggregators of GraphSAGE: what a node takes in of its neighbours, whole or sampled.

They are functions of (nodes, neighbours). On a graph, neighbours is its layout and nodes
[num_nodes, features] what its edges carry. Sampled neighbours bring their own values, and nodes
[..., features] is the receivers' side, which only gcn_aggregate reads.

Reference: Hamilton, Ying, Leskovec (2017), "Inductive representation learning on large graphs",
arXiv:1706.02216, section 3.3.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from structdl.core.arrays import as_array
from structdl.core.masks import masked_mean, select
from structdl.core.scan import unroll
from structdl.core.segment import (
    EdgeLayout,
    edge_layout,
    gather_senders,
    gather_sum,
    segment_max,
)
from structdl.core.sparse import SparseRows, matmul
from structdl.errors import InputError
from structdl.recurrent.cells import LSTMParams, lstm_step, lstm_update


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


def mean_aggregate(
    nodes: Float[Array | np.ndarray, "*nodes features"], neighbours: Neighbours
) -> Float[Array, "*nodes aggregated"]:
    """The mean over the neighbours: sum over u in N(v) of h_u / |N(v)|; 0 without neighbours.

    >>> mean_aggregate(jnp.array([[1.0], [3.0]]), edge_layout([0, 1], [1, 1], 2))
    Array([[0.],
           [2.]], dtype=float32)
    """
    if isinstance(neighbours, SampledNeighbours):
        return masked_mean(neighbours.values, neighbours.mask, axis=-2)
    nodes, layout = as_array(nodes), _layout(neighbours)
    counts = jnp.maximum(layout.in_degrees, 1).astype(nodes.dtype)
    return gather_sum(nodes, layout) / counts[:, None]


def gcn_aggregate(
    nodes: Float[Array | np.ndarray, "*nodes features"], neighbours: Neighbours
) -> Float[Array, "*nodes features"]:
    """The mean over the neighbours and the node: (h_v + sum of h_u) / (|N(v)| + 1), eq. 2."""
    nodes = as_array(nodes)
    if isinstance(neighbours, SampledNeighbours):
        count = jnp.sum(neighbours.mask, axis=-1, keepdims=True).astype(nodes.dtype)
        total = jnp.sum(select(neighbours.mask, neighbours.values, 0), axis=-2)
    else:
        layout = _layout(neighbours)
        count = layout.in_degrees.astype(nodes.dtype)[:, None]
        total = gather_sum(nodes, layout)
    return (nodes + total) / (count + 1)


def max_aggregate(
    nodes: Float[Array | np.ndarray, "*nodes features"], neighbours: Neighbours
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
    nodes: Float[Array | np.ndarray, "*nodes in_features"] | SparseRows,
    neighbours: Neighbours,
    params: PoolParams,
    *,
    reduce: Callable = max_aggregate,
) -> Float[Array, "*nodes pooled"]:
    """Pools what a dense layer makes of each neighbour, eq. 3: max over u of relu(W h_u + b).

    Args:
      nodes: h, see the top of this file.
      neighbours: the graph, or the sampled neighbours' own features.
      params: W and b.
      reduce: `max_aggregate`, or `mean_aggregate` for the authors' mean pooling.
    """

    def dense(x):
        out = project(x, params.kernel)
        return jax.nn.relu(out + jnp.broadcast_to(params.bias, out.shape))

    if isinstance(neighbours, SampledNeighbours):
        # a NaN behind the mask would reach the kernel's gradient
        values = select(neighbours.mask, neighbours.values, 0)
        return reduce(nodes, neighbours._replace(values=dense(values)))
    return reduce(dense(nodes), neighbours)


def lstm_aggregate(
    nodes: Float[Array | np.ndarray, "*nodes in_features"] | SparseRows,
    neighbours: Neighbours,
    params: LSTMParams,
    *,
    key: Key[Array, ""] | None = None,
) -> Float[Array, "*nodes hidden"]:
    """The last hidden state of an LSTM that reads the neighbours one by one; 0 without neighbours.

    On a graph the nodes meet the input kernel once, before the edges: a node is the neighbour of
    many, and sparse rows need not be made dense.

    Args:
      nodes: h, see the top of this file.
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
        step, values = lstm_update, _in_slots(project(nodes, params.input_kernel), neighbours, key)
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


def project(x, kernel):
    """x @ kernel, of dense features of any rank or of sparse rows."""
    return matmul(x, kernel) if isinstance(x, SparseRows) else as_array(x) @ kernel
