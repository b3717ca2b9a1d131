"""Graphs as arrays: construction with validation, self-loops, batching, padding, masks.

What makes or changes a graph is NumPy on the host; the masks also work under jit.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from structdl.core.edge_layout import check_size
from structdl.errors import InputError


class Graph(NamedTuple):
    """One graph or several as one, with the field names of jraph's GraphsTuple.

    The nodes of graph 0 come first, then those of graph 1, and so do the edges. A host function
    returns NumPy arrays; jit, or `jax.device_put`, moves them.
    """

    nodes: jax.Array | np.ndarray  # [num_nodes, ...]; of width 0 when nodes have no features
    edges: jax.Array | np.ndarray | None  # [num_edges, ...]
    receivers: jax.Array | np.ndarray  # [num_edges], int32
    senders: jax.Array | np.ndarray  # [num_edges], int32
    globals: jax.Array | np.ndarray | None  # [num_graphs, ...]
    n_node: jax.Array | np.ndarray  # [num_graphs], int32
    n_edge: jax.Array | np.ndarray  # [num_graphs], int32

    @property
    def num_nodes(self) -> int:
        return self.nodes.shape[0]

    @property
    def num_edges(self) -> int:
        return self.senders.shape[0]

    @property
    def num_graphs(self) -> int:
        return self.n_node.shape[0]


def graph_from_edges(
    senders, receivers, num_nodes: int, *, nodes=None, edges=None, globals=None
) -> Graph:
    """Makes a validated graph from its edge list; edges point from sender to receiver.

    Args:
      senders: the node each edge starts from, an index per edge.
      receivers: the node it points to; an undirected edge is given in both directions (see
        `symmetrize`).
      num_nodes: how many nodes there are, isolated ones included.
      nodes: features [num_nodes, ...], or None.
      edges: features [num_edges, ...], or None.
      globals: features of the graph, without a graph axis, or None.

    Raises:
      InputError: an index or the number of nodes out of range, a field of the wrong length, ragged
        features, a NaN or an infinity; the message names the field, the value, the allowed range
        and the fix.

    >>> graph = graph_from_edges([0, 1], [1, 2], 3)
    >>> graph.receivers, graph.n_node, graph.n_edge
    (array([1, 2], dtype=int32), array([3], dtype=int32), array([2], dtype=int32))
    """
    check_size("num_nodes", num_nodes)
    senders = _indices("senders", senders, num_nodes)
    receivers = _indices("receivers", receivers, num_nodes)
    if len(senders) != len(receivers):
        raise InputError(
            f"senders has {len(senders)} entries and receivers has {len(receivers)}: an edge is "
            "one of each; give lists of equal length"
        )
    nodes = np.zeros((num_nodes, 0), np.float32) if nodes is None else nodes
    return Graph(
        nodes=_features("nodes", nodes, num_nodes, "node"),
        edges=None if edges is None else _features("edges", edges, len(senders), "edge"),
        receivers=receivers,
        senders=senders,
        globals=None if globals is None else _features("globals", [globals], 1, "graph"),
        n_node=np.array([num_nodes], np.int32),
        n_edge=np.array([len(senders)], np.int32),
    )


def _indices(name: str, values, num_nodes: int) -> np.ndarray:
    values = np.asarray(values, dtype=None if np.size(values) else np.int32)  # [] is of floats
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        raise InputError(
            f"{name} has shape {values.shape} and dtype {values.dtype}: it must be one-dimensional "
            "and of integers; give one node index per edge"
        )
    bad = np.flatnonzero((values < 0) | (values >= num_nodes))
    if bad.size:
        raise InputError(
            f"{name}[{bad[0]}] = {values[bad[0]]} (one of {bad.size} such values): a graph of "
            f"num_nodes = {num_nodes} has the indices 0 to {num_nodes - 1}; number the nodes from "
            "0, or raise num_nodes"
        )
    return values.astype(np.int32)


def _features(name: str, values, length: int, unit: str) -> np.ndarray:
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.empty((), object)
    if array.dtype == object:
        raise InputError(_ragged_message(name, values))
    if array.shape[:1] != (length,):
        raise InputError(
            f"{name} has shape {array.shape}: it must have length {length}, one row per {unit}; "
            "add or remove rows"
        )
    if np.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
        place = tuple(np.argwhere(~np.isfinite(array))[0].tolist())
        raise InputError(
            f"{name}{list(place)} = {array[place]}: features must be finite numbers; remove or "
            "replace what is not"
        )
    return array.astype(jax.dtypes.canonicalize_dtype(array.dtype))


def _ragged_message(name: str, values) -> str:
    lengths = [len(row) if np.iterable(row) else 1 for row in values]
    odd = max(range(len(lengths)), key=lambda row: lengths[row] != lengths[0])  # the first such
    return (
        f"{name} is ragged: {name}[{odd}] has length {lengths[odd]}, {name}[0] has length "
        f"{lengths[0]} (or rows differ inside); all must be of one shape: pad or cut them to it"
    )


def add_self_loops(graph: Graph, *, only_missing: bool = False, fill: float = 1.0) -> Graph:
    """Adds an edge from every node to itself, A + I: a second one where there is one, as Kipf does.

    Args:
      graph: a graph or a batch.
      only_missing: give every node exactly one self-loop: the last one that it has, or a new one,
        as PyTorch Geometric's `add_remaining_self_loops` does.
      fill: what the edge features of a new self-loop hold.

    >>> add_self_loops(graph_from_edges([0], [1], 2)).receivers
    array([1, 0, 1], dtype=int32)
    """
    senders, receivers, edges = np.asarray(graph.senders), np.asarray(graph.receivers), graph.edges
    replaced = (senders == receivers) & only_missing
    loops = np.arange(graph.num_nodes, dtype=np.int32)
    if edges is not None:
        edges = np.asarray(edges)
        loop_features = np.full((graph.num_nodes, *edges.shape[1:]), fill, edges.dtype)
        loop_features[senders[replaced]] = edges[replaced]
        edges = np.concatenate([edges[~replaced], loop_features])
    senders = np.concatenate([senders[~replaced], loops])
    receivers = np.concatenate([receivers[~replaced], loops])
    return _with_edges(graph, senders, receivers, edges)


def symmetrize(graph: Graph) -> Graph:
    """Gives every edge its reverse, each pair once and each self-loop once.

    Of duplicates the first stays, with its features; a reverse edge takes the features of the
    edge that it reverses, unless the graph had it already.

    >>> graph = symmetrize(graph_from_edges([0, 1, 2], [1, 0, 1], 3))
    >>> graph.senders, graph.receivers
    (array([0, 1, 2, 1], dtype=int32), array([1, 0, 1, 2], dtype=int32))
    """
    senders = np.concatenate([graph.senders, graph.receivers])
    receivers = np.concatenate([graph.receivers, graph.senders])
    pairs = senders.astype(np.int64) * graph.num_nodes + receivers
    first = np.sort(np.unique(pairs, return_index=True)[1])
    edges = _rows(graph.edges, first % graph.num_edges)
    return _with_edges(graph, senders[first], receivers[first], edges)


def _with_edges(graph: Graph, senders, receivers, edges) -> Graph:
    """The graph with other edges, which are put into the order of their graphs."""
    owner = np.repeat(np.arange(graph.num_graphs), graph.n_node)[receivers]
    order = np.argsort(owner, kind="stable")
    n_edge = np.bincount(owner, minlength=graph.num_graphs).astype(np.int32)
    receivers, senders, edges = receivers[order], senders[order], _rows(edges, order)
    return graph._replace(receivers=receivers, senders=senders, edges=edges, n_edge=n_edge)


def _rows(field, places) -> np.ndarray | None:
    return None if field is None else np.asarray(field)[places]


def batch(graphs: Sequence[Graph]) -> Graph:
    """Joins graphs, or batches of graphs, into one batch, in their order.

    Raises:
      InputError: there is no graph, or a field's presence, width or dtype differs between them.
    """
    if not graphs:
        raise InputError("graphs is empty: a batch needs at least one graph")
    for name in ("nodes", "edges", "globals"):
        kinds = [_kind(getattr(graph, name)) for graph in graphs]
        for place, kind in enumerate(kinds):
            if kind != kinds[0]:
                raise InputError(
                    f"graphs[{place}].{name} is {kind} where graphs[0].{name} is {kinds[0]}: the "
                    "graphs of a batch must agree; convert one or the other"
                )
    offsets = np.cumsum([0] + [graph.num_nodes for graph in graphs[:-1]]).astype(np.int32)
    shifted = [
        graph._replace(senders=graph.senders + offset, receivers=graph.receivers + offset)
        for graph, offset in zip(graphs, offsets, strict=True)
    ]
    fields = zip(*shifted, strict=True)
    return Graph(*(None if parts[0] is None else np.concatenate(parts) for parts in fields))


def _kind(field) -> str:
    return "None" if field is None else f"{field.dtype}[:, {', '.join(map(str, field.shape[1:]))}]"


def pad(graph: Graph, *, num_nodes: int, num_edges: int, num_graphs: int) -> Graph:
    """Pads a batch to fixed sizes; with `edge_list` inside jit, one program serves all batches.

    One padding graph takes all padding nodes and edges; further ones are empty. Padding edges
    join padding nodes only, spread over them; padding features are zeros.

    Args:
      graph: a batch.
      num_nodes: how many nodes there shall be; at least one is padding, which tells the masks
        where the padding graph is.
      num_edges: how many edges.
      num_graphs: how many graphs; at least one is padding.

    Raises:
      InputError: the batch does not fit; the message names the size and the budget.
    """
    rooms = {"nodes": num_nodes - 1, "edges": num_edges, "graphs": num_graphs - 1}
    for name, room in rooms.items():
        size = getattr(graph, f"num_{name}")
        if size > room:
            raise InputError(
                f"the batch has {size} {name}, and num_{name} leaves room for {room} beside the "
                f"padding graph; raise it by {size - room}, or batch fewer or smaller graphs"
            )
    extra_nodes, extra_edges = num_nodes - graph.num_nodes, num_edges - graph.num_edges
    ends = (graph.num_nodes + np.arange(extra_edges) % extra_nodes).astype(np.int32)
    extended = graph._replace(
        receivers=np.concatenate([graph.receivers, ends]),
        senders=np.concatenate([graph.senders, ends]),
        n_node=np.append(graph.n_node, np.int32(extra_nodes)),
        n_edge=np.append(graph.n_edge, np.int32(extra_edges)),
    )
    lengths = Graph(num_nodes, *[num_edges] * 3, *[num_graphs] * 3)
    return Graph(*map(_pad_rows, extended, lengths))


def _pad_rows(field, length: int) -> np.ndarray | None:
    if field is None:
        return None
    padding = np.zeros((length - len(field), *field.shape[1:]), field.dtype)
    return np.concatenate([field, padding])


def unbatch(graph: Graph) -> list[Graph]:
    """Splits a batch into its graphs; padding graphs, if any, are the last ones."""
    nodes = np.cumsum([0, *graph.n_node], dtype=np.int32)
    edges = np.cumsum([0, *graph.n_edge], dtype=np.int32)
    each = np.arange(graph.num_graphs + 1)
    bounds = Graph(nodes, edges, edges, edges, each, each, each)
    graphs = []
    for index, first in enumerate(nodes[:-1]):
        rows = [slice(*bound[index : index + 2]) for bound in bounds]
        part = Graph(*map(_rows, graph, rows))
        part = part._replace(senders=part.senders - first, receivers=part.receivers - first)
        graphs.append(part)
    return graphs


def take_graphs(graph: Graph, indices) -> Graph:
    """Some graphs of a batch, in the order of their indices, which may repeat.

    The cost is that of the graphs taken: minibatches are drawn so from a whole set joined once.

    Raises:
      InputError: no index, or one out of range.

    >>> whole = batch([graph_from_edges([], [], 2), graph_from_edges([0], [2], 3)])
    >>> taken = take_graphs(whole, [1, 0, 1])
    >>> taken.n_node, taken.senders, taken.receivers
    (array([3, 2, 3], dtype=int32), array([0, 5], dtype=int32), array([2, 7], dtype=int32))
    """
    indices = np.asarray(indices)
    if not indices.size:
        raise InputError("indices is empty: a batch needs at least one graph")
    bad = np.flatnonzero((indices < 0) | (indices >= graph.num_graphs))
    if bad.size:
        raise InputError(
            f"indices[{bad[0]}] = {indices[bad[0]]}: a batch of {graph.num_graphs} graphs has the "
            f"indices 0 to {graph.num_graphs - 1}"
        )
    n_node, n_edge = np.asarray(graph.n_node)[indices], np.asarray(graph.n_edge)[indices]
    old_starts = (np.cumsum(graph.n_node) - graph.n_node)[indices]
    nodes = _ranges(old_starts, n_node)
    edges = _ranges((np.cumsum(graph.n_edge) - graph.n_edge)[indices], n_edge)
    moves = np.repeat(np.cumsum(n_node) - n_node - old_starts, n_edge).astype(np.int32)
    return Graph(
        nodes=np.asarray(graph.nodes)[nodes],
        edges=_rows(graph.edges, edges),
        receivers=graph.receivers[edges] + moves,
        senders=graph.senders[edges] + moves,
        globals=_rows(graph.globals, indices),
        n_node=n_node,
        n_edge=n_edge,
    )


def _ranges(starts, lengths) -> np.ndarray:
    """The numbers start to start + length - 1 of each range, one range after another."""
    first = np.cumsum(lengths) - lengths
    return np.repeat(starts - first, lengths) + np.arange(np.sum(lengths))


def graph_mask(graph: Graph) -> Bool[Array, " num_graphs"]:
    """True for the graphs that are not padding, in a graph returned by `pad`."""
    # the padding graph is the last one with nodes, since those after it are empty
    num_padding = 1 + jnp.argmax(jnp.flip(graph.n_node) > 0)
    return jnp.arange(graph.num_graphs) < graph.num_graphs - num_padding


def node_mask(graph: Graph) -> Bool[Array, " num_nodes"]:
    """True for the nodes that are not padding, in a graph returned by `pad`."""
    return jnp.arange(graph.num_nodes) < jnp.sum(graph.n_node, where=graph_mask(graph))


def edge_mask(graph: Graph) -> Bool[Array, " num_edges"]:
    """True for the edges that are not padding, in a graph returned by `pad`."""
    return jnp.arange(graph.num_edges) < jnp.sum(graph.n_edge, where=graph_mask(graph))


def node_graph_ids(graph: Graph) -> Int[Array, " num_nodes"]:
    """The index of each node's graph in the batch: the segment ids of a readout.

    >>> node_graph_ids(batch([graph_from_edges([], [], 2), graph_from_edges([], [], 1)]))
    Array([0, 0, 1], dtype=int32)
    """
    ids = jnp.arange(graph.num_graphs)
    return jnp.repeat(ids, graph.n_node, total_repeat_length=graph.num_nodes)
