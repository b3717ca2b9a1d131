"""A trained function as one file, that runs where neither its code nor its parameters are at hand.

The file holds the compiled form of the function, StableHLO, with all arrays that it closes over,
its parameters above all; `load_function` needs JAX alone.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from jax import export

from structdl.errors import InputError, require_known
from structdl.files import write_whole

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def symbolic(*specs: tuple[str, Any]) -> list[jax.ShapeDtypeStruct]:
    """Shapes with sizes that are known when the function is called, (shape, dtype) of each array.

    One name stands for one size in all of them. What was exported for a name is called with any
    size of 1 or more.

    >>> symbolic(("batch, 64, 1", "float32"), ("batch", "int32"))
    [ShapeDtypeStruct(shape=(batch, 64, 1), dtype=float32),
     ShapeDtypeStruct(shape=(batch,), dtype=int32)]

    Raises:
      InputError: a shape that is not of names and numbers.
    """
    scope = export.SymbolicScope()
    try:
        return [
            jax.ShapeDtypeStruct(export.symbolic_shape(shape, scope=scope), dtype)
            for shape, dtype in specs
        ]
    except ValueError as error:
        raise InputError(
            f"a shape is to be names and numbers, as in 'batch, 64': {error}"
        ) from error


def save_function(
    function: Callable,
    arguments: Sequence[Any],
    path: Path,
    *,
    platforms: Sequence[str] | None = None,
) -> None:
    """Writes a function of arrays to a file, whole or not at all.

    Args:
      function: pure; `lambda x: model.apply({"params": params}, x, train=False)`, say.
      arguments: their shapes and dtypes: those of `symbolic`, or arrays.
      path: of the file.
      platforms: where it shall run, of "cpu", "cuda", "rocm" and "tpu"; None means what this
        process computes on.

    Raises:
      InputError: the file cannot be written, the function needs a size that is symbolic, or there
        is no such platform.
    """
    for platform in platforms or ():
        require_known("platform", platform, PLATFORMS)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments)
    try:
        exported = export.export(jax.jit(function), platforms=platforms)(*shapes)
    except (jax.errors.InconclusiveDimensionOperation, TypeError) as error:
        if all(isinstance(size, int) for leaf in jax.tree.leaves(shapes) for size in leaf.shape):
            raise
        raise InputError(
            f"this function asks for a size that is symbolic ({str(error).splitlines()[0]}): give "
            "a number in its place."
        ) from error
    try:
        write_whole(path, bytes(exported.serialize()))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error}") from error


def load_function(path: Path) -> Callable:
    """Reads a function that `save_function` wrote; it is compiled once for each shape it is given.

    Raises:
      InputError: there is no such file, or it holds something else. The function itself raises
        InputError where it is given arrays of other shapes or dtypes than it was exported for.
    """
    try:
        exported = export.deserialize(bytearray(path.read_bytes()))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}") from error
    except Exception as error:  # of flatbuffers, which has no error of its own
        raise InputError(f"{path} holds no exported function, or a damaged one") from error
    compiled = jax.jit(exported.call)

    def call(*arguments):
        try:
            return compiled(*arguments)
        except (ValueError, TypeError) as error:
            wanted = ", ".join(map(str, jax.tree.leaves(exported.in_avals)))
            raise InputError(f"{path} was exported for {wanted}: {error}") from error

    return call
