"""From a TFDS builder class to a prepared builder, without TensorFlow and without surprises.

A set is prepared once in a data folder, and from then on read there without raw files or network.
Raw files come from a given folder, or else from their public URLs; either way their size and
SHA-256 are compared with the registered ones before TFDS sees them.

Importing TFDS takes 0.2 to 0.4 s: import the modules of this package where data is loaded.
"""

import contextlib
import contextvars
import errno
import hashlib
import http.client
import io
import logging
import os
import shutil
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import filelock
import tensorflow_datasets as tfds
from tqdm import tqdm

from structdl.datasets.archives import RawArchive, fault_of_archive
from structdl.errors import InputError

ANSWER_SECONDS = 8.0  # how long a server may be silent, the look-up of its name included

# What another folder, more room or other permissions mend. TFDS and array_record keep the words and
# lose the number, or have words of their own.
_FOLDER_ERRORS = [
    "Not enough disk space",
    *map(os.strerror, (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)),
]


_NOT_TO_PREPARE_IN = contextvars.ContextVar("_NOT_TO_PREPARE_IN", default=None)


class _DownloadError(Exception):
    """A URL does not answer, or not with the registered file."""


class RawFile(NamedTuple):
    """A public file that a builder reads, as registered with it."""

    name: str  # inside the folder of its data set
    url: str
    size: int  # bytes
    sha256: str  # hexadecimal


def prepare(
    builder_class: type[tfds.core.DatasetBuilder],
    config: str | tfds.core.BuilderConfig | None = None,
    *,
    raw_files: Sequence[RawFile | RawArchive] = (),
    raw_dir: str | os.PathLike | None = None,
    data_dir: str | os.PathLike | None = None,
) -> tfds.core.DatasetBuilder:
    """Returns a builder whose data is prepared as array_record, ready for `as_data_source`.

    A prepared set is returned at once. Otherwise it is prepared under a file lock: of two processes
    the second waits, and then finds the work done.

    Args:
      builder_class: reads its raw files by `dl_manager.download(url)` (see `url_infos`), and its
        archives under `dl_manager.manual_dir`.
      config: one of BUILDER_CONFIGS, by name or itself; None for a builder that has none.
      raw_files: the files that this configuration reads.
      raw_dir: takes the place of the network; holds `<builder name>/<raw file name>`. None:
        STRUCTDL_RAW_DIR, or where that is not set, the raw files are downloaded.
      data_dir: where sets are prepared. None: see `default_data_dir`.

    Raises:
      InputError: a raw file is missing or is not the registered one, a download fails, or the data
        folder cannot be written, or must not be (see `without_preparing_in`).
    """
    data_path = _absolute(data_dir or default_data_dir())
    with _explain_folder_errors(data_path):
        builder = _build(builder_class, data_path, config)
        if _is_prepared(builder):
            return builder
        if data_path == _NOT_TO_PREPARE_IN.get():
            raise InputError(
                f"{builder.name} is not prepared in {data_path}, the data folder that the run's "
                "config.json names: give load_run the data_dir to prepare it in."
            )
        with _lock(builder.name, data_path):
            if _is_prepared(builder):  # by another process while this one waited
                return _build(builder_class, data_path, config)
            _remove_leftovers(builder)
            if raw_dir := raw_dir or os.environ.get("STRUCTDL_RAW_DIR"):
                folder = Path(raw_dir).expanduser().absolute() / builder.name
                check_raw_files(raw_files, folder)
            else:
                folder = data_path / "downloads" / builder.name
                _download_missing(raw_files, folder)
            _generate(builder, folder, data_path / "downloads")
    return builder


@contextlib.contextmanager
def without_preparing_in(data_dir: str | os.PathLike | None) -> Iterator[None]:
    """Lets `prepare` only read the data folder `data_dir` within the block; None allows any.

    For a folder that is named by a config file rather than by the user.
    """
    token = _NOT_TO_PREPARE_IN.set(_absolute(data_dir) if data_dir else None)
    try:
        yield
    finally:
        _NOT_TO_PREPARE_IN.reset(token)


def _absolute(path: str | os.PathLike) -> Path:
    return Path(path).expanduser().absolute()


def default_data_dir() -> Path:
    """STRUCTDL_DATA_DIR, or else structdl in the user's cache folder (XDG_CACHE_HOME, ~/.cache)."""
    if given := os.environ.get("STRUCTDL_DATA_DIR"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "structdl"


def url_infos(raw_files: Sequence[RawFile]) -> dict[str, tfds.download.checksums.UrlInfo]:
    """The registered facts in TFDS's form, for a builder's `url_infos`.

    With them `dl_manager.download(url)` takes the file that `prepare` has checked, and `tfds.load`
    works on its own as well.
    """
    return {
        raw_file.url: tfds.download.checksums.UrlInfo(
            size=raw_file.size, checksum=raw_file.sha256, filename=raw_file.name
        )
        for raw_file in raw_files
    }


def check_raw_files(raw_files: Sequence[RawFile | RawArchive], folder: Path) -> None:
    """Compares the files in a folder with the registered ones.

    Raises:
      InputError: lists every file that is missing, truncated or altered, with its public URL.
    """
    faults = {raw_file: _fault(folder / raw_file.name, raw_file) for raw_file in raw_files}
    lines = [f"  {file.name}: {fault}; from {file.url}" for file, fault in faults.items() if fault]
    if lines:
        raise InputError(
            f"{len(lines)} of {len(raw_files)} raw files in {folder} cannot be used:\n"
            + "\n".join(lines)
            + f"\nPut the registered files into {folder} (--data.raw-dir or STRUCTDL_RAW_DIR names"
            " the folder above it), or name no raw folder to have them downloaded."
        )


def _fault(path: Path, raw_file: RawFile | RawArchive) -> str | None:
    """What is wrong with a file, in words; None if it is the registered one."""
    if isinstance(raw_file, RawArchive):
        return fault_of_archive(path, raw_file)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != raw_file.size:
                return f"found {size} bytes, expected {raw_file.size}"
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return f"missing, expected {raw_file.size} bytes"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if sha256 != raw_file.sha256:
        return f"altered, found sha256 {sha256}, expected {raw_file.sha256}"
    return None


def _download_missing(raw_files: Sequence[RawFile | RawArchive], folder: Path) -> None:
    """Brings every registered file into `folder`; those already there are kept."""
    missing = [raw_file for raw_file in raw_files if _fault(folder / raw_file.name, raw_file)]
    try:
        for raw_file in missing:
            _download(raw_file, folder / raw_file.name)
    except _DownloadError as error:
        names = ", ".join(f"DIR/{folder.name}/{raw_file.name}" for raw_file in raw_files)
        raise InputError(
            f"{raw_file.url} cannot be downloaded: {error}. Without the network, get the files by"
            f" other means and name their folder with --data.raw-dir DIR or STRUCTDL_RAW_DIR=DIR:"
            f" {names}"
        ) from error


def _download(raw_file: RawFile | RawArchive, target: Path) -> None:
    """Fetches a file; it gets its name only once it is seen to be the registered one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".part")
    # disable=None: no bar where stderr is not a terminal.
    total = raw_file.size if isinstance(raw_file, RawFile) else None
    bar = tqdm(total=total, desc=raw_file.name, unit="B", unit_scale=True, disable=None)
    try:
        with partial.open("wb") as file, bar:
            for chunk in _chunks(raw_file):
                file.write(chunk)
                bar.update(len(chunk))
        if fault := _fault(partial, raw_file):
            raise _DownloadError(f"it answers with another file ({fault})")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _chunks(raw_file: RawFile | RawArchive) -> Iterator[bytes]:
    """What a URL answers, a piece at a time, and at most one byte more than registered."""
    left = raw_file.size + 1
    try:
        with _open_url(raw_file.url) as response:
            while chunk := response.read(min(left, 1 << 16)):
                left -= len(chunk)
                yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise _DownloadError(str(error) or type(error).__name__) from error


def _open_url(url: str):
    """Opens a URL, or raises an OSError before long."""
    request = urllib.request.Request(url, headers={"User-Agent": "structdl"})
    answers = []

    def ask():
        try:
            answers.append(urllib.request.urlopen(request, timeout=ANSWER_SECONDS))
        except Exception as error:  # raised below, in the thread that asked
            answers.append(error)

    # In a thread, since urlopen's timeout covers neither the name's look-up nor further addresses.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    answer = answers[0] if answers else TimeoutError(f"no answer in {ANSWER_SECONDS:g} seconds")
    if isinstance(answer, urllib.error.HTTPError):
        answer.close()
    if isinstance(answer, Exception):
        raise answer
    return answer


@contextlib.contextmanager
def _lock(name: str, data_path: Path) -> Iterator[None]:
    """Holds the file lock of a data set, and says so where it has to wait for it."""
    folder = data_path / ".locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _folder_error(data_path, error) from error
    lock = filelock.FileLock(folder / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"waiting for another process to prepare {name} in {data_path}", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(
    builder_class: type[tfds.core.DatasetBuilder],
    data_path: Path,
    config: str | tfds.core.BuilderConfig | None,
) -> tfds.core.DatasetBuilder:
    # TFDS warns of every configuration that is not among the class's own.
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return builder_class(data_dir=data_path, config=config)
    finally:
        logger.setLevel(level)


def _is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
    # TFDS logs a warning about a folder that is not there.
    return builder.data_path.exists() and builder.is_prepared()


def _remove_leftovers(builder: tfds.core.DatasetBuilder) -> None:
    """Removes what killed preparations left behind; call it under the lock.

    Raises:
      InputError: the set's own folder is there, but TFDS does not take it for a prepared set.
    """
    path = builder.data_path
    for leftover in path.parent.glob("*incomplete*"):
        shutil.rmtree(leftover)
    if path.exists():
        raise InputError(f"{path} is no prepared data set: move it away or choose another folder")


def _generate(builder: tfds.core.DatasetBuilder, raw_folder: Path, download_folder: Path) -> None:
    """Runs TFDS's preparation, with its progress bars on a terminal only."""
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    download_config = tfds.download.DownloadConfig(
        manual_dir=raw_folder, force_checksums_validation=True, try_download_gcs=False
    )
    # TFDS prints sizes that it does not know, and where the data went.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(
            download_dir=download_folder,
            download_config=download_config,
            file_format="array_record",
        )


@contextlib.contextmanager
def _explain_folder_errors(data_path: Path) -> Iterator[None]:
    """Turns the errors of a folder without room or permission into InputError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if any(words in str(error) for words in _FOLDER_ERRORS):
            raise _folder_error(data_path, error) from error
        raise


def _folder_error(data_path: Path, error: Exception) -> InputError:
    return InputError(
        f"data sets cannot be prepared in {data_path}: {error}. Make room or give permission there,"
        " or choose another folder with --data.dir DIR or STRUCTDL_DATA_DIR"
    )
