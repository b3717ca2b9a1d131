"""SIGTERM: a machine that is wanted elsewhere asks a run to leave; the run saves itself first."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


class Preempted(Exception):
    """A run was asked to leave, after `step` steps of its seeds; saved, where it had a store."""

    def __init__(self, step: int, *, saved: bool = True):
        super().__init__(f"{'saved' if saved else 'left, without a store,'} after {step} steps")
        self.step = step


@contextlib.contextmanager
def preemption() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether SIGTERM has come, which until then is not obeyed.

    Only a program's main thread can listen; in another one the function is always False. A second
    signal ends the process as it would without this.
    """
    asked = threading.Event()

    def listen(number, frame):
        asked.set()
        signal.signal(signal.SIGTERM, before)

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.signal(signal.SIGTERM, listen)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
