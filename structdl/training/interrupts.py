"""Ctrl-C at any moment of a program: a few words and the end, in place of tracebacks.

A KeyboardInterrupt that is raised inside a library's import may be wrapped, ignored or printed by
that library, and one that is raised while Python exits is printed: there the signal ends the
process instead. In between, a callback of the garbage collector may print and swallow it; then it
is raised again.
"""

import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

EXIT_CODE = 130  # what a shell reports of a program that SIGINT ended
AGAIN_AFTER = 0.01  # seconds


def leave_on_interrupt() -> None:
    """Lets SIGINT end the process at once, except within `interruptible`.

    A handler that is not Python's own, or a signal that is ignored, is left alone.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Lets SIGINT raise KeyboardInterrupt, again where a callback has swallowed it."""
    if not _leaves_on_interrupt():
        yield
        return
    before = sys.unraisablehook
    hook = sys.unraisablehook = functools.partial(_again, before)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, _leave)
        if sys.unraisablehook is hook:  # and not somebody else's by now
            sys.unraisablehook = before


def exit_interrupted() -> NoReturn:
    """Ends an interrupted program, without waiting for computations that still run.

    Elsewhere than in a program of its own, say in a notebook, it raises SystemExit.
    """
    if not _leaves_on_interrupt():
        sys.exit(EXIT_CODE)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # the signal may have come while it was being flushed
            stream.flush()
    os._exit(EXIT_CODE)  # threads of XLA crash where Python's exit takes their arrays away


def _leaves_on_interrupt() -> bool:
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and signal.getsignal(signal.SIGINT) is _leave


def _leave(number, frame) -> None:
    with contextlib.suppress(OSError):
        os.write(2, b"interrupted\n")
    exit_interrupted()


def _again(before, unraisable) -> None:
    """Raises an interrupt again that a callback has swallowed; `before` takes anything else."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        to_main = threading.main_thread().ident, signal.SIGINT
        threading.Timer(AGAIN_AFTER, signal.pthread_kill, to_main).start()
    else:
        before(unraisable)
