"""The landscapes as a workload whose descents run one after another, for peers."""

import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from experiments.optimizer_comparison.landscape_runs import NAME, POINTS
from experiments.optimizer_comparison.landscapes import LANDSCAPES, Landscape
from experiments.optimizer_comparison.search import RATE
from experiments.optimizer_comparison.workload import Job, Outcome, Workload

# `(rate, seed) -> heights`, of at most one point more than steps: it may end where one is not
# finite, or is below the landscape's lowest
Descend = Callable[[float, int], np.ndarray]


def landscapes_one_by_one(prepare: Callable[[str, str, int], Descend], num_steps: int) -> Workload:
    """A workload that does what `landscape_runs.landscape_workload` does.

    Args:
      prepare: `(optimizer, landscape, num_steps) -> descend`; compiles what there is to compile.
    """
    prepare = functools.cache(prepare)

    def run(name: str, jobs: Sequence[Job], folder: Path) -> list[Outcome]:
        found = []
        for job in jobs:
            begin = time.perf_counter()
            descend = prepare(name, job.problem, num_steps)
            start = time.perf_counter()
            heights = descend(job.hyperparams[RATE], job.seed)
            seconds = time.perf_counter() - start
            kept, diverged = until_end(heights, LANDSCAPES[job.problem].lowest)
            outcome = _outcome(kept, diverged, LANDSCAPES[job.problem], num_steps)
            found.append(outcome._replace(seconds=seconds, compile_seconds=start - begin))
        return found

    return Workload(NAME, tuple(LANDSCAPES), run, {"num_steps": num_steps})


def until_end(heights: np.ndarray, lowest: float) -> tuple[np.ndarray, bool]:
    """Heights up to the first below the lowest, or before the first that is not finite.

    The second value is whether there is one of those.

    >>> until_end(np.array([1.0, 0.0, -2.0, -3.0]), lowest=-1.0)
    (array([ 1.,  0., -2.]), False)
    >>> until_end(np.array([1.0, 9.0, np.inf, np.nan]), lowest=-1.0)
    (array([1., 9.]), True)
    """
    ends = np.flatnonzero(~((heights >= lowest) & np.isfinite(heights)))
    if not len(ends):
        return heights, False
    left = bool(heights[ends[0]] < lowest)
    return heights[: ends[0] + left], not left


def _outcome(kept: np.ndarray, diverged: bool, its: Landscape, num_steps: int) -> Outcome:
    """As the study's own; a descent that has ended stays where it is."""
    heights = np.pad(kept.astype(float), (0, num_steps + 1 - len(kept)), mode="edge")
    gaps = np.maximum(heights - its.lowest, 0.0)
    steps = np.unique(np.geomspace(1, num_steps, POINTS).round().astype(int))
    end = float(np.mean(gaps[-(num_steps // 10) :]))
    return Outcome(
        steps=[0, *steps.tolist()],
        validation=[float(f"{gap:.5g}") for gap in gaps[[0, *steps]]],
        selected=np.inf if diverged else end,
        test={} if diverged else {"gap": end},
        taken=len(kept) - 1,
        diverged=diverged,
        evaluations=len(kept) - 1,
        seconds=0.0,
        compile_seconds=0.0,
    )
