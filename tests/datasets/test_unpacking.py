"""Unpacking of gzipped files and zips stops at its bound."""

import gzip
import struct
import tracemalloc
import zipfile

import pytest

from structdl.datasets.unpacking import open_zip, read_gzip, read_member
from structdl.errors import InputError


def test_gzip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(1 << 25), compresslevel=1))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"bomb.gz: unpacks to more than 1000 bytes"):
            read_gzip(path, 1000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_the_limit_is_inclusive(tmp_path):
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(b"12345") + gzip.compress(b"678"))
    assert read_gzip(path, 8) == b"12345678"
    with pytest.raises(InputError, match="more than 7 bytes"):
        read_gzip(path, 7)
    path.write_bytes(gzip.compress(b"12345")[:-1])
    with pytest.raises(InputError, match=r"file.gz: not a readable gzipped file"):
        read_gzip(path, 5)


@pytest.mark.parametrize(
    ("packing", "limit", "message"),
    [
        (zipfile.ZIP_DEFLATED, 999, "member text unpacks to 1000 bytes, the limit is 999"),
        (zipfile.ZIP_LZMA, 1000, "member text is neither stored nor deflated"),
        (zipfile.ZIP_BZIP2, 1000, "member text is neither stored nor deflated"),
    ],
)
def test_members_that_are_refused(tmp_path, packing, limit, message):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr("text", bytes(1000))
    with pytest.raises(InputError, match=f"set.zip: {message}"), open_zip(path) as archive:
        read_member(archive, archive.infolist()[0], limit)


def test_a_name_that_is_no_text(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("\N{SNOWMAN}", b"")
    path.write_bytes(path.read_bytes().replace("\N{SNOWMAN}".encode(), b"\xff" * 3))
    with pytest.raises(InputError, match=r"set.zip: not a readable zip"), open_zip(path):
        pass
    path.write_bytes(struct.pack("<I", 0x06054B50))
    with pytest.raises(InputError, match=r"set.zip: not a readable zip"), open_zip(path):
        pass
