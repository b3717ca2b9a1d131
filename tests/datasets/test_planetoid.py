"""Planetoid graphs: the papers' counts, PyG's own reader, and bytes that must not be run."""

import functools
import hashlib
import http.server
import io
import os
import pickle
import struct
import threading
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from structdl.datasets import planetoid
from structdl.datasets.prepare import RawFile
from structdl.errors import InputError

NUM_KNOWN, NUM_NODES = 565, 575  # of the small graph below, which stands in for Pubmed
TEST_INDEX = [570, 565, 574, 567, 566, 571, 573, 568]  # without 569 and 572


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 did; today's protocol 2 would call _codecs.encode to make them."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_bytes(self, content):
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(content)

    dispatch[bytes] = save_bytes


def dumps(value):
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(value)
    return (
        file.getvalue()
        .replace(b"cscipy.sparse._csr\n", b"cscipy.sparse.csr\n")
        .replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    )


def small_graph():
    """The eight raw parts of a graph; its features [nodes, 6] and labels [nodes], all known."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(NUM_NODES, 6)) * (rng.random((NUM_NODES, 6)) < 0.4)
    features = features.astype(np.float32)
    one_hot = np.eye(3, dtype=np.int32)[rng.integers(0, 3, NUM_NODES)]
    graph = defaultdict(list)
    # Twice the same edge, a self-loop, and a neighbour that only one side names.
    for node, neighbour in [(0, 574), (574, 0), (0, 574), (3, 3), (7, 569), (12, 5)]:
        graph[node].append(neighbour)
    return (
        {
            "x": scipy.sparse.csr_matrix(features[:60]),
            "y": one_hot[:60],
            "tx": scipy.sparse.csr_matrix(features[TEST_INDEX]),
            "ty": one_hot[TEST_INDEX],
            "allx": scipy.sparse.csr_matrix(features[:NUM_KNOWN]),
            "ally": one_hot[:NUM_KNOWN],
            "graph": graph,
            "test.index": "".join(f"{node}\n" for node in TEST_INDEX).encode(),
        },
        features,
        one_hot.argmax(axis=1),
    )


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a graph's parts as the raw files of Pubmed and registers them as they are."""
    monkeypatch.delenv("STRUCTDL_RAW_DIR", raising=False)
    monkeypatch.setenv("STRUCTDL_DATA_DIR", str(tmp_path / "data"))

    def write_parts(parts, url="http://127.0.0.1:9"):
        folder = tmp_path / "raw" / "planetoid"
        folder.mkdir(parents=True)
        raw_files = []
        for part, value in parts.items():
            name = f"ind.pubmed.{part}"
            content = value if isinstance(value, bytes) else dumps(value)
            (folder / name).write_bytes(content)
            sha256 = hashlib.sha256(content).hexdigest()
            raw_files.append(RawFile(name, f"{url}/{name}", len(content), sha256))
        monkeypatch.setitem(planetoid.RAW_FILES, "pubmed", tuple(raw_files))
        return folder.parent

    return write_parts


@pytest.fixture(scope="module")
def raw_dir():
    """The raw files of Cora and Citeseer, where this machine has them."""
    given = os.environ.get("STRUCTDL_RAW_DIR")
    folder = Path(given) if given else Path(__file__).parents[3] / "shared" / "data"
    if not (folder / "planetoid" / "ind.cora.x").exists():
        pytest.skip("no raw Planetoid files: set STRUCTDL_RAW_DIR")
    return folder


def check_small_graph(graph):
    _, features, labels = small_graph()
    features[[569, 572]], labels[[569, 572]] = 0, planetoid.NO_LABEL
    np.testing.assert_array_equal(graph.features.toarray(), features)
    np.testing.assert_array_equal(graph.labels, labels)
    assert graph.edges.tolist() == [[0, 574], [3, 3], [5, 12], [7, 569]]
    assert graph.train.tolist() == list(range(60))
    assert graph.validation.tolist() == list(range(60, 560))
    assert graph.test.tolist() == sorted(TEST_INDEX)
    assert graph.num_classes == 3
    arrays = (graph.edges, graph.labels, graph.train, graph.validation, graph.test)
    assert {array.dtype for array in arrays} == {np.dtype(np.int32)}
    assert graph.features.dtype == np.float32


@pytest.mark.parametrize(
    ("name", "num_nodes", "num_edges", "num_self_loops", "num_features", "num_classes"),
    [("cora", 2708, 5278, 0, 1433, 7), ("citeseer", 3327, 4552, 124, 3703, 6)],
)
def test_counts(
    raw_dir, tmp_path, name, num_nodes, num_edges, num_self_loops, num_features, num_classes
):
    graph = planetoid.load(name, raw_dir=raw_dir, data_dir=tmp_path)
    loops = graph.edges[:, 0] == graph.edges[:, 1]
    assert (loops.sum(), (~loops).sum()) == (num_self_loops, num_edges)
    assert len(np.unique(graph.edges, axis=0)) == len(graph.edges)
    assert (graph.edges[:, 0] <= graph.edges[:, 1]).all()
    assert graph.features.shape == (num_nodes, num_features)
    assert graph.num_classes == num_classes
    assert np.bincount(graph.labels[graph.train]).tolist() == [20] * num_classes
    assert (len(graph.validation), len(graph.test)) == (500, 1000)
    split = np.concatenate([graph.train, graph.validation, graph.test])
    assert len(set(split.tolist())) == len(split)
    unlabelled = graph.labels == planetoid.NO_LABEL
    assert unlabelled.sum() == (15 if name == "citeseer" else 0)
    assert not unlabelled[split].any()
    assert graph.features[unlabelled].nnz == 0


@pytest.mark.peers
@pytest.mark.parametrize("name", ["cora", "citeseer"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyG unpickles old names of SciPy
def test_equals_torch_geometric(raw_dir, tmp_path, name):
    peer = pytest.importorskip("torch_geometric.io")
    data = peer.read_planetoid_data(str(raw_dir / "planetoid"), name)
    graph = planetoid.load(name, raw_dir=raw_dir, data_dir=tmp_path)
    np.testing.assert_array_equal(graph.features.toarray(), data.x.numpy())
    labelled = graph.labels != planetoid.NO_LABEL
    np.testing.assert_array_equal(graph.labels[labelled], data.y.numpy()[labelled])
    for part in ("train", "validation", "test"):
        mask = data["val_mask" if part == "validation" else f"{part}_mask"].numpy()
        np.testing.assert_array_equal(getattr(graph, part), np.flatnonzero(mask))
    senders, receivers = data.edge_index.numpy()  # both ways, without self-loops
    upward = set(zip(senders[senders < receivers], receivers[senders < receivers], strict=True))
    assert {(a, b) for a, b in graph.edges.tolist() if a != b} == upward


def test_small_graph_in_the_format_of_pubmed(write):
    check_small_graph(planetoid.load("pubmed", raw_dir=write(small_graph()[0])))
    # Prepared: read again, with the raw files out of reach.
    check_small_graph(planetoid.load("pubmed"))


def test_download(write, monkeypatch, tmp_path):
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=tmp_path / "raw" / "planetoid"
    )
    monkeypatch.setattr(handler.func, "log_message", lambda *arguments: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        write(small_graph()[0], f"http://127.0.0.1:{server.server_port}")
        check_small_graph(planetoid.load("pubmed"))
        server.shutdown()
    assert len(list((tmp_path / "data" / "downloads" / "planetoid").iterdir())) == 8


def test_registered_files():
    assert {name: len(raw_files) for name, raw_files in planetoid.RAW_FILES.items()} == {
        "cora": 8,
        "citeseer": 8,
        "pubmed": 8,
    }
    # Pubmed cannot be fetched here: at least its entry is the published one.
    assert planetoid.RAW_FILES["pubmed"][4] == RawFile(
        "ind.pubmed.allx",
        "https://github.com/kimiyoung/planetoid/raw/master/data/ind.pubmed.allx",
        7578385,
        "508e538e2abdccdd54c4d3e9f49d638b4af7107d85845f66ddea5a5152658b7e",
    )


def test_unknown_name():
    with pytest.raises(InputError, match="unknown Planetoid data set 'coar': did you mean 'cora'"):
        planetoid.load("coar")


class Call:
    """Pickles into a call of `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("part", ["allx", "ally", "graph"])
@pytest.mark.parametrize("function", [os.system, eval, np.fromfile])
def test_malicious_pickle_is_refused_and_not_run(write, tmp_path, part, function):
    marker = tmp_path / "marker"
    arguments = {
        os.system: (f"touch {marker}",),
        eval: (f"open({str(marker)!r}, 'w').close()",),
        np.fromfile: (str(tmp_path),),
    }[function]
    content = dumps(Call(function, *arguments))
    raw_dir = write(small_graph()[0] | {part: content})
    with pytest.raises(InputError, match=rf"ind.pubmed.{part}: .*names .*which is not allowed"):
        planetoid.load("pubmed", raw_dir=raw_dir)
    assert not marker.exists()
    if function is not np.fromfile:
        pickle.loads(content)
        assert marker.exists()  # the attack itself works


def changed(part, change):
    parts = small_graph()[0]
    value = parts[part].copy()
    change(value)
    return parts | {part: value}


def set_value(index, value):
    return lambda array: array.__setitem__(index, value)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("allx", lambda m: m.data.__setitem__(3, np.nan), "feature value nan"),
        ("tx", lambda m: m.indices.__setitem__(0, 6), "no sparse matrix"),
        ("tx", lambda m: m.__dict__.pop("data"), "no sparse matrix"),
        ("ally", set_value((100, slice(None)), 1), r"row 100 is \[1 1 1\], expected one 1"),
        ("y", set_value(slice(None), [1, 0, 0]), "differs from the first 60 rows"),
        ("graph", set_value(4, [575]), "node 575 is out of range, 0 to 574"),
        ("graph", set_value(-1, [4]), "node -1 is out of range"),
        ("graph", set_value(4, 5), "expected lists of node indices"),
        (
            "graph",
            set_value(4, [1.5]),
            "node indices of type int, found a <class 'float'>",
        ),
        ("graph", set_value("a", [1]), "expected node indices of type int, found a <class 'str'>"),
        ("graph", set_value(4, [1 << 70]), r"node \d+ is out of range, 0 to 574"),
        # One list, written once, is the neighbours of many nodes.
        ("graph", lambda g: g.update(dict.fromkeys(range(300), [1] * 300)), "of neighbours is 9"),
        ("allx", lambda m: setattr(m, "_shape", (565, 1 << 40)), "no sparse matrix .shape"),
        ("allx", lambda m: setattr(m, "indices", m.indices / 2), "no sparse matrix .expected data"),
    ],
)
def test_wrong_values_are_named(write, part, change, message):
    raw_dir = write(changed(part, change))
    with pytest.raises(InputError, match=f"ind.pubmed.{part}: .*{message}"):
        planetoid.load("pubmed", raw_dir=raw_dir)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"test.index": b"565\n566\nx\n"}, "test.index: invalid literal .* one node index a line"),
        ({"test.index": b"564\n566\n"}, "test.index: first test node: found 564, expected 565"),
        ({"test.index": b"565\n9999999999999\n"}, "test.index: node 9999999999999 is out of range"),
        ({"test.index": b""}, "test.index: first test node: found None"),
        ({"test.index": b"565\n565\n"}, "test.index: different nodes: found 1, expected 2"),
        ({"test.index": b"565\n566\n"}, r"tx: shape: found \(8, 6\), expected \(2, 6\)"),
        ({"ty": np.eye(3)[[0] * 7]}, r"ty: shape: found \(7, 3\), expected \(8, 3\)"),
        ({"ty": np.full((8, 3), 1e308)}, r"ty: row 0 is .*, expected one 1"),
        ({"y": small_graph()[0]["ally"][:66]}, "ally: 565 rows, 566 needed"),
        ({"y": np.arange(60)}, r"y: int64 of shape \(60,\)"),
        ({"graph": [1, 2]}, "graph: holds a <class 'list'>"),
        ({"graph": b"not a pickle"}, "graph: not a readable pickle"),
        ({"graph": dumps({1: [2]})[:-3]}, "graph: not a readable pickle"),
    ],
)
def test_parts_that_do_not_fit_are_named(write, parts, message):
    raw_dir = write(small_graph()[0] | parts)
    with pytest.raises(InputError, match=f"ind.pubmed.{message}"):
        planetoid.load("pubmed", raw_dir=raw_dir)


def test_missing_raw_files_are_listed(write):
    raw_dir = write(small_graph()[0])
    (raw_dir / "planetoid" / "ind.pubmed.tx").unlink()
    (raw_dir / "planetoid" / "ind.pubmed.graph").write_bytes(b"")
    with pytest.raises(InputError, match=r"(?s)2 of 8 .*pubmed.tx: missing.*graph: found 0 bytes"):
        planetoid.load("pubmed", raw_dir=raw_dir)
