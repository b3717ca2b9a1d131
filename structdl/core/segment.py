"""Reductions over the edges of a graph: the seam that every graph layer goes through.

`gather_sum` is the product with a sparse matrix, without an array of edges x features; the
`segment_*` functions reduce values that lie on the edges. Both run on the tables of an
`EdgeLayout`, forwards and backwards, or scatter where that measures faster (`method`).
Gradients are reverse mode, to any order; `gather_sum` by scatter has forward mode too.
"""

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Num

from structdl.core.edge_layout import (
    SCATTER_OPTIONS,
    EdgeLayout as EdgeLayout,
    edge_layout as edge_layout,
    edge_list as edge_list,
    expand,
    reduce_table,
    sum_dtype,
    take,
)
from structdl.core.halo import fetch, in_blocks, without_halo

Method = Literal["scatter", "tables"]

_FEW_EDGES = 1024  # for fewer, on CPU, all that tables cost is the time to compile them
_SCATTERED_VALUES = 16  # with fewer values an edge, CPU scatters
_LARGEST_COPY = 2**20  # values: a copy in cache
_FEATURES_AT_ONCE = 16  # one cache line of float32


def gather_sum(
    nodes: Num[Array, "num_senders ..."],
    layout: EdgeLayout,
    weights: Num[Array, "num_edges ..."] | None = None,
    *,
    method: Method | None = None,
) -> Num[Array, "num_receivers ..."]:
    """Sums the nodes at the other end of each receiver's edges, weighted.

    out[r] = sum over edges e into r of weights[e] * nodes[senders[e]]

    Nodes are [num_senders, ...]. Weights are [num_edges] or, where a node has heads,
    [num_edges, heads] for nodes [num_senders, heads, features]. A receiver without edges gets 0;
    half precision is summed in float32. A NaN or an infinity reaches the receivers of its node
    and no other, as NaN where a shorter row is padded.

    Of one part of a partitioned graph, inside of shard_map, the nodes are those of the part; the
    others that its edges start from are fetched first (`structdl.graphs.partition`).

    Raises:
      ValueError: the nodes or weights do not fit the layout.

    >>> layout = edge_layout(jnp.array([0, 1]), jnp.array([1, 1]), num_senders=2)
    >>> gather_sum(jnp.array([[1.0], [10.0]]), layout, jnp.array([0.5, 1.0]))
    Array([[ 0. ],
           [10.5]], dtype=float32)
    """
    if layout.halo is not None:
        return _gather_sum_with_halo(nodes, layout, weights, method)
    if nodes.shape[0] != layout.num_senders:
        raise ValueError(f"nodes {nodes.shape} of a layout of {layout.num_senders} senders")
    if weights is not None:
        heads = weights.shape[1:]
        if weights.shape[0] != layout.num_edges or nodes.shape[1 : 1 + len(heads)] != heads:
            raise ValueError(
                f"weights {weights.shape} of {layout.num_edges} edges and nodes {nodes.shape}"
            )
    if method is None and jax.default_backend() == "cpu" and layout.num_edges < _FEW_EDGES:
        method = "scatter"
    if _method(method, layout) == "tables":
        weights = None if weights is None else _materialize(weights)
        return _gather_sum(_materialize(nodes), weights, layout)
    return _scattered_gather_sum(nodes, weights, layout)


def segment_sum(
    values: Num[Array, "num_edges ..."],
    segment_ids: Int[Array, " num_edges"],
    num_segments: int,
    layout: EdgeLayout | None = None,
    *,
    method: Method | None = None,
) -> Num[Array, "num_segments ..."]:
    """Sums the values of each segment: out[s] = sum of values[e] with segment_ids[e] = s.

    An empty segment gets 0. With a layout, segment_ids must be its receivers. Without one, a
    value whose id is num_segments or more is dropped.

    >>> segment_sum(jnp.array([1.0, 2.0, 4.0]), jnp.array([0, 2, 2]), 3)
    Array([1., 0., 6.], dtype=float32)
    """
    method = _segment_method(method, values, segment_ids, num_segments, layout)
    return _segment_sum(method, num_segments, values, segment_ids, layout)


def segment_mean(
    values: Float[Array, "num_edges ..."],
    segment_ids: Int[Array, " num_edges"],
    num_segments: int,
    layout: EdgeLayout | None = None,
    *,
    method: Method | None = None,
) -> Float[Array, "num_segments ..."]:
    """Averages the values of each segment; an empty one gets 0. Arguments as in segment_sum."""
    total = segment_sum(values, segment_ids, num_segments, layout, method=method)
    counts = jnp.maximum(_counts(segment_ids, num_segments, layout), 1).astype(total.dtype)
    return total / expand(counts, total.ndim)


def segment_max(
    values: Float[Array, "num_edges ..."],
    segment_ids: Int[Array, " num_edges"],
    num_segments: int,
    layout: EdgeLayout | None = None,
    *,
    method: Method | None = None,
) -> Float[Array, "num_segments ..."]:
    """The largest value of each segment; an empty one gets 0. Arguments as in segment_sum.

    The gradient is shared evenly between equal maxima.
    """
    method = _segment_method(method, values, segment_ids, num_segments, layout)
    return _segment_max(method, num_segments, values, segment_ids, layout)


def segment_min(
    values: Float[Array, "num_edges ..."],
    segment_ids: Int[Array, " num_edges"],
    num_segments: int,
    layout: EdgeLayout | None = None,
    *,
    method: Method | None = None,
) -> Float[Array, "num_segments ..."]:
    """The smallest value of each segment; otherwise as segment_max."""
    return -segment_max(-values, segment_ids, num_segments, layout, method=method)


def segment_softmax(
    logits: Float[Array, "num_edges ..."],
    segment_ids: Int[Array, " num_edges"],
    num_segments: int,
    layout: EdgeLayout | None = None,
    *,
    method: Method | None = None,
) -> Float[Array, "num_edges ..."]:
    """Normalises exp(logits) within each segment, so that its edges sum to 1.

    out[e] = exp(logits[e]) / sum of exp(logits[f]) over f in the segment of e

    A logit of -inf gets 0, also where the whole segment is -inf; gradients stay finite.
    Arguments as in segment_sum.

    >>> segment_softmax(jnp.array([5.0, 5.0, -jnp.inf]), jnp.array([1, 1, 0]), 2)
    Array([0.5, 0.5, 0. ], dtype=float32)
    """
    method = _segment_method(method, logits, segment_ids, num_segments, layout)
    where = (segment_ids, layout)
    maxima = _segment_max(method, num_segments, lax.stop_gradient(logits), *where)
    maxima = jnp.where(jnp.isneginf(maxima), 0, maxima)
    scaled = jnp.exp(logits - _spread(method, num_segments, maxima, *where))
    totals = _segment_sum(method, num_segments, scaled, *where)
    totals = jnp.where(totals == 0, 1, totals)
    return scaled / _spread(method, num_segments, totals, *where)


def gather_senders(
    nodes: Num[Array, "num_senders ..."], layout: EdgeLayout, *, method: Method | None = None
) -> Num[Array, "num_edges ..."]:
    """Puts on each edge its sender's values; the gradient is a reduction over the layout."""
    if layout.halo is not None:
        _check_part(nodes, layout)
        nodes, layout = fetch(nodes, layout.halo), without_halo(layout)
    return gather_receivers(nodes, layout.transpose, method=method)


def gather_receivers(
    nodes: Num[Array, "num_receivers ..."], layout: EdgeLayout, *, method: Method | None = None
) -> Num[Array, "num_edges ..."]:
    """Puts on each edge its receiver's values; the gradient is a reduction over the layout."""
    if nodes.shape[0] != layout.num_receivers:
        raise ValueError(f"nodes {nodes.shape} of a layout of {layout.num_receivers} nodes")
    method = _narrow_method(method, math.prod(nodes.shape[1:]), layout)
    return _spread(method, layout.num_receivers, nodes, layout.receivers, layout)


def _method(method: Method | None, layout: EdgeLayout | None) -> Method:
    """Tables, where there are any: faster than scatter on CPU but for a Cora-size single call.

    On GPU and TPU not measured: tables because they are deterministic and need no atomics.
    """
    has_tables = layout is not None and layout.by_receiver is not None
    if method is None:
        return "tables" if has_tables else "scatter"
    if method not in ("scatter", "tables"):
        raise ValueError(f"method {method!r}: 'scatter' or 'tables'")
    if method == "tables" and not has_tables:
        raise ValueError("method 'tables' needs a layout made by edge_layout")
    return method


def _narrow_method(method: Method | None, size: int, layout: EdgeLayout | None) -> Method:
    # Measured on CPU, sums: scatter is 4 times as fast at 1 value, 1.7 at 16, and even at 64.
    if method is None and jax.default_backend() == "cpu" and size < _SCATTERED_VALUES:
        return "scatter"
    return _method(method, layout)


def _segment_method(method, values, segment_ids, num_segments, layout) -> Method:
    if values.shape[0] != segment_ids.shape[0]:
        raise ValueError(f"values {values.shape} of {segment_ids.shape[0]} segment ids")
    if layout is not None and (layout.num_edges, layout.num_receivers) != (
        values.shape[0],
        num_segments,
    ):
        raise ValueError(
            f"{values.shape[0]} values in {num_segments} segments of a layout of "
            f"{layout.num_edges} edges into {layout.num_receivers} nodes"
        )
    return _narrow_method(method, math.prod(values.shape[1:]), layout)


def _materialize(array):
    """The array itself, computed before it is gathered from.

    XLA on CPU fuses what computes an array into the gathers that read it, and then computes it
    once an edge and not once a node. It drops optimization_barrier before it fuses, but fuses
    across no scatter; of a scatter to one row it would make a slice, hence two rows. An array
    that is an argument is copied for nothing, so large ones are left alone.
    """
    is_large = array.size > _LARGEST_COPY
    if jax.default_backend() != "cpu" or array.shape[0] < 2 or is_large:
        return array
    rows = jnp.arange(2, dtype=jnp.int32)
    return array.at[rows].add(0, **SCATTER_OPTIONS)


def _gather_sum_with_halo(nodes, layout, weights, method):
    """Tables unless asked otherwise: a scatter would sum the padding edges too."""
    _check_part(nodes, layout)
    halo, local, method = layout.halo, without_halo(layout), method or "tables"

    def reduce(nodes):
        return gather_sum(fetch(nodes, halo), local, weights, method=method)

    one_weight = weights is None or weights.ndim == 1
    if halo.features_at_once and one_weight and nodes.size > len(nodes) * halo.features_at_once:
        return in_blocks(reduce, nodes, halo.features_at_once)
    return reduce(nodes)


def _check_part(nodes, layout):
    if nodes.shape[0] != layout.num_receivers:
        raise ValueError(f"nodes {nodes.shape} of a part of {layout.num_receivers} rows")


# gather_sum and edge_dot are bilinear, and each is the other's derivative.


def _scattered_gather_sum(nodes, weights, layout):
    """Plain operations, with derivatives of every kind; forward mode too."""
    dtype = jnp.result_type(nodes, *([] if weights is None else [weights]))
    values = take(nodes, layout.senders).astype(sum_dtype(dtype))
    if weights is not None:
        values = values * expand(weights.astype(values.dtype), values.ndim)
    return jax.ops.segment_sum(values, layout.receivers, layout.num_receivers).astype(dtype)


@jax.custom_vjp
def _gather_sum(nodes, weights, layout):
    return _gather_sum_tables(nodes, weights, layout)


def _gather_sum_forward(nodes, weights, layout):
    return _gather_sum(nodes, weights, layout), (nodes, weights, layout)


def _gather_sum_backward(residuals, cotangent):
    nodes, weights, layout = residuals
    cotangent = _materialize(cotangent)
    nodes_bar = _gather_sum(cotangent, weights, layout.transpose).astype(nodes.dtype)
    if weights is None:
        return nodes_bar, None, None
    # Without a reader of this gradient, jit drops the call.
    weights_bar = _edge_dot(weights.ndim - 1, cotangent, nodes, layout)
    return nodes_bar, weights_bar.astype(weights.dtype), None


_gather_sum.defvjp(_gather_sum_forward, _gather_sum_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _edge_dot(num_head_axes, receivers, senders, layout):
    """The dot product of the two ends of each edge, over all but the leading head axes."""
    return _edge_dot_blocks(num_head_axes, receivers, senders, layout.receivers, layout.senders)


def _edge_dot_forward(num_head_axes, receivers, senders, layout):
    out = _edge_dot(num_head_axes, receivers, senders, layout)
    return out, (receivers, senders, layout)


def _edge_dot_backward(num_head_axes, residuals, cotangent):
    receivers, senders, layout = residuals
    cotangent = _materialize(cotangent)
    receivers_bar = _gather_sum(senders, cotangent, layout)
    senders_bar = _gather_sum(receivers, cotangent, layout.transpose)
    return receivers_bar.astype(receivers.dtype), senders_bar.astype(senders.dtype), None


_edge_dot.defvjp(_edge_dot_forward, _edge_dot_backward)


@functools.partial(jax.jit, static_argnums=0)
def _edge_dot_blocks(num_head_axes, receivers, senders, receiver_ids, sender_ids):
    """Edge by edge, a few features at a time: no array of edges x features comes to be."""
    heads = receivers.shape[1 : 1 + num_head_axes]
    num_heads, num_edges = math.prod(heads), receiver_ids.shape[0]
    dtype = jnp.result_type(receivers, senders)
    size = math.prod(receivers.shape[1 + num_head_axes :])
    receivers = receivers.reshape(receivers.shape[0], num_heads, size)
    senders = senders.reshape(senders.shape[0], num_heads, size)
    total = jnp.zeros((num_edges, num_heads), sum_dtype(dtype))
    if num_edges == 0:
        return total.reshape(num_edges, *heads).astype(dtype)

    def one(nodes, ids, feature):
        # a slice shares one row of indices between all features; XLA would store three per value
        column = lax.dynamic_index_in_dim(nodes, feature, axis=2, keepdims=False)
        return take(column, ids).astype(total.dtype)

    def block(total, first, count):
        for offset in range(count):
            feature = first + offset
            total += one(receivers, receiver_ids, feature) * one(senders, sender_ids, feature)
        return total

    # the odd block first: under shard_map a scan's carry must vary over the mesh as its result does
    odd = size % _FEATURES_AT_ONCE or min(size, _FEATURES_AT_ONCE)
    total = block(total, 0, odd)
    if odd < size:
        total, _ = lax.scan(
            lambda total, first: (block(total, first, _FEATURES_AT_ONCE), None),
            total,
            jnp.arange(odd, size, _FEATURES_AT_ONCE),
        )
    return total.reshape(num_edges, *heads).astype(dtype)


# segment_sum and spread are linear, and each is the other's transpose.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _segment_sum(method, num_segments, values, segment_ids, layout):
    dtype = values.dtype
    values = values.astype(sum_dtype(dtype))
    if method == "tables":
        return _reduce_edges("sum", values, layout.by_receiver).astype(dtype)
    return jax.ops.segment_sum(values, segment_ids, num_segments).astype(dtype)


def _segment_sum_forward(method, num_segments, values, segment_ids, layout):
    out = _segment_sum(method, num_segments, values, segment_ids, layout)
    return out, (segment_ids, layout)


def _segment_sum_backward(method, num_segments, residuals, cotangent):
    return _spread(method, num_segments, cotangent, *residuals), None, None


_segment_sum.defvjp(_segment_sum_forward, _segment_sum_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _spread(method, num_segments, segments, segment_ids, layout):
    """Each edge gets the value of its segment; 0 where its id is out of range."""
    if layout is not None:
        return take(segments, segment_ids)
    return segments.at[segment_ids].get(mode="fill", fill_value=0)


def _spread_forward(method, num_segments, segments, segment_ids, layout):
    out = _spread(method, num_segments, segments, segment_ids, layout)
    return out, (segment_ids, layout)


def _spread_backward(method, num_segments, residuals, cotangent):
    return _segment_sum(method, num_segments, cotangent, *residuals), None, None


_spread.defvjp(_spread_forward, _spread_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _segment_max(method, num_segments, values, segment_ids, layout):
    if method == "tables":
        return _reduce_edges("max", values, layout.by_receiver)
    maxima = jax.ops.segment_max(values, segment_ids, num_segments)
    counts = _counts(segment_ids, num_segments, layout)
    return jnp.where(expand(counts > 0, maxima.ndim), maxima, 0)


def _segment_max_forward(method, num_segments, values, segment_ids, layout):
    maxima = _segment_max(method, num_segments, values, segment_ids, layout)
    return maxima, (maxima, values, segment_ids, layout)


def _segment_max_backward(method, num_segments, residuals, cotangent):
    maxima, values, segment_ids, layout = residuals
    where = (segment_ids, layout)
    is_largest = (values == _spread(method, num_segments, maxima, *where)).astype(values.dtype)
    ties = jnp.maximum(_segment_sum(method, num_segments, is_largest, *where), 1)
    values_bar = is_largest * _spread(method, num_segments, cotangent / ties, *where)
    return values_bar, None, None


_segment_max.defvjp(_segment_max_forward, _segment_max_backward)


def _counts(segment_ids, num_segments, layout):
    if layout is not None:
        return layout.in_degrees
    return jax.ops.segment_sum(jnp.ones(segment_ids.shape, jnp.int32), segment_ids, num_segments)


@jax.jit
def _gather_sum_tables(nodes, weights, layout):
    dtype = jnp.result_type(nodes, *([] if weights is None else [weights]))
    if weights is not None:
        weights = weights.astype(sum_dtype(dtype))
    return reduce_table("sum", nodes, weights, layout.by_receiver, False).astype(dtype)


@functools.partial(jax.jit, static_argnums=0)
def _reduce_edges(kind, values, table):
    return reduce_table(kind, values, None, table, True)
