"""From generated graphs to arrays of one shape, and the batches that index them."""

from typing import NamedTuple

import jax
import numpy as np

SPLITS = ("train", "validation", "test")


class PaddedGraphs(NamedTuple):
    """Graphs of all splits, or those of a batch, with equally many nodes and edges each.

    The last node of every graph is padding, and the padding edges are loops of it.
    """

    annotations: jax.Array  # [num_graphs, nodes, annotation]
    senders: jax.Array  # [num_graphs, edges], numbered within the graph
    receivers: jax.Array  # [num_graphs, edges]
    edge_types: jax.Array  # [num_graphs, edges]
    node_mask: jax.Array  # [num_graphs, nodes], False at padding
    targets: jax.Array  # [num_graphs, nodes] of 0 and 1, or [num_graphs]: a node or a class


class Tasked(NamedTuple):
    """A config's graphs, and what they ask."""

    graphs: PaddedGraphs
    task: object  # simulate_algorithmic_graphs.AlgorithmicTask
    sizes: dict[str, tuple[int, int]]  # the first graph and the number of graphs of each split


def load(config) -> Tasked:
    """The graphs of a config, train first, then validation and test.

    Raises:
      InputError: an unknown task, or a number that is out of range.
    """
    from structdl.datasets import algorithmic_graphs  # TFDS is slow to import

    splits = algorithmic_graphs.load(
        config.graphs, num_train=config.num_train, data_dir=config.data.dir
    )
    numbers = [len(getattr(splits, name)) for name in SPLITS]
    starts = np.cumsum([0, *numbers[:-1]]).tolist()
    sizes = dict(zip(SPLITS, zip(starts, numbers, strict=True), strict=True))
    graphs = pad_graphs([graph for name in SPLITS for graph in getattr(splits, name)])
    return Tasked(graphs, splits.task, sizes)


def pad_graphs(graphs) -> PaddedGraphs:
    """Stacks `AlgorithmicGraph`s."""
    num_nodes = 1 + max(graph.num_nodes for graph in graphs)
    num_edges = max(len(graph.senders) for graph in graphs)

    def stacked(name: str, length: int, fill: int) -> np.ndarray:
        arrays = [getattr(graph, name) for graph in graphs]
        out = np.full((len(arrays), length, *arrays[0].shape[1:]), fill, arrays[0].dtype)
        for row, array in zip(out, arrays, strict=True):
            row[: len(array)] = array
        return out

    single = all(len(graph.targets) == 1 for graph in graphs)
    counts = np.array([graph.num_nodes for graph in graphs])
    return PaddedGraphs(
        annotations=stacked("annotations", num_nodes, 0),
        senders=stacked("senders", num_edges, num_nodes - 1),
        receivers=stacked("receivers", num_edges, num_nodes - 1),
        edge_types=stacked("edge_types", num_edges, 0),
        node_mask=np.arange(num_nodes) < counts[:, None],
        targets=stacked("targets", 1, 0)[:, 0] if single else stacked("targets", num_nodes, 0),
    )
