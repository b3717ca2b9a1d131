"""Layouts of several graphs with equal shapes, stacked: one program for all parts of a graph.

The tables of `structdl.core.edge_layout` have shapes that depend on the degrees. Here all parts
take one width, and as many overflowing rows and pieces as the largest part has.
"""

from collections.abc import Sequence

import numpy as np

from structdl.core.edge_layout import WIDEST, EdgeLayout, NeighbourTable, table_width
from structdl.core.halo import Halo


def stack_layouts(
    senders: Sequence[np.ndarray],
    receivers: Sequence[np.ndarray],
    num_senders: int,
    num_receivers: int,
    *,
    halo: Halo | None = None,
) -> EdgeLayout:
    """The layouts of several parts as one of NumPy arrays whose leading axis is the part.

    A part with fewer edges than another is padded with edges that are in no table and no degree.
    A reduction that scatters adds them to the last receiver, from the sender of that number, and
    so that row must be padding too. The indices are not checked.

    Args:
      senders: for each part, the sender of each edge.
      receivers: for each part, the receiver of each edge.
      num_senders: of each part.
      num_receivers: of each part.
      halo: of the layout.
    """
    num_edges = max(map(len, senders))
    out_degrees, by_sender = stack_tables(senders, receivers, num_senders)
    in_degrees, by_receiver = stack_tables(receivers, senders, num_receivers)
    return EdgeLayout(
        senders=pad_rows(senders, num_edges, num_receivers - 1),
        receivers=pad_rows(receivers, num_edges, num_receivers - 1),
        out_degrees=out_degrees,
        in_degrees=in_degrees,
        by_sender=by_sender,
        by_receiver=by_receiver,
        num_senders=num_senders,
        num_receivers=num_receivers,
        halo=halo,
    )


def stack_tables(
    rows: Sequence[np.ndarray],
    sources: Sequence[np.ndarray],
    num_rows: int,
    *,
    of_edges: bool = True,
) -> tuple[np.ndarray, NeighbourTable]:
    """The degrees of the rows, [parts, num_rows], and the table of their sources in edge order.

    Without `of_edges` it has the sources alone, not the numbers of the edges.
    """
    degrees = np.stack([np.bincount(each, minlength=num_rows) for each in rows])
    order = [np.argsort(each, kind="stable") for each in rows]
    starts = (np.cumsum(degrees.ravel()) - degrees.ravel()).reshape(degrees.shape)
    by_row = [each[places] for each, places in zip(sources, order, strict=True)]
    by_row, edges = (np.concatenate(each).astype(np.int32) for each in (by_row, order))
    table = _stacked_table(starts, degrees, by_row, edges if of_edges else None)
    return degrees.astype(np.int32), table


def pad_rows(parts: Sequence[np.ndarray], length: int, fill) -> np.ndarray:
    """Stacks arrays of different lengths: [parts, length, ...]."""
    stacked = np.full((len(parts), length, *parts[0].shape[1:]), fill, parts[0].dtype)
    for row, part in zip(stacked, parts, strict=True):
        row[: len(part)] = part
    return stacked


def _stacked_table(starts, degrees, sources, edges) -> NeighbourTable:
    """`NeighbourTable`s of the rows [parts, num_rows] of which each has a range of `sources`.

    An overflowing row that only pads has a number beyond the last row, and a piece without edges.
    """
    num_rows = degrees.shape[1]
    width = table_width(degrees.ravel())
    lengths = np.minimum(degrees, width)
    last = np.maximum(lengths - 1, 0)
    slots = starts[:, None] + np.minimum(np.arange(width)[None, :, None], last[:, None])
    slots = np.minimum(slots, len(sources) - 1)  # [parts, width, num_rows]
    table = NeighbourTable(
        sources=sources[slots],
        edges=None if edges is None else edges[slots],
        lengths=lengths.astype(np.int32),
    )
    part, row = np.nonzero(degrees > width)
    if not part.size:
        return table
    stack = _Stacker(part, len(degrees))
    starts, degrees = starts[part, row] + width, degrees[part, row] - width
    num_pieces = -(-degrees // WIDEST)
    owner = np.repeat(np.arange(len(part)), num_pieces)
    first = np.cumsum(num_pieces) - num_pieces
    cut = WIDEST * (np.arange(len(owner)) - first[owner])
    stack_pieces = _Stacker(part[owner], stack.num_parts)
    pieces = _stacked_table(
        stack_pieces(starts[owner] + cut),
        stack_pieces(np.minimum(WIDEST, degrees[owner] - cut)),
        sources,
        edges,
    )
    first = stack_pieces.places[first]
    is_long = num_pieces > 1
    rest, long_rows = None, None
    if is_long.any():
        stack_long = _Stacker(part[is_long], stack.num_parts)
        long_rows = stack_long(row[is_long], beyond=num_rows)
        piece_numbers = np.arange(stack_pieces.length, dtype=np.int32)
        rest = _stacked_table(
            stack_long(first[is_long] + 1),
            stack_long(num_pieces[is_long] - 1),
            piece_numbers,
            None,
        )
    return NeighbourTable(
        sources=table.sources,
        edges=table.edges,
        lengths=table.lengths,
        overflow_rows=stack(row, beyond=num_rows),
        first_pieces=stack(first),
        pieces=pieces,
        long_rows=long_rows,
        rest=rest,
    )


class _Stacker:
    """Puts values, ordered by their part, into rows [parts, length of the longest]."""

    def __init__(self, part: np.ndarray, num_parts: int):
        counts = np.bincount(part, minlength=num_parts)
        self.part, self.num_parts, self.length = part, num_parts, counts.max()
        self.places = np.arange(len(part)) - (np.cumsum(counts) - counts)[part]

    def __call__(self, values: np.ndarray, beyond: int | None = None) -> np.ndarray:
        """Pads with zeros, or with the numbers from `beyond` on: increasing, none twice."""
        shape = (self.num_parts, self.length)
        stacked = np.zeros(shape, values.dtype)
        if beyond is not None:
            stacked += beyond + np.arange(self.length)[None]
        stacked[self.part, self.places] = values
        return stacked
