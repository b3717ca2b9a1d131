"""From a prepared set to the arrays of one graph, and to the masks of a seed's split."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from structdl.core.sparse import SparseRows, normalize_rows, sparse_rows
from structdl.errors import InputError, nearest_names
from structdl.graphs.graph import Graph, graph_from_edges, symmetrize

SPLITS = ("train", "validation", "test")
PLANETOID = ("cora", "citeseer", "pubmed")


class Nodes(NamedTuple):
    """One graph with labelled nodes, on the host.

    Fields:
      features: [num_nodes, features], whose rows sum to one; None where nodes have none.
      graph: both directions of each edge; Citeseer has some self-loops.
      labels: the class of each node, int32; -1 where it has none.
      num_classes: how many classes there are.
      split: `seed -> bool [3, num_nodes]`, the masks of train, validation and test.
    """

    features: SparseRows | None
    graph: Graph
    labels: np.ndarray
    num_classes: int
    split: Callable[[int], np.ndarray]


def load(config) -> Nodes:
    """The data set of a config.

    Raises:
      InputError: an unknown data set or an unknown kind of split.
    """
    if config.dataset == "karate":
        return _karate(config)
    if config.dataset in PLANETOID:
        return _planetoid(config)
    known = ("karate", *PLANETOID)
    raise InputError(f"unknown data set {config.dataset!r}: {nearest_names(config.dataset, known)}")


def _karate(config) -> Nodes:
    from structdl.datasets import karate_club  # TFDS is slow to import

    club = karate_club.load(raw_dir=config.data.raw_dir, data_dir=config.data.dir)
    labels = club.modularity_class
    friends = np.bincount(club.edges.ravel())
    # the best connected member of each class: the instructor, the officer and two more
    central = np.array([np.argmax(friends * (labels == label)) for label in range(4)])

    def split(seed: int) -> np.ndarray:
        labelled = central if config.split == "fixed" else _draw_per_class(seed, labels, 1)
        return _masks(len(labels), labelled, [], np.setdiff1d(np.arange(len(labels)), labelled))

    return Nodes(None, _graph(club.edges, len(labels)), labels.astype(np.int32), 4, split)


def _planetoid(config) -> Nodes:
    from structdl.datasets import planetoid

    paper = planetoid.load(config.dataset, raw_dir=config.data.raw_dir, data_dir=config.data.dir)
    features = sparse_rows(normalize_rows(paper.features))
    num_nodes = len(paper.labels)

    def split(seed: int) -> np.ndarray:
        if config.split == "fixed":
            return _masks(num_nodes, paper.train, paper.validation, paper.test)
        train = _draw_per_class(seed, paper.labels, 20)
        rest = np.setdiff1d(np.flatnonzero(paper.labels >= 0), train)
        rest = np.random.default_rng([seed, 1]).permutation(rest)
        return _masks(num_nodes, train, rest[:500], rest[500:1500])

    graph = _graph(paper.edges, num_nodes)
    return Nodes(features, graph, paper.labels.astype(np.int32), paper.num_classes, split)


def _graph(edges: np.ndarray, num_nodes: int) -> Graph:
    return symmetrize(graph_from_edges(*edges.T, num_nodes=num_nodes))


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
