"""Out of memory: refused before anything is allocated where that is known, else explained."""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

import jax

from structdl.errors import InputError

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50, "E": 2**60}
# NumPy: Unable to allocate 3.64 TiB for an array; XLA: Out of memory allocating 4000 bytes, or
# Out of memory while trying to allocate 37.25GiB
_ASKED = re.compile(r"allocat(?:e|ing) ([\d.]+) ?([KMGTPE]?)i?(?:B|bytes)")
_XLA = ("RESOURCE_EXHAUSTED", "Out of memory")


@contextlib.contextmanager
def naming_memory() -> Iterator[None]:
    """Turns an allocation that failed into an InputError that says how much was asked for."""
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        text = str(error)
        if not isinstance(error, MemoryError) and not any(words in text for words in _XLA):
            raise
        asked = _ASKED.search(text)
        size = in_bytes(float(asked[1]) * _UNITS[asked[2]]) if asked else "an unknown size"
        raise InputError(
            f"out of memory: {size} was asked for, and {_of_this_machine()}: lower the sizes under "
            "--model, --batch-size, --seeds-per-call or the size of the data."
        ) from error


def require_memory(state: Any, num_devices: int = 1) -> None:
    """Refuses a run whose state alone is larger than the memory of its devices.

    Args:
      state: arrays, or their shapes.
      num_devices: how many devices may divide it among them.

    Raises:
      InputError: it is larger, with the number of bytes.
    """
    needed = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    on_host = _device_memory() is None  # the devices of a process share its host's memory
    if needed > memory() * (jax.process_count() if on_host else num_devices):
        raise InputError(
            f"the parameters and the optimizer's state of the seeds that train together would take "
            f"{in_bytes(needed)}, and {_of_this_machine()}: lower the sizes under --model, or "
            "--seeds-per-call."
        )


def memory() -> int:
    """Bytes of memory of a device, or of the machine where its devices have none of their own."""
    return _device_memory() or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def in_bytes(size: int | float) -> str:
    """Formats a number of bytes.

    >>> in_bytes(2.5e10), in_bytes(4e15), in_bytes(4000)
    ('25 GB', '4,000,000 GB', '4 kB')
    """
    units = {"GB": 1e9, "MB": 1e6, "kB": 1e3, "bytes": 1}
    unit = next((unit for unit, least in units.items() if size >= least), "bytes")
    number = size / units[unit]
    return f"{number:,.0f} {unit}" if number >= 10 else f"{number:.2g} {unit}"


def _device_memory() -> int | None:
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")


def _of_this_machine() -> str:
    owner = "this machine" if _device_memory() is None else "each device"
    return f"{owner} has {in_bytes(memory())}"
