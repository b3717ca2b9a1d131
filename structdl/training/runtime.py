"""A process and its system: compiled programs, freed memory, and who reads its output."""

import contextlib
import ctypes
import hashlib
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

# of glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Lets the process keep large freed blocks for its next arrays; whether it could be told.

    By default glibc hands each large block back to the system, which then maps and clears every
    page of the next one: on CPU two fifths of the time of a large aggregation (94 ms became 55).
    The process holds on to its largest use of memory in exchange. Elsewhere than on glibc nothing
    is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None:
        return False
    # one arena: those of other threads hold blocks of at most 64 MB
    settings = {_TRIM_THRESHOLD: 2**31 - 1, _MMAP_MAX: 0, _ARENA_MAX: 1}
    return all([mallopt(name, value) == 1 for name, value in settings.items()])


def keep_compiled_programs() -> None:
    """Turns on JAX's cache of compiled programs, where the user has not placed it himself.

    A folder for each kind of processor: a program compiled for another one might not run.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        cpu = Path("/proc/cpuinfo")
        features = cpu.read_text().split("\n\n")[0] if cpu.exists() else platform.processor()
        flags = [line for line in features.splitlines() if line.startswith(("flags", "Features"))]
        kind = hashlib.sha256(f"{platform.machine()} {flags}".encode()).hexdigest()[:8]
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "structdl" / f"jax-{kind}"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@contextlib.contextmanager
def while_somebody_reads() -> Iterator[None]:
    """Ends the process in silence where the reader of its output, `head` say, has seen enough."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        sys.exit(1)
