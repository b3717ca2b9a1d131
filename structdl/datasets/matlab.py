"""Reader of MATLAB files of version 5 with numeric matrices and cell arrays of these.

scipy.io.loadmat recurses into nested cells until the C stack overflows, allocates whatever size a
header states, and unpacks compressed elements without a bound. This reader goes one level deep, and
its memory is proportional to the unpacked bytes, which are bounded.

Reference: MathWorks, "MAT-File Format", version 5.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from structdl.errors import InputError

_HEADER_BYTES = 128
_MATRIX, _COMPRESSED = 14, 15
_CELL, _DOUBLE = 1, 6
_CLASSES = (
    *("cell", "struct", "object", "char", "sparse", "double", "single"),
    *("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
)
_COMPLEX = 0x0800  # a flag beside the class
_DTYPES = dict(
    zip(
        (1, 2, 3, 4, 5, 6, 7, 9, 12, 13),
        ("<i1", "<u1", "<i2", "<u2", "<i4", "<u4", "<f4", "<f8", "<i8", "<u8"),
        strict=True,
    )
)
_NUM_DIMENSIONS = 32


class Matrix(NamedTuple):
    """Variable of a file, or an element of a cell array."""

    kind: str  # one of _CLASSES
    shape: tuple[int, ...]
    values: np.ndarray | None  # numbers in their storage dtype; None for other kinds
    cells: "list[Matrix]"  # of a cell array, column by column; cells inside cells are not read


_EMPTY = Matrix("double", (0, 0), np.zeros((0, 0)), [])


def read_matrices(path: Path, limit: int) -> dict[str, Matrix]:
    """Returns the variables by name, of a little-endian file that unpacks to at most `limit` bytes.

    Raises:
      InputError: not such a file.
    """
    try:
        content = path.read_bytes()
        if content[124:_HEADER_BYTES] != b"\0\1IM":
            raise ValueError("the header is not that of version 5")
        matrices = [
            _matrix(element, has_cells=True)
            for kind, element in _unpacked(memoryview(content)[_HEADER_BYTES:], limit)
            if kind == _MATRIX
        ]
    except (OSError, ValueError, struct.error, zlib.error) as error:
        raise InputError(f"{path}: not a readable MATLAB file ({error})") from error
    return dict(matrices)


def _unpacked(content: memoryview, limit: int) -> Iterator[tuple[int, memoryview]]:
    """Yields the elements of a file, with the compressed ones unpacked."""
    for kind, element in _elements(content):
        if kind != _COMPRESSED:
            yield kind, element
            continue
        unpacker = zlib.decompressobj()
        unpacked = unpacker.decompress(element, limit + 1)
        limit -= len(unpacked)
        if limit < 0:
            raise ValueError("it unpacks to too many bytes")
        if not unpacker.eof:
            raise ValueError("a compressed element is cut off")
        yield from _elements(memoryview(unpacked))


def _elements(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yields type and bytes of each element; all but compressed ones are padded to 8 bytes."""
    start = 0
    while start < len(content):
        kind, size = struct.unpack_from("<II", content, start)
        start += 8
        if kind >> 16:  # small format: type and size share four bytes, and the data has four
            kind, size, start = kind & 0xFFFF, kind >> 16, start - 4
        end = start + size
        if end > len(content):
            raise ValueError(f"an element of {size} bytes where {len(content) - start} are left")
        yield kind, content[start:end]
        start = end if kind == _COMPRESSED else end + -end % 8


def _matrix(content: memoryview, has_cells: bool) -> tuple[str, Matrix]:
    """Returns name and value; `has_cells` says whether the cells of a cell array are read."""
    elements = _elements(content)
    flags, shape, name = (_numbers(elements) for _ in range(3))
    if (flags.dtype, flags.size, shape.dtype, name.dtype.kind) != ("<u4", 2, "<i4", "i"):
        raise ValueError("a matrix without flags, shape and name")
    number = int(flags[0]) & 0xFF
    if not 1 <= number <= len(_CLASSES) or flags[0] & _COMPLEX:
        raise ValueError(f"a matrix of flags {flags[0]}")
    if shape.size > _NUM_DIMENSIONS or (shape < 0).any():
        raise ValueError(f"a matrix of shape {shape[:_NUM_DIMENSIONS].tolist()}")
    kind, shape = _CLASSES[number - 1], tuple(shape.tolist())
    values, cells = None, []
    if number >= _DOUBLE:
        values = _numbers(elements)
        if values.size != math.prod(shape):
            raise ValueError(f"{values.size} numbers in a matrix of shape {shape}")
        values = values.reshape(shape, order="F")
    elif number == _CELL and has_cells:
        cells = [_cell(*element) for element in elements]
        if len(cells) != math.prod(shape):
            raise ValueError(f"{len(cells)} cells in a matrix of shape {shape}")
    return bytes(name).decode("ascii"), Matrix(kind, shape, values, cells)


def _cell(kind: int, content: memoryview) -> Matrix:
    if kind != _MATRIX:
        raise ValueError(f"a cell of type {kind}")
    return _matrix(content, has_cells=False)[1] if len(content) else _EMPTY


def _numbers(elements: Iterator[tuple[int, memoryview]]) -> np.ndarray:
    """Returns the next element as an array."""
    kind, content = next(elements, (0, b""))
    if kind not in _DTYPES:
        raise ValueError(f"numbers of type {kind}")
    return np.frombuffer(content, _DTYPES[kind])
