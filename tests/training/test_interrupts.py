"""Ctrl-C while a program imports, while it runs, and where a callback swallows the interrupt."""

import signal
import subprocess
import sys

import pytest

RUNNING = """
import gc, sys, time
from structdl.training.interrupts import interruptible, leave_on_interrupt
def swallow(*_):
    if swallowed:
        raise swallowed.pop()
swallowed = [KeyboardInterrupt()]
leave_on_interrupt()
try:
    with interruptible():
        gc.callbacks.append(swallow)
        gc.collect()
        time.sleep(60)
except KeyboardInterrupt:
    print("raised again", flush=True)
print("exits", file=sys.stderr, flush=True)
time.sleep(60)
"""


def interrupted_after(words: list[str], last: str) -> tuple[int, list[str]]:
    """Exit code and lines of a program that gets SIGINT when a line's last word is `last`."""
    with subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as program:
        lines = []
        for line in program.stdout:
            lines.append(line.rstrip("\n"))
            if line.split()[-1:] == [last]:
                program.send_signal(signal.SIGINT)
    return program.returncode, lines


@pytest.mark.parametrize(
    ("name", "imported"),
    [
        ("experiments.node_classification", "experiments.node_classification"),
        ("experiments.node_classification", "numpy.linalg"),
        ("experiments.report", "jax._src.dtypes"),
        ("experiments", "structdl.errors"),
    ],
)
def test_an_import_is_interrupted_in_one_line(name, imported):
    code, lines = interrupted_after(["-X", "importtime", "-m", name], imported)
    others = [line for line in lines if not line.startswith("import time:")]
    assert (code, others) == (130, ["interrupted"])


def test_a_swallowed_interrupt_is_raised_again_and_the_exit_is_interrupted_too():
    code, lines = interrupted_after(["-c", RUNNING], "exits")
    assert (code, lines) == (130, ["raised again", "exits", "interrupted"])
