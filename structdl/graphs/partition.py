"""A graph divided into parts of equal shapes, one for each device of a mesh, on the host.

A part has its nodes and the edges into them, in numbers of its own. `structdl.graphs.on_parts` puts
the parts on a mesh and runs a function on each; there `gather_sum`, and with it every layer built
on it, fetches the nodes of other parts that the part's edges start from: its halo.

What is exchanged, for N nodes, F values of B bytes a node and P parts, by each device in each
direction, for one layer forwards; as much again backwards:

    all_gather   (P - 1) / P * N F B        every node, and N F B of memory
    all_to_all   (P - 1) S F B              S: the largest halo that one part has in another

A part with C edges from other parts has a halo of at most min(C, (P - 1) / P * N) nodes; edges that
start at the same node share it. Where halos are even, (P - 1) S is the size of a halo, so that the
all-to-all moves at most the edge cut, and never more than the all-gather does. The gradients of the
replicated parameters are summed besides. What passes is the narrower side of a layer's kernel.

At 1e9 edges: N = 6.7e7 nodes (15 edges each), F = 64, float32, P = 64 devices, each with a link of
50 GB/s (400 Gbit/s), two layers, hence 4 exchanges a step. A layer's values are 17 GB, and a device
has 0.27 GB of them. An edge takes 28 bytes (both ends, its weight, and its places in the tables of
both directions), 35 with the padding of the tables, which is 0.55 GB a device; an aggregation reads
4 GB.

    all_gather                             4 * 16.9 GB = 68 GB    1.35 s a step
    all_to_all, edges at random            4 * 3.5 GB = 14 GB     0.28 s: halo N (1 - exp(-15 / P))
    all_to_all, 1 edge of 10 is cut        4 * 0.40 GB = 1.6 GB   0.03 s at most

So the all-gather is for few parts: its memory alone is 17 GB a device, and 4.3 GB with 16 features
at once. The all-to-all grows as the cut does: at this size an assignment that keeps neighbours
together is worth more than a faster link.
"""

import heapq
from typing import Literal, NamedTuple

import jax
import numpy as np

from structdl.core.edge_layout import EdgeLayout
from structdl.core.halo import Halo
from structdl.core.stacked_layout import pad_rows, stack_layouts, stack_tables
from structdl.errors import InputError
from structdl.graphs.graph import Graph, graph_from_edges

AXIS = "parts"  # of the mesh

Exchange = Literal["all_to_all", "all_gather"]


class Partition(NamedTuple):
    """Where each node of a graph lies, on the host."""

    parts: np.ndarray  # [num_nodes], int32
    rows: np.ndarray  # [num_nodes], int32: its row within its part; in a part they ascend
    num_parts: int
    num_rows: int  # of each part; the last one is padding in all


class PartitionedGraph(NamedTuple):
    """All parts, with a leading axis of parts; one part, without it, inside of `on_parts`."""

    layout: EdgeLayout  # of the edges into the part's nodes, in the order of the whole graph
    weights: jax.Array | np.ndarray | None  # [num_edges] of a part, zeros where it is padded
    mask: jax.Array | np.ndarray  # [num_rows], True where there is a node


class Traffic(NamedTuple):
    """What a partition costs: see the top of this file."""

    edges: np.ndarray  # [parts], those into its nodes
    cut: np.ndarray  # [parts], those of them that start in another part
    halo: np.ndarray  # [parts, parts]: how many nodes the first needs of the second


def contiguous_parts(num_nodes: int, num_parts: int) -> np.ndarray:
    """Assigns the nodes to parts in their order, as evenly as they divide.

    >>> contiguous_parts(5, 2)
    array([0, 0, 0, 1, 1], dtype=int32)
    """
    _check_num_parts(num_nodes, num_parts)
    return (np.arange(num_nodes) * num_parts // num_nodes).astype(np.int32)


def balanced_parts(in_degrees, num_parts: int) -> np.ndarray:
    """Assigns nodes so that both the nodes and the edges into them divide evenly; greedily.

    Each node, the one with the most edges first, goes to the part that has the fewest edges among
    those that are not full. Neighbours are not kept together: the halos are those of a random
    assignment. For graphs whose contiguous parts are uneven.

    >>> balanced_parts(np.array([4, 3, 0, 0, 1]), 2)
    array([0, 1, 0, 0, 1], dtype=int32)
    """
    in_degrees = np.asarray(in_degrees)
    _check_num_parts(len(in_degrees), num_parts)
    room = np.bincount(contiguous_parts(len(in_degrees), num_parts)).tolist()
    parts = np.empty(len(in_degrees), np.int32)
    loads = [(0, part) for part in range(num_parts)]
    for node in np.argsort(-in_degrees, kind="stable").tolist():
        load, part = heapq.heappop(loads)
        parts[node] = part
        room[part] -= 1
        if room[part]:
            heapq.heappush(loads, (load + int(in_degrees[node]), part))
    return parts


def make_partition(assignment, num_parts: int) -> Partition:
    """Numbers the nodes of each part, in their order.

    Args:
      assignment: the part of each node; a part may be empty.
      num_parts: how many parts there are.

    Raises:
      InputError: more parts than nodes, or an assignment that is not one part for each node.
    """
    parts = np.asarray(assignment)
    if parts.ndim != 1 or not np.issubdtype(parts.dtype, np.integer):
        raise InputError(
            f"assignment has shape {parts.shape} and dtype {parts.dtype}: it must be one "
            "integer a node, its part"
        )
    _check_num_parts(len(parts), num_parts)
    bad = np.flatnonzero((parts < 0) | (parts >= num_parts))
    if bad.size:
        raise InputError(
            f"assignment[{bad[0]}] = {parts[bad[0]]} (one of {bad.size} such values): {num_parts} "
            f"parts have the numbers 0 to {num_parts - 1}; mend it, or raise num_parts"
        )
    sizes = np.bincount(parts, minlength=num_parts)
    order = np.argsort(parts, kind="stable")
    rows = np.empty(len(parts), np.int32)
    rows[order] = np.arange(len(parts)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return Partition(parts.astype(np.int32), rows, num_parts, int(sizes.max()) + 1)


def partition_graph(
    graph: Graph,
    partition: Partition,
    *,
    edge_weights=None,
    exchange: Exchange = "all_to_all",
    features_at_once: int | None = None,
) -> PartitionedGraph:
    """Divides the edges by the part of their receivers; for `structdl.graphs.on_parts.put_on_mesh`.

    Args:
      graph: the edges; of its other fields only the lengths are read.
      partition: of its nodes.
      edge_weights: one for each edge of the graph, as from `symmetric_weights`, or None.
      exchange: how a halo is fetched: "all_to_all" of what is needed, or "all_gather" of all.
      features_at_once: how many features are fetched and summed at a time, which divides the
        memory of a halo and asks for as many more exchanges; None means all.

    Raises:
      InputError: the graph's arrays, the partition and the weights disagree.
    """
    if exchange not in ("all_to_all", "all_gather"):
        raise ValueError(f"exchange {exchange!r}: 'all_to_all' or 'all_gather'")
    if features_at_once is not None and features_at_once < 1:
        raise InputError(f"features_at_once = {features_at_once}: it must be 1 or more, or None")
    senders, receivers = _checked_edges(graph, partition)
    order, bounds = _edges_by_part(partition, receivers)
    each_part = np.split(order, bounds)
    halo, num_senders = Halo(None, None, AXIS, features_at_once), _num_places(partition)
    places = [_places(partition, senders[edges]) for edges in each_part]
    if exchange == "all_to_all":
        needed = _needed(partition, places)
        places, size = _local_places(partition, places, needed)
        halo = _sends(partition, needed, size, halo)
        num_senders = partition.num_rows + partition.num_parts * size
    ends = [partition.rows[receivers[edges]] for edges in each_part]
    layout = stack_layouts(places, ends, num_senders, partition.num_rows, halo=halo)
    layout = jax.tree.map(lambda leaf: leaf.astype(np.int32), layout)
    weights = None
    if edge_weights is not None:
        edge_weights = np.asarray(edge_weights)
        if edge_weights.shape != senders.shape:
            raise InputError(
                f"edge_weights has shape {edge_weights.shape}: it must be one weight for each of "
                f"the {len(senders)} edges"
            )
        edge_weights = edge_weights.astype(jax.dtypes.canonicalize_dtype(edge_weights.dtype))
        weights = pad_rows([edge_weights[edges] for edges in each_part], layout.senders.shape[1], 0)
    sizes = np.bincount(partition.parts, minlength=partition.num_parts)
    mask = np.arange(partition.num_rows)[None] < sizes[:, None]
    return PartitionedGraph(layout, weights, mask)


def traffic(graph: Graph, partition: Partition) -> Traffic:
    """How even the parts are, and what an exchange by all-to-all has to move."""
    senders, receivers = _checked_edges(graph, partition)
    order, bounds = _edges_by_part(partition, receivers)
    places = [_places(partition, senders[edges]) for edges in np.split(order, bounds)]
    halo = [[len(rows) for rows in from_parts] for from_parts in _needed(partition, places)]
    owners = partition.parts[receivers]
    is_cut = partition.parts[senders] != owners
    return Traffic(
        np.bincount(owners, minlength=partition.num_parts),
        np.bincount(owners[is_cut], minlength=partition.num_parts),
        np.array(halo),
    )


def symmetric_weights(graph: Graph, edge_weights=None) -> np.ndarray:
    """The entries of D^-1/2 A D^-1/2 of the whole graph, as `symmetric_normalization` has them.

    Args:
      graph: with its self-loops (see `structdl.graphs.graph.add_self_loops`).
      edge_weights: a_rs per edge; None means 1.
    """
    if edge_weights is None:
        edge_weights = np.ones(graph.num_edges)
    degrees = np.bincount(graph.receivers, weights=edge_weights, minlength=graph.num_nodes)
    scales = np.where(degrees > 0, degrees, np.inf) ** -0.5
    weights = scales[graph.receivers] * edge_weights * scales[graph.senders]
    return weights.astype(jax.dtypes.canonicalize_dtype(float))


def to_parts(partition: Partition, nodes) -> np.ndarray:
    """Puts one row for each node into [parts, num_rows, ...], zeros where it is padded.

    Raises:
      InputError: there is not one row for each node.
    """
    nodes = np.asarray(nodes)
    if nodes.shape[:1] != partition.parts.shape:
        raise InputError(
            f"nodes has shape {nodes.shape}: the partition is one of {len(partition.parts)} nodes; "
            "give one row for each"
        )
    shape = (partition.num_parts, partition.num_rows, *nodes.shape[1:])
    stacked = np.zeros(shape, jax.dtypes.canonicalize_dtype(nodes.dtype))
    stacked[partition.parts, partition.rows] = nodes
    return stacked


def from_parts(partition: Partition, stacked) -> np.ndarray:
    """Reads [parts, num_rows, ...] back, in the order of the whole graph's nodes.

    >>> partition = make_partition([1, 0, 1], 2)
    >>> from_parts(partition, to_parts(partition, [5, 6, 7]))
    array([5, 6, 7], dtype=int32)
    """
    return np.asarray(stacked)[partition.parts, partition.rows]


def _check_num_parts(num_nodes: int, num_parts: int) -> None:
    if not 1 <= num_parts <= num_nodes:
        raise InputError(
            f"num_parts = {num_parts}: {num_nodes} nodes divide into 1 to {num_nodes} parts; "
            "use fewer devices"
        )


def _checked_edges(graph: Graph, partition: Partition) -> tuple[np.ndarray, np.ndarray]:
    if len(partition.parts) != graph.num_nodes or np.sum(graph.n_node) != graph.num_nodes:
        raise InputError(
            f"the graph has {graph.num_nodes} rows of nodes, n_node says {np.sum(graph.n_node)} "
            f"and the partition has {len(partition.parts)}: they must agree"
        )
    checked = graph_from_edges(graph.senders, graph.receivers, graph.num_nodes)
    return checked.senders, checked.receivers


def _edges_by_part(partition: Partition, receivers) -> tuple[np.ndarray, np.ndarray]:
    """The edges in the order of their receivers' parts, and where a new part begins."""
    owners = partition.parts[receivers]
    counts = np.bincount(owners, minlength=partition.num_parts)
    return np.argsort(owners, kind="stable"), np.cumsum(counts)[:-1]


def _num_places(partition: Partition) -> int:
    return partition.num_parts * partition.num_rows


def _places(partition: Partition, nodes) -> np.ndarray:
    """The row of each node in an all-gather of all parts."""
    return partition.parts[nodes].astype(np.int64) * partition.num_rows + partition.rows[nodes]


def _needed(partition: Partition, places) -> list[list[np.ndarray]]:
    """By part, and by the part they lie in: the rows of other parts that its edges start from."""
    bounds = np.arange(1, partition.num_parts) * partition.num_rows
    needed = []
    for part, mine in enumerate(places):
        distinct = np.unique(mine[mine // partition.num_rows != part])
        from_parts = np.split(distinct, np.searchsorted(distinct, bounds))
        needed.append([rows % partition.num_rows for rows in from_parts])
    return needed


def _local_places(partition: Partition, places, needed) -> tuple[list[np.ndarray], int]:
    """The senders' rows among a part's own rows and its halo; and the rows of a pair of parts."""
    num_rows = partition.num_rows
    size = max(len(rows) for from_parts in needed for rows in from_parts)
    local = []
    for part, mine in enumerate(places):
        table = np.zeros(_num_places(partition), np.int32)
        table[part * num_rows : (part + 1) * num_rows] = np.arange(num_rows)
        for other, rows in enumerate(needed[part]):
            table[other * num_rows + rows] = num_rows + other * size + np.arange(len(rows))
        local.append(table[mine])
    return local, size


def _sends(partition: Partition, needed, size: int, halo: Halo) -> Halo:
    """What each part sends: for every part, what that needs of it, padded with the last row."""
    each, slots = [], []
    for part in range(partition.num_parts):
        to_parts = [from_parts[part] for from_parts in needed]
        each.append(pad_rows(to_parts, size, partition.num_rows - 1).ravel())
        slots.append(
            np.concatenate([size * to + np.arange(len(rows)) for to, rows in enumerate(to_parts)])
        )
    real = [rows[places] for rows, places in zip(each, slots, strict=True)]
    _, table = stack_tables(real, slots, partition.num_rows, of_edges=False)
    return Halo(np.stack(each).astype(np.int32), table, halo.axis, halo.features_at_once)
