"""From a prepared set to the arrays of one graph, and to the masks of a seed's split."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from structdl.core.segment import EdgeLayout, edge_layout
from structdl.core.sparse import SparseRows, normalize_rows, sparse_rows
from structdl.errors import InputError, nearest_names
from structdl.graphs.gcn import symmetric_normalization
from structdl.graphs.graph import add_self_loops, graph_from_edges, symmetrize

SPLITS = ("train", "validation", "test")
PLANETOID = ("cora", "citeseer", "pubmed")


class NodeData(NamedTuple):
    """One graph with labelled nodes, on the device."""

    features: SparseRows | None  # [num_nodes, features], rows sum to one; None: no features
    layout: EdgeLayout  # both directions of each edge, and a self-loop at every node
    weights: jax.Array  # [num_edges], the entries of D^-1/2 (A + I) D^-1/2
    labels: jax.Array  # [num_nodes], int32


def load(config) -> tuple[NodeData, int, Callable[[int], np.ndarray]]:
    """(data, number of classes, split) of a config, where `split(seed)` gives bool [3, num_nodes].

    The rows of a split are the masks of train, validation and test.

    Raises:
      InputError: an unknown data set or an unknown kind of split.
    """
    if config.dataset == "karate":
        return _karate(config)
    if config.dataset in PLANETOID:
        return _planetoid(config)
    known = ("karate", *PLANETOID)
    raise InputError(f"unknown data set {config.dataset!r}: {nearest_names(config.dataset, known)}")


def _karate(config):
    from structdl.datasets import karate_club  # TFDS is slow to import

    club = karate_club.load(raw_dir=config.data.raw_dir, data_dir=config.data.dir)
    labels = club.modularity_class
    data = _node_data(None, club.edges, labels)
    friends = np.bincount(club.edges.ravel())
    # the best connected member of each class: the instructor, the officer and two more
    central = np.array([np.argmax(friends * (labels == label)) for label in range(4)])

    def split(seed: int) -> np.ndarray:
        labelled = central if config.split == "fixed" else _draw_per_class(seed, labels, 1)
        return _masks(len(labels), labelled, [], np.setdiff1d(np.arange(len(labels)), labelled))

    return data, 4, split


def _planetoid(config):
    from structdl.datasets import planetoid

    paper = planetoid.load(config.dataset, raw_dir=config.data.raw_dir, data_dir=config.data.dir)
    data = _node_data(sparse_rows(normalize_rows(paper.features)), paper.edges, paper.labels)
    num_nodes = len(paper.labels)

    def split(seed: int) -> np.ndarray:
        if config.split == "fixed":
            return _masks(num_nodes, paper.train, paper.validation, paper.test)
        train = _draw_per_class(seed, paper.labels, 20)
        rest = np.setdiff1d(np.flatnonzero(paper.labels >= 0), train)
        rest = np.random.default_rng([seed, 1]).permutation(rest)
        return _masks(num_nodes, train, rest[:500], rest[500:1500])

    return data, paper.num_classes, split


def _node_data(features, edges: np.ndarray, labels: np.ndarray) -> NodeData:
    graph = add_self_loops(symmetrize(graph_from_edges(*edges.T, num_nodes=len(labels))))
    layout = edge_layout(graph.senders, graph.receivers, graph.num_nodes)
    weights = jax.jit(symmetric_normalization)(layout)  # op by op it compiles five times as long
    return NodeData(features, layout, weights, labels.astype(np.int32))


def _draw_per_class(seed: int, labels: np.ndarray, count: int) -> np.ndarray:
    """`count` nodes of every class, without replacement."""
    rng = np.random.default_rng([seed, 0])
    classes = range(labels.max() + 1)
    return np.concatenate(
        [rng.choice(np.flatnonzero(labels == label), count, replace=False) for label in classes]
    )


def _masks(num_nodes: int, train, validation, test) -> np.ndarray:
    masks = np.zeros((len(SPLITS), num_nodes), bool)
    for mask, nodes in zip(masks, (train, validation, test), strict=True):
        mask[np.asarray(nodes, int)] = True
    return masks
