"""Zips whose members are registered in place of their own bytes.

A host packs a repository anew when it is asked for it, and others pack the same files once more:
the bytes of such zips differ, those of the members do not.
"""

import fnmatch
import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from structdl.datasets.unpacking import open_zip, read_member
from structdl.errors import InputError


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
        with open_zip(path) as file:
            faults = [_fault(file, members) for members in archive.members]
    except InputError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return "missing"
        return str(error).removeprefix(f"{path}: ")
    faults = [fault for fault in faults if fault]
    more = [f"and {len(faults) - 3} more"] if len(faults) > 3 else []
    return "; ".join(faults[:3] + more) or None


def read_members(path: Path, archive: RawArchive) -> Iterator[tuple[str, bytes]]:
    """Yields the registered members: names without folders, and contents; no file is written.

    Raises:
      InputError: the zip cannot be read, or the number or size of its members is not as registered.
    """
    with open_zip(path) as file:
        for members in archive.members:
            infos = _find(file, members.pattern)
            if fault := _fault_of_sizes(infos, members):
                raise InputError(f"{path}: {fault}")
            for info in infos:
                yield PurePosixPath(info.filename).name, read_member(file, info, members.size)


def _find(file: zipfile.ZipFile, pattern: str) -> list[zipfile.ZipInfo]:
    names = {info: PurePosixPath(info.filename).name for info in file.infolist()}
    if "/" in pattern:
        paths = {info: f"/{info.filename}" for info in names}
        found = [info for info in names if fnmatch.fnmatchcase(paths[info], f"*/{pattern}")]
    else:
        found = [info for info, name in names.items() if fnmatch.fnmatchcase(name, pattern)]
    return sorted(found, key=names.get)


def _fault(file: zipfile.ZipFile, members: RawMembers) -> str | None:
    infos = _find(file, members.pattern)
    # Stated sizes first: no more bytes than these are unpacked.
    if fault := _fault_of_sizes(infos, members):
        return fault
    digest = hashlib.sha256()
    for info in infos:
        digest.update(read_member(file, info, members.size))
    if digest.hexdigest() != members.sha256:
        return (
            f"{members.pattern}: altered, found sha256 {digest.hexdigest()}, expected "
            f"{members.sha256}"
        )
    return None


def _fault_of_sizes(infos: list[zipfile.ZipInfo], members: RawMembers) -> str | None:
    number, size = len(infos), sum(info.file_size for info in infos)
    if (number, size) == (members.number, members.size):
        return None
    return (
        f"{members.pattern}: found {number} files of {size} bytes, expected {members.number} of "
        f"{members.size}"
    )
