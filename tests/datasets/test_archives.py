"""Zips whose members are registered: what passes, what is named, and what is never unpacked."""

import functools
import hashlib
import http.server
import re
import struct
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from structdl.datasets.archives import RawArchive, RawMembers, fault_of_archive, read_members
from structdl.datasets.prepare import prepare
from structdl.errors import InputError

FILES = {"b_1.txt": b"second", "b_0.txt": b"first", "notes.md": b"notes"}


def registered(**changes):
    digests = [hashlib.sha256(content).hexdigest() for content in (b"firstsecond", b"notes")]
    archive = RawArchive(
        "set.zip",
        "http://127.0.0.1:9/set.zip",
        10_000,
        (RawMembers("b_*.txt", 2, 11, digests[0]), RawMembers("notes.md", 1, 5, digests[1])),
    )
    return archive._replace(**changes)


def write_zip(path, files, folder="top/", packing=zipfile.ZIP_STORED):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, content in files.items():
            archive.writestr(folder + name, content)
        archive.writestr("other.txt", "nothing to read")
    return path


class ArchiveBuilder(tfds.core.GeneratorBasedBuilder):
    """The members of the zip, one after another."""

    name = "archive_of_a_test"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "set.zip"

    def _info(self):
        content = tfds.features.Tensor(shape=(None,), dtype=np.uint8)
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict({"content": content})
        )

    def _split_generators(self, dl_manager):
        members = read_members(Path(dl_manager.manual_dir) / "set.zip", registered())
        return {"full": self._generate_examples(b"".join(content for _, content in members))}

    def _generate_examples(self, content):
        yield 0, {"content": np.frombuffer(content, np.uint8)}


@pytest.mark.parametrize("folder", ["", "top/", "top/inside/", "../"])
@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_packing_and_folders_do_not_matter(tmp_path, folder, packing):
    path = write_zip(tmp_path / "set.zip", FILES, folder, packing)
    assert fault_of_archive(path, registered()) is None
    assert list(read_members(path, registered())) == [
        ("b_0.txt", b"first"),
        ("b_1.txt", b"second"),
        ("notes.md", b"notes"),
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["set.zip"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"b_1.txt": b"secand"}, r"b_\*.txt: altered, found sha256 \w+, expected \w+$"),
        ({"b_1.txt": b"secon"}, r"b_\*.txt: found 2 files of 10 bytes, expected 2 of 11$"),
        ({"b_2.txt": b""}, r"b_\*.txt: found 3 files of 11 bytes, expected 2 of 11$"),
        ({"sub/notes.md": b""}, "notes.md: found 2 files of 5 bytes, expected 1 of 5$"),
        ({"b_1.txt": b"", "notes.md": b""}, r"b_\*.txt: found .*; notes.md: found"),
    ],
)
def test_altered_members_are_named(tmp_path, change, fault):
    path = write_zip(tmp_path / "set.zip", FILES | change)
    assert re.match(fault, fault_of_archive(path, registered()))
    if "altered" not in fault:
        with pytest.raises(InputError, match=r"set.zip: \S+: found \d files of"):
            list(read_members(path, registered()))


def test_many_faults_are_counted(tmp_path):
    members = tuple(RawMembers(f"{number}.txt", 1, 1, "") for number in range(5))
    path = write_zip(tmp_path / "set.zip", FILES)
    assert fault_of_archive(path, registered(members=members)).endswith("; and 2 more")


@pytest.mark.parametrize("content", [b"", b"no zip", None], ids=["empty", "text", "truncated"])
def test_what_is_no_zip(tmp_path, content):
    path = write_zip(tmp_path / "set.zip", FILES)
    path.write_bytes(path.read_bytes()[:-30] if content is None else content)
    assert fault_of_archive(path, registered()).startswith("not a readable zip")
    with pytest.raises(InputError, match=r"set.zip: not a readable zip"):
        list(read_members(path, registered()))


def test_zip_bomb_is_not_unpacked(tmp_path):
    bomb = FILES | {"notes.md": bytes(5 << 20)}
    path = write_zip(tmp_path / "set.zip", bomb, packing=zipfile.ZIP_DEFLATED)
    assert "expected 1 of 5" in fault_of_archive(path, registered())
    # The same with the registered size stated in both headers: no more than that is unpacked.
    content, size = path.read_bytes(), struct.pack("<I", 5 << 20)
    assert content.count(size) == 2
    path.write_bytes(content.replace(size, struct.pack("<I", 5)))
    assert "Bad CRC-32" in fault_of_archive(path, registered())


def test_raw_folder_and_its_faults(tmp_path, monkeypatch):
    monkeypatch.delenv("STRUCTDL_RAW_DIR", raising=False)
    folders = {"raw_dir": tmp_path / "raw", "data_dir": tmp_path / "data"}
    path = tmp_path / "raw" / "archive_of_a_test" / "set.zip"
    for files, fault in ((None, "missing"), (FILES | {"b_0.txt": b"fixed"}, r"b_\*.txt: altered")):
        if files:
            write_zip(path, files)
        with pytest.raises(InputError, match=rf"1 of 1 raw files .*\n  set.zip: {fault}.*; from h"):
            prepare(ArchiveBuilder, raw_files=[registered()], **folders)
    write_zip(path, FILES)
    builder = prepare(ArchiveBuilder, raw_files=[registered()], **folders)
    assert builder.as_data_source("full")[0]["content"].tobytes() == b"firstsecondnotes"


def test_download(tmp_path, monkeypatch):
    monkeypatch.delenv("STRUCTDL_RAW_DIR", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    path = write_zip(tmp_path / "server" / "set.zip", FILES | {"notes.md": b"other"})
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=path.parent)
    monkeypatch.setattr(handler.func, "log_message", lambda *arguments: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        archive = registered(url=f"http://127.0.0.1:{server.server_port}/set.zip")
        with pytest.raises(InputError, match=r"another file \(notes.md: altered"):
            prepare(ArchiveBuilder, raw_files=[archive], data_dir=tmp_path)
        write_zip(path, FILES)
        with pytest.raises(InputError, match="not a readable zip"):  # no more than 20 bytes
            prepare(ArchiveBuilder, raw_files=[archive._replace(size=20)], data_dir=tmp_path)
        builder = prepare(ArchiveBuilder, raw_files=[archive], data_dir=tmp_path)
        server.shutdown()
    assert builder.as_data_source("full")[0]["content"].tobytes() == b"firstsecondnotes"
