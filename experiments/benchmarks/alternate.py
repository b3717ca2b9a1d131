"""Measures the sides of a case in turn, each in a process of its own."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from tempfile import TemporaryFile
from typing import Any, TextIO

import numpy as np

from experiments.benchmarks.case import OURS, Case
from structdl.errors import InputError

ROUNDS = 15
ROUNDS_OF_PROCESSES = 5


class Worker:
    """A running `experiments.benchmarks.worker`; `with` waits until it is ready, and ends it.

    Args:
      errors: a file for what it says.

    Raises:
      InputError: the side could not be prepared; the message has its last words.
    """

    def __init__(self, module: str, case: str, side: str, threads: int, errors: TextIO):
        self._errors = errors
        command = [sys.executable, "-m", "experiments.benchmarks.worker", module, case, side]
        self._process = subprocess.Popen(
            [*command, "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._name = f"{side} ({case})"

    def __enter__(self) -> "Worker":
        try:
            self._read()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def milliseconds(self) -> float:
        """One run."""
        print("go", file=self._process.stdin, flush=True)
        return float(self._read())

    def _read(self) -> str:
        if line := self._process.stdout.readline():
            return line
        self._errors.seek(0)
        said = self._errors.read().strip() or "nothing was said"
        raise InputError(f"{self._name} failed: {said.splitlines()[-1]}")


def measure(module: str, case: Case, *, threads: int, rounds: int | None = None) -> dict:
    """Milliseconds of every run, by side: one run of each side a round, in turn."""
    rounds = rounds or (ROUNDS_OF_PROCESSES if case.whole_process else ROUNDS)
    with contextlib.ExitStack() as stack:
        # one after another: no side warms up while another is measured
        workers = {
            side: stack.enter_context(
                Worker(module, case.name, side, threads, stack.enter_context(TemporaryFile("w+")))
            )
            for side in case.sides
        }
        found = [
            {side: worker.milliseconds() for side, worker in workers.items()} for _ in range(rounds)
        ]
    return {side: [each[side] for each in found] for side in case.sides}


def rows(
    case: Case, milliseconds: dict[str, Sequence[float]], *, on_gpu: bool = False
) -> Iterator[dict[str, Any]]:
    """A row for each peer: medians, their ratio, and the quartiles as the spread."""
    goals = {**case.goals, **case.gpu_goals} if on_gpu else case.goals
    ours = np.asarray(milliseconds[OURS])
    for peer in (name for name in case.sides if name != OURS):
        theirs = np.asarray(milliseconds[peer])
        yield {
            "case": case.name,
            "structdl_ms": significant(np.median(ours)),
            "structdl_quartiles": [significant(value) for value in quartiles(ours)],
            "peer": peer,
            "peer_ms": significant(np.median(theirs)),
            "peer_quartiles": [significant(value) for value in quartiles(theirs)],
            "ratio": significant(np.median(theirs) / np.median(ours)),
            "goal": goals.get(peer),
            "rounds": len(ours),
        }


def quartiles(values: np.ndarray) -> np.ndarray:
    return np.quantile(values, (0.25, 0.75))


def significant(value: float) -> float:
    """Four digits: more than any of it is worth."""
    return float(f"{value:.4g}")
