"""The default study of experiments.optimizer_comparison, against one descent after another.

Run as a module it is a whole study, `python -m experiments.benchmarks.optimizers SIDE TRIALS
SEEDS`: it prints the seconds that its descents took, without what was compiled for them.
"""

import functools
import importlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from experiments.benchmarks.case import OURS, Case


class Size(NamedTuple):
    """How many descents of each optimizer on each landscape."""

    trials: int
    seeds: int


STUDY = Size(15, 5)  # the default
FIFTH = Size(3, 1)  # of the study; its rates are the first of the study's
# by the name of a peer: its module, its function and what is measured of it
PEERS = {
    "optax, a Python loop a descent (reckoned from a fifth of them)": (
        "optax_peers.python_loop",
        FIFTH,
    ),
    "torch.optim, a Python loop a descent (reckoned from a fifth of them)": (
        "torch_optim_peers.python_loop",
        FIFTH,
    ),
    "optax, a compiled loop a descent": ("optax_peers.compiled_loop", STUDY),
}
NOTHING_COMPILED = {"JAX_ENABLE_COMPILATION_CACHE": "false"}


def workload(side: str, num_steps: int):
    """The landscapes as structdl goes down them, or as a function of a module beside this one."""
    from experiments.benchmarks.one_by_one import landscapes_one_by_one
    from experiments.optimizer_comparison.landscape_runs import landscape_workload

    if side == OURS:
        return landscape_workload(num_steps)
    module, function = side.split(".")
    peer = importlib.import_module(f"experiments.benchmarks.{module}")
    return landscapes_one_by_one(getattr(peer, function), num_steps)


def seconds_of_descents(side: str, size: Size) -> float:
    """Runs a study in a folder that is removed: trials, their choice, seeds, records on disk."""
    from experiments.optimizer_comparison.compare import LANDSCAPE_STEPS
    from experiments.optimizer_comparison.search import DEFAULT_SPACE
    from experiments.optimizer_comparison.study import Study, run_study
    from structdl.training.update_rules import UPDATE_RULES

    spaces = dict.fromkeys(UPDATE_RULES, DEFAULT_SPACE)
    study = Study([workload(side, LANDSCAPE_STEPS)], spaces, *size, search_seed=0)
    with tempfile.TemporaryDirectory() as folder:
        records = run_study(study, Path(folder))
    return sum(record.outcome.seconds for record in records)


def whole_study(side: str, size: Size):
    """A process from its start to its end; returns its seconds, or what they would be.

    Where it has a part of the study, the seconds of the descents count as often as the part goes
    into the study; the process's start and what it compiles count once.
    """
    words = [sys.executable, "-m", "experiments.benchmarks.optimizers", side, *map(str, size)]

    def run() -> float:
        start = time.perf_counter()
        environment = os.environ | NOTHING_COMPILED
        done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, check=True)
        seconds = time.perf_counter() - start
        return seconds + (sum(STUDY) / sum(size) - 1) * float(done.stdout)

    return run


def study_case() -> Case:
    """The whole study from the shell, without its report, nothing compiled before."""
    sides = {OURS: functools.partial(whole_study, OURS, STUDY)}
    sides |= {name: functools.partial(whole_study, *each) for name, each in PEERS.items()}
    goals = {name: 5.0 for name, (side, _) in PEERS.items() if side.endswith("python_loop")}
    name = "optimizers on landscapes, the default study from the shell, nothing compiled before"
    return Case(name, sides, goals, whole_process=True, own_clock=True)


CASES = [study_case()]


def main() -> None:
    from structdl.training.runtime import keep_freed_memory

    side, *size = sys.argv[1:]
    keep_freed_memory()
    print(seconds_of_descents(side, Size(*map(int, size))))


if __name__ == "__main__":
    main()
