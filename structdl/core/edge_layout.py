"""What a graph's edges look like to a reduction: sorted, and cut into tables of neighbours.

Built once on the host. A reduction over tables only gathers, so it is as fast on a CPU as a
compiled CSR product, and the order of its sums, hence its bits, is fixed by the layout.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax import lax
from jaxtyping import Array, Int

from structdl.core.arrays import expand, sum_dtype, take
from structdl.errors import InputError

WIDEST = 32  # columns of the widest table: more edges than that are cut into pieces
_LARGEST_SIZE = 2**31 - 1
_UNROLLED = 24  # columns that one compiled loop takes; no width lies between this and WIDEST
_COLUMNS_OF_SMALL_TABLES = 8  # unrolling more buys nothing there and costs compile time
_ROWS_OF_LARGE_TABLES = 2**15
# Costs in units of one gathered neighbour, measured on CPU at 16 and 64 features.
_PADDING_COST = 0.3  # the row's last neighbour again: in cache
_OVERFLOW_ROW_COST = 5.0  # a row that is finished by a second table
_TABLE_COST = 30_000.0  # compiling and starting one more table

# of a scatter to rows that are distinct and increasing; those beyond the last one are padding
SCATTER_OPTIONS = {
    "mode": "drop",
    "unique_indices": True,
    "indices_are_sorted": True,
    "wrap_negative_indices": False,
}


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "sources",
        "edges",
        "lengths",
        "overflow_rows",
        "first_pieces",
        "pieces",
        "long_rows",
        "rest",
    ],
    meta_fields=[],
)
@dataclass(frozen=True)
class NeighbourTable:
    """Rows of sources, one column a neighbour; what does not fit hangs below as further tables.

    The edges beyond a row's last column are cut into pieces of at most WIDEST edges. `pieces` is
    the table whose rows are those pieces. A row takes its first piece directly; a long row takes
    the others through `rest`, a table whose sources are pieces. So a hub of n edges has depth
    log(n), and its width never exceeds WIDEST. A slot without a neighbour repeats the row's last
    one, so that what another row gathers never enters, not even as 0 * NaN.
    """

    sources: Any  # [width, num_rows], int32
    edges: Any  # [width, num_rows], int32; None where the sources are pieces
    lengths: Any  # [num_rows], int32: the columns in use
    overflow_rows: Any = None  # [num_overflow], int32, increasing
    first_pieces: Any = None  # [num_overflow], int32
    pieces: Any = None
    long_rows: Any = None  # [num_long], int32, increasing
    rest: Any = None


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "senders",
        "receivers",
        "out_degrees",
        "in_degrees",
        "by_sender",
        "by_receiver",
        "halo",
    ],
    meta_fields=["num_senders", "num_receivers"],
)
@dataclass(frozen=True)
class EdgeLayout:
    """The edges of a graph, or the nonzeros of a matrix, ready for `gather_sum` and `segment_*`.

    A pytree: pass it to jitted functions as an argument, under vmap with `in_axes=None`. Two
    graphs whose degrees differ have different shapes and compile separately; for a stream of
    graphs use `edge_list`, padded.

    Of one part of a graph whose nodes are divided over devices, `halo` says how the senders that
    lie on other devices are fetched, and num_senders counts them too (`structdl.core.halo`).
    """

    senders: Any  # [num_edges], int32, in the caller's order
    receivers: Any  # [num_edges], int32
    out_degrees: Any  # [num_senders], int32
    in_degrees: Any  # [num_receivers], int32
    by_sender: NeighbourTable | None
    by_receiver: NeighbourTable | None
    num_senders: int
    num_receivers: int
    halo: Any = None  # a Halo

    @property
    def num_edges(self) -> int:
        return self.senders.shape[0]

    @property
    def transpose(self) -> "EdgeLayout":
        """The reversed edges under the same numbers; shares every array.

        Raises:
          ValueError: it is the layout of a part, whose outgoing edges lie with other parts.
        """
        if self.halo is not None:
            raise ValueError(
                "the layout of one part of a graph has no transpose: no part has the "
                "edges that leave it"
            )
        return EdgeLayout(
            senders=self.receivers,
            receivers=self.senders,
            out_degrees=self.in_degrees,
            in_degrees=self.out_degrees,
            by_sender=self.by_receiver,
            by_receiver=self.by_sender,
            num_senders=self.num_receivers,
            num_receivers=self.num_senders,
        )


def edge_layout(
    senders: np.ndarray | jax.Array | Sequence[int],
    receivers: np.ndarray | jax.Array | Sequence[int],
    num_senders: int,
    num_receivers: int | None = None,
) -> EdgeLayout:
    """Sorts the edges both ways and builds their neighbour tables, on the host.

    Edge e goes from senders[e] to receivers[e]; repeated edges and self-loops are kept as given.
    `num_receivers` is `num_senders` unless given: a matrix of nonzeros (row, column) is the layout
    with receivers = rows and senders = columns.

    Raises:
      InputError: an index or a number of nodes is out of range, or the two arrays are not integers
        of one length.

    >>> layout = edge_layout(np.array([0, 1]), np.array([2, 2]), num_senders=3)
    >>> layout.num_edges, layout.in_degrees
    (2, Array([0, 0, 2], dtype=int32))
    """
    num_receivers = num_senders if num_receivers is None else num_receivers
    check_size("num_senders", num_senders)
    check_size("num_receivers", num_receivers)
    senders = _checked_indices("senders", senders, num_senders)
    receivers = _checked_indices("receivers", receivers, num_receivers)
    if senders.shape != receivers.shape:
        raise InputError(
            f"{len(senders)} senders and {len(receivers)} receivers: give one of each an edge"
        )
    out_degrees, by_sender = _sorted_table(senders, receivers, num_senders)
    in_degrees, by_receiver = _sorted_table(receivers, senders, num_receivers)
    layout = EdgeLayout(
        senders=senders,
        receivers=receivers,
        out_degrees=out_degrees,
        in_degrees=in_degrees,
        by_sender=by_sender,
        by_receiver=by_receiver,
        num_senders=num_senders,
        num_receivers=num_receivers,
    )
    return jax.tree.map(functools.partial(jnp.asarray, dtype=jnp.int32), layout)


def edge_list(
    senders: Int[Array | np.ndarray, " num_edges"],
    receivers: Int[Array | np.ndarray, " num_edges"],
    num_senders: int,
    num_receivers: int | None = None,
) -> EdgeLayout:
    """A layout without tables: may be made inside jit, and compiles once for all graphs of a size.

    Reductions over it scatter. An edge with an end out of range, negative numbers included, is
    dropped: no degree, reduction or gradient counts it, and a gather puts 0 on it. Its ends become
    num_senders and num_receivers.

    Raises:
      InputError: there are not as many senders as receivers.

    >>> edge_list(jnp.array([0, 0, -1]), jnp.array([1, 2, 0]), num_senders=2).in_degrees
    Array([0, 1], dtype=int32)
    """
    num_receivers = num_senders if num_receivers is None else num_receivers
    if senders.shape != receivers.shape:
        raise InputError(
            f"{len(senders)} senders and {len(receivers)} receivers: give one of each an edge"
        )
    inside = is_inside(senders, num_senders) & is_inside(receivers, num_receivers)
    senders = jnp.where(inside, senders, num_senders).astype(jnp.int32)
    receivers = jnp.where(inside, receivers, num_receivers).astype(jnp.int32)
    return EdgeLayout(
        senders=senders,
        receivers=receivers,
        out_degrees=_degrees(senders, num_senders),
        in_degrees=_degrees(receivers, num_receivers),
        by_sender=None,
        by_receiver=None,
        num_senders=num_senders,
        num_receivers=num_receivers,
    )


def is_inside(indices, count: int):
    """Mask of the indices in [0, count); NumPy indices are compared before the cast to int32."""
    return (indices >= 0) & (indices < count)


def _degrees(indices, num_nodes: int):
    return jnp.zeros(num_nodes, jnp.int32).at[indices].add(1, mode="drop")


def check_size(name: str, size: int) -> None:
    """Refuses a number of nodes that is negative, or whose indices int32 does not hold.

    Raises:
      InputError: the size is out of range.
    """
    if not 0 <= size <= _LARGEST_SIZE:
        raise InputError(
            f"{name} = {size}: the allowed range is 0 to {_LARGEST_SIZE}, since indices are int32"
        )


def _checked_indices(name: str, indices, num_nodes: int) -> np.ndarray:
    indices = np.asarray(indices)
    if indices.ndim != 1 or (indices.size and indices.dtype.kind not in "iu"):
        raise InputError(
            f"{name} must be one row of integers, not {indices.dtype} of shape {indices.shape}"
        )
    outside = np.flatnonzero((indices < 0) | (indices >= num_nodes))
    if outside.size:
        edge = outside[0]
        raise InputError(
            f"{name}[{edge}] is {indices[edge]}, outside 0..{num_nodes - 1} "
            f"({outside.size} of {indices.size} edges are): mend the edge or the number of nodes"
        )
    return indices.astype(np.int32)


def _sorted_table(rows, sources, num_rows: int) -> tuple[np.ndarray, NeighbourTable]:
    """The degrees of the rows, and the table of their sources in edge order."""
    num_edges = len(rows)
    edges = np.arange(num_edges, dtype=np.int32)
    # A counting sort: scipy's conversion to CSR is ten times faster than argsort.
    by_row = scipy.sparse.coo_array((edges, (rows, edges)), shape=(num_rows, max(num_edges, 1)))
    by_row = by_row.tocsr()
    offsets, order = by_row.indptr.astype(np.int64), by_row.indices
    degrees = np.diff(offsets)
    return degrees, _neighbour_table(offsets[:-1], degrees, sources[order], order)


def _neighbour_table(starts, degrees, sources, edges) -> NeighbourTable:
    """The table of rows whose sources lie at starts[row] .. starts[row] + degrees[row]."""
    width = table_width(degrees)
    lengths = np.minimum(degrees, width)
    last = np.maximum(lengths - 1, 0)
    slots = starts + np.minimum(np.arange(width)[:, None], last)  # [width, num_rows]
    slots = np.minimum(slots, len(sources) - 1)  # an empty row at the very end
    table_edges = None if edges is None else edges[slots]
    overflow_rows = np.flatnonzero(degrees > width)
    if not overflow_rows.size:
        return NeighbourTable(sources[slots], table_edges, lengths)
    starts, degrees = starts[overflow_rows] + width, degrees[overflow_rows] - width
    num_pieces = -(-degrees // WIDEST)
    first_pieces = np.cumsum(num_pieces) - num_pieces
    owner = np.repeat(np.arange(len(overflow_rows)), num_pieces)
    cut = WIDEST * (np.arange(len(owner)) - first_pieces[owner])
    pieces = _neighbour_table(
        starts[owner] + cut, np.minimum(WIDEST, degrees[owner] - cut), sources, edges
    )
    is_long = num_pieces > 1
    rest = None
    if is_long.any():
        piece_numbers = np.arange(len(owner))
        rest = _neighbour_table(
            first_pieces[is_long] + 1, num_pieces[is_long] - 1, piece_numbers, None
        )
    return NeighbourTable(
        sources=sources[slots],
        edges=table_edges,
        lengths=lengths,
        overflow_rows=overflow_rows,
        first_pieces=first_pieces,
        pieces=pieces,
        long_rows=overflow_rows[is_long] if rest is not None else None,
        rest=rest,
    )


def table_width(degrees) -> int:
    """The number of columns that costs least, counting padding, overflowing rows and tables."""
    largest = int(degrees.max(initial=0))
    if largest <= 1:
        return largest
    widest = min(largest, WIDEST)
    widths = np.arange(1, widest + 1)
    counts = np.bincount(np.minimum(degrees, widest + 1), minlength=widest + 2)
    rows_beyond = len(degrees) - np.cumsum(counts)[: widest + 1]  # of more than 0, 1, ... edges
    filled = np.cumsum(rows_beyond)[:-1]
    rows_beyond = rows_beyond[1:]
    cost = (
        _PADDING_COST * (len(degrees) * widths - filled)
        + _OVERFLOW_ROW_COST * rows_beyond
        + _TABLE_COST * (rows_beyond > 0)
    )
    width = int(widths[np.argmin(cost)])
    return width if width <= _UNROLLED else WIDEST


def reduce_table(kind: str, nodes, weights, table: NeighbourTable, of_edges: bool):
    """The sum or the max of each row of a table: of its sources, or of its edges' own values.

    What hangs below a row that overflows is merged into it by a scatter to increasing distinct
    rows: deterministic everywhere, and on CPU a wall that XLA does not fuse across. Fused, pieces
    that have several readers (those with a `rest`) would be computed once for each reader: five
    times slower. Such a table either overflows and ends in a scatter, or is WIDEST wide and ends
    in a scan of more than one step.
    """
    sources = table.edges if of_edges and table.edges is not None else table.sources
    column_weights = None
    if weights is not None:
        column_weights = take(weights, table.edges)  # [width, num_rows, ...]
        used = jnp.arange(len(sources))[:, None] < table.lengths[None, :]
        column_weights = jnp.where(expand(used, column_weights.ndim), column_weights, 0)
    out = _reduce_columns(kind, nodes, column_weights, sources, table.lengths)
    if table.pieces is None:
        return out
    pieces = reduce_table(kind, nodes, weights, table.pieces, of_edges)
    first = pieces if table.rest is None else take(pieces, table.first_pieces)
    out = _merge(kind, out, table.overflow_rows, first)
    if table.rest is None:
        return out
    return _merge(kind, out, table.long_rows, reduce_table(kind, pieces, None, table.rest, False))


def _reduce_columns(kind, nodes, weights, sources, lengths):
    """Reduces one table's columns: unrolled, so that XLA gathers them all in one loop."""
    width, num_rows = sources.shape
    dtype = sum_dtype(nodes.dtype) if weights is None else weights.dtype
    shape = (num_rows, *nodes.shape[1:])
    if width == 0:
        return jnp.zeros(shape, dtype)

    def column(accumulated, index, source, weight):
        values = take(nodes, source).astype(dtype)
        if kind == "max":  # the padding repeats the row's own last value
            return values if accumulated is None else jnp.maximum(accumulated, values)
        if weight is None:
            weight = (index < lengths).astype(dtype)
        values = values * expand(weight, values.ndim)
        return values if accumulated is None else accumulated + values

    def columns(accumulated, start, sources, weights):
        for offset, source in enumerate(sources):
            weight = None if weights is None else weights[offset]
            accumulated = column(accumulated, start + offset, source, weight)
        return accumulated

    at_once = _UNROLLED if num_rows >= _ROWS_OF_LARGE_TABLES else _COLUMNS_OF_SMALL_TABLES
    if width <= at_once:
        out = columns(None, 0, sources, weights)
    else:
        odd = width % _COLUMNS_OF_SMALL_TABLES or _COLUMNS_OF_SMALL_TABLES
        head = None if weights is None else weights[:odd]
        blocks = jax.tree.map(
            lambda columns: columns[odd:].reshape(-1, _COLUMNS_OF_SMALL_TABLES, *columns.shape[1:]),
            (sources, weights),
        )
        starts = jnp.arange(odd, width, _COLUMNS_OF_SMALL_TABLES)
        out, _ = lax.scan(
            lambda accumulated, block: (columns(accumulated, block[0], *block[1]), None),
            columns(None, 0, sources[:odd], head),
            (starts, blocks),
        )
    # An empty row has repeated another row's source.
    return jnp.where(expand(lengths > 0, out.ndim), out, 0)


def _merge(kind, out, rows, values):
    if kind == "max":
        return out.at[rows].max(values, **SCATTER_OPTIONS)
    return out.at[rows].add(values, **SCATTER_OPTIONS)
