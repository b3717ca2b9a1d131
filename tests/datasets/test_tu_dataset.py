"""TU sets: a set written by hand, PyG's own reader, and archives that must be refused."""

import hashlib
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from structdl.datasets import tu_dataset
from structdl.datasets.prepare import RawFile
from structdl.errors import InputError

# Three graphs of 3, 1 and 2 nodes. The edges of the last come first, 1-2 is named twice, and node 4
# has none; nodes, edges and graphs have labels with gaps.
PARTS = {
    "A": "5, 6\n6, 5\n1, 2\n2, 1\n2, 3\n1, 2\n3,3\n",
    "graph_indicator": "1\n1\n1\n2\n3\n3\n",
    "graph_labels": "1\n-1\n7\n",
    "node_labels": "4\n4\n9\n5\n4\n9\n",
    "node_attributes": " 0.5, 1\n1.5,2\n2.5,3\n3.5,4\n4.5,5\n  5.5, 6e0\n",
    "edge_labels": "2\n2\n0\n1\n0\n2\n1\n",
    "edge_attributes": "10\n11\n12\n13\n14\n15\n16\n",
}


def write_zip(path, parts, name="MUTAG", folder="MUTAG//"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for part, text in parts.items():
            if text is not None:
                archive.writestr(f"{folder}{name}_{part}.txt", text)
        archive.writestr(f"{folder}README.txt", "nothing to read")
    return path


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes the parts as the raw file of a set and registers it as it is."""
    monkeypatch.delenv("STRUCTDL_RAW_DIR", raising=False)
    monkeypatch.setenv("STRUCTDL_DATA_DIR", str(tmp_path / "data"))

    def write_parts(parts, name="MUTAG"):
        path = write_zip(tmp_path / "raw" / "tudataset" / f"{name}.zip", parts, name)
        content = path.read_bytes()
        url, sha256 = "http://127.0.0.1:9/set.zip", hashlib.sha256(content).hexdigest()
        raw_file = RawFile(path.name, url, len(content), sha256)
        monkeypatch.setitem(tu_dataset.RAW_FILES, name, raw_file)
        return tmp_path / "raw"

    return write_parts


@pytest.fixture(scope="module")
def raw_dir():
    """The raw files of MUTAG and PROTEINS, where this machine has them."""
    given = os.environ.get("STRUCTDL_RAW_DIR")
    folder = Path(given) if given else Path(__file__).parents[3] / "shared" / "data"
    if not (folder / "tudataset" / "PROTEINS.zip").exists():
        pytest.skip("no raw TU files: set STRUCTDL_RAW_DIR")
    return folder


def test_set_by_hand(write):
    tu_dataset.load("MUTAG", raw_dir=write(PARTS))
    dataset = tu_dataset.load("MUTAG")  # prepared: read again, with the raw file out of reach
    assert dataset.labels.tolist() == [1, 0, 2]
    assert dataset[2:] == (3, 3, 3)
    first, second, third = dataset.graphs
    assert [graph.num_nodes for graph in dataset.graphs] == [3, 1, 2]
    assert first.edges.tolist() == [[0, 1], [1, 0], [1, 2], [2, 2]]
    assert first.node_labels.tolist() == [0, 0, 2]
    assert first.node_attributes.tolist() == [[0.5, 1], [1.5, 2], [2.5, 3]]
    assert first.edge_labels.tolist() == [0, 1, 0, 1]
    assert first.edge_attributes.tolist() == [[12], [13], [14], [16]]
    assert second.edges.shape == (0, 2)
    assert second.edge_attributes.shape == (0, 1)
    assert second.node_labels.tolist() == [1]
    assert third.edges.tolist() == [[0, 1], [1, 0]]
    assert third.edge_labels.tolist() == [2, 2]
    assert {array.dtype for array in (*first[1:3], first.edge_labels)} == {np.dtype(np.int32)}
    assert {first.node_attributes.dtype, first.edge_attributes.dtype} == {np.dtype(np.float32)}


def test_set_without_optional_parts(write):
    required = {part: PARTS[part].replace("\n", "\r\n") for part in tu_dataset._REQUIRED}
    dataset = tu_dataset.load("IMDB-BINARY", raw_dir=write(required, "IMDB-BINARY"))
    assert all(graph[2:] == (None,) * 4 for graph in dataset.graphs)
    assert dataset[2:] == (3, 0, 0)
    assert [len(graph.edges) for graph in dataset.graphs] == [4, 0, 2]


def test_preparing_changes_nothing(write, tmp_path):
    """The order of many graphs, and every array, survive the way through the prepared files."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 6, 300)
    owner = np.repeat(np.arange(1, 301), sizes)
    first = np.cumsum(sizes) - sizes + 1
    pairs = [first[i] + rng.integers(0, sizes[i], 2) for i in rng.integers(0, 300, 900)]
    parts = {
        "A": "\n".join(f"{a}, {b}" for a, b in pairs),
        "graph_indicator": "\n".join(map(str, owner)),
        "graph_labels": "\n".join(map(str, rng.integers(0, 3, 300))),
        "node_attributes": "\n".join(f"{x:.3f}" for x in rng.normal(size=len(owner))),
    }
    raw_dir = write(parts)
    raw = tu_dataset.read_raw(raw_dir / "tudataset" / "MUTAG.zip", "MUTAG")
    loaded = tu_dataset.load("MUTAG", raw_dir=raw_dir)
    np.testing.assert_array_equal(loaded.labels, raw.labels)
    for ours, expected in zip(loaded.graphs, raw.graphs, strict=True):
        np.testing.assert_array_equal(ours.edges, expected.edges)
        np.testing.assert_array_equal(ours.node_attributes, expected.node_attributes)
        assert ours.num_nodes == expected.num_nodes


@pytest.mark.parametrize(
    ("name", "num_graphs", "num_nodes", "num_edges", "others"),
    [("MUTAG", 188, 3371, 7442, (2, 7, 4)), ("PROTEINS", 1113, 43471, 162088, (2, 3, 0))],
)
def test_counts(raw_dir, tmp_path, name, num_graphs, num_nodes, num_edges, others):
    dataset = tu_dataset.load(name, raw_dir=raw_dir, data_dir=tmp_path)
    assert len(dataset.graphs) == len(dataset.labels) == num_graphs
    assert sum(graph.num_nodes for graph in dataset.graphs) == num_nodes
    assert sum(len(graph.edges) for graph in dataset.graphs) == num_edges
    assert dataset[2:] == others
    assert np.bincount(dataset.labels).tolist() == {188: [63, 125], 1113: [663, 450]}[num_graphs]
    for graph in dataset.graphs:
        edges = set(map(tuple, graph.edges.tolist()))
        assert edges == {(receiver, sender) for sender, receiver in edges}


@pytest.mark.peers
@pytest.mark.parametrize("name", ["MUTAG", "PROTEINS"])
def test_equals_torch_geometric(raw_dir, tmp_path, name):
    peer = pytest.importorskip("torch_geometric.io")
    with zipfile.ZipFile(raw_dir / "tudataset" / f"{name}.zip") as archive:
        for member in archive.infolist():
            (tmp_path / Path(member.filename).name).write_bytes(archive.read(member))
    data, slices, _ = peer.read_tu_data(str(tmp_path), name)
    dataset = tu_dataset.load(name, raw_dir=raw_dir, data_dir=tmp_path / "data")
    np.testing.assert_array_equal(dataset.labels, data.y.numpy())
    for number, graph in enumerate(dataset.graphs):
        nodes = slice(*slices["x"][number : number + 2])
        edges = slice(*slices["edge_index"][number : number + 2])
        one_hot = np.eye(dataset.num_node_labels, dtype=np.float32)[graph.node_labels]
        attributes = [] if graph.node_attributes is None else [graph.node_attributes]
        np.testing.assert_array_equal(np.hstack([*attributes, one_hot]), data.x[nodes].numpy())
        order = np.lexsort(graph.edges.T[::-1])  # PyG sorts them
        np.testing.assert_array_equal(graph.edges[order], data.edge_index[:, edges].T.numpy())
        if graph.edge_labels is not None:
            labels = data.edge_attr[edges].numpy().argmax(axis=1)
            np.testing.assert_array_equal(graph.edge_labels[order], labels)


def test_registered_files():
    assert list(tu_dataset.RAW_FILES) == [
        *("MUTAG", "PROTEINS", "ENZYMES", "IMDB-BINARY", "IMDB-MULTI", "NCI1", "PTC_MR")
    ]
    assert tu_dataset.RAW_FILES["NCI1"] == RawFile(
        "NCI1.zip",
        "https://www.chrsmrrs.com/graphkerneldatasets/NCI1.zip",
        802908,
        "eae6b0c076d59e667c67de0039cfc3214eefb91a8dddc2fa3099126da02d4376",
    )


def test_unknown_name():
    with pytest.raises(InputError, match="unknown TU data set 'ENZYME': did you mean 'ENZYMES'"):
        tu_dataset.load("ENZYME")


@pytest.mark.parametrize(
    ("part", "text", "message"),
    [
        ("A", "1, 2\n0, 1\n", "_A.txt line 2 names node 0, out of range 1 to 6"),
        ("A", "1, 2\n2, 7\n", "_A.txt line 2 names node 7, out of range 1 to 6"),
        ("A", "1, 2\n2, 1\n3, 4\n", "_A.txt line 3 is an edge between graphs 1 and 2"),
        ("A", "1, 2\n2\n", "_A.txt line 2 has 1 values, expected 2"),
        ("A", "1, 2\n\n2, 1", "_A.txt line 2 is '', expected 2 of type int"),
        ("A", "1, 2.5\n", "_A.txt line 1 is '1, 2.5', expected 2 of type int"),
        ("A", "1, 99999999999999999999\n", "_A.txt holds a number of more than 64 bits"),
        (
            "graph_indicator",
            "1\n1\n1\n3\n3\n3\n",
            "_graph_indicator.txt line 4 is 3: .*without gaps",
        ),
        ("graph_indicator", "1\n1\n2\n1\n3\n3\n", "_graph_indicator.txt line 4 is 1: .*sorted"),
        ("graph_indicator", "0\n1\n1\n2\n3\n3\n", "_graph_indicator.txt line 1 is 0: .*up from 1"),
        ("graph_indicator", "2\n2\n2\n3\n3\n3\n", "_graph_indicator.txt line 1 is 2: .*up from 1"),
        ("graph_indicator", "1\n1\n1\n2\n2\n2\n", "has 2 graphs, graph_labels has 3"),
        ("graph_indicator", "", "has 0 graphs, graph_labels has 3"),
        ("graph_labels", "1\n1\n", "has 3 graphs, graph_labels has 2"),
        ("node_labels", "1\n1\n", "_node_labels.txt has 2 lines, expected 6 as in MUTAG_graph_ind"),
        ("edge_labels", "1\n1\n", "_edge_labels.txt has 2 lines, expected 7 as in MUTAG_A.txt"),
        ("node_labels", "1\n2\nx\n", "_node_labels.txt line 3 is 'x', expected 1 of type int"),
        ("node_attributes", "1,2\n1,2\n1\n", "attributes.txt line 3 has 1 values, expected 2"),
        ("node_attributes", "1,2\n1,nan\n", "attributes.txt line 2 has a value .* not finite"),
        ("node_attributes", "1,2\n1,1e99\n", "_node_attributes.txt line 2 .* finite in float32"),
        ("node_attributes", "1," * 1000 + "1\n", "line 1 has 1001 values, expected at most 1000"),
        ("A", None, "member MUTAG_A.txt is missing"),
        ("graph_labels", None, "member MUTAG_graph_labels.txt is missing"),
        ("A", b"\xff\xfe1, 2\n", "MUTAG_A.txt is not text"),
    ],
)
def test_wrong_parts_are_named(tmp_path, part, text, message):
    path = write_zip(tmp_path / "MUTAG.zip", PARTS | {part: text})
    with pytest.raises(InputError, match=f"MUTAG.zip: .*{message}"):
        tu_dataset.read_raw(path, "MUTAG")


def test_wrong_parts_are_named_while_preparing(write):
    with pytest.raises(InputError, match=r"MUTAG_A.txt line 1 names node 9"):
        tu_dataset.load("MUTAG", raw_dir=write(PARTS | {"A": "9, 1\n"}))


@pytest.mark.parametrize("folder", ["../", "/tmp/", "MUTAG/../../", "..\\"])
def test_members_outside_a_folder_are_refused(tmp_path, folder):
    path = write_zip(tmp_path / "MUTAG.zip", PARTS, folder=folder)
    with pytest.raises(InputError, match=r"member '.*' is not inside a folder"):
        tu_dataset.read_raw(path, "MUTAG")
    assert [file.name for file in tmp_path.iterdir()] == ["MUTAG.zip"]


def test_two_members_of_one_name_are_refused(tmp_path):
    path = write_zip(tmp_path / "MUTAG.zip", PARTS)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/MUTAG_A.txt", "1, 2\n")
    with pytest.raises(InputError, match=r"two members are called MUTAG_A.txt"):
        tu_dataset.read_raw(path, "MUTAG")


def test_zip_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tu_dataset, "MAX_UNPACKED_BYTES", 1 << 20)
    path = write_zip(tmp_path / "MUTAG.zip", PARTS | {"A": "1, 2\n" * (1 << 20)})
    assert path.stat().st_size < 1 << 17
    with pytest.raises(InputError, match=r"of bytes unpacked is \d+: it must be at most 1048576"):
        tu_dataset.read_raw(path, "MUTAG")
    # The same with a small size stated in both headers: no more than that is unpacked.
    content, size = path.read_bytes(), struct.pack("<I", 5 << 20)
    assert content.count(size) == 2
    path.write_bytes(content.replace(size, struct.pack("<I", 100)))
    with pytest.raises(InputError, match=r"not a readable zip \(Bad CRC-32"):
        tu_dataset.read_raw(path, "MUTAG")


@pytest.mark.parametrize("content", [b"", b"no zip", None], ids=["empty", "text", "truncated"])
def test_what_is_no_zip(tmp_path, content):
    path = write_zip(tmp_path / "MUTAG.zip", PARTS)
    path.write_bytes(path.read_bytes()[:-30] if content is None else content)
    with pytest.raises(InputError, match="not a readable zip"):
        tu_dataset.read_raw(path, "MUTAG")


def test_locked_member_is_refused(tmp_path):
    path = write_zip(tmp_path / "MUTAG.zip", PARTS)
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
    content = bytearray(path.read_bytes())
    content[start + 8] |= 1  # the flag of a password, in the directory's first entry
    content[6] |= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"not a readable zip \(.*encrypted"):
        tu_dataset.read_raw(path, "MUTAG")


@pytest.mark.parametrize("num_folds", [2, 5, 10])
def test_folds_are_a_stratified_partition(num_folds):
    labels = np.random.default_rng(1).permutation(np.repeat([0, 1, 2], [31, 10, 92]))
    parts = tu_dataset.folds(labels, num_folds, seed=3)
    assert sorted(np.concatenate(parts).tolist()) == list(range(133))
    table = np.array([np.bincount(labels[part], minlength=3) for part in parts])
    assert np.ptp(table, axis=0).max() <= 1
    assert np.ptp(table.sum(axis=1)) <= 1
    assert all((np.diff(part) > 0).all() and part.dtype == np.int32 for part in parts)
    again, other = (tu_dataset.folds(labels, num_folds, seed=seed) for seed in (3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(parts, other, strict=True))


@pytest.mark.peers
def test_sizes_of_folds_equal_scikit_learn():
    model_selection = pytest.importorskip("sklearn.model_selection")
    # Classes first seen in the order 0, 1, 2, since scikit-learn deals them in that order.
    labels = np.random.default_rng(1).permutation(np.repeat([0, 1, 2], [31, 10, 92]))
    labels = np.concatenate([[0, 1, 2], labels])
    peer = model_selection.StratifiedKFold(10, shuffle=True, random_state=0)
    expected = [np.bincount(labels[test]) for _, test in peer.split(labels, labels)]
    ours = [np.bincount(labels[part]) for part in tu_dataset.folds(labels, 10, seed=0)]
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("num_folds", [0, 1, 4])
def test_number_of_folds_out_of_range(num_folds):
    with pytest.raises(InputError, match=f"num_folds is {num_folds}: it must be 2 to 3, the size"):
        tu_dataset.folds(np.array([0, 0, 0, 1, 1, 1, 1]), num_folds, seed=0)


def test_one_hot_degrees(tmp_path):
    dataset = tu_dataset.read_raw(write_zip(tmp_path / "MUTAG.zip", PARTS), "MUTAG")
    first, second, _ = tu_dataset.one_hot_degrees(dataset.graphs, 1)
    assert first.tolist() == [[0, 1], [0, 1], [0, 1]]  # node 2 has two, itself among them
    assert second.tolist() == [[1, 0]]
    assert tu_dataset.one_hot_degrees(dataset.graphs, 3)[0][2].tolist() == [0, 0, 1, 0]
