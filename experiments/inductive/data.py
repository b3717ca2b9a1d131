"""From a prepared set to two graphs: the one that training sees, and the whole one."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from structdl.core.sparse import normalize_rows
from structdl.datasets.simulate_block_model import edges_among
from structdl.errors import InputError, nearest_names
from structdl.graphs.sampling import NeighbourLists, neighbour_lists

BLOCK_MODELS = ("block-model-small", "block-model-large")
PLANETOID = ("cora", "citeseer", "pubmed")


class LabelledGraph(NamedTuple):
    """A graph and what is known of its nodes, on the device."""

    lists: NeighbourLists  # both directions of each edge
    features: jax.Array  # [num_nodes, features]
    labels: jax.Array  # [num_nodes, labels] of 0 and 1, or [num_nodes] of classes


class InductiveData(NamedTuple):
    """The whole graph, and the part of it that training sees, whose nodes are numbered anew."""

    seen: LabelledGraph
    whole: LabelledGraph


class Parts(NamedTuple):
    """Node indices: of train in the seen graph, of validation and test in the whole one."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


class Batch(NamedTuple):
    """Nodes to evaluate; those that the mask leaves out are padding."""

    nodes: np.ndarray  # [size], int32
    mask: np.ndarray  # [size]


def load(config) -> tuple[InductiveData, Parts, int]:
    """(data, parts, number of logits) of a config.

    Raises:
      InputError: an unknown data set.
    """
    if config.dataset in BLOCK_MODELS:
        return _block_model(config)
    if config.dataset in PLANETOID:
        return _planetoid(config)
    known = (*BLOCK_MODELS, *PLANETOID)
    raise InputError(f"unknown data set {config.dataset!r}: {nearest_names(config.dataset, known)}")


def _block_model(config):
    from structdl.datasets import block_model  # TFDS is slow to import

    name = config.dataset.removeprefix("block-model-")
    model = block_model.load(name, raw_dir=config.data.raw_dir, data_dir=config.data.dir)
    known = model.features[model.train]
    features = (model.features - known.mean(axis=0)) / known.std(axis=0)
    data = induce(model.edges, features, model.labels, model.train)
    train = np.arange(len(model.train), dtype=np.int32)
    return data, Parts(train, model.validation, model.test), model.labels.shape[1]


def _planetoid(config):
    from structdl.datasets import planetoid

    paper = planetoid.load(config.dataset, raw_dir=config.data.raw_dir, data_dir=config.data.dir)
    seen = np.setdiff1d(np.arange(len(paper.labels)), paper.test)
    # sampled rows are gathered: sparse ones would not be of one length
    features = normalize_rows(paper.features).toarray()
    data = induce(paper.edges, features, paper.labels, seen)
    train = np.searchsorted(seen, paper.train).astype(np.int32)
    return data, Parts(train, paper.validation, paper.test), paper.num_classes


def induce(edges, features, labels, seen) -> InductiveData:
    """The whole graph, and the one among the nodes `seen`: nothing of the others is in it.

    Args:
      edges: [num_edges, 2], each undirected edge once.
      features: [num_nodes, features].
      labels: [num_nodes] or [num_nodes, labels].
      seen: the nodes that training sees, each once.
    """
    return InductiveData(
        _graph(edges_among(edges, seen, len(labels)), features[seen], labels[seen]),
        _graph(edges, features, labels),
    )


def _graph(edges, features, labels) -> LabelledGraph:
    one, other = edges[edges[:, 0] != edges[:, 1]].T
    senders, receivers = np.concatenate([one, other]), np.concatenate([other, one])
    return LabelledGraph(
        neighbour_lists(senders, receivers, len(labels)),
        jnp.asarray(features, jnp.float32),
        jnp.asarray(labels),
    )


def some(nodes: np.ndarray, count: int) -> np.ndarray:
    """`count` of the nodes, always the same ones; all of them where count is 0."""
    if count == 0 or count >= len(nodes):
        return nodes
    return np.sort(np.random.default_rng(0).choice(nodes, count, replace=False))


def padded_batches(nodes: np.ndarray, size: int) -> Sequence[Batch]:
    """The nodes in batches of one size.

    >>> [batch.nodes.tolist() for batch in padded_batches(np.array([5, 6, 7]), 2)]
    [[5, 6], [7, 0]]
    """
    return [
        Batch(
            np.pad(nodes[start : start + size], (0, max(0, start + size - len(nodes)))),
            np.arange(start, start + size) < len(nodes),
        )
        for start in range(0, len(nodes), size)
    ]
