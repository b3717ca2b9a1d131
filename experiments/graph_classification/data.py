"""From a prepared set to one batch of all its graphs, and from that to padded minibatches."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from experiments.graph_classification.presets import Config, GCNConfig, GGNNConfig
from structdl.errors import InputError, nearest_names
from structdl.graphs.graph import (
    Graph,
    add_self_loops,
    batch,
    graph_from_edges,
    pad,
    symmetrize,
    take_graphs,
)
from structdl.graphs.readout import add_virtual_nodes
from structdl.training.run import DataConfig

SPLITS = ("validation", "test")
NUM_FOLDS = 10
FOLD_SEED = 0  # the folds are always the same; a run's seed says which of them is tested
MAX_DRAWS = 100


class GraphSet(NamedTuple):
    """All graphs of a set as one batch, on the host.

    Fields:
      graph: nodes are [counted, features...], where counted is 1 for the nodes that the readout
        takes; globals are labels, int32 [num_graphs, labels]; edges are types, or None.
      num_edge_types: 1 where edges are None.
      num_classes: of the one label that graphs have; 0 where the labels are binary tasks.
      tasks: the names of binary tasks, whose labels are 1, 0, or below 0 where missing.
      split: `seed -> (train, validation, test)`, numbers of graphs.
    """

    graph: Graph
    num_edge_types: int
    num_classes: int
    tasks: Sequence[str]
    split: Callable[[int], Sequence[np.ndarray]]

    @property
    def num_outputs(self) -> int:
        return self.num_classes or len(self.tasks)


class Room(NamedTuple):
    """The sizes that batches are padded to."""

    num_nodes: int
    num_edges: int
    num_graphs: int


def load(config: Config) -> GraphSet:
    """The set of a config, with the edges that its model and its readout need.

    Raises:
      InputError: an unknown set, or marked nodes of a set that marks none.
    """
    from structdl.datasets.tu_dataset import RAW_FILES  # TFDS is slow to import

    known = ("marked_subgraphs", "tox21", *RAW_FILES)
    if config.dataset not in known:
        name = config.dataset
        raise InputError(f"unknown data set {name!r}: {nearest_names(name, known)}")
    if config.nodes == "marked" and config.dataset != "marked_subgraphs":
        raise InputError(f"--nodes marked: {config.dataset} marks no nodes; leave it out.")
    return for_model(_plain_set(config.dataset, config.nodes, config.data), config)


@functools.lru_cache(maxsize=1)  # it is read again for the pictures
def _plain_set(name: str, nodes: str, places: DataConfig) -> GraphSet:
    """A set before anything is added to its graphs."""
    if name == "marked_subgraphs":
        return _marked_subgraphs(nodes, places)
    return _tox21(places) if name == "tox21" else _tu_dataset(name, places)


def for_model(data: GraphSet, config: Config) -> GraphSet:
    """Adds virtual nodes for their readout and self-loops for a GCN; keeps types for a GGNN."""
    graph, num_types = data.graph, data.num_edge_types
    if not isinstance(config.model, GGNNConfig):
        graph, num_types = graph._replace(edges=None), 1
    if config.readout == "virtual":
        if isinstance(config.model, GGNNConfig) and graph.edges is None:
            graph = graph._replace(edges=np.zeros(graph.num_edges, np.int32))
        into_and_out_of = None if graph.edges is None else (num_types, num_types + 1)
        counted = graph.nodes[:, 0] == 1
        graph = add_virtual_nodes(graph, subset=counted, edge_types=into_and_out_of)
        graph.nodes[:, 0] = graph.nodes[:, -1]
        num_types += 2 * (graph.edges is not None)
    if isinstance(config.model, GCNConfig):
        graph = add_self_loops(graph)
    return data._replace(graph=graph, num_edge_types=num_types)


def _marked_subgraphs(nodes: str, places: DataConfig) -> GraphSet:
    from structdl.datasets import marked_subgraphs

    graphs = []
    for each in marked_subgraphs.load(raw_dir=places.raw_dir, data_dir=places.dir):
        marks = each.is_marked.astype(np.float32)
        columns = [marks, np.ones_like(marks), *([marks] if nodes == "marked" else [])]
        graph = graph_from_edges(
            *each.edges.T, len(marks), nodes=np.stack(columns, axis=1), globals=[each.label]
        )
        graphs.append(symmetrize(graph))
    return GraphSet(batch(graphs), 1, 2, (), _random_split(len(graphs), (0.6, 0.8)))


def _tu_dataset(name: str, places: DataConfig) -> GraphSet:
    from structdl.datasets import tu_dataset

    data = tu_dataset.load(name, raw_dir=places.raw_dir, data_dir=places.dir)
    if data.num_node_labels:
        rows = np.eye(data.num_node_labels, dtype=np.float32)
        features = [rows[graph.node_labels] for graph in data.graphs]
    else:
        degrees = [np.bincount(graph.edges[:, 1]).max(initial=0) for graph in data.graphs]
        features = tu_dataset.one_hot_degrees(data.graphs, max(degrees))
    graphs = [
        graph_from_edges(
            *graph.edges.T, graph.num_nodes, nodes=_all_count(rows), edges=graph.edge_labels,
            globals=[label],
        )
        for graph, rows, label in zip(data.graphs, features, data.labels, strict=True)
    ]  # fmt: skip
    folds = tu_dataset.folds(data.labels, NUM_FOLDS, seed=FOLD_SEED)
    return GraphSet(
        batch(graphs), max(data.num_edge_labels, 1), data.num_classes, (), fold_split(folds)
    )


def _tox21(places: DataConfig) -> GraphSet:
    from structdl.datasets import tox21

    data = tox21.load(raw_dir=places.raw_dir, data_dir=places.dir)
    tables = [np.eye(size, dtype=np.float32) for size in tox21.ATOM_CATEGORIES.values()]
    graphs = []
    for molecule, labels in zip(data.molecules, data.labels, strict=True):
        columns = zip(tables, molecule.atoms.T, strict=True)
        features = np.concatenate([table[column] for table, column in columns], axis=1)
        graph = graph_from_edges(
            *molecule.bonds.T,
            len(features),
            nodes=_all_count(features),
            edges=molecule.bond_features[:, 0],
            globals=labels,
        )
        graphs.append(symmetrize(graph))
    num_types, num_graphs = tox21.BOND_CATEGORIES["type"], len(graphs)
    split = functools.partial(_tox21_split, num_graphs)
    return GraphSet(batch(graphs), num_types, 0, tox21.TASKS, functools.lru_cache(split))


def _tox21_split(num_graphs: int, seed: int):
    from structdl.datasets import tox21

    return tox21.random_split(num_graphs, seed=seed)


def _all_count(features: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones((len(features), 1), np.float32), features], axis=1)


def fold_split(folds: Sequence[np.ndarray]) -> Callable[[int], Sequence[np.ndarray]]:
    """Seed k tests on fold k, validates on fold k + 1, and trains on the others.

    Raises:
      InputError: a seed that is no number of a fold.
    """

    @functools.lru_cache
    def split(seed: int):
        if seed >= len(folds):
            raise InputError(
                f"seed {seed} of {len(folds)} folds: seeds are folds, 0 to {len(folds) - 1}; "
                f"give --num-seeds {len(folds)} or fewer"
            )
        after = (seed + 1) % len(folds)
        rest = [fold for number, fold in enumerate(folds) if number not in (seed, after)]
        return np.concatenate(rest), folds[after], folds[seed]

    return split


def _random_split(num_graphs: int, bounds: tuple[float, float]):
    @functools.lru_cache
    def split(seed: int):
        order = np.random.default_rng([seed, 0]).permutation(num_graphs)
        return np.split(order, [int(bound * num_graphs) for bound in bounds])

    return split


def make_room(graph: Graph, num_graphs: int, deviations: float) -> Room:
    """Room for any `num_graphs` graphs of a set that are drawn at random.

    Sums of sizes are normal nearly: their mean plus so many standard deviations, but never more
    than the largest graphs together need, and no less than the largest one among average ones.
    """

    def of_sizes(sizes) -> int:
        sizes = np.sort(np.asarray(sizes))[::-1]
        largest = sizes[:num_graphs].sum()
        spread = deviations * sizes.std() * np.sqrt(num_graphs)
        average = sizes.mean() * num_graphs
        return int(np.ceil(min(max(average + spread, average + sizes[0]), largest)))

    return Room(of_sizes(graph.n_node) + 1, of_sizes(graph.n_edge), num_graphs + 1)


def pack(graph: Graph, indices: np.ndarray, room: Room) -> Graph:
    """Some graphs of a set as a padded batch.

    Raises:
      InputError: they do not fit, or an index is out of range.
    """
    return pad(take_graphs(graph, indices), **room._asdict())


def draw_batch(graph: Graph, members: np.ndarray, room: Room, rng: np.random.Generator) -> Graph:
    """A padded batch of different members, as many as there is room for, drawn at random.

    One too large for the room, which is a matter of one in thousands, is drawn again: no graph is
    cut, and none is left out for long.

    Raises:
      InputError: MAX_DRAWS batches in a row do not fit.
    """
    size = min(room.num_graphs - 1, len(members))
    for _ in range(MAX_DRAWS):
        indices = rng.choice(members, size, replace=False)
        num_nodes, num_edges = graph.n_node[indices].sum(), graph.n_edge[indices].sum()
        if num_nodes < room.num_nodes and num_edges <= room.num_edges:
            return pack(graph, indices, room)
    raise InputError(
        f"{MAX_DRAWS} batches of {size} graphs, the last of {num_nodes} nodes and {num_edges} "
        f"edges, exceed {room.num_nodes - 1} nodes or {room.num_edges} edges: a few graphs are far "
        "larger than the others; raise --batch-size, or leave them out"
    )
