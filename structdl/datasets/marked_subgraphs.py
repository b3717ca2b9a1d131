"""Random graphs with some nodes marked: do these have more edges among themselves than expected?

A task made for sub-graph embedding. The answer is in no node and in no whole graph: the degrees of
the marked nodes tell a part of it, and to count one must know which neighbours are marked.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.prepare import prepare
from structdl.errors import InputError

SEED = 0  # like a published set, the graphs are always the same
NUM_GRAPHS = 1000
# of 45 pairs among the marked 7.5 are expected to be edges: no graph lies on the border
PARAMETERS = {"min_nodes": 20, "max_nodes": 30, "num_marked": 10, "edge_probability": 1 / 6}


class MarkedGraph(NamedTuple):
    """A graph as NumPy arrays, and its label."""

    edges: np.ndarray  # [num_edges, 2], int32, each undirected edge once, the smaller node first
    is_marked: np.ndarray  # [num_nodes], bool
    label: np.int32  # 1 where more pairs of marked nodes are edges than expected, else 0


class MarkedSubgraphsBuilder(tfds.core.GeneratorBasedBuilder):
    """One example a graph."""

    name = "marked_subgraphs"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "edges": tfds.features.Tensor(shape=(None, 2), dtype=np.int32),
            "is_marked": tfds.features.Tensor(shape=(None,), dtype=np.bool_),
            "label": tfds.features.Scalar(dtype=np.int32),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Random graphs, labelled by the density among their marked nodes.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # splits are numbers of graphs
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {"full": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        graphs = simulate_marked_graphs(SEED, NUM_GRAPHS, **PARAMETERS)
        yield from ((number, graph._asdict()) for number, graph in enumerate(graphs))


def load(
    *, data_dir: str | os.PathLike | None = None, raw_dir: str | os.PathLike | None = None
) -> list[MarkedGraph]:
    """The NUM_GRAPHS graphs; they need neither raw files nor the network.

    Raises:
      InputError: the data folder cannot be written.
    """
    builder = prepare(MarkedSubgraphsBuilder, raw_dir=raw_dir, data_dir=data_dir)
    source = builder.as_data_source("full")
    return [MarkedGraph(**example) for example in source.__getitems__(range(len(source)))]


def simulate_marked_graphs(
    seed: int,
    num_graphs: int,
    *,
    min_nodes: int,
    max_nodes: int,
    num_marked: int,
    edge_probability: float,
) -> list[MarkedGraph]:
    """Draws graphs in which each pair of nodes is an edge by chance, and marks nodes by chance.

    Args:
      seed: the same seed gives the same arrays.
      num_graphs: how many.
      min_nodes: the fewest nodes of a graph, at least num_marked.
      max_nodes: the most; sizes are uniform.
      num_marked: how many nodes are marked, at least 2.
      edge_probability: of each pair of nodes, between 0 and 1.

    Raises:
      InputError: a value out of its range.

    >>> (graph,) = simulate_marked_graphs(
    ...     0, 1, min_nodes=4, max_nodes=4, num_marked=2, edge_probability=0.5
    ... )
    >>> graph.edges.tolist(), graph.is_marked, int(graph.label)
    ([[0, 2], [0, 3], [1, 2]], array([False,  True,  True, False]), 1)
    """
    if not 2 <= num_marked <= min_nodes <= max_nodes:
        raise InputError(
            f"num_marked, min_nodes, max_nodes are {num_marked}, {min_nodes}, {max_nodes}: they "
            "must not fall, from 2 on"
        )
    if not 0 < edge_probability < 1:
        raise InputError(f"edge_probability is {edge_probability}: it must be between 0 and 1")
    rng = np.random.default_rng(seed)
    expected = edge_probability * num_marked * (num_marked - 1) / 2
    graphs = []
    for num_nodes in rng.integers(min_nodes, max_nodes + 1, num_graphs):
        pairs = np.stack(np.triu_indices(num_nodes, k=1), axis=1).astype(np.int32)
        edges = pairs[rng.random(len(pairs)) < edge_probability]
        is_marked = np.zeros(num_nodes, bool)
        is_marked[rng.choice(num_nodes, num_marked, replace=False)] = True
        label = np.int32(is_marked[edges].all(axis=1).sum() > expected)
        graphs.append(MarkedGraph(edges, is_marked, label))
    return graphs
