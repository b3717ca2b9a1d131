"""From a prepared set to the arrays of one graph, and to the edges that a seed holds out."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from structdl.core.segment import EdgeLayout, edge_layout
from structdl.core.sparse import SparseRows, normalize_rows, sparse_rows
from structdl.errors import InputError, nearest_names
from structdl.graphs.edge_sampling import split_edges
from structdl.graphs.gcn import symmetric_normalization
from structdl.graphs.graph import Graph, add_self_loops, graph_from_edges, symmetrize
from structdl.graphs.sampling import NeighbourLists, neighbour_lists
from structdl.graphs.walks import NegativeTable, negative_table

SPLITS = ("validation", "test")
PLANETOID = ("cora", "citeseer", "pubmed")


class LabelledGraph(NamedTuple):
    """What every set here holds; labels serve pictures and the judgement of embeddings."""

    graph: Graph  # both directions of each edge, no self-loops
    features: scipy.sparse.csr_matrix  # [num_nodes, features]
    labels: np.ndarray  # [num_nodes], below 0 where there is none
    train: np.ndarray  # nodes
    validation: np.ndarray
    test: np.ndarray
    num_classes: int


class LinkData(NamedTuple):
    """One graph, on the device; all its edges, of which each seed has a part."""

    features: SparseRows
    layout: EdgeLayout  # both directions of each edge, and a self-loop at every node
    labels: jax.Array  # [num_nodes], for pictures


class WalkData(NamedTuple):
    """One graph to walk on, on the device, with the nodes that judge its embeddings."""

    features: SparseRows
    layout: EdgeLayout  # both directions of each edge, no self-loops
    neighbours: NeighbourLists
    negatives: NegativeTable
    labels: jax.Array  # [num_nodes], int32
    train: jax.Array  # [num_train], the nodes that the classifier learns from
    masks: jax.Array  # [validation and test, num_nodes]


class EdgeSplit(NamedTuple):
    """What a seed trains on and what it is asked; shapes are the same for all seeds.

    The encoder sees the training graph as the layout of all edges, with weight 0 on those held
    out: so one layout, hence one program, serves all seeds.
    """

    weights: jax.Array  # [num_edges], the entries of D^-1/2 (A + I) D^-1/2 of the training graph
    senders: np.ndarray  # [num_train_edges], both directions of each training edge
    receivers: np.ndarray  # [num_train_edges]
    pairs: np.ndarray  # [validation and test, num_pairs, 2]
    is_edge: np.ndarray  # [validation and test, num_pairs], half of the pairs are
    mask: np.ndarray  # [validation and test, num_pairs], False at padding


def load(config) -> LabelledGraph:
    """The graph of a config.

    Raises:
      InputError: an unknown data set.
    """
    folders = {"raw_dir": config.data.raw_dir, "data_dir": config.data.dir}
    if config.dataset == "karate":
        return _karate(folders)
    if config.dataset not in PLANETOID:
        known = ("karate", *PLANETOID)
        raise InputError(
            f"unknown data set {config.dataset!r}: {nearest_names(config.dataset, known)}"
        )
    from structdl.datasets import planetoid  # TFDS is slow to import

    paper = planetoid.load(config.dataset, **folders)
    graph = _undirected(paper.edges, len(paper.labels))
    return LabelledGraph(graph, **{k: v for k, v in paper._asdict().items() if k != "edges"})


def _karate(folders) -> LabelledGraph:
    from structdl.datasets import karate_club

    club = karate_club.load(**folders)
    labels = club.modularity_class
    # one labelled member a class, that with most friends
    friends = np.bincount(club.edges.ravel())
    train = np.array([np.argmax(friends * (labels == label)) for label in range(4)])
    rest = np.setdiff1d(np.arange(len(labels)), train)
    return LabelledGraph(
        graph=_undirected(club.edges, len(labels)),
        features=scipy.sparse.identity(len(labels), np.float32, "csr"),
        labels=labels,
        train=train,
        validation=rest[::2],
        test=rest[1::2],
        num_classes=4,
    )


def _undirected(edges: np.ndarray, num_nodes: int) -> Graph:
    edges = edges[edges[:, 0] != edges[:, 1]]
    return symmetrize(graph_from_edges(*edges.T, num_nodes=num_nodes))


def link_data(
    labelled: LabelledGraph, *, validation: float, test: float
) -> tuple[LinkData, Callable[[int], EdgeSplit]]:
    """(data, split), where `split(seed)` holds that seed's shares of the edges out."""
    graph = labelled.graph
    with_loops = add_self_loops(graph)
    layout = edge_layout(with_loops.senders, with_loops.receivers, graph.num_nodes)
    data = LinkData(sparse_rows(labelled.features), layout, jnp.asarray(labelled.labels))
    edges = np.stack([graph.senders, graph.receivers], axis=1)

    def split(seed: int) -> EdgeSplit:
        drawn = split_edges(edges, graph.num_nodes, seed, validation=validation, test=test)
        held_out = np.concatenate([drawn.validation, drawn.test])
        is_kept = ~_is_in(np.asarray([layout.senders, layout.receivers]).T, held_out)
        # op by op it compiles five times as long
        weights = jax.jit(symmetric_normalization)(layout, jnp.asarray(is_kept, jnp.float32))
        senders, receivers = np.concatenate([drawn.train, drawn.train[:, ::-1]]).T
        asked = (
            (drawn.validation, drawn.validation_negatives),
            (drawn.test, drawn.test_negatives),
        )
        return EdgeSplit(weights, senders, receivers, *_stack_pairs(asked))

    return data, split


def walk_data(labelled: LabelledGraph) -> WalkData:
    """The arrays for random walks on the whole graph."""
    edges, num_nodes = (labelled.graph.senders, labelled.graph.receivers), len(labelled.labels)
    layout = edge_layout(*edges, num_nodes)
    masks = np.zeros((len(SPLITS), num_nodes), bool)
    for mask, nodes in zip(masks, (labelled.validation, labelled.test), strict=True):
        mask[nodes] = True
    return WalkData(
        features=sparse_rows(normalize_rows(labelled.features)),
        layout=layout,
        neighbours=neighbour_lists(*edges, num_nodes),
        negatives=negative_table(layout.in_degrees),
        labels=jnp.asarray(labelled.labels),
        train=jnp.asarray(labelled.train),
        masks=jnp.asarray(masks),
    )


def _is_in(edges: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Whether each edge, in either direction, is among the pairs, whose smaller node is first."""
    base = int(edges.max(initial=0)) + 1
    edges, pairs = np.sort(edges, axis=1).astype(np.int64), pairs.astype(np.int64)
    return np.isin(edges[:, 0] * base + edges[:, 1], pairs[:, 0] * base + pairs[:, 1])


def _stack_pairs(splits) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(pairs, is_edge, mask) of the splits, each padded to the longest."""
    size = max(2 * len(edges) for edges, _ in splits)
    pairs = np.zeros((len(splits), size, 2), np.int32)
    is_edge, mask = np.zeros((2, len(splits), size), bool)
    for row, (edges, negatives) in enumerate(splits):
        pairs[row, : 2 * len(edges)] = np.concatenate([edges, negatives])
        is_edge[row, : len(edges)] = True
        mask[row, : 2 * len(edges)] = True
    return pairs, is_edge, mask
