"""From node states to one vector a graph: sum, mean, max, gates, softmax, and virtual nodes.

A readout takes the graph of each node (see `structdl.graphs.graph.node_graph_ids`) and a mask of
the nodes that count: all real nodes of a padded batch (`node_mask`), a part of each graph, which
makes the result the embedding of a sub-graph, or its virtual node. A graph of which no node counts
gets 0, and its nodes a gradient of 0.

The lecture's two embeddings of a sub-graph S (Hamilton, Ying, Leskovec (2017), "Representation
learning on graphs: methods and applications", arXiv:1709.05584, section 3):
1. sum or average its nodes: `graph_sum(nodes, ids, num_graphs, mask=in_subgraph)`;
2. `add_virtual_nodes(graph, subset=in_subgraph)`, run any network over it, and take
   `graph_sum(nodes, ids, num_graphs, mask=virtual_node_mask(graph))`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from structdl.core.arrays import as_array
from structdl.core.masks import select
from structdl.core.segment import segment_max, segment_mean, segment_softmax, segment_sum
from structdl.errors import InputError
from structdl.graphs.graph import Graph


def graph_sum(
    nodes: Float[Array | np.ndarray, "num_nodes ..."],
    graph_ids: Int[Array, " num_nodes"],
    num_graphs: int,
    *,
    mask: Bool[Array, " num_nodes"] | None = None,
) -> Float[Array, "num_graphs ..."]:
    """Sums the nodes of each graph: z_g = sum of z_v over the nodes v of g that count.

    >>> states, ids = jnp.array([1.0, 2.0, 4.0]), jnp.array([0, 0, 1])
    >>> graph_sum(states, ids, 2, mask=jnp.array([True, True, False]))
    Array([3., 0.], dtype=float32)
    """
    return segment_sum(nodes, _counted_ids(graph_ids, num_graphs, mask), num_graphs)


def graph_mean(
    nodes: Float[Array | np.ndarray, "num_nodes ..."],
    graph_ids: Int[Array, " num_nodes"],
    num_graphs: int,
    *,
    mask: Bool[Array, " num_nodes"] | None = None,
) -> Float[Array, "num_graphs ..."]:
    """Averages the nodes of each graph that count; arguments as in `graph_sum`."""
    return segment_mean(nodes, _counted_ids(graph_ids, num_graphs, mask), num_graphs)


def graph_max(
    nodes: Float[Array | np.ndarray, "num_nodes ..."],
    graph_ids: Int[Array, " num_nodes"],
    num_graphs: int,
    *,
    mask: Bool[Array, " num_nodes"] | None = None,
) -> Float[Array, "num_graphs ..."]:
    """The largest value of each feature in each graph; arguments as in `graph_sum`."""
    return segment_max(nodes, _counted_ids(graph_ids, num_graphs, mask), num_graphs)


def gated_readout(
    gate_logits: Float[Array | np.ndarray, "num_nodes features"],
    values: Float[Array | np.ndarray, "num_nodes features"],
    graph_ids: Int[Array, " num_nodes"],
    num_graphs: int,
    *,
    mask: Bool[Array, " num_nodes"] | None = None,
) -> Float[Array, "num_graphs features"]:
    """The readout of gated graph neural networks, where each node says how relevant it is.

    h_g = tanh(sum over v in g of sigmoid(i(h_v, x_v)) * tanh(j(h_v, x_v)))

    Args:
      gate_logits: i(h_v, x_v), one for each feature.
      values: j(h_v, x_v).
      graph_ids: the graph of each node.
      num_graphs: how many graphs there are.
      mask: the nodes that count; None means all.

    Reference: Li, Tarlow, Brockschmidt, Zemel (2016), "Gated graph sequence neural networks",
    arXiv:1511.05493, eq. 7.
    """
    gated = jax.nn.sigmoid(gate_logits) * jnp.tanh(values)
    return jnp.tanh(graph_sum(gated, graph_ids, num_graphs, mask=mask))


def softmax_readout(
    logits: Float[Array | np.ndarray, " num_nodes"],
    values: Float[Array | np.ndarray, "num_nodes features"],
    graph_ids: Int[Array, " num_nodes"],
    num_graphs: int,
    *,
    mask: Bool[Array, " num_nodes"] | None = None,
) -> Float[Array, "num_graphs features"]:
    """The average of each graph's values, weighted by a softmax over its nodes.

    h_g = sum over v in g of exp(logits[v]) / sum over u in g of exp(logits[u]) * values[v]

    Arguments as in `gated_readout`, with one logit a node.
    """
    logits, values = as_array(logits), as_array(values)
    if mask is not None:
        logits = select(mask, logits, -jnp.inf)
        values = select(mask, values, 0)
    weights = segment_softmax(logits, graph_ids, num_graphs)
    return segment_sum(weights[:, None] * values, graph_ids, num_graphs)


def _counted_ids(graph_ids, num_graphs, mask):
    """Sends the nodes that do not count to a segment that is dropped."""
    return graph_ids if mask is None else jnp.where(mask, graph_ids, num_graphs)


class GatedReadout(nn.Module):
    """`gated_readout` with i and j as dense layers of [h_v, x_v].

    Attributes:
      features: the width of the result.
    """

    features: int

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "num_nodes hidden"],
        annotations: Float[Array | np.ndarray, "num_nodes in_features"],
        graph_ids: Int[Array, " num_nodes"],
        num_graphs: int,
        *,
        mask: Bool[Array, " num_nodes"] | None = None,
    ) -> Float[Array, "num_graphs features"]:
        joined = jnp.concatenate([hidden, annotations], axis=1)
        gate_logits = nn.Dense(self.features, name="gate")(joined)
        values = nn.Dense(self.features, name="value")(joined)
        return gated_readout(gate_logits, values, graph_ids, num_graphs, mask=mask)


def add_virtual_nodes(
    graph: Graph, *, subset=None, edge_types: tuple[int, int] | None = None
) -> Graph:
    """Gives each graph of a batch one more node, its last, with edges from and to its nodes.

    Every node gets one more feature, the last: 1 for a virtual node and 0 for the others, which
    tells them apart for the network and, through `batch` and `pad`, for `virtual_node_mask`. The
    other features of a virtual node are 0. Do this before padding.

    Args:
      graph: a graph or a batch, with features [num_nodes, in_features].
      subset: True for the nodes to connect, bool [num_nodes]; None means all. With a subset the
        virtual node stands for the sub-graph that these nodes induce.
      edge_types: what `graph.edges` holds for the new edges, those into a virtual node and those
        out of it; None where the graph has no edge features.

    Raises:
      InputError: the features are not of rank 2, the subset is no mask of the nodes, or edge_types
        is given without edge features or missing with them.

    >>> from structdl.graphs.graph import graph_from_edges
    >>> graph = add_virtual_nodes(graph_from_edges([], [], 2), subset=np.array([True, False]))
    >>> graph.nodes[:, -1], graph.senders, graph.receivers
    (array([0., 0., 1.], dtype=float32), array([0, 2], dtype=int32), array([2, 0], dtype=int32))
    """
    subset = _checked_subset(graph, subset)
    if (edge_types is None) != (graph.edges is None):
        raise InputError(
            f"edge_types = {edge_types} for a graph whose edges are "
            f"{'None' if graph.edges is None else 'an array'}: give what graph.edges shall hold "
            "for (edges into, edges out of) a virtual node where there are edge features, else None"
        )
    owner = np.repeat(np.arange(graph.num_graphs), graph.n_node)
    place = np.arange(graph.num_nodes) + owner  # each earlier graph has one node more
    virtual = np.cumsum(graph.n_node) + np.arange(graph.num_graphs)
    nodes = np.zeros((graph.num_nodes + graph.num_graphs, graph.nodes.shape[1] + 1))
    nodes = nodes.astype(graph.nodes.dtype)
    nodes[place, :-1] = graph.nodes
    nodes[virtual, -1] = 1

    ends, hubs = place[subset], virtual[owner[subset]]
    edge_owner = np.repeat(np.arange(graph.num_graphs), graph.n_edge)
    order = np.argsort(np.concatenate([edge_owner, owner[subset], owner[subset]]), kind="stable")
    senders = np.concatenate([place[graph.senders], ends, hubs])[order].astype(np.int32)
    receivers = np.concatenate([place[graph.receivers], hubs, ends])[order].astype(np.int32)
    edges = graph.edges
    if edges is not None:
        edges = np.asarray(edges)
        new = [np.full((len(ends), *edges.shape[1:]), kind, edges.dtype) for kind in edge_types]
        edges = np.concatenate([edges, *new])[order]
    added = np.bincount(owner[subset], minlength=graph.num_graphs)
    return graph._replace(
        nodes=nodes,
        edges=edges,
        senders=senders,
        receivers=receivers,
        n_node=(np.asarray(graph.n_node) + 1).astype(np.int32),
        n_edge=(np.asarray(graph.n_edge) + 2 * added).astype(np.int32),
    )


def _checked_subset(graph: Graph, subset) -> np.ndarray:
    if graph.nodes.ndim != 2:
        raise InputError(
            f"nodes has shape {graph.nodes.shape}: the mark of a virtual node is one more feature, "
            "so that they must be [num_nodes, in_features]; reshape them"
        )
    if subset is None:
        return np.ones(graph.num_nodes, bool)
    subset = np.asarray(subset)
    if subset.shape != (graph.num_nodes,) or subset.dtype != bool:
        raise InputError(
            f"subset has shape {subset.shape} and dtype {subset.dtype}: it must be a mask, bool "
            f"[{graph.num_nodes}], True for the nodes to connect; make one of indices by "
            "np.isin(np.arange(num_nodes), indices)"
        )
    return subset


def virtual_node_mask(graph: Graph) -> Bool[Array, " num_nodes"]:
    """True for the virtual nodes that `add_virtual_nodes` made, also in a padded batch."""
    return jnp.asarray(graph.nodes)[:, -1] == 1
