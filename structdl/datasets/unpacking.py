"""Unpacking with a bound on the result: one megabyte of gzip or zip can hold gigabytes."""

import contextlib
import gzip
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from structdl.errors import InputError

# RuntimeError: a password is needed; NotImplementedError, one of them: an unknown compression;
# ValueError and struct.error: names that are not text, and sizes that cannot be.
_UNREADABLE = (
    *(OSError, EOFError, RuntimeError, ValueError),
    *(struct.error, zipfile.BadZipFile, zlib.error),
)


def read_gzip(path: Path, limit: int) -> bytes:
    """Unpacks a gzipped file of at most `limit` bytes.

    Raises:
      InputError: not a gzipped file, or one that unpacks to more bytes.
    """
    try:
        with gzip.open(path) as file:
            content = file.read(limit + 1)
    except _UNREADABLE as error:
        raise InputError(f"{path}: not a readable gzipped file ({error})") from error
    if len(content) > limit:
        raise InputError(f"{path}: unpacks to more than {limit} bytes, which is the limit")
    return content


@contextlib.contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens a zip; whatever fails in the block because of its bytes becomes an InputError."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except InputError:
        raise
    except _UNREADABLE as error:
        raise InputError(f"{path}: not a readable zip ({error})") from error


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> bytes:
    """Unpacks a member of at most `limit` bytes; zipfile reads no more than the stated size.

    Raises:
      InputError: a larger member, or one packed by bzip2 or LZMA, which no public archive here is:
        their decoders have no bound on memory.
    """
    where = f"{archive.filename}: member {member.filename}"
    if member.file_size > limit:
        raise InputError(f"{where} unpacks to {member.file_size} bytes, the limit is {limit}")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{where} is neither stored nor deflated: pack it again")
    return archive.read(member)
