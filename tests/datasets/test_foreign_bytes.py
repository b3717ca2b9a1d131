"""Valid small files with bytes changed: every reader returns a value or raises InputError."""

import collections
import gzip
import io
import pickle
import struct
import wave
import zipfile

import hypothesis
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import strategies as st

from structdl.datasets import (
    cmu_mocap,
    mnist,
    msraction3d,
    ntu_rgbd,
    penn_treebank,
    planetoid,
    poly_music,
    spoken_digits,
    tatoeba,
    tiny_shakespeare,
    tox21,
    tu_dataset,
)
from structdl.datasets.archives import RawArchive, RawMembers, fault_of_archive, read_members
from structdl.errors import InputError

TOKENS = (
    *(b"-1", b"nan", b"inf", b"1e39", b"1e400", b"9" * 20, b"9" * 5000, b"0x1", b"1_0", b"1.5"),
    *(
        b"",
        b",",
        b"\t",
        b"\n",
        b"\r",
        b'"',
        b"#",
        b" ",
        b"\x0c",
        b"-",
        b"\xe2\x80\xa8",
        b"\xd9\xa3",
    ),
    *(b"\xff" * 4, b"\0" * 4, b"\0\0\0\1", b"\xff\xff\xff\x7f", b"\x7f\xff\xff\xff", b"\0" * 300),
)


def changed(content, start=0):
    """The bytes with one to four places after `start` overwritten, cut out or added to."""
    edit = st.tuples(
        st.integers(start, len(content)),
        st.integers(0, 8),
        st.one_of(st.sampled_from(TOKENS), st.binary(max_size=4)),
    )

    def apply(edits):
        changing = content
        for place, removed, added in edits:
            changing = changing[:place] + added + changing[place + removed :]
        return changing

    return st.lists(edit, min_size=1, max_size=4).map(apply)


def num_bytes(value):
    if isinstance(value, (np.ndarray, np.generic)):
        return value.nbytes
    if isinstance(value, scipy.sparse.csr_matrix):
        return num_bytes((value.data, value.indices, value.indptr))
    if isinstance(value, dict):
        return num_bytes([*value.values()])
    if isinstance(value, (list, tuple)):
        return sum(map(num_bytes, value))
    return len(value) if isinstance(value, (str, bytes)) else 8


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def wav():
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, 8000, 0, "NONE", ""))
        writer.writeframes(bytes(20))
    return file.getvalue()


def pickled(value):
    content = pickle.dumps(value, 3)  # protocol 2 has no bytes
    return content.replace(b"cscipy.sparse._csr\n", b"cscipy.sparse.csr\n").replace(
        b"cbuiltins\n", b"c__builtin__\n"
    )


def mat():
    file = io.BytesIO()
    tables = {}
    for table in ("traindata", "validdata", "testdata"):
        tables[table] = np.empty((1, 2), object)
        tables[table][0, :] = np.zeros((3, 88), np.uint8), np.ones((2, 88))
    scipy.io.savemat(file, tables)
    return file.getvalue()


def rows(number, width, separator=" "):
    return "\n".join([separator.join(["0.5"] * width)] * number).encode()


TU = {
    "A": "1, 2\n2, 1\n3, 4\n4, 3\n",
    "graph_indicator": "1\n1\n2\n2\n",
    "graph_labels": "1\n-1\n",
    "node_labels": "0\n1\n0\n1\n",
    "edge_attributes": "0.5,1\n1,2\n0,0\n3,4\n",
}
MEMBERS = RawArchive("set.zip", "", 0, (RawMembers("a*", 2, 1000, ""),))
HEADER = ",".join([*tox21.TASKS, "SMILES", "rdkit_pass"])
TABLE = "\n".join([HEADER, ",".join(["0"] * 12) + ",CCO,True", "," * 12 + "[NH4+],False"]).encode()
MATRIX = scipy.sparse.csr_matrix(np.eye(3, 4, dtype=np.float32))
NEIGHBOURS = collections.defaultdict(list, {0: [1, 2], 1: [0], 2: [0, 2]})
SKELETON = b"1\n1\n7 0 1 1 0 0 0 0.1 -0.2 2\n25\n" + rows(25, 12)
IDX = struct.pack(">4I", 2051, 2, 28, 28) + bytes(2 * 28 * 28)
LABELS = gzip.compress(struct.pack(">2I", 2049, 2) + b"\1\2")


def read_mnist(path):
    labels = path.with_name("labels.gz")
    labels.write_bytes(LABELS)
    return mnist.read_raw(path, labels)


def read_zip(path):
    return fault_of_archive(path, MEMBERS), list(read_members(path, MEMBERS))


def same(content):
    return content


# name: valid content, how it is wrapped once it is changed, and its reader, which takes a path
READERS = {
    "planetoid features": (pickled(MATRIX), same, planetoid._read_features),
    "planetoid labels": (pickled(np.eye(3, dtype=np.int32)), same, planetoid._read_labels),
    "planetoid graph": (
        pickled(NEIGHBOURS),
        same,
        lambda path: planetoid._read_edges(path, num_nodes=3),
    ),
    "planetoid test": (b"5\n7\n6\n", same, lambda path: planetoid._read_test_index(path, 5)),
    "idx": (IDX, gzip.compress, read_mnist),
    "gzip": (gzip.compress(IDX), same, read_mnist),
    "tox21": (TABLE, gzip.compress, lambda path: list(tox21.read_raw(path))),
    "zip": (zipped({"a1": b"1" * 600, "a2": bytes(400)}), same, read_zip),
    "tu_dataset zip": (
        zipped({f"X_{part}.txt": text for part, text in TU.items()}),
        same,
        lambda path: tu_dataset.read_raw(path, "X"),
    ),
    **{
        f"tu_dataset {part}": (
            text.encode(),
            lambda content, part=part: zipped(
                {f"X_{other}.txt": content if other == part else TU[other] for other in TU}
            ),
            lambda path: tu_dataset.read_raw(path, "X"),
        )
        for part, text in TU.items()
    },
    "poly_music": (mat(), same, poly_music.read_raw),
    "wave": (wav(), same, lambda path: spoken_digits._read_wave("", path.read_bytes())),
    "msraction3d": (
        rows(20, 4),
        same,
        lambda path: msraction3d.parse_skeleton(path.read_bytes(), ""),
    ),
    "cmu_mocap": (
        rows(2, 117, ","),
        same,
        lambda path: cmu_mocap.parse_frames(path.read_bytes(), ""),
    ),
    "ntu_rgbd": (
        SKELETON,
        same,
        lambda path: ntu_rgbd.parse_skeletons(path.read_text(errors="replace"), ""),
    ),
    "tatoeba": (
        "Hi.\t嗨。\nI see.\t我明白。\n".encode(),
        same,
        lambda path: tatoeba.pairs_of(path.read_bytes(), path),
    ),
    "penn_treebank": (
        b" a cat <unk> N \n",
        same,
        lambda path: penn_treebank._symbols(path, "", path.read_bytes(), "word"),
    ),
    "tiny_shakespeare": (b"First Citizen:\nSpeak.\n" * 3, same, tiny_shakespeare.read_raw),
}


@pytest.mark.parametrize("name", READERS)
def test_changed_bytes_are_read_or_refused(tmp_path, name):
    valid, wrap, read = READERS[name]
    if name == "tox21":
        pytest.importorskip("rdkit", reason="RDKit is not installed: pip install -e '.[chem]'")
    path = tmp_path / "file"
    path.write_bytes(wrap(valid))
    if name != "zip":  # whose digest is registered nowhere
        assert num_bytes(read(path)) > 0

    @hypothesis.given(changed(valid))
    def check(content):
        path.write_bytes(wrap(content))
        try:
            value = read(path)
        except InputError:
            return
        assert num_bytes(value) <= 20 * len(content) + 10_000

    check()
