"""Cora, Citeseer and Pubmed with the fixed split: citation graphs with bags of words.

Reference: Yang, Cohen, Salakhutdinov (2016), "Revisiting semi-supervised learning with graph
embeddings", arXiv:1603.08861; the split and files are those of Kipf, Welling (2017),
arXiv:1609.02907, Table 1.
"""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import tensorflow_datasets as tfds

from structdl.datasets.pickles import Unbuilt, read_pickle
from structdl.datasets.prepare import RawFile, prepare, url_infos
from structdl.errors import InputError, require_at_most, require_known

NUM_VALIDATION = 500
NO_LABEL = -1
MAX_SIZE = np.iinfo(np.int32).max  # of nodes and features, whose indices are int32

# Size and SHA-256 of ind.<name>.<part>.
_REGISTERED = {
    "cora": {
        "x": (22119, "23cfa55d91c6f624233f5eb7b6e3f141f1bd2b2ae39608a63cf5d084bb27baab"),
        "y": (4054, "94465c14eb53e04ca262198dcbb2521ee8af60fb3f3d546cd6ca24a511b0e7d1"),
        "tx": (148025, "b9afbaa4a400df991f6f02ef677e1e44da55ffc04801fd02f9e673987829226a"),
        "ty": (28135, "41f5ac76596a1699cc33f53084a2419e92961c42bb75f36fc38e616d348532ad"),
        "allx": (257305, "9419ba2f26f5c35243db64aba110e0f35a04851609e0dc5433450676ca6b8543"),
        "ally": (47959, "2b998f5cc7fedc86e7f97ca2498f47a1ffc1462c29e2d578b23bf3f62b6e7d71"),
        "graph": (59847, "58f13302f39dde8852dad6fe6d15b89b077b6d7f837626bce671ef80344b383d"),
        "test.index": (5000, "297ce89af2b51a6a194181c7dbe1796c6a1cf9cd9349a88383b1b1e227867875"),
    },
    "citeseer": {
        "x": (31087, "d20de19150741e555de0ed037195630fc194114ebc7fd72ced62810148aa22f6"),
        "y": (3014, "8ba87e515d8e3ee3cf52f6d2c5b86aa73f11ecad825a808455209ec26cd54924"),
        "tx": (260321, "539a8906a2da97628d212f2fdd668c109a8b3f0d36574b59e5d3fd5b5303da21"),
        "ty": (24135, "55e5bd1ba1e733a04598753ad1a8d57957f4b8f89e74519f41f4f4938767e4ce"),
        "allx": (595021, "2ac30345d95c9ec933a817ee0bdd6a5f077f8c184a20e696910192d534414668"),
        "ally": (55623, "f704b2d986dde6c2669934de1f3ae5696a6cf9455c0f6b2646a2d135ea0a1c95"),
        "graph": (61987, "d79a4ef9d3e7169aee8946145f6b7306e35bc79bffad26346cfb94e10e9912a7"),
        "test.index": (5000, "2af990671580b6b2df5d158d1038f8292e30c9cd821b5453f399659b25b723d4"),
    },
    "pubmed": {
        "x": (23172, "fbe9cb5c47200d1b7769a26e579be3b7130b556831f9d850e77c4c74f2599b33"),
        "y": (854, "e6c807633307a07ed659249006536a147c7999c797f11a2560752990181b41b3"),
        "tx": (405505, "4eb5f5d0f30f26497eb0ac6ac9719d09c67e284f1ed0385c93f3ef27a671da3d"),
        "ty": (12135, "ee2e0d4819d9fbcc403689c3bf2e49face401b605932f093bc58ab6461130fdd"),
        "allx": (7578385, "508e538e2abdccdd54c4d3e9f49d638b4af7107d85845f66ddea5a5152658b7e"),
        "ally": (224739, "0c37bbe3b5014ec365e9d393cf4791925e5ed94fb194305d74f064a8d7b50f0e"),
        "graph": (471808, "5b89f0036ca22909471f1e6558eb42fa06e0c730a577bde5b058b40638f81dc9"),
        "test.index": (6000, "b101d421688bbaecbd82e8a18f1e282378d6830f3a37666f28ebc47f844341b5"),
    },
}
_PUBLIC_FOLDER = "https://github.com/kimiyoung/planetoid/raw/master/data"
RAW_FILES = {
    name: tuple(
        RawFile(f"ind.{name}.{part}", f"{_PUBLIC_FOLDER}/ind.{name}.{part}", size, sha256)
        for part, (size, sha256) in parts.items()
    )
    for name, parts in _REGISTERED.items()
}


class Planetoid(NamedTuple):
    """A citation graph as NumPy arrays and a SciPy matrix; all indices are int32."""

    edges: np.ndarray  # [num_edges, 2], each undirected edge once, the smaller node first
    features: scipy.sparse.csr_matrix  # [num_nodes, features], float32, not normalized
    labels: np.ndarray  # [num_nodes], 0 to num_classes - 1, or NO_LABEL
    train: np.ndarray  # [20 * num_classes], node indices
    validation: np.ndarray  # [500]
    test: np.ndarray  # [1000], ascending
    num_classes: int


class PlanetoidBuilder(tfds.core.GeneratorBasedBuilder):
    """One example a configuration: the whole graph, its features in compressed sparse rows."""

    name = "planetoid"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = tuple(tfds.core.BuilderConfig(name=name) for name in RAW_FILES)

    @property
    def url_infos(self) -> dict[str, tfds.download.checksums.UrlInfo]:
        return url_infos(RAW_FILES[self.builder_config.name])

    def _info(self) -> tfds.core.DatasetInfo:
        indices = tfds.features.Tensor(shape=(None,), dtype=np.int32)
        features = {
            "edges": tfds.features.Tensor(shape=(None, 2), dtype=np.int32),
            "feature_values": tfds.features.Tensor(shape=(None,), dtype=np.float32),
            "feature_columns": indices,
            "feature_row_starts": indices,
            "num_features": tfds.features.Scalar(dtype=np.int32),
            "labels": indices,
            "train": indices,
            "validation": indices,
            "test": indices,
            "num_classes": tfds.features.Scalar(dtype=np.int32),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Citation graph with bags of words and the fixed Planetoid split.",
            features=tfds.features.FeaturesDict(features),
            homepage="https://github.com/kimiyoung/planetoid",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        raw_files = RAW_FILES[self.builder_config.name]
        paths = dl_manager.download({raw_file.name: raw_file.url for raw_file in raw_files})
        # ind.cora.test.index -> test.index
        parts = {name.split(".", 2)[2]: Path(path) for name, path in paths.items()}
        return {"full": self._generate_examples(parts)}

    def _generate_examples(self, paths: dict[str, Path]) -> Iterator[tuple[int, dict[str, Any]]]:
        example = read_raw(paths)._asdict()
        features = example.pop("features")
        example |= {
            "feature_values": features.data,
            "feature_columns": features.indices,
            "feature_row_starts": features.indptr,
            "num_features": features.shape[1],
        }
        yield 0, example


def load(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    raw_dir: str | os.PathLike | None = None,
) -> Planetoid:
    """Returns the graph `name`: cora, citeseer or pubmed; `prepare` explains the folders.

    Duplicate edges are removed and self-loops kept (Citeseer has 124). The 15 nodes of Citeseer
    that test.index leaves out have no features and no label: their rows are empty, their label is
    NO_LABEL (-1, of which jax.nn.one_hot makes zeros), and no part of the split holds them.

    Raises:
      InputError: unknown name; the data cannot be had (see `prepare`) or is not what it should be.
    """
    require_known("Planetoid data set", name, RAW_FILES)
    builder = prepare(
        PlanetoidBuilder, name, raw_files=RAW_FILES[name], raw_dir=raw_dir, data_dir=data_dir
    )
    example = builder.as_data_source("full")[0]
    rows = (example.pop(f"feature_{part}") for part in ("values", "columns", "row_starts"))
    shape = (len(example["labels"]), int(example.pop("num_features")))
    features = scipy.sparse.csr_matrix(tuple(rows), shape=shape)
    num_classes = int(example.pop("num_classes"))
    return Planetoid(features=features, num_classes=num_classes, **example)


def read_raw(paths: dict[str, Path]) -> Planetoid:
    """Reads the eight files of a graph, by the last part of their names, and checks them.

    allx, ally hold the nodes before the test nodes (x, y, the first of them, are for training), and
    row i of tx, ty belongs to node test.index[i].

    Raises:
      InputError: names the file and the value that is wrong.
    """
    all_features, test_features = (_read_features(paths[part]) for part in ("allx", "tx"))
    train_labels, all_labels, test_labels = (
        _read_labels(paths[part]) for part in ("y", "ally", "ty")
    )
    (num_known, num_classes), num_train = all_labels.shape, len(train_labels)
    test, num_nodes = _read_test_index(paths["test.index"], num_known)
    _expect(paths["allx"], "rows", all_features.shape[0], num_known)
    _expect(paths["tx"], "shape", test_features.shape, (len(test), all_features.shape[1]))
    _expect(paths["ty"], "shape", test_labels.shape, (len(test), num_classes))
    if not np.array_equal(train_labels, all_labels[:num_train]):
        raise InputError(f"{paths['y']}: differs from the first {num_train} rows of ally")
    if num_train + NUM_VALIDATION > num_known:
        raise InputError(f"{paths['ally']}: {num_known} rows, {num_train + NUM_VALIDATION} needed")

    # One row past the end stands for the nodes that test.index leaves out.
    rows = np.full(num_nodes, num_known + len(test))
    rows[:num_known] = np.arange(num_known)
    rows[test] = num_known + np.arange(len(test))
    nothing = scipy.sparse.csr_matrix((1, all_features.shape[1]), dtype=np.float32)
    classes = [labels.argmax(axis=1) for labels in (all_labels, test_labels)]
    return Planetoid(
        edges=_read_edges(paths["graph"], num_nodes),
        features=scipy.sparse.vstack([all_features, test_features, nothing], format="csr")[rows],
        labels=np.concatenate([*classes, [NO_LABEL]])[rows].astype(np.int32),
        train=np.arange(num_train, dtype=np.int32),
        validation=np.arange(num_train, num_train + NUM_VALIDATION, dtype=np.int32),
        test=np.sort(test).astype(np.int32),
        num_classes=num_classes,
    )


def _read_features(path: Path) -> scipy.sparse.csr_matrix:
    """Reads a sparse float32 matrix [rows, features] with finite values."""
    saved = _read_pickle(path, dict)
    try:
        matrix = _sparse_matrix(*(saved[part] for part in ("data", "indices", "indptr", "_shape")))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: no sparse matrix ({error})") from error
    if not np.isfinite(matrix.data).all():
        value = matrix.data[~np.isfinite(matrix.data)][0]
        raise InputError(f"{path}: feature value {value}, all must be finite in float32")
    return matrix


def _sparse_matrix(data: Any, indices: Any, indptr: Any, shape: Any) -> scipy.sparse.csr_matrix:
    """Checks what SciPy's C++ code takes on trust, and sums duplicate entries."""
    for array, kinds in ((data, "biuf"), (indices, "iu"), (indptr, "iu")):
        if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind not in kinds:
            raise TypeError("expected data, indices and indptr to be arrays of numbers")
    if type(shape) is not tuple or [*map(type, shape)] != [int, int]:
        raise TypeError("expected a shape of two sizes")
    if max(shape) > MAX_SIZE:
        raise ValueError(f"shape {shape}, expected sizes of at most {MAX_SIZE}")
    with np.errstate(over="ignore"):
        values = data.astype(np.float32)
    matrix = scipy.sparse.csr_matrix((values, indices, indptr), shape=shape)
    matrix.check_format(full_check=True)
    matrix.sum_duplicates()
    return matrix


def _read_labels(path: Path) -> np.ndarray:
    """Reads one-hot rows [rows, classes]."""
    labels = _read_pickle(path, np.ndarray)
    if labels.ndim != 2 or labels.dtype.kind not in "iuf":
        raise InputError(
            f"{path}: {labels.dtype} of shape {labels.shape}, expected [rows, classes]"
        )
    is_one_hot = ((labels != 0).sum(axis=1) == 1) & (labels == 1).any(axis=1)
    wrong = np.flatnonzero(~is_one_hot)
    if wrong.size:
        raise InputError(f"{path}: row {wrong[0]} is {labels[wrong[0]]}, expected one 1")
    return labels


def _read_test_index(path: Path, num_known: int) -> tuple[np.ndarray, int]:
    """Reads the numbers of the test nodes, which come after the others; also counts all nodes."""
    try:
        test = [int(line) for line in path.read_text("ascii").split()]
    except ValueError as error:
        raise InputError(f"{path}: {error}; expected one node index a line") from error
    _expect(path, "first test node", min(test, default=None), num_known)
    _expect(path, "different nodes", len(set(test)), len(test))
    if max(test) >= num_known + 2 * len(test):
        raise InputError(
            f"{path}: node {max(test)} is out of range: of the nodes from {num_known} on, at least "
            f"half must be test nodes, and there are {len(test)}"
        )
    return np.array(test), max(test) + 1


def _read_edges(path: Path, num_nodes: int) -> np.ndarray:
    """Reads {node: neighbours} into [num_edges, 2] int32: every undirected edge once."""
    graph = _read_pickle(path, dict)
    if any(type(neighbours) is not list for neighbours in graph.values()):
        raise InputError(f"{path}: expected lists of node indices")
    degrees = [len(neighbours) for neighbours in graph.values()]
    # One list may stand for the neighbours of many nodes; written out, a neighbour takes a byte.
    require_at_most(f"{path}: number of neighbours", sum(degrees), path.stat().st_size)
    neighbours = list(itertools.chain.from_iterable(graph.values()))
    for node in (*graph, *neighbours):
        if type(node) is not int:
            raise InputError(f"{path}: expected node indices of type int, found a {type(node)}")
        if not 0 <= node < num_nodes:
            raise InputError(f"{path}: node {node} is out of range, 0 to {num_nodes - 1}")
    senders = np.repeat(np.array(list(graph), np.int64), np.array(degrees, np.int64))
    edges = np.stack([senders, np.array(neighbours, np.int64)], axis=1)
    return np.unique(np.sort(edges, axis=1), axis=0).astype(np.int32)


def _expect(path: Path, what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise InputError(f"{path}: {what}: found {found}, expected {expected}")


def _read_pickle(path: Path, expected_type: type) -> Any:
    """Reads a pickle of Python 2 that may hold arrays, a sparse matrix or a dict of lists."""
    try:
        with path.open("rb") as file:
            value = read_pickle(file, str(path), _CONSTRUCTORS)
    except OSError as error:
        raise InputError(f"{path}: not a readable pickle ({error.strerror})") from error
    if not isinstance(value, expected_type):
        raise InputError(f"{path}: holds a {type(value)}, expected a {expected_type}")
    return value


def _state_of_matrix(state: Any) -> dict[str, Any]:
    if type(state) is not dict:
        raise TypeError("a sparse matrix without a dict of its arrays")
    return state


# Under the modules' names of that time.
_CONSTRUCTORS = {
    "scipy.sparse.csr csr_matrix": lambda: Unbuilt(_state_of_matrix),
    "collections defaultdict": lambda factory: {},
    "__builtin__ list": None,
}
