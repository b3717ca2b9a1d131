"""What is made of a study's outcomes: targets and times, profiles, ranks. NumPy alone.

Reference: Dahl et al. (2023), "Benchmarking neural network training algorithms" (AlgoPerf),
arXiv:2306.07179, section 4 (performance profiles); Dolan, More (2002), "Benchmarking optimization
software with performance profiles"; Dodge et al. (2019), "Show your work: improved reporting of
experimental results", arXiv:1909.03004 (the best of n trials).
"""

from collections.abc import Sequence
from math import comb

import numpy as np

LARGEST_RATIO = 4.0  # up to which AlgoPerf integrates a profile


def expected_best(losses: Sequence[float]) -> np.ndarray:
    """The mean of the least loss among n of the trials, drawn without replacement, for n = 1...N.

    Of N sorted losses number k (from 0) is the least of n with the chance C(N-1-k, n-1) / C(N, n).
    Diverged trials are infinite, and so is the mean until n leaves no draw of them alone.

    >>> expected_best([3.0, 1.0, 2.0])
    array([2.        , 1.33333333, 1.        ])
    """
    ordered, number = np.sort(np.asarray(losses, float)), len(losses)
    found = []
    for n in range(1, number + 1):
        ways = np.array([comb(number - 1 - k, n - 1) for k in range(number)]) / comb(number, n)
        found.append(np.sum(ways[ways > 0] * ordered[ways > 0]))
    return np.array(found)


def target(starts: Sequence[float], ends: Sequence[float], share: float) -> float:
    """The loss that counts as solved: the best end, and a share of the way back to the start.

    Args:
      starts: losses of first validations; the largest finite one counts.
      ends: losses at which optimizers ended; the least counts.
      share: of the way that may be left.

    >>> target([1.0, 1.0], [0.0, 0.5], share=0.01)
    0.01
    """
    best = float(np.min(ends))
    return best + share * (float(np.max(np.asarray(starts)[np.isfinite(starts)])) - best)


def steps_to(goal: float, steps: Sequence[int], losses: Sequence[float]) -> float:
    """The first step of a validation loss that is no worse than the goal; infinite without one.

    >>> steps_to(0.5, [10, 20, 30], [0.9, 0.4, 0.6])
    20.0
    """
    reached = np.flatnonzero(np.asarray(losses) <= goal)
    return float(steps[reached[0]]) if len(reached) else np.inf


def performance_profile(times: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """rho(r): on which share of the problems an optimizer needs at most r times the least time.

    Args:
      times: [optimizers, problems], infinite where the target was missed. A problem that nobody
        solved counts for nobody.
      ratios: [num_ratios], from 1 on.

    Returns:
      [optimizers, num_ratios].

    >>> performance_profile(np.array([[1.0, 6.0], [2.0, np.inf]]), np.array([1.0, 2.0]))
    array([[1., 1.],
           [0., 1.]])
    """
    return np.mean(_relative(times)[:, :, None] <= ratios, axis=1)


def profile_area(times: np.ndarray, largest: float = LARGEST_RATIO) -> np.ndarray:
    """The mean of a profile over ratios from 1 to the largest: AlgoPerf's score, in [0, 1].

    The integral of a step function, exact.
    """
    return np.mean(np.maximum(largest - _relative(times), 0.0), axis=1) / (largest - 1)


def _relative(times: np.ndarray) -> np.ndarray:
    least = np.min(times, axis=0)
    relative = np.full(times.shape, np.inf)
    solved = np.isfinite(least)
    # a start that counts as solved takes no step, and one is no more than the fastest needs
    relative[:, solved] = np.maximum(times[:, solved], 1) / np.maximum(least[solved], 1)
    return relative


def ranks(losses: np.ndarray) -> np.ndarray:
    """1 for the least loss of each column; equal ones share the mean of their ranks.

    >>> ranks(np.array([[0.1, 2.0], [0.3, 2.0], [np.inf, 1.0]]))
    array([[1. , 2.5],
           [2. , 2.5],
           [3. , 1. ]])
    """
    below = losses[:, None] > losses[None]
    equal = losses[:, None] == losses[None]
    return 0.5 + np.sum(below, axis=1) + np.sum(equal, axis=1) / 2


def bootstrap_ranks(
    losses: np.ndarray, seed: int = 0, draws: int = 1000, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean rank over problems, and the interval in which it lies over resampled seeds.

    A draw takes as many seeds as there are, with replacement, the same ones for all optimizers
    since they are paired, and ranks the means of their losses.

    Args:
      losses: [optimizers, problems, seeds], infinite for a seed that diverged.

    Returns:
      (mean, low, high), each [optimizers].
    """
    rng = np.random.default_rng(seed)
    num_seeds = losses.shape[2]
    resampled = rng.integers(num_seeds, size=(draws, num_seeds))
    means = np.array([np.mean(ranks(np.mean(losses[..., at], axis=2)), axis=1) for at in resampled])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.mean(ranks(np.mean(losses, axis=2)), axis=1), low, high
