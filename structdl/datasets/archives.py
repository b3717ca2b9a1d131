"""Zips whose members are registered in place of their own bytes.

A host packs a repository anew when it is asked for it, and others pack the same files once more:
the bytes of such zips differ, those of the members do not.
"""

import fnmatch
import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from structdl.errors import InputError

# RuntimeError: a password is needed; NotImplementedError: another way of packing.
_UNREADABLE = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


class RawMembers(NamedTuple):
    """Files of a zip in any of its folders, registered together."""

    pattern: str  # of their names, or of the last parts of their paths; * stands for anything
    number: int
    size: int  # bytes of all of them
    sha256: str  # hexadecimal, of their bytes one after another, in the order of the names


class RawArchive(NamedTuple):
    """A public zip that a builder reads; members that are not registered are not looked at."""

    name: str  # inside the folder of its data set
    url: str
    size: int  # bytes, at most: no more than these are downloaded
    members: tuple[RawMembers, ...]


def fault_of_archive(path: Path, archive: RawArchive) -> str | None:
    """What is wrong with a zip, in words; None if it has the registered members."""
    try:
        with zipfile.ZipFile(path) as file:
            faults = [_fault(file, members) for members in archive.members]
    except FileNotFoundError:
        return "missing"
    except _UNREADABLE as error:
        return f"no zip that can be read ({error})"
    faults = [fault for fault in faults if fault]
    more = [f"and {len(faults) - 3} more"] if len(faults) > 3 else []
    return "; ".join(faults[:3] + more) or None


def read_members(path: Path, archive: RawArchive) -> Iterator[tuple[str, bytes]]:
    """Yields the registered members: names without folders, and contents; nothing is unpacked.

    Raises:
      InputError: the zip cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as file:
            for members in archive.members:
                for info in _find(file, members.pattern):
                    yield PurePosixPath(info.filename).name, file.read(info)
    except _UNREADABLE as error:
        raise InputError(f"{path}: no zip that can be read ({error})") from error


def _find(file: zipfile.ZipFile, pattern: str) -> list[zipfile.ZipInfo]:
    names = {info: PurePosixPath(info.filename).name for info in file.infolist()}
    if "/" in pattern:
        paths = {info: f"/{info.filename}" for info in names}
        found = [info for info in names if fnmatch.fnmatchcase(paths[info], f"*/{pattern}")]
    else:
        found = [info for info, name in names.items() if fnmatch.fnmatchcase(name, pattern)]
    return sorted(found, key=names.get)


def _fault(file: zipfile.ZipFile, members: RawMembers) -> str | None:
    found = _find(file, members.pattern)
    # stated sizes first: zipfile reads no more bytes of a member than it states
    counts = (len(found), sum(info.file_size for info in found))
    if counts != (members.number, members.size):
        return (
            f"{members.pattern}: found {counts[0]} files of {counts[1]} bytes, expected "
            f"{members.number} of {members.size}"
        )
    digest = hashlib.sha256()
    for info in found:
        digest.update(file.read(info))
    if digest.hexdigest() != members.sha256:
        return (
            f"{members.pattern}: altered, found sha256 {digest.hexdigest()}, expected "
            f"{members.sha256}"
        )
    return None
