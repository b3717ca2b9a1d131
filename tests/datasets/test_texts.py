"""Texts as numbers: vocabularies, Tiny Shakespeare and the Penn Treebank."""

import hashlib
import io
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from structdl.datasets import penn_treebank, tiny_shakespeare
from structdl.datasets.archives import RawMembers
from structdl.datasets.prepare import RawFile
from structdl.datasets.vocabulary import decode, encode, vocabulary_of, words_of
from structdl.errors import InputError

PTB = {
    "ptb.train.txt": " a cat <unk> N \n sat on a mat \n",
    "ptb.valid.txt": " a mat sat \n",
    "ptb.test.txt": " N cat \n on <unk> \n",
}


def zipped(texts, folder=""):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            archive.writestr(f"{folder}{name}", text)
            archive.writestr(f"__MACOSX/._{name}", "nothing to read")
    return file.getvalue()


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.delenv("STRUCTDL_RAW_DIR", raising=False)
    monkeypatch.setenv("STRUCTDL_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "raw" / "ptb").mkdir(parents=True)
    (tmp_path / "raw" / "tiny_shakespeare").mkdir()
    return tmp_path / "raw"


@pytest.fixture
def write_ptb(folders, monkeypatch):
    """Writes texts as the raw zip and registers its members as they are, or as others are."""

    def write(texts, folder="", registered=None):
        contents = {
            name: text if isinstance(text, bytes) else text.encode()
            for name, text in (registered or texts).items()
        }
        members = tuple(
            RawMembers(name, 1, len(content), hashlib.sha256(content).hexdigest())
            for name, content in contents.items()
        )
        archive = penn_treebank.RAW_ARCHIVE._replace(members=members)
        monkeypatch.setattr(penn_treebank, "RAW_ARCHIVE", archive)
        (folders / "ptb" / "ptb.zip").write_bytes(zipped(texts, folder))
        return folders

    return write


@pytest.fixture
def write_shakespeare(folders, monkeypatch):
    def write(content):
        (folders / "tiny_shakespeare" / "input.txt").write_bytes(content)
        url, sha256 = "http://127.0.0.1:9/input.txt", hashlib.sha256(content).hexdigest()
        raw_file = RawFile("input.txt", url, len(content), sha256)
        monkeypatch.setattr(tiny_shakespeare, "RAW_FILE", raw_file)
        return folders

    return write


@pytest.fixture(scope="module")
def raw_dir():
    """The public files, where this machine has them."""
    given = os.environ.get("STRUCTDL_RAW_DIR")
    folder = Path(given) if given else Path(__file__).parents[3] / "shared" / "data"
    if not (folder / "ptb" / "ptb.zip").exists():
        pytest.skip("no raw texts: set STRUCTDL_RAW_DIR")
    return folder


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.mark.parametrize("text", ["to be, or not\nto be", words_of("to be\nor not to be\n"), ""])
def test_encode_equals_a_loop_and_decode_undoes_it(text):
    vocabulary = vocabulary_of(text)
    assert list(vocabulary) == sorted({*text})
    ids = encode(text, vocabulary)
    assert ids.dtype == np.int32
    assert ids.tolist() == [vocabulary.index(symbol) for symbol in text]
    assert decode(ids, vocabulary) == list(text)


def test_words_end_lines_with_eos():
    assert words_of(" a  b \n\n c \n") == ["a", "b", "<eos>", "<eos>", "c", "<eos>"]
    assert words_of("a") == ["a"]


def test_symbols_outside_the_vocabulary_are_named():
    with pytest.raises(InputError, match=r"'#' at position 3 is not among the 2 symbols .*replace"):
        encode("aba#b?", "ab")
    with pytest.raises(InputError, match="'dog' at position 1 is not among the 1 symbols"):
        encode(["cat", "dog"], ["cat"])
    for wrong in (-1, 3):
        with pytest.raises(InputError, match=f"{wrong} at position 2 is out of range, 0 to 2"):
            decode(np.array([0, 1, wrong]), "abc")


def test_tiny_shakespeare_is_split_by_position(write_shakespeare):
    text = "abcdé" * 18 + "abcde"[::-1].replace("e", "é") + "ddabc"
    raw_dir = write_shakespeare(text.encode())
    tiny_shakespeare.load(raw_dir=raw_dir)
    loaded = tiny_shakespeare.load()  # prepared: read again, with the raw file out of reach
    assert loaded.vocabulary == ("a", "b", "c", "d", "é")
    assert [len(part) for part in loaded[:3]] == [90, 5, 5]
    parts = ["".join(decode(part, loaded.vocabulary)) for part in loaded[:3]]
    assert parts == [text[:90], text[90:95], text[95:]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ab" * 45 + b"a" * 9 + b"z", "input.txt: 'z' at position 4 is not among the 2 symbols"),
        (b"ab\xff", "input.txt: not a readable text"),
    ],
)
def test_wrong_texts_are_named(write_shakespeare, content, message):
    raw_dir = write_shakespeare(content)
    with pytest.raises(InputError, match=message):
        tiny_shakespeare.load(raw_dir=raw_dir)


def test_missing_and_altered_text_is_named(write_shakespeare):
    raw_dir = write_shakespeare(b"ab" * 50)
    path = raw_dir / "tiny_shakespeare" / "input.txt"
    path.write_bytes(b"ba" * 50)
    with pytest.raises(InputError, match=r"input.txt: altered"):
        tiny_shakespeare.load(raw_dir=raw_dir)
    path.unlink()
    with pytest.raises(InputError, match=r"input.txt: missing, expected 100 bytes"):
        tiny_shakespeare.load(raw_dir=raw_dir)


@pytest.mark.parametrize("folder", ["", "lstm-master/data/"])
def test_penn_treebank_by_hand(write_ptb, folder):
    raw_dir = write_ptb(PTB, folder)
    for level in ("word", "character"):
        penn_treebank.load(level, raw_dir=raw_dir)
    words = penn_treebank.load("word")
    assert words.vocabulary == ("<eos>", "<unk>", "N", "a", "cat", "mat", "on", "sat")
    assert words.train.tolist() == [3, 4, 1, 2, 0, 7, 6, 3, 5, 0]
    assert words.validation.tolist() == [3, 5, 7, 0]
    assert words.test.tolist() == [2, 4, 0, 6, 1, 0]
    characters = penn_treebank.load("character")
    assert characters.vocabulary == tuple("\n <>Nackmnostu")
    parts = ["".join(decode(part, characters.vocabulary)) for part in characters[:3]]
    assert parts == ["a cat <unk> N \nsat on a mat \n", "a mat sat \n", "N cat \non <unk> \n"]


def test_the_archive_is_that_of_a_commit():
    assert re.search(r"/archive/[0-9a-f]{40}\.zip$", penn_treebank.RAW_ARCHIVE.url)


def test_unknown_level():
    with pytest.raises(InputError, match="unknown level 'words': did you mean 'word'"):
        penn_treebank.load("words")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ptb.valid.txt": " a dog \n"}, "ptb.zip: 'dog' at position 1 is not among the 8 symbols"),
        ({"ptb.test.txt": b"\xff \n"}, "ptb.zip: ptb.test.txt is no text"),
    ],
)
def test_wrong_members_are_named(folders, write_ptb, change, message):
    write_ptb(PTB | change)
    with pytest.raises(InputError, match=message):
        penn_treebank.read_raw(folders / "ptb" / "ptb.zip", "word")


def test_altered_and_missing_members_are_named(write_ptb):
    altered = PTB | {"ptb.valid.txt": " a cat sat \n"}
    raw_dir = write_ptb(altered, registered=PTB)
    with pytest.raises(InputError, match=r"ptb.zip: ptb.valid.txt: altered, found sha256"):
        penn_treebank.load("word", raw_dir=raw_dir)
    fewer = {name: text for name, text in PTB.items() if "test" not in name}
    raw_dir = write_ptb(fewer, registered=PTB)
    message = r"ptb.test.txt: found 0 files of 0 bytes, expected 1 of 19; from https://github.com"
    with pytest.raises(InputError, match=message):
        penn_treebank.load("word", raw_dir=raw_dir)


def test_public_tiny_shakespeare(raw_dir, data_dir):
    text = tiny_shakespeare.load(raw_dir=raw_dir, data_dir=data_dir)
    assert [len(part) for part in text[:3]] == [1_003_854, 55_770, 55_770]
    assert len(text.vocabulary) == 65
    whole = "".join(decode(np.concatenate(text[:3]), text.vocabulary))
    assert whole == (raw_dir / "tiny_shakespeare" / "input.txt").read_text()


@pytest.mark.parametrize(
    ("level", "lengths", "num_symbols"),
    [
        ("word", [929_589, 73_760, 82_430], 10_000),
        ("character", [5_059_550, 396_412, 446_184], 50),
    ],
)
def test_public_penn_treebank(raw_dir, data_dir, level, lengths, num_symbols):
    text = penn_treebank.load(level, raw_dir=raw_dir, data_dir=data_dir)
    assert [len(part) for part in text[:3]] == lengths
    assert len(text.vocabulary) == num_symbols
    end = text.vocabulary.index("<eos>" if level == "word" else "\n")
    assert [int((part == end).sum()) for part in text[:3]] == [42_068, 3_370, 3_761]
    start = decode(text.validation[:16], text.vocabulary)
    assert (" ".join(start[:4]) if level == "word" else "".join(start)) == {
        "word": "consumers may want to",
        "character": "consumers may wa",
    }[level]
