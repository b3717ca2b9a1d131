"""Preparing a set among other processes, in full folders, and without a network."""

import errno
import functools
import hashlib
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import numpy as np
import pytest
import tensorflow_datasets as tfds

import structdl
from structdl.datasets import karate_club, prepare
from structdl.errors import InputError

CONTENT = b"three\x00 words here"
LOAD_KARATE_CLUB = (
    "import sys; from structdl.datasets import karate_club;"
    "assert karate_club.load(data_dir=sys.argv[1]).edges.shape == (78, 2)"
)


class RawBytes(tfds.core.GeneratorBasedBuilder):
    """The bytes of one raw file."""

    VERSION = tfds.core.Version("1.0.0")
    raw_files = ()

    @property
    def url_infos(self):
        return prepare.url_infos(self.raw_files)

    def _info(self):
        content = tfds.features.Tensor(shape=(None,), dtype=np.uint8)
        features = tfds.features.FeaturesDict({"content": content})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"full": self._generate_examples(dl_manager.download(self.raw_files[0].url))}

    def _generate_examples(self, path):
        yield 0, {"content": np.frombuffer(path.read_bytes(), np.uint8)}


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Serves a folder on the loopback; returns the folder and its URL."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "server"
    folder.mkdir()

    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    monkeypatch.setattr(handler.func, "log_message", lambda *arguments: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def register(monkeypatch):
    """Registers the one raw file of RawBytes; returns what reads it through `prepare`."""
    monkeypatch.delenv("STRUCTDL_RAW_DIR", raising=False)

    def with_url(url):
        sha256 = hashlib.sha256(CONTENT).hexdigest()
        raw_file = prepare.RawFile("words.bin", url, len(CONTENT), sha256)
        monkeypatch.setattr(RawBytes, "raw_files", (raw_file,))

        def read(**folders):
            builder = prepare.prepare(RawBytes, raw_files=RawBytes.raw_files, **folders)
            return builder.as_data_source("full")[0]["content"].tobytes()

        return read

    return with_url


def write_raw(raw_dir, content=CONTENT):
    (raw_dir / "raw_bytes").mkdir(parents=True, exist_ok=True)
    (raw_dir / "raw_bytes" / "words.bin").write_bytes(content)
    return raw_dir


def start(code, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(Path(structdl.__file__).parents[1])}
    command, pipe = [sys.executable, "-c", code, *map(str, arguments)], subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)


def test_raw_folder_takes_the_place_of_the_network(register, tmp_path, monkeypatch):
    read = register("http://127.0.0.1:9/words.bin")
    raw_dir = write_raw(tmp_path / "raw")
    assert read(raw_dir=raw_dir, data_dir=tmp_path / "argument") == CONTENT
    monkeypatch.setenv("STRUCTDL_RAW_DIR", str(raw_dir))
    monkeypatch.setenv("STRUCTDL_DATA_DIR", str(tmp_path / "environment"))
    assert read() == CONTENT
    for folder in ("argument", "environment"):
        assert (tmp_path / folder / "raw_bytes" / "1.0.0" / "dataset_info.json").exists()


def test_default_data_dir_is_in_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("STRUCTDL_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert prepare.default_data_dir() == tmp_path / "structdl"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert prepare.default_data_dir().expanduser() == tmp_path / ".cache" / "structdl"


def test_prepared_set_needs_neither_raw_files_nor_lock(register, tmp_path):
    read = register("http://127.0.0.1:9/words.bin")
    data_dir = tmp_path / "data"
    read(raw_dir=write_raw(tmp_path / "raw"), data_dir=data_dir)
    (data_dir / ".locks" / "raw_bytes.lock").unlink(missing_ok=True)
    (data_dir / ".locks").rmdir()
    (data_dir / ".locks").write_text("a lock cannot be made here, as in a read-only folder")
    assert read(raw_dir=tmp_path / "nowhere", data_dir=data_dir) == CONTENT


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "missing, expected 17 bytes"),
        (CONTENT[:5], "found 5 bytes, expected 17"),
        (CONTENT.replace(b"w", b"W"), "altered, found sha256 .*, expected .*"),
    ],
    ids=["missing", "truncated", "altered"],
)
def test_wrong_raw_file_is_named_with_its_url(register, tmp_path, content, fault):
    read = register("http://127.0.0.1:9/words.bin")
    raw_dir = tmp_path / "raw"
    if content is not None:
        write_raw(raw_dir, content)
    with pytest.raises(InputError, match=f"words.bin: {fault}; from http://127.0.0.1:9") as error:
        read(raw_dir=raw_dir, data_dir=tmp_path / "data")
    assert str(raw_dir / "raw_bytes") in str(error.value)
    assert "--data.raw-dir" in str(error.value)
    # The mended folder is taken the next time.
    assert read(raw_dir=write_raw(raw_dir), data_dir=tmp_path / "data") == CONTENT


def test_download(register, serve, tmp_path):
    folder, url = serve
    (folder / "words.bin").write_bytes(CONTENT)
    read = register(f"{url}/words.bin")
    assert read(data_dir=tmp_path / "data") == CONTENT
    downloads = tmp_path / "data" / "downloads" / "raw_bytes"
    assert [path.name for path in downloads.iterdir()] == ["words.bin"]


def test_finished_download_is_not_repeated(register, tmp_path):
    read = register("http://127.0.0.1:9/words.bin")
    write_raw(tmp_path / "data" / "downloads")
    assert read(data_dir=tmp_path / "data") == CONTENT


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "404"),
        (CONTENT[:5], "found 5 bytes"),
        (CONTENT + bytes(1 << 20), "found 18 bytes"),
        (CONTENT.replace(b"w", b"W"), "altered"),
    ],
    ids=["missing", "truncated", "too long", "altered"],
)
def test_wrong_download_is_not_kept(register, serve, tmp_path, content, fault):
    folder, url = serve
    if content is not None:
        (folder / "words.bin").write_bytes(content)
    read = register(f"{url}/words.bin")
    with pytest.raises(InputError, match=f"{url}/words.bin cannot be downloaded: .*{fault}"):
        read(data_dir=tmp_path / "data")
    assert list((tmp_path / "data" / "downloads" / "raw_bytes").iterdir()) == []


def test_without_network_one_paragraph_in_seconds(register, tmp_path):
    read = register("http://127.0.0.1:9/words.bin")
    started = time.monotonic()
    with pytest.raises(InputError) as error:
        read(data_dir=tmp_path)
    assert time.monotonic() - started < 5
    for part in ("http://127.0.0.1:9/words.bin", "--data.raw-dir DIR", "DIR/raw_bytes/words.bin"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.0 200 OK\r\n\r\nthree"], ids=["mute", "stalls"])
def test_silent_server_is_given_up(register, tmp_path, monkeypatch, answer):
    monkeypatch.setattr(prepare, "ANSWER_SECONDS", 0.3)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as executor:
        server.settimeout(20)
        connection = executor.submit(lambda: server.accept()[0])
        connection.add_done_callback(lambda future: future.result().sendall(answer))
        read = register(f"http://127.0.0.1:{server.getsockname()[1]}/words.bin")
        with pytest.raises(InputError, match=r"timed out|no answer"):
            read(data_dir=tmp_path)
        connection.result().close()


def test_silent_name_server_is_given_up(register, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "ANSWER_SECONDS", 0.3)
    over = threading.Event()

    def never_answer(*arguments, **options):
        over.wait(60)
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", never_answer)
    read = register("http://data.invalid/words.bin")
    with pytest.raises(InputError, match=r"no answer in 0\.3 seconds"):
        read(data_dir=tmp_path)
    over.set()


def test_two_processes_at_once(tmp_path):
    (tmp_path / ".locks").mkdir()
    with filelock.FileLock(tmp_path / ".locks" / "karate_club.lock"):
        processes = [start(LOAD_KARATE_CLUB, tmp_path) for _ in range(2)]
        # Both are seen to wait before either may begin.
        lines = [process.stderr.readline() for process in processes]
        assert not (tmp_path / "karate_club").exists()
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert all("waiting for another process to prepare karate_club" in line for line in lines)
    assert errors == ["", ""]
    assert [process.returncode for process in processes] == [0, 0]
    assert [path.name for path in (tmp_path / "karate_club").iterdir()] == ["1.0.0"]


def test_quiet_where_nobody_watches(tmp_path):
    process = start(LOAD_KARATE_CLUB, tmp_path)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


def test_leftovers_of_a_killed_preparation_are_removed(tmp_path):
    hang = (
        "import sys, time; from structdl.datasets import karate_club as k\n"
        "def hang(self): print('generating', file=sys.stderr, flush=True); time.sleep(60)\n"
        "k.KarateClubBuilder._generate_examples = hang\n"
        "k.load(data_dir=sys.argv[1])"
    )
    process = start(hang, tmp_path)
    assert process.stderr.readline() == "generating\n"
    process.kill()
    process.communicate(timeout=60)
    assert any("incomplete" in path.name for path in (tmp_path / "karate_club").iterdir())
    assert karate_club.load(data_dir=tmp_path).edges.shape == (78, 2)
    assert [path.name for path in (tmp_path / "karate_club").iterdir()] == ["1.0.0"]


def test_folder_that_is_no_prepared_set_is_named(tmp_path):
    (tmp_path / "karate_club" / "1.0.0").mkdir(parents=True)
    with pytest.raises(InputError, match=r"karate_club/1.0.0 is no prepared data set"):
        karate_club.load(data_dir=tmp_path)


def test_data_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be prepared in .*/file/data.*--data.dir DIR"):
        karate_club.load(data_dir=tmp_path / "file" / "data")


@pytest.mark.parametrize(
    "trouble",
    [
        OSError(errno.EROFS, os.strerror(errno.EROFS)),
        RuntimeError(f"write() failed: {os.strerror(errno.ENOSPC)}"),  # as array_record has it
    ],
)
def test_full_or_read_only_folder_while_generating(tmp_path, monkeypatch, trouble):
    def fail(self):
        raise trouble
        yield

    monkeypatch.setattr(karate_club.KarateClubBuilder, "_generate_examples", fail)
    with pytest.raises(InputError, match=f"cannot be prepared in {tmp_path}.*STRUCTDL_DATA_DIR"):
        karate_club.load(data_dir=tmp_path)


def test_other_errors_stay_bugs(tmp_path, monkeypatch):
    def fail(self):
        raise FileNotFoundError(errno.ENOENT, "a builder's own mistake")
        yield

    monkeypatch.setattr(karate_club.KarateClubBuilder, "_generate_examples", fail)
    with pytest.raises(FileNotFoundError, match="a builder's own mistake"):
        karate_club.load(data_dir=tmp_path)
