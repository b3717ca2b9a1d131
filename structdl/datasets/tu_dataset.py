"""TU graph classification sets: MUTAG, PROTEINS, ENZYMES, IMDB, NCI1 and PTC as zips of text.

Reference: Morris et al. (2020), "TUDataset: A collection of benchmark datasets for learning with
graphs", arXiv:2007.08663. The ten stratified folds are those of Xu et al. (2019), "How powerful
are graph neural networks?", arXiv:1810.00826, Section 7.
"""

import array
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.prepare import RawFile, prepare, url_infos
from structdl.datasets.unpacking import open_zip, read_member
from structdl.errors import InputError, require_at_most, require_known

MAX_UNPACKED_BYTES = 1 << 28  # of the members that are read; COLLAB, a large set, has 60 MB
MAX_WIDTH = 1000  # values per line; ENZYMES has 18 attributes

# Size and SHA-256 of <name>.zip.
_REGISTERED = {
    "MUTAG": (24422, "20f52db82d6d85d5f67d2fa42c3fb705d05934be44329314ab17b05d0c012f7e"),
    "PROTEINS": (457780, "fe9d19741637486ea1fd285bf669fce0b117e10b03cdd379f6a5e6197fc830ae"),
    "ENZYMES": (536482, "0ca7125d7978788346fc6ba5c3cc643b6122153b304220c2230bcb09f99f8ffb"),
    "IMDB-BINARY": (579096, "2a4abb6431ec1ab025a6fbcd3b546607191f79a1e0aef0f42cd8bd4ec1546116"),
    "IMDB-MULTI": (583600, "1d22bb88ee69f9f7c09eb7f072dadec56e3f91ad4b14cfd99231379b68073883"),
    "NCI1": (802908, "eae6b0c076d59e667c67de0039cfc3214eefb91a8dddc2fa3099126da02d4376"),
    "PTC_MR": (34185, "2f935126a9ec684e13ed9ff5ea389f62c4c70f41dcedb3e1114c0b0947103200"),
}
_PUBLIC_FOLDER = "https://www.chrsmrrs.com/graphkerneldatasets"
RAW_FILES = {
    name: RawFile(f"{name}.zip", f"{_PUBLIC_FOLDER}/{name}.zip", size, sha256)
    for name, (size, sha256) in _REGISTERED.items()
}


# Part of a member's name: its type and how many a line (None: as many as in the first line).
_MEMBERS = {
    "A": (int, 2),
    "graph_indicator": (int, 1),
    "graph_labels": (int, 1),
    "node_labels": (int, 1),
    "node_attributes": (float, None),
    "edge_labels": (int, 1),
    "edge_attributes": (float, None),
}
_REQUIRED = ("A", "graph_indicator", "graph_labels")


class TUGraph(NamedTuple):
    """One graph as NumPy arrays; what the set does not have is None."""

    num_nodes: int
    edges: np.ndarray  # [num_edges, 2], int32, sender and receiver; the sets hold both directions
    node_labels: np.ndarray | None  # [num_nodes], int32, 0 to num_node_labels - 1
    node_attributes: np.ndarray | None  # [num_nodes, node_attributes], float32
    edge_labels: np.ndarray | None  # [num_edges], int32, 0 to num_edge_labels - 1
    edge_attributes: np.ndarray | None  # [num_edges, edge_attributes], float32


class TUDataset(NamedTuple):
    """All graphs of a set, in the order of its files."""

    graphs: list[TUGraph]
    labels: np.ndarray  # [num_graphs], int32, 0 to num_classes - 1
    num_classes: int
    num_node_labels: int  # 0 where nodes have no labels
    num_edge_labels: int  # 0 where edges have no labels


class TUDatasetBuilder(tfds.core.GeneratorBasedBuilder):
    """One example a graph; the configurations are the sets."""

    name = "tudataset"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = tuple(tfds.core.BuilderConfig(name=name) for name in RAW_FILES)

    @property
    def url_infos(self) -> dict[str, tfds.download.checksums.UrlInfo]:
        return url_infos([RAW_FILES[self.builder_config.name]])

    def _info(self) -> tfds.core.DatasetInfo:
        # Attributes one row after another, since the width of a row differs between the sets.
        features = {
            "num_nodes": tfds.features.Scalar(dtype=np.int32),
            "edges": tfds.features.Tensor(shape=(None, 2), dtype=np.int32),
            "node_labels": tfds.features.Tensor(shape=(None,), dtype=np.int32),
            "node_attributes": tfds.features.Tensor(shape=(None,), dtype=np.float32),
            "edge_labels": tfds.features.Tensor(shape=(None,), dtype=np.int32),
            "edge_attributes": tfds.features.Tensor(shape=(None,), dtype=np.float32),
            "label": tfds.features.Scalar(dtype=np.int32),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Graphs with one label each, from the TU Dortmund collection.",
            features=tfds.features.FeaturesDict(features),
            homepage="https://chrsmrrs.github.io/datasets",
            disable_shuffling=True,  # folds are numbers of graphs in the files' order
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        path = dl_manager.download(RAW_FILES[self.builder_config.name].url)
        return {"full": self._generate_examples(Path(path))}

    def _generate_examples(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        dataset = read_raw(path, self.builder_config.name)
        for number, (graph, label) in enumerate(zip(dataset.graphs, dataset.labels, strict=True)):
            example = graph._asdict() | {"label": label}
            for field in TUGraph._fields[2:]:
                values = np.zeros(0) if example[field] is None else np.ravel(example[field])
                example[field] = values.astype(_dtype(field))
            yield number, example


def load(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    raw_dir: str | os.PathLike | None = None,
) -> TUDataset:
    """Returns the set `name`, one of RAW_FILES; `prepare` explains the folders.

    Labels of graphs, nodes and edges are numbered from 0 in the order of the files' values: MUTAG's
    classes -1 and 1 become 0 and 1. An edge that the files name twice is kept once, with the label
    and attributes of the first; self-loops are kept.

    Raises:
      InputError: unknown name; the data cannot be had (see `prepare`) or is not what it should be.
    """
    require_known("TU data set", name, RAW_FILES)
    builder = prepare(
        TUDatasetBuilder, name, raw_files=[RAW_FILES[name]], raw_dir=raw_dir, data_dir=data_dir
    )
    source = builder.as_data_source("full")
    examples = source.__getitems__(range(len(source)))
    num_nodes = np.array([example["num_nodes"] for example in examples])
    num_edges = np.array([len(example["edges"]) for example in examples])
    columns = {"edges": np.concatenate([example["edges"] for example in examples])}
    for field in TUGraph._fields[2:]:
        values = np.concatenate([example[field] for example in examples])
        if values.size:
            num_rows = num_edges.sum() if field.startswith("edge") else num_nodes.sum()
            columns[field] = values.reshape(num_rows, -1) if "attributes" in field else values
    labels = np.array([example["label"] for example in examples], np.int32)
    return _dataset(num_nodes, num_edges, columns, labels)


def folds(labels: np.ndarray, num_folds: int = 10, *, seed: int) -> list[np.ndarray]:
    """Stratified folds: each graph is in one, and every class is spread evenly over them.

    The graphs of a class are shuffled, the classes are put one after another, and all are dealt in
    turn: sizes, and counts of each class, differ by one at most between folds.

    Returns:
      For each fold the numbers of its graphs, ascending, int32.

    Raises:
      InputError: fewer than two folds, or a class with fewer graphs than folds.

    >>> labels = np.array([0, 1, 0, 1, 1, 0])
    >>> [sorted(labels[fold].tolist()) for fold in folds(labels, 3, seed=0)]
    [[0, 1], [0, 1], [0, 1]]
    """
    labels = np.asarray(labels)
    smallest = np.unique(labels, return_counts=True)[1].min(initial=len(labels))
    if not 2 <= num_folds <= smallest:
        raise InputError(
            f"num_folds is {num_folds}: it must be 2 to {smallest}, the size of the smallest class"
        )
    order = np.random.default_rng(seed).permutation(len(labels)).astype(np.int32)
    order = order[np.argsort(labels[order], kind="stable")]
    return [np.sort(order[fold::num_folds]) for fold in range(num_folds)]


def one_hot_degrees(graphs: Sequence[TUGraph], max_degree: int) -> list[np.ndarray]:
    """Features for graphs without any: [num_nodes, max_degree + 1] float32, a 1 at the in-degree.

    Larger degrees count as `max_degree`.
    """
    rows = np.eye(max_degree + 1, dtype=np.float32)
    degrees = [np.bincount(graph.edges[:, 1], minlength=graph.num_nodes) for graph in graphs]
    return [rows[np.minimum(degree, max_degree)] for degree in degrees]


def read_raw(path: Path, name: str) -> TUDataset:
    """Reads a zip in TU's format, whose members are `<name>_A.txt` and so on, and checks it.

    Nothing is unpacked to the disk. Nodes and graphs are numbered from 1 in the files; line i of
    graph_indicator holds the graph of node i, and line i of A the two ends of edge i.

    Raises:
      InputError: names the member, the line and the value that is wrong.
    """
    tables, where = {}, {part: f"{path}: {name}_{part}.txt" for part in _MEMBERS}
    for part, content in _read_members(path, name).items():
        tables[part] = _parse(where[part], content, *_MEMBERS[part])
    owner = tables["graph_indicator"][:, 0] - 1
    _check_owner(where["graph_indicator"], owner, len(tables["graph_labels"]))
    _check_edges(where["A"], tables["A"], owner)
    for part, rows in tables.items():
        expected = len(tables["A"]) if part.startswith("edge") else len(owner)
        if part.startswith(("node", "edge")) and len(rows) != expected:
            other = "A" if part.startswith("edge") else "graph_indicator"
            raise InputError(
                f"{where[part]} has {len(rows)} lines, expected {expected} as in {name}_{other}.txt"
            )

    kept = np.sort(np.unique(tables["A"], axis=0, return_index=True)[1])  # of duplicates the first
    edges = tables["A"][kept] - 1
    edge_owner = owner[edges[:, 0]]
    order = np.argsort(edge_owner, kind="stable")
    num_nodes = np.bincount(owner)
    num_edges = np.bincount(edge_owner, minlength=len(num_nodes))
    first_node = np.cumsum(num_nodes) - num_nodes
    columns = {"edges": (edges - first_node[edge_owner, None])[order].astype(np.int32)}
    for field in TUGraph._fields[2:]:
        if field in tables:
            rows = tables[field] if "attributes" in field else _ranks(tables[field])
            rows = rows[kept[order]] if field.startswith("edge") else rows
            columns[field] = rows.astype(_dtype(field))
    labels = _ranks(tables["graph_labels"]).astype(np.int32)
    return _dataset(num_nodes, num_edges, columns, labels)


def _dataset(
    num_nodes: np.ndarray, num_edges: np.ndarray, columns: dict[str, np.ndarray], labels: np.ndarray
) -> TUDataset:
    """Cuts columns that hold the rows of all graphs, one graph after another, into graphs."""
    pieces = dict.fromkeys(TUGraph._fields[1:], [None] * len(labels))
    for field, rows in columns.items():
        counts = num_edges if field.startswith("edge") else num_nodes
        pieces[field] = np.split(rows, np.cumsum(counts)[:-1])
    graphs = [
        TUGraph(int(num_nodes[number]), *(field[number] for field in pieces.values()))
        for number in range(len(labels))
    ]
    values = (labels, columns.get("node_labels"), columns.get("edge_labels"))
    num_values = (0 if value is None else int(value.max(initial=-1)) + 1 for value in values)
    return TUDataset(graphs, labels, *num_values)


def _dtype(field: str) -> type:
    return np.float32 if "attributes" in field else np.int32


def _ranks(rows: np.ndarray) -> np.ndarray:
    """The place of each value among the different values, sorted."""
    return np.unique(rows[:, 0], return_inverse=True)[1]


def _read_members(path: Path, name: str) -> dict[str, bytes]:
    """The contents that a set is made of, by the part of their names."""
    parts = {f"{name}_{part}.txt": part for part in _MEMBERS}
    members = {}
    with open_zip(path) as archive:
        for member in archive.infolist():
            place = PurePosixPath(member.filename)
            if place.is_absolute() or ".." in place.parts or "\\" in member.filename:
                raise InputError(f"{path}: member {member.filename!r} is not inside a folder")
            if place.name in parts:
                if parts[place.name] in members:
                    raise InputError(f"{path}: two members are called {place.name}")
                members[parts[place.name]] = member
        for part in _REQUIRED:
            if part not in members:
                raise InputError(f"{path}: member {name}_{part}.txt is missing")
        size = sum(member.file_size for member in members.values())
        require_at_most(f"{path}: number of bytes unpacked", size, MAX_UNPACKED_BYTES)
        return {
            part: read_member(archive, member, MAX_UNPACKED_BYTES)
            for part, member in members.items()
        }


def _parse(where: str, content: bytes, number: type, width: int | None) -> np.ndarray:
    """Reads lines of numbers between commas into [lines, width] int64 or float32."""
    # An array, since a list of lists takes fifty times the bytes of the text.
    values, place = array.array("q" if number is int else "d"), 0
    lines = io.TextIOWrapper(io.BytesIO(content.rstrip()), "utf-8")
    try:
        for place, line in enumerate(lines, start=1):
            width = _extend(values, f"{where} line {place}", line.rstrip("\n"), number, width)
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not text ({error})") from error
    except OverflowError as error:
        raise InputError(f"{where} holds a number of more than 64 bits") from error
    with np.errstate(over="ignore"):
        rows = np.array(values, np.int64 if number is int else np.float32)
    rows = rows.reshape(place, width or 0)
    wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if wrong.size:
        raise InputError(f"{where} line {wrong[0] + 1} has a value that is not finite in float32")
    return rows


def _extend(values: array.array, where: str, line: str, number: type, width: int | None) -> int:
    """Appends the numbers of a line and returns their count, which must be `width` if given."""
    try:
        row = [number(value) for value in line.split(",", width or MAX_WIDTH)]
    except ValueError:
        raise InputError(
            f"{where} is {line[:80]!r}, expected {width or 'some'} of type {number.__name__}"
        ) from None
    if len(row) != (width or len(row)) or len(row) > MAX_WIDTH:
        expected = width or f"at most {MAX_WIDTH}"
        raise InputError(f"{where} has {len(row)} values, expected {expected}")
    values.extend(row)
    return len(row)


def _check_owner(where: str, owner: np.ndarray, num_graphs: int) -> None:
    """The graphs of the nodes, from 0 on, are sorted and without gaps."""
    steps = np.diff(owner, prepend=-1)
    is_wrong = (steps != 0) & (steps != 1)
    is_wrong[:1] = steps[:1] != 1
    wrong = np.flatnonzero(is_wrong)
    if wrong.size:
        raise InputError(
            f"{where} line {wrong[0] + 1} is {owner[wrong[0]] + 1}: graphs must count up from 1, "
            "sorted and without gaps"
        )
    found = owner.max(initial=-1) + 1
    if found != num_graphs or not num_graphs:
        raise InputError(
            f"{where} has {found} graphs, graph_labels has {num_graphs}: expected one label a "
            "graph, and a graph at least"
        )


def _check_edges(where: str, edges: np.ndarray, owner: np.ndarray) -> None:
    """The ends of an edge, from 1 on, are nodes, and of the same graph."""
    wrong = np.argwhere((edges < 1) | (edges > len(owner)))
    if wrong.size:
        place, end = wrong[0]
        raise InputError(
            f"{where} line {place + 1} names node {edges[place, end]}, out of range 1 to "
            f"{len(owner)}"
        )
    graphs = owner[edges - 1] + 1
    wrong = np.flatnonzero(graphs[:, 0] != graphs[:, 1])
    if wrong.size:
        place = wrong[0]
        raise InputError(
            f"{where} line {place + 1} is an edge between graphs {graphs[place, 0]} and "
            f"{graphs[place, 1]}"
        )
