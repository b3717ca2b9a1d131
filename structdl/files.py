"""Files that are written whole or not at all, and checksums of a folder's files.

No file here is written through a symbolic link at its place: new content goes to a fresh name,
which then takes the place of whatever is there.
"""

import contextlib
import errno
import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from structdl.errors import InputError

PART = ".part"  # suffix of what is being written, and of what a killed process left of it
CHECKSUMS = "checksums.json"


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all.

    Raises:
      OSError: there is no room, no permission, or a folder at `path`.
    """
    part = _fresh_name(path)
    try:
        with part.open("xb") as file:  # fails, rather than follow, if the name is taken
            file.write(content.encode() if isinstance(content, str) else content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def fill_whole(folder: Path, *, within: Path | None = None) -> Iterator[Path]:
    """Yields a fresh folder, and moves its files into `folder` when the block has ended.

    Each file replaces its namesake; there may be no subfolders. If the block raises, `folder` stays
    as it was.

    Args:
      within: where the fresh folder is made, on the same disk; None: beside `folder`.

    Raises:
      OSError: the file system refuses.
    """
    part = _fresh_name((within or folder.parent) / folder.name)
    part.mkdir()
    try:
        yield part
        folder.mkdir(exist_ok=True)
        for file in part.iterdir():
            file.replace(folder / file.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def append(path: Path, text: str) -> None:
    """Appends to a file, which is made if there is none.

    Raises:
      OSError: the file system refuses, or `path` is a symbolic link.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a symbolic link, which is not followed", str(path))
    with path.open("a") as file:
        file.write(text)


def remove(path: Path) -> None:
    """Removes a file, a link (not its target), or a folder with its content, if there is one.

    A folder loses its name first, so that half of it is never found under that name.

    Raises:
      OSError: it cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        unnamed = path if path.suffix == PART else path.replace(_fresh_name(path))
        shutil.rmtree(unnamed)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes a value as JSON, whole or not at all."""
    write_whole(path, json.dumps(value, indent=2, default=str) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
      InputError: it is missing, cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path.parent} is not the workdir of a run: no {path.name}.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested without end
        raise InputError(f"{path} is not JSON ({error}); was it edited by hand?") from None


def write_checksums(folder: Path) -> None:
    """Writes checksums.json into a folder: the SHA-256 of every file below it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = {path.relative_to(folder).as_posix(): _sha256(path) for path in files}
    write_json(folder / CHECKSUMS, sums)


def altered_file(folder: Path) -> str | None:
    """The first file that is not as `write_checksums` saw it, or None; None without checksums."""
    if not (folder / CHECKSUMS).exists():
        return None
    try:
        sums = dict(read_json(folder / CHECKSUMS))
    except (InputError, TypeError, ValueError):
        return CHECKSUMS
    for name, sha256 in sums.items():
        path = folder / name
        if not path.is_file() or _sha256(path) != sha256:
            return name
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fresh_name(path: Path) -> Path:
    """A name beside `path` that nobody can have foreseen, and that `PART` marks as unfinished."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}{PART}")
