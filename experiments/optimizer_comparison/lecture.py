"""What a lecture says of the five update rules, at one learning rate for all and in numbers.

Momentum overshoots; AdaGrad slows down near a minimum; plain gradient descent stalls at a saddle
point, which RMSProp and Adam leave.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.optimizer_comparison.descent import Descent
from experiments.optimizer_comparison.landscape_runs import Lane, go_down
from experiments.optimizer_comparison.landscapes import ESCAPED, LANDSCAPES
from experiments.optimizer_comparison.search import RATE

LEARNING_RATE = 0.05
BOWL, RIDGE = "quadratic 1e2", "saddle"
DRAWN = (BOWL, RIDGE, "Gaussians")
NOISES = (0.0, *np.geomspace(1e-6, 1.0, 7).tolist())
SEEDS = 11  # descents for each noise; the median is one of them


class Lecture(NamedTuple):
    """Descents at LEARNING_RATE.

    Fields:
      paths: by landscape and optimizer, those of DRAWN.
      escapes: by optimizer, [noises, seeds]: steps from the ridge itself until the saddle is left,
        infinite where it is not.
    """

    paths: dict[str, dict[str, Descent]]
    escapes: dict[str, np.ndarray]


def hold_lecture(optimizers: Sequence[str], num_steps: int) -> Lecture:
    """All descents, from the landscapes' own starts and from the saddle's ridge."""
    rate = {RATE: LEARNING_RATE}
    drawn = [
        Lane(name, its.start, 0.0, its.lowest, rate, 0)
        for name, its in ((name, LANDSCAPES[name]) for name in DRAWN)
    ]
    on_ridge = [
        Lane(RIDGE, (1.0, 0.0), noise, ESCAPED, rate, seed)
        for noise in NOISES
        for seed in range(SEEDS)
    ]
    paths: dict[str, dict[str, Descent]] = {name: {} for name in DRAWN}
    escapes = {}
    for optimizer in optimizers:
        descents = go_down(optimizer, [*drawn, *on_ridge], num_steps)
        for at, name in enumerate(DRAWN):
            paths[name][optimizer] = Descent(*(leaf[at] for leaf in descents))
        heights = descents.heights[len(drawn) :]
        steps = np.array([steps_until(each, ESCAPED) for each in heights])
        escapes[optimizer] = steps.reshape(len(NOISES), SEEDS)
    return Lecture(paths, escapes)


def steps_until(heights: np.ndarray, height: float) -> float:
    """The first step below a height; infinite without one.

    >>> steps_until(np.array([1.0, 0.2, -0.1]), 0.0)
    2.0
    """
    below = np.flatnonzero(heights < height)
    return float(below[0]) if len(below) else np.inf


def overshoot(points: np.ndarray, minimum: Sequence[float]) -> float:
    """How far a path goes beyond the minimum, in parts of the way there; 0 if it never does.

    Looked at in each of the two directions by itself; the larger counts.

    >>> overshoot(np.array([[1.0, 2.0], [-0.5, 1.0], [0.0, 0.0]]), (0.0, 0.0))
    0.5
    """
    begin = points[0] - np.asarray(minimum)
    along = (points - np.asarray(minimum)) / begin
    return float(max(0.0, -np.min(along)))


def slowing(descent: Descent, gradients: np.ndarray) -> float:
    """The step that a gradient of 1 makes at the end, against that of the first step.

    Args:
      gradients: [steps + 1, 2], at the path's points.
    """
    moves = np.linalg.norm(np.diff(descent.points, axis=0), axis=1)
    slopes = np.linalg.norm(gradients[:-1], axis=1)
    rates = moves[slopes > 0] / slopes[slopes > 0]
    rates = rates[rates > 0]  # a step that is lost in rounding says nothing
    return float(rates[-1] / rates[0])
