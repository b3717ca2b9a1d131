"""What a study runs, and what it keeps of a run."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from structdl.training.optimizers import Optimizer


class Job(NamedTuple):
    """One run: its problem, its place in the search space, and the seed of all that is drawn."""

    problem: str
    hyperparams: dict[str, float]
    seed: int


class Outcome(NamedTuple):
    """What came of a job; a line of JSON in the study's folder.

    Fields:
      steps: the steps at which it was validated.
      validation: the loss there, the less the better.
      selected: that of what is tested, by which trials are compared; infinite if it diverged.
      test: metrics of what is tested.
      taken: steps that were taken.
      diverged: whether a loss or a gradient was not finite.
      evaluations: of the gradient; None for an optimizer that searches along lines by itself.
      seconds: its share of the time that its group of jobs took.
      compile_seconds: its share of what was compiled for them.
    """

    steps: list[int]
    validation: list[float]
    selected: float
    test: dict[str, float]
    taken: int
    diverged: bool
    evaluations: int | None
    seconds: float
    compile_seconds: float


class Workload(NamedTuple):
    """Problems that run by one program.

    Fields:
      name: as it is given after --tasks.
      problems: their names.
      run: `(optimizer, jobs, folder) -> outcomes`, in the jobs' order, of an optimizer's name and
        jobs that have values for the same hyperparameters. What it leaves in the folder lets it go
        on after an interruption.
      protocol: what decides its outcomes besides the jobs.
    """

    name: str
    problems: tuple[str, ...]
    run: Callable[[str, Sequence[Job], Path], list[Outcome]]
    protocol: dict[str, Any]


def evaluates_objective(optimizer: Optimizer) -> bool:
    """Whether an optimizer asks for the objective at points of its own, as line searches do."""
    point, asked = jnp.ones(2), []

    def objective(point, obj_fn=None):
        asked.append(point)
        return jnp.sum(jnp.square(point))

    def update(point):
        transform = optax.with_extra_args_support(optimizer.make(optimizer.hyperparams, 0))
        state, slope = transform.init(point), 2 * point
        extra = {"value": 2.0, "grad": slope, "value_fn": objective, "obj_fn": objective}
        return transform.update(slope, state, point, **extra)

    jax.eval_shape(update, point)
    return bool(asked)
