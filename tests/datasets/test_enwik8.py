"""enwik8: a small text in its place, read by a loop, and archives that must be refused."""

import hashlib
import zipfile

import numpy as np
import pytest

from structdl.datasets import enwik8
from structdl.datasets.archives import RawMembers
from structdl.datasets.vocabulary import decode
from structdl.errors import InputError

TEXT = "<page>naïve café</page>\n".encode() * 3 + b"\xff\x00 end of it"
HELD_OUT = 9


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes members as the raw zip, and registers a text as the one that belongs there."""
    monkeypatch.delenv("STRUCTDL_RAW_DIR", raising=False)
    monkeypatch.setenv("STRUCTDL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(enwik8, "HELD_OUT", HELD_OUT)

    def write_zip(members, registered=TEXT):
        sha256 = hashlib.sha256(registered).hexdigest()
        one = RawMembers("enwik8", 1, len(registered), sha256)
        archive = enwik8.RAW_ARCHIVE._replace(members=(one,))
        monkeypatch.setattr(enwik8, "RAW_ARCHIVE", archive)
        path = tmp_path / "raw" / "enwik8" / "enwik8.zip"
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in members.items():
                file.writestr(name, content)
        return path

    return write_zip


def test_the_last_bytes_are_the_test_and_those_before_for_validation(write, tmp_path):
    path = write({"enwik8": TEXT, "other.txt": "nothing to read"})
    enwik8.load(raw_dir=path.parents[1])
    text = enwik8.load()  # prepared: read again, with the raw file out of reach
    assert [*map(ord, text.vocabulary)] == sorted(set(TEXT))
    parts = [bytes(ord(symbol) for symbol in decode(ids, text.vocabulary)) for ids in text[:3]]
    assert parts == [TEXT[: -2 * HELD_OUT], TEXT[-2 * HELD_OUT : -HELD_OUT], TEXT[-HELD_OUT:]]
    assert all(ids.dtype == np.int32 for ids in text[:3])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["data", "raw"]


def test_bytes_become_a_text_again():
    assert enwik8.from_bytes(enwik8.as_bytes("naïve 中")) == "naïve 中"
    assert len(enwik8.as_bytes("中")) == 3


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"enwik8": TEXT[:-1] + b"!"}, "enwik8: altered, found sha256"),
        ({"enwik9": TEXT}, "enwik8: found 0 files of 0 bytes, expected 1"),
        ({"enwik8": TEXT, "more/enwik8": TEXT}, "enwik8: found 2 files"),
        ({"enwik8": TEXT * 2}, "enwik8: found 1 files of"),
    ],
)
def test_another_text_is_refused(write, members, message):
    path = write(members)
    with pytest.raises(InputError, match=message):
        enwik8.load(raw_dir=path.parents[1])


def test_what_cannot_be_read_is_named(write):
    with pytest.raises(InputError, match="enwik8: found 0 files of 0 bytes, expected 1"):
        enwik8.read_raw(write({"enwik9": TEXT}))
    with pytest.raises(InputError, match="has 18 bytes, expected more than 18"):
        enwik8.read_raw(write({"enwik8": TEXT[:18]}, TEXT[:18]))
    path = write({"enwik8": TEXT})
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match="not a readable zip"):
        enwik8.read_raw(path)


def test_the_public_file_is_registered():
    (member,) = enwik8.RAW_ARCHIVE.members
    assert (member.pattern, member.number, member.size) == ("enwik8", 1, 10**8)
    assert enwik8.RAW_ARCHIVE.size == 36_445_475
