"""The landscapes as a workload: all of them, and all trials, are lanes of one program."""

import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from experiments.optimizer_comparison.descent import Descent, descend
from experiments.optimizer_comparison.landscapes import LANDSCAPES, Point, height, number_of
from experiments.optimizer_comparison.search import optimizer_config, with_hyperparams
from experiments.optimizer_comparison.workload import (
    Job,
    Outcome,
    Workload,
    evaluates_objective,
)
from structdl.errors import require_at_least, require_at_most
from structdl.training.optimizers import Optimizer, make_optimizer
from structdl.training.ranges import LARGEST_INT
from structdl.training.seeds import stack

NAME = "landscapes"
LANES = 128  # descents side by side in one call
POINTS = 100  # of a curve, at most, that are kept; the later, the further apart


class Lane(NamedTuple):
    """A descent of its own."""

    landscape: str
    start: Point
    noise: float
    lowest: float
    hyperparams: dict[str, float]
    seed: int


def lane_of(job: Job) -> Lane:
    """The descent that a job of a study asks for."""
    its = LANDSCAPES[job.problem]
    return Lane(job.problem, its.start, its.noise, its.lowest, job.hyperparams, job.seed)


def landscape_workload(num_steps: int) -> Workload:
    """Raises InputError for fewer steps than points of a curve, or more than can be counted."""
    require_at_least(f"--tasks {NAME}:STEPS: STEPS", num_steps, POINTS)
    require_at_most(f"--tasks {NAME}:STEPS: STEPS", num_steps, LARGEST_INT)

    def run(name: str, jobs: Sequence[Job], folder: Path) -> list[Outcome]:
        lanes = [lane_of(job) for job in jobs]
        searched = tuple(jobs[0].hyperparams)
        begin = time.perf_counter()
        go_down(name, lanes[:1], num_steps)  # compiles
        start = time.perf_counter()
        descents = go_down(name, lanes, num_steps)
        shares = (time.perf_counter() - start) / len(jobs), (start - begin) / len(jobs)
        counted = not evaluates_objective(_optimizer(name, searched))
        return [
            _outcome(job, jax.tree.map(lambda leaf, at=at: leaf[at], descents), counted, shares)
            for at, job in enumerate(jobs)
        ]

    return Workload(NAME, tuple(LANDSCAPES), run, {"num_steps": num_steps})


def go_down(optimizer: str, lanes: Sequence[Lane], num_steps: int) -> Descent:
    """Descents of one optimizer with a first axis of lanes, on the host.

    Its program is compiled once in a process, for any number of lanes: they are cut into calls of
    LANES, the last of which is filled up by repeating its first one.
    """
    compiled = _compiled(optimizer, tuple(lanes[0].hyperparams), num_steps)
    parts = []
    for first in range(0, len(lanes), LANES):
        part = lanes[first : first + LANES]
        filled = [*part, *[part[0]] * (LANES - len(part))]
        descents = jax.device_get(compiled(*stack([_arrays(lane) for lane in filled])))
        parts.append(jax.tree.map(lambda leaf, size=len(part): leaf[:size], descents))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _optimizer(name: str, searched: tuple[str, ...]) -> Optimizer:
    """With values that are never used: each lane has its own."""
    return make_optimizer(with_hyperparams(optimizer_config(name), dict.fromkeys(searched, 0.5)))


@functools.cache
def _compiled(name: str, searched: tuple[str, ...], num_steps: int) -> Callable:
    optimizer = _optimizer(name, searched)

    def one(number, start, noise, lowest, hyperparams, seed):
        return descend(
            functools.partial(height, number),
            optimizer,
            start,
            jax.random.key(seed),
            num_steps=num_steps,
            hyperparams=hyperparams,
            noise=noise,
            lowest=lowest,
        )

    # compiling is most of a study: without these emitters it takes a third less, a run as long
    return jax.jit(jax.vmap(one), compiler_options={"xla_cpu_use_fusion_emitters": False})


def _arrays(lane: Lane) -> tuple:
    hyperparams = {name: np.float32(value) for name, value in lane.hyperparams.items()}
    floats = (np.asarray(lane.start, np.float32), np.float32(lane.noise), np.float32(lane.lowest))
    return np.int32(number_of(lane.landscape)), *floats, hyperparams, np.uint32(lane.seed)


def _outcome(job: Job, descent: Descent, counted: bool, shares: tuple[float, float]) -> Outcome:
    """Its losses are heights above the least one, or above ESCAPED; at the end a mean over the
    last tenth of the steps, since noise moves it.
    """
    gaps = np.maximum(descent.heights.astype(float) - LANDSCAPES[job.problem].lowest, 0.0)
    last = len(gaps) - 1
    steps = np.unique(np.geomspace(1, last, POINTS).round().astype(int))
    end, taken = float(np.mean(gaps[-(last // 10) :])), int(descent.taken)
    return Outcome(
        steps=[0, *steps.tolist()],
        validation=[float(f"{gap:.5g}") for gap in gaps[[0, *steps]]],
        selected=np.inf if descent.diverged else end,
        test={},  # nothing is held out
        taken=taken,
        diverged=bool(descent.diverged),
        evaluations=taken if counted else None,
        seconds=shares[0],
        compile_seconds=shares[1],
    )
