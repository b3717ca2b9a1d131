"""Threads of a library that fail while something is saved print nothing beside the exception."""

import logging
import sys
import threading

import pytest

from structdl.training.quiet import LOGGERS, quiet_threads


def in_a_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_threads_are_quiet_from_a_failure_until_something_is_saved(monkeypatch):
    printed = []
    places = [(sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")]
    for module, name in places:
        monkeypatch.setattr(module, name, lambda *args, name=name: printed.append(name))
    before = [getattr(*place) for place in places]

    def print_all():
        for place in places:
            getattr(*place)(None)

    def save():
        with quiet_threads():
            in_a_thread(print_all)
            raise OSError("no room")

    for _ in range(2):  # a second failure finds the hooks of the first
        with pytest.raises(OSError, match="no room"):
            save()
        in_a_thread(print_all)
        assert not printed
    print_all()  # in the main thread, what is raised is printed as ever
    assert printed == [name for _, name in places]
    for name in LOGGERS:
        its = [logging.LogRecord(name, level, "", 0, "", (), None) for level in (30, 40)]
        assert [bool(logging.getLogger(name).filter(each)) for each in its] == [True, False]
    with quiet_threads():
        pass
    assert [getattr(*place) for place in places] == before
    assert all(logging.getLogger(name).filter(its[1]) for name in LOGGERS)
