"""Reader of pickles from untrusted sources, which builds plain data only.

A pickle is a program for a stack machine. A subclass of pickle.Unpickler with its own find_class
limits what the program may name but not what it may do: the BUILD opcode passes any state to the C
code of NumPy's dtypes and arrays, which takes raw bytes for pointers where a dtype has an object
field, and a single PUT opcode can allocate a memo of gigabytes. The machine here has the opcodes
for data and no others; pickletools only splits the bytes into opcodes and arguments. Names are
looked up in a table and never imported, the memo is a dict, and arrays are built from checked
parts.
"""

import io
import math
import os
import pickletools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from structdl.errors import InputError

_DTYPES = {
    name: np.dtype(name)
    for name in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
}
_NUM_DIMENSIONS = 32
_LARGEST_EMPTY = 1 << 20  # product of the other sizes of an array that has a size of 0


class Global(NamedTuple):
    """Name of a function or class in a pickle, such as "numpy ndarray"."""

    name: str


class Unbuilt:
    """Result of a constructor whose value is `build(state)`, once the pickle gives the state.

    Later references to it in the pickle give the value.
    """

    def __init__(self, build: Callable[[Any], Any]):
        self.build, self.value = build, self


def read_pickle(
    file: io.BufferedIOBase,
    where: str,
    constructors: Mapping[str, Callable | None] | None = None,
    *,
    persistent_load: Callable[[Any], Any] | None = None,
) -> Any:
    """Reads one pickle of protocol 2 to 5 and leaves the file right behind it.

    The value consists of numbers, strings, bytes, tuples, lists, dicts with int or str keys, and
    arrays of plain numbers or bools. 8-bit strings of Python 2 are decoded as Latin-1. The arrays
    together have no more bytes than the rest of the file. A list or dict may contain the same
    object many times, or itself: code that copies the contents must bound the total.

    Args:
      file: open and seekable; other data may follow the pickle.
      where: names the file in error messages.
      constructors: functions that the pickle may call in addition to NumPy's, keyed by module and
        name with a space between them, such as "collections OrderedDict". Their arguments are
        unchecked; they should raise ValueError or TypeError for wrong ones and not copy large ones,
        which a pickle can pass many times. None allows the name as an argument, not as a call.
        As an argument, every name is a `Global`.
      persistent_load: maps a persistent id to its value; None refuses persistent ids.

    Raises:
      InputError: not a pickle, or one that contains anything else.
    """
    source = _Bounded(file)
    machine = _Machine(_NUMPY | dict(constructors or {}), persistent_load, source.size)
    try:
        # pickletools takes backslashes in a name for escapes, and Python warns of unknown ones.
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            for opcode, argument, _ in pickletools.genops(source):
                if opcode.name not in _OPCODES:
                    raise ValueError(f"opcode {opcode.name} is not allowed")
                _OPCODES[opcode.name](machine, argument)
        return machine.stack.pop()
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise InputError(f"{where}: not a readable pickle ({error})") from error


class _Bounded:
    """File from which no read asks for more bytes than it has, since stated lengths may lie."""

    def __init__(self, file: io.BufferedIOBase):
        start = file.tell()
        self.size = file.seek(0, os.SEEK_END) - start
        file.seek(start)
        self.file, self.readline = file, file.readline

    def read(self, size: int) -> bytes:
        return self.file.read(min(size, self.size))


class _Machine:
    """Stack, stacks below each mark, and memo; methods are opcodes or parts of them."""

    def __init__(self, constructors: Mapping, persistent_load: Callable | None, size: int):
        self.constructors, self.persistent_load = constructors, persistent_load
        self.bytes_left = size  # of arrays
        self.stack, self.below, self.memo = [], [], {}

    def mark(self, _: None) -> None:
        self.below.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list:
        items, self.stack = self.stack, self.below.pop()
        return items

    def push(self, argument: Any) -> None:
        self.stack.append(argument)

    def put(self, place: int | None) -> None:
        self.memo[len(self.memo) if place is None else place] = self.stack[-1]

    def get(self, place: int) -> None:
        value = self.memo[place]
        self.stack.append(value.value if type(value) is Unbuilt else value)

    def push_global(self, name: str) -> None:
        if name not in self.constructors:
            raise ValueError(f"it names {name.replace(' ', '.')}, which is not allowed")
        self.stack.append(Global(name))

    def push_stack_global(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        _require(type(name) is type(module) is str, "a name that is not a string")
        self.push_global(f"{module} {name}")

    def call(self, _: None) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        _require(type(function) is Global and type(arguments) is tuple, "a call of no function")
        constructor = self.constructors[function.name]
        _require(constructor is not None, f"a call of {function.name}")
        self.stack.append(constructor(*arguments))

    def build(self, _: None) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is dict and type(state) is dict:
            return  # attributes of an OrderedDict, such as torch's _metadata, are dropped
        _require(type(target) is Unbuilt and target.value is target, "a state of no object")
        self.stack[-1] = target.value = target.build(state)
        self.bytes_left -= getattr(target.value, "nbytes", 0)
        _require(self.bytes_left >= 0, "arrays larger than the file")

    def tuple_of(self, number: int) -> None:
        _require(len(self.stack) >= number, "a tuple of too few values")
        self.stack[-number:] = [tuple(self.stack[-number:])]

    def extend(self, values: list) -> None:
        _require(type(self.stack[-1]) is list, "an item of no list")
        self.stack[-1].extend(values)

    def update(self, items: list) -> None:
        # Hashing a tuple of references to nested tuples takes exponential time.
        keys, target = items[::2], self.stack[-1]
        _require(type(target) is dict and len(items) % 2 == 0, "an item of no dict")
        _require({*map(type, keys)} <= {int, str}, "a key that is neither an int nor a string")
        target.update(zip(keys, items[1::2], strict=True))

    def load_persistent(self, _: None) -> None:
        _require(self.persistent_load is not None, "a persistent id")
        self.stack.append(self.persistent_load(self.stack.pop()))


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(f"it has {otherwise}")


def _pop_two(machine: _Machine) -> list:
    value, key = machine.stack.pop(), machine.stack.pop()
    return [key, value]


_LITERALS = (
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINSTRING", "BINSTRING"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
    *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
)
_OPCODES = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda machine, _: None),
    **dict.fromkeys(_LITERALS, _Machine.push),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "MARK": _Machine.mark,
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "APPEND": lambda machine, _: machine.extend([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.pop_mark()),
    "SETITEM": lambda machine, _: machine.update(_pop_two(machine)),
    "SETITEMS": lambda machine, _: machine.update(machine.pop_mark()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.get),
    "GLOBAL": _Machine.push_global,
    "STACK_GLOBAL": _Machine.push_stack_global,
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Machine.call),
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.load_persistent,
}


def _dtype(name: Any, align: Any, copy: Any) -> Unbuilt:
    """Plain dtype; the state gives its byte order."""
    # The type comes first: see the keys of dicts above.
    _require(type(name) is str and name in _DTYPES, "a dtype that is not a plain number or bool")

    def build(state: Any) -> np.dtype:
        _require(type(state) is tuple and len(state) == 8, "a dtype's state of another length")
        version, order, *rest = state
        plain = type(version) is int and version == 3 and type(order) is str and order in "<>|"
        numbers = all(type(value) in (int, type(None)) for value in rest)
        plain = plain and numbers and rest == [None, None, None, -1, -1, 0]
        _require(plain, "a dtype that is not a plain number or bool")
        return _DTYPES[name].newbyteorder(order)

    return Unbuilt(build)


def _reconstruct(kind: Any, shape: Any, typecode: Any) -> Unbuilt:
    """Array; the state gives its shape, dtype and bytes."""
    _require(kind == Global("numpy ndarray"), "an array of another class")
    return Unbuilt(_array)


def _array(state: Any) -> np.ndarray:
    _require(type(state) is tuple and len(state) == 5, "an array's state of another length")
    _, shape, dtype, is_fortran, content = state
    _require(isinstance(dtype, np.dtype), "an array without a dtype")
    _require(type(content) in (str, bytes), "an array without bytes")
    is_shape = type(shape) is tuple and len(shape) <= _NUM_DIMENSIONS
    is_shape = is_shape and all(type(size) is int and size >= 0 for size in shape)
    _require(is_shape, "an array's shape that is not a tuple of sizes")
    others = math.prod(size for size in shape if size)
    _require(0 not in shape or others <= _LARGEST_EMPTY, f"an empty array with {others} rows")
    content = content.encode("latin-1") if type(content) is str else content
    size = math.prod(shape) * dtype.itemsize
    _require(len(content) == size, f"an array of {size} bytes in {len(content)}")
    array = np.frombuffer(content, dtype)
    _require(dtype.kind != "b" or max(content, default=0) <= 1, "a bool beyond 1")
    # A copy, since frombuffer's arrays are read-only.
    return array.reshape(shape, order="F" if is_fortran is True else "C").copy(order="K")


_NUMPY = {
    "numpy ndarray": None,
    "numpy dtype": _dtype,
    "numpy.core.multiarray _reconstruct": _reconstruct,
    "numpy._core.multiarray _reconstruct": _reconstruct,
}
