"""What a run has come to: the metrics of what its seeds selected."""

from collections.abc import Callable

import jax
import numpy as np

from structdl.training.evaluate import make_evaluate
from structdl.training.logging import Stopwatch
from structdl.training.loop import Fit
from structdl.training.precision import in_precision
from structdl.training.preemption import Preempted
from structdl.training.run import Run
from structdl.training.task import Task

SPLITS = ("validation", "test")


def measure(
    task: Task,
    run: Run,
    result: Fit,
    stopwatch: Stopwatch,
    preempted: Callable[[], bool] = lambda: False,
) -> dict[str, np.ndarray]:
    """Validation and test metrics by name, [num_seeds]; NaN of a seed that diverged.

    Args:
      stopwatch: adds up the seconds.
      preempted: whether the process is asked to leave.

    Raises:
      Preempted: it is.
    """
    evaluate = make_evaluate(in_precision(task, run.precision), run.compiler_options)
    groups, start = [], 0
    for seeds in run.seed_groups():
        at = slice(start, start + len(seeds))
        start = at.stop
        selected, keys, diverged = jax.tree.map(
            lambda leaf, at=at: leaf[at],
            (result.selected, result.state.train.key, np.asarray(result.state.diverged)),
        )
        values = {}
        for split in SPLITS:
            if preempted():
                raise Preempted(int(np.max(result.state.train.step)))
            with stopwatch.measure("evaluate"):
                found = evaluate(selected, keys, seeds, split)
            for name, value in found.items():
                values[f"{split}_{name}"] = np.where(diverged, np.nan, value)
        groups.append(values)
    return {name: np.concatenate([group[name] for group in groups]) for name in groups[0]}
