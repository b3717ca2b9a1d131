"""Reductions over the edges of a graph: the seam that every graph layer goes through.

`gather_sum` is the product with a sparse matrix, without an array of edges x features; the
`segment_*` functions reduce values that lie on the edges. Both run on the tables of an
`EdgeLayout`, forwards and backwards, or scatter where that measures faster (`method`).
They differentiate in forward and reverse mode, to any order.

Indices of a layout made by `edge_layout` have been checked. Otherwise, under jit or not, an edge
with an index out of range, negative ones included, is dropped: it enters no sum, mean, maximum or
degree, and gathers and softmaxes give it the value 0 with a gradient of 0.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Num

from structdl.core.arrays import as_array, expand, no_wider
from structdl.core.edge_layout import (
    EdgeLayout as EdgeLayout,
    edge_layout as edge_layout,
    edge_list as edge_list,
    is_inside,
)
from structdl.core.halo import fetch, in_blocks, without_halo
from structdl.core.reductions import (
    Segments,
    gather_sum_by_scatter,
    gather_sum_by_tables,
    max_of_segments,
    segment_sizes,
    spread,
    sum_of_segments,
)

Method = Literal["scatter", "tables"]

_FEW_EDGES = 1024  # for fewer, on CPU, all that tables cost is the time to compile them
_SCATTERED_VALUES = 16  # with fewer values an edge, CPU scatters


def gather_sum(
    nodes: Num[Array | np.ndarray, "num_senders ..."],
    layout: EdgeLayout,
    weights: Num[Array | np.ndarray, "num_edges ..."] | None = None,
    *,
    method: Method | None = None,
) -> Num[Array, "num_receivers ..."]:
    """Sums the nodes at the other end of each receiver's edges, weighted.

    out[r] = sum over edges e into r of weights[e] * nodes[senders[e]]

    Nodes are [num_senders, ...]. Weights are [num_edges] or, where a node has heads,
    [num_edges, heads] for nodes [num_senders, heads, features]. A receiver without edges gets 0;
    half precision is summed in float32, and float64 weights do not widen float32 nodes. A NaN or an
    infinity reaches the receivers of its node and no other, as NaN where a shorter row is padded.

    Of one part of a partitioned graph, inside of shard_map, the nodes are those of the part; the
    others that its edges start from are fetched first (`structdl.graphs.partition`).

    Raises:
      ValueError: the nodes or weights do not fit the layout.
      InputError: the nodes are a scipy.sparse matrix.

    >>> layout = edge_layout(jnp.array([0, 1]), jnp.array([1, 1]), num_senders=2)
    >>> gather_sum(jnp.array([[1.0], [10.0]]), layout, jnp.array([0.5, 1.0]))
    Array([[ 0. ],
           [10.5]], dtype=float32)
    """
    nodes = as_array(nodes)
    weights = None if weights is None else no_wider(as_array(weights), nodes)
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
        return gather_sum_by_tables(nodes, weights, layout)
    return gather_sum_by_scatter(nodes, weights, layout)


def segment_sum(
    values: Num[Array | np.ndarray, "num_edges ..."],
    segment_ids: Int[Array | np.ndarray, " num_edges"],
    num_segments: int,
    layout: EdgeLayout | None = None,
    *,
    method: Method | None = None,
) -> Num[Array, "num_segments ..."]:
    """Sums the values of each segment: out[s] = sum of values[e] with segment_ids[e] = s.

    An empty segment gets 0. With a layout, segment_ids must be its receivers. Without one, a
    value whose id is negative, or num_segments or more, is dropped.

    >>> segment_sum(jnp.array([1.0, 2.0, 4.0]), jnp.array([0, 2, 2]), 3)
    Array([1., 0., 6.], dtype=float32)
    """
    values = as_array(values)
    return sum_of_segments(values, _segments(method, values, segment_ids, num_segments, layout))


def segment_mean(
    values: Float[Array | np.ndarray, "num_edges ..."],
    segment_ids: Int[Array | np.ndarray, " num_edges"],
    num_segments: int,
    layout: EdgeLayout | None = None,
    *,
    method: Method | None = None,
) -> Float[Array, "num_segments ..."]:
    """Averages the values of each segment; an empty one gets 0. Arguments as in segment_sum."""
    values = as_array(values)
    segments = _segments(method, values, segment_ids, num_segments, layout)
    total = sum_of_segments(values, segments)
    sizes = jnp.maximum(segment_sizes(segments), 1).astype(total.dtype)
    return total / expand(sizes, total.ndim)


def segment_max(
    values: Float[Array | np.ndarray, "num_edges ..."],
    segment_ids: Int[Array | np.ndarray, " num_edges"],
    num_segments: int,
    layout: EdgeLayout | None = None,
    *,
    method: Method | None = None,
) -> Float[Array, "num_segments ..."]:
    """The largest value of each segment; an empty one gets 0. Arguments as in segment_sum.

    The gradient is shared evenly between equal maxima.
    """
    values = as_array(values)
    return max_of_segments(values, _segments(method, values, segment_ids, num_segments, layout))


def segment_min(
    values: Float[Array | np.ndarray, "num_edges ..."],
    segment_ids: Int[Array | np.ndarray, " num_edges"],
    num_segments: int,
    layout: EdgeLayout | None = None,
    *,
    method: Method | None = None,
) -> Float[Array, "num_segments ..."]:
    """The smallest value of each segment; otherwise as segment_max."""
    return -segment_max(-as_array(values), segment_ids, num_segments, layout, method=method)


def segment_softmax(
    logits: Float[Array | np.ndarray, "num_edges ..."],
    segment_ids: Int[Array | np.ndarray, " num_edges"],
    num_segments: int,
    layout: EdgeLayout | None = None,
    *,
    method: Method | None = None,
) -> Float[Array, "num_edges ..."]:
    """Normalises exp(logits) within each segment, so that its edges sum to 1.

    out[e] = exp(logits[e]) / sum of exp(logits[f]) over f in the segment of e

    A logit of -inf gets 0, also where the whole segment is -inf, and so does one whose id is out of
    range; gradients stay finite. Arguments as in segment_sum.

    >>> segment_softmax(jnp.array([5.0, 5.0, -jnp.inf]), jnp.array([1, 1, 0]), 2)
    Array([0.5, 0.5, 0. ], dtype=float32)
    """
    logits = as_array(logits)
    segments = _segments(method, logits, segment_ids, num_segments, layout)
    inside = None if segments.are_checked else expand(_are_inside(segments), logits.ndim)
    if inside is not None:
        logits = jnp.where(inside, logits, -jnp.inf)
    maxima = max_of_segments(lax.stop_gradient(logits), segments)
    maxima = jnp.where(jnp.isneginf(maxima), 0, maxima)
    scaled = jnp.exp(logits - spread(maxima, segments))
    totals = sum_of_segments(scaled, segments)
    totals = spread(jnp.where(totals == 0, 1, totals), segments)
    return scaled / (totals if inside is None else jnp.where(inside, totals, 1))


def _are_inside(segments: Segments):
    return (segments.ids >= 0) & (segments.ids < segments.count)


def gather_senders(
    nodes: Num[Array | np.ndarray, "num_senders ..."],
    layout: EdgeLayout,
    *,
    method: Method | None = None,
) -> Num[Array, "num_edges ..."]:
    """Puts on each edge its sender's values; the gradient is a reduction over the layout."""
    nodes = as_array(nodes)
    if layout.halo is not None:
        _check_part(nodes, layout)
        nodes, layout = fetch(nodes, layout.halo), without_halo(layout)
    return gather_receivers(nodes, layout.transpose, method=method)


def gather_receivers(
    nodes: Num[Array | np.ndarray, "num_receivers ..."],
    layout: EdgeLayout,
    *,
    method: Method | None = None,
) -> Num[Array, "num_edges ..."]:
    """Puts on each edge its receiver's values; the gradient is a reduction over the layout."""
    nodes = as_array(nodes)
    if nodes.shape[0] != layout.num_receivers:
        raise ValueError(f"nodes {nodes.shape} of a layout of {layout.num_receivers} nodes")
    method = _narrow_method(method, math.prod(nodes.shape[1:]), layout)
    return spread(nodes, _segments_of(layout, method))


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


def _segments(method, values, segment_ids, num_segments, layout) -> Segments:
    if isinstance(segment_ids, np.ndarray):  # int64 ids would be cut to 32 bits
        segment_ids = np.where(is_inside(segment_ids, num_segments), segment_ids, num_segments)
    segment_ids = as_array(segment_ids)
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
    method = _narrow_method(method, math.prod(values.shape[1:]), layout)
    if layout is None:
        return Segments(segment_ids, None, None, count=num_segments, are_checked=False)
    return _segments_of(layout, method)


def _segments_of(layout: EdgeLayout, method: Method) -> Segments:
    """The edges into each receiver."""
    return Segments(
        layout.receivers,
        table=layout.by_receiver if method == "tables" else None,
        sizes=layout.in_degrees,
        count=layout.num_receivers,
        are_checked=layout.by_receiver is not None,
    )


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
