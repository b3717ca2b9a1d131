"""Silence for background threads of libraries while saving, whose failure is reported once."""

import contextlib
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator

LOGGERS = ("absl", "asyncio", "concurrent.futures")


@contextlib.contextmanager
def quiet_threads() -> Iterator[None]:
    """Suppresses log errors and tracebacks of background threads; the block's exception remains.

    Within the block the library's loggers print no errors, and threads other than the main one no
    tracebacks. Where the block raises this stays so, since its threads may fail for as long as the
    process lives; a later block that ends well undoes it.
    """
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_is_no_error)  # once, however often it is added
    if not isinstance(sys.excepthook, _OfMainThread):
        # C++ threads print by sys.excepthook, Python's own by that of threading
        sys.excepthook = _OfMainThread(sys.excepthook)
        sys.unraisablehook = _OfMainThread(sys.unraisablehook)
        threading.excepthook = _OfMainThread(threading.excepthook)
    yield
    for name in LOGGERS:
        logging.getLogger(name).removeFilter(_is_no_error)
    for module, name in (sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook"):
        hook = getattr(module, name)
        setattr(module, name, hook.before if isinstance(hook, _OfMainThread) else hook)


def as_os_error(error: Exception) -> OSError:
    """A library's error as the system's own, where it names that, else its first line.

    >>> as_os_error(ValueError("RESOURCE_EXHAUSTED: ... [os_error_code='28'] ...")).errno
    28
    """
    if code := re.search(r"os_error_code='(\d+)'", str(error)):
        return OSError(int(code[1]), os.strerror(int(code[1])))
    return OSError((str(error).splitlines() or [type(error).__name__])[0])


class _OfMainThread:
    """A hook that is called in the main thread alone."""

    def __init__(self, before: Callable[..., None]):
        self.before = before

    def __call__(self, *args) -> None:
        if threading.current_thread() is threading.main_thread():
            self.before(*args)


def _is_no_error(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR
