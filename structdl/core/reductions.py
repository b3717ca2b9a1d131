"""Sums and maxima over edges with their derivatives, by tables or by scatter, for `segment`.

Sums are multilinear (`structdl.core.linear`): they differentiate in both modes, to any order. Ids
that were not checked on the host may be out of range, and their edges are dropped.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from structdl.core.arrays import expand, sum_dtype, take
from structdl.core.edge_layout import SCATTER_OPTIONS, NeighbourTable, reduce_table
from structdl.core.linear import multilinear

_LARGEST_COPY = 2**20  # values: a copy in cache
_FEATURES_AT_ONCE = 16  # one cache line of float32


def gather_sum_by_scatter(nodes, weights, layout):
    """Plain operations, with JAX's derivatives."""
    dtype = jnp.result_type(nodes, *([] if weights is None else [weights]))
    are_checked = layout.by_receiver is not None
    values = rows_at(nodes, layout.senders, are_checked=are_checked).astype(sum_dtype(dtype))
    if weights is not None:
        values = values * expand(weights.astype(values.dtype), values.ndim)
    return scatter_sum(values, layout.receivers, layout.num_receivers).astype(dtype)


# gather_sum and edge_dot are bilinear, and each is the other's derivative.


def gather_sum_by_tables(nodes, weights, layout):
    """The sum over each receiver's edges, without an array of edges x features."""
    weights = None if weights is None else _materialize(weights)
    return _gather_sum(_materialize(nodes), weights, layout)


def _gather_sum(nodes, weights, layout):
    num_head_axes = 0 if weights is None else weights.ndim - 1
    transposes = (_gather_sum_to_nodes, _gather_sum_to_weights)
    linear, static = (nodes, weights), (num_head_axes,)
    return multilinear(_gather_sum_value, transposes, linear, layout, static)


def _gather_sum_value(linear, layout, num_head_axes):
    del num_head_axes
    return _gather_sum_tables(*linear, layout)


def _gather_sum_to_nodes(cotangent, linear, layout, num_head_axes):
    del num_head_axes
    return _gather_sum(_materialize(cotangent), linear[1], layout.transpose)


def _gather_sum_to_weights(cotangent, linear, layout, num_head_axes):
    return _edge_dot(_materialize(cotangent), linear[0], layout, num_head_axes)


@jax.jit
def _gather_sum_tables(nodes, weights, layout):
    dtype = jnp.result_type(nodes, *([] if weights is None else [weights]))
    if weights is not None:
        weights = weights.astype(sum_dtype(dtype))
    return reduce_table("sum", nodes, weights, layout.by_receiver, False).astype(dtype)


def _edge_dot(receivers, senders, layout, num_head_axes):
    """The dot product of the two ends of each edge, over all but the leading head axes."""
    transposes = (_edge_dot_to_receivers, _edge_dot_to_senders)
    linear, static = (receivers, senders), (num_head_axes,)
    return multilinear(_edge_dot_value, transposes, linear, layout, static)


def _edge_dot_value(linear, layout, num_head_axes):
    return _edge_dot_blocks(num_head_axes, *linear, layout.receivers, layout.senders)


def _edge_dot_to_receivers(cotangent, linear, layout, num_head_axes):
    del num_head_axes
    return _gather_sum(linear[1], _materialize(cotangent), layout)


def _edge_dot_to_senders(cotangent, linear, layout, num_head_axes):
    del num_head_axes
    return _gather_sum(linear[0], _materialize(cotangent), layout.transpose)


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


# sum_of_segments and spread are linear, and each is the other's transpose.


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["ids", "table", "sizes"],
    meta_fields=["count", "are_checked"],
)
@dataclass(frozen=True)
class Segments:
    """Which segment each value belongs to, and how the values of one are reduced."""

    ids: Any  # [num_edges], of integers
    table: NeighbourTable | None  # of the values of each segment; None to scatter
    sizes: Any  # [count], int32; None where they have not been counted
    count: int
    are_checked: bool  # whether all ids are known to be in range


def sum_of_segments(values, segments: Segments):
    """The sum of the values of each segment; values whose id is out of range are dropped."""
    return multilinear(_sum_value, (_sum_transpose,), (values,), segments)


def spread(totals, segments: Segments):
    """Each edge gets the value of its segment; 0 where its id is out of range."""
    return multilinear(_spread_value, (_spread_transpose,), (totals,), segments)


def _sum_value(linear, segments):
    (values,) = linear
    dtype = values.dtype
    values = values.astype(sum_dtype(dtype))
    if segments.table is not None:
        return _reduce_edges("sum", values, segments.table).astype(dtype)
    return scatter_sum(values, segments.ids, segments.count).astype(dtype)


def _sum_transpose(cotangent, _, segments):
    return spread(cotangent, segments)


def _spread_value(linear, segments):
    (totals,) = linear
    return rows_at(totals, segments.ids, are_checked=segments.are_checked)


def _spread_transpose(cotangent, _, segments):
    return sum_of_segments(cotangent, segments)


@jax.custom_jvp
def max_of_segments(values, segments: Segments):
    """The largest value of each segment, 0 for an empty one."""
    if segments.table is not None:
        return _reduce_edges("max", values, segments.table).astype(values.dtype)
    smallest = jnp.full((segments.count, *values.shape[1:]), -jnp.inf, values.dtype)
    maxima = smallest.at[segments.ids].max(values, mode="drop", wrap_negative_indices=False)
    return jnp.where(expand(segment_sizes(segments) > 0, maxima.ndim), maxima, 0)


@max_of_segments.defjvp
def _max_of_segments_jvp(primals, tangents):
    """The mean of the tangents of equal maxima."""
    values, segments = primals
    maxima = max_of_segments(values, segments)
    is_largest = (values == spread(lax.stop_gradient(maxima), segments)).astype(values.dtype)
    ties = jnp.maximum(sum_of_segments(is_largest, segments), 1)
    return maxima, sum_of_segments(is_largest * tangents[0], segments) / ties


def segment_sizes(segments: Segments):
    """The number of values in each segment."""
    if segments.sizes is not None:
        return segments.sizes
    return scatter_sum(jnp.ones(segments.ids.shape, jnp.int32), segments.ids, segments.count)


@functools.partial(jax.jit, static_argnums=0)
def _reduce_edges(kind, values, table):
    return reduce_table(kind, values, None, table, True)


def rows_at(array, ids, *, are_checked: bool):
    """Gathers rows by index; an index out of range gives zeros, unless all are known to be in."""
    if are_checked:
        return take(array, ids)
    return array.at[ids].get(mode="fill", fill_value=0, wrap_negative_indices=False)


def scatter_sum(values, ids, num_segments: int):
    """The sum of the values with each id; those whose id is out of range are dropped."""
    zeros = jnp.zeros((num_segments, *values.shape[1:]), values.dtype)
    return zeros.at[ids].add(values, mode="drop", wrap_negative_indices=False)


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
