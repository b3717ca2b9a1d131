"""Fetching, on each device of a mesh, the nodes of other devices that its edges start from.

Each device holds a part of the nodes and their incoming edges; inside `jax.shard_map`, the nodes of
other parts that these edges start from, the part's halo, are fetched before each reduction over
edges. The gradient of an all-gather is a reduce-scatter, that of an all-to-all another one.
"""

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Num

from structdl.core.arrays import sum_dtype, take
from structdl.core.edge_layout import EdgeLayout, NeighbourTable, reduce_table
from structdl.core.linear import multilinear


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["rows", "table"],
    meta_fields=["axis", "features_at_once"],
)
@dataclass(frozen=True)
class Halo:
    """How the halo of a part is fetched.

    By an all-to-all: each part sends to each other one the same number of rows. The fetched rows
    stand behind the part's own, those of part 0 first. By an all-gather, where there are no rows
    to send: every part gets all nodes, its own among them, those of part 0 first.
    """

    rows: Any  # [parts * rows of a pair], int32: what this part sends; None for an all-gather
    table: NeighbourTable | None  # of the places in `rows` at which each row of the part stands
    axis: str  # of the mesh
    features_at_once: int | None = None  # fetched and summed; None means all


def fetch(nodes: Num[Array, "num_rows ..."], halo: Halo) -> Num[Array, "num_senders ..."]:
    """The part's own rows and its halo, in the order of the layout's senders; in a shard_map."""
    if halo.rows is None:
        return lax.all_gather(nodes, halo.axis, tiled=True)
    if not halo.rows.shape[0]:
        return nodes
    sent = _send(nodes, halo.rows, halo.table)
    received = lax.all_to_all(sent, halo.axis, split_axis=0, concat_axis=0, tiled=True)
    return jnp.concatenate([nodes, received])


def without_halo(layout: EdgeLayout) -> EdgeLayout:
    """The layout of a part for nodes that are fetched already."""
    return dataclasses.replace(layout, halo=None)


def in_blocks(reduce, nodes: Num[Array, "num_rows ..."], features_at_once: int):
    """Concatenates what `reduce` makes of blocks of columns, one block after another.

    Only one block of the halo is in memory at a time: in the gradient it is fetched again where
    it is needed. Columns of zeros fill the last block.
    """
    num_rows, size = nodes.shape[0], math.prod(nodes.shape[1:])
    count = -(-size // features_at_once)
    columns = nodes.reshape(num_rows, size)
    columns = jnp.pad(columns, ((0, 0), (0, count * features_at_once - size)))
    blocks = columns.reshape(num_rows, count, features_at_once).swapaxes(0, 1)
    out = lax.map(jax.checkpoint(reduce), blocks)  # [count, num_receivers, features_at_once]
    out = out.swapaxes(0, 1).reshape(out.shape[1], count * features_at_once)
    return out[:, :size].reshape(out.shape[0], *nodes.shape[1:])


def _send(nodes, rows, table):
    return multilinear(_send_value, (_send_transpose,), (nodes,), (rows, table))


def _send_value(linear, rows_and_table):
    return take(linear[0], rows_and_table[0])


def _send_transpose(cotangent, _, rows_and_table):
    return multilinear(_collect_value, (_collect_transpose,), (cotangent,), rows_and_table)


def _collect_value(linear, rows_and_table):
    """A row may be sent to several parts: a sum over the table, in a fixed order."""
    (sent,), (_, table) = linear, rows_and_table
    total = reduce_table("sum", sent.astype(sum_dtype(sent.dtype)), None, table, False)
    return total.astype(sent.dtype)


def _collect_transpose(cotangent, _, rows_and_table):
    return _send(cotangent, *rows_and_table)
