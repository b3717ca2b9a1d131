"""A study's records by problem and optimizer, and the figures that are made of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.optimizer_comparison.scores import steps_to, target
from experiments.optimizer_comparison.study import SEED, TRIAL, Record, chosen_trial

EQUAL = 1e-3  # of the way from the best loss to the target, within which losses rank alike


class Cell(NamedTuple):
    """An optimizer on a problem.

    Fields:
      trials, seeds: in the order of their numbers.
      chosen: the trial whose hyperparameters the seeds have; None where all trials diverged.
      steps_to_target: the median over the seeds, infinite where half of them miss it.
    """

    problem: str
    optimizer: str
    trials: list[Record]
    seeds: list[Record]
    chosen: Record | None
    steps_to_target: float

    @property
    def ends(self) -> np.ndarray:
        """[seeds]: the validation losses of what is tested; infinite for a seed that diverged."""
        return np.array([record.outcome.selected for record in self.seeds] or [np.inf])

    def test(self, metric: str) -> np.ndarray:
        """A test metric of the seeds that have not diverged."""
        return np.array([each.outcome.test[metric] for each in self.seeds if each.outcome.test])

    def spent(self, field: str) -> float | None:
        """The sum of an outcome's number over trials and seeds; None where one is not known."""
        values = [getattr(record.outcome, field) for record in [*self.trials, *self.seeds]]
        return None if None in values else sum(values)

    @property
    def diverged(self) -> tuple[int, int]:
        """How many trials and how many seeds did."""
        trials, seeds = (
            sum(record.outcome.diverged for record in each) for each in (self.trials, self.seeds)
        )
        return trials, seeds


class Summary(NamedTuple):
    """All of a study.

    Fields:
      cells: by (problem, optimizer).
      targets: the loss that counts as solved, by problem.
      share: of the way back to the start that these leave.
    """

    problems: list[str]
    optimizers: list[str]
    cells: dict[tuple[str, str], Cell]
    targets: dict[str, float]
    share: float

    def of(self, problem: str) -> list[Cell]:
        """A problem's cells, in the order of the optimizers."""
        return [self.cells[problem, name] for name in self.optimizers]

    def times(self) -> np.ndarray:
        """[optimizers, problems]: median steps to the target."""
        return np.array(
            [
                [self.cells[each, name].steps_to_target for each in self.problems]
                for name in self.optimizers
            ]
        )

    def ends(self) -> np.ndarray:
        """[optimizers, problems, seeds]: validation losses of what is tested.

        Those nearer to the best than EQUAL of the way to the target are as good as it.
        """
        number = max(len(cell.ends) for cell in self.cells.values())
        found = np.array(
            [
                [np.resize(self.cells[each, name].ends, number) for each in self.problems]
                for name in self.optimizers
            ]
        )
        best = np.min(found, axis=(0, 2), keepdims=True)
        targets = np.array([self.targets[each] for each in self.problems])
        with np.errstate(invalid="ignore"):  # where all diverged
            way = targets[None, :, None] - best
            return np.where(found - best <= EQUAL * way, best, found)


def summarize(records: Sequence[Record], share: float) -> Summary:
    """Sorts records, and sets each problem's target (see `scores.target`)."""
    problems = list(dict.fromkeys(record.job.problem for record in records))
    optimizers = list(dict.fromkeys(record.optimizer for record in records))
    groups: dict[tuple, list[Record]] = {}
    for record in records:
        groups.setdefault((record.job.problem, record.optimizer, record.phase), []).append(record)
    cells, targets = {}, {}
    for problem in problems:
        seeds = {name: groups.get((problem, name, SEED), []) for name in optimizers}
        goal = targets[problem] = _target(seeds, share)
        for name in optimizers:
            cells[problem, name] = Cell(
                problem,
                name,
                groups[problem, name, TRIAL],
                seeds[name],
                chosen_trial(records, problem, name),
                _median_steps(seeds[name], goal),
            )
    return Summary(problems, optimizers, cells, targets, share)


def _target(seeds: dict[str, list[Record]], share: float) -> float:
    """By medians over the seeds, which one that diverged does not move."""
    of_seeds = [[record.outcome for record in records] for records in seeds.values() if records]
    starts = [
        np.median([outcome.validation[0] for outcome in outcomes if outcome.validation] or [np.inf])
        for outcomes in of_seeds
    ]
    ends = [np.median([outcome.selected for outcome in outcomes]) for outcomes in of_seeds]
    if not (np.isfinite(starts).any() and np.isfinite(ends).any()):
        return -np.inf
    return target(starts, ends, share)


def _median_steps(seeds: Sequence[Record], goal: float) -> float:
    if not seeds:
        return np.inf
    return float(
        np.median([steps_to(goal, each.outcome.steps, each.outcome.validation) for each in seeds])
    )
