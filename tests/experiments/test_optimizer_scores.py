"""The scores of a comparison of optimizers against enumerations, loops and SciPy."""

import itertools
import math

import numpy as np
from scipy import stats

from experiments.optimizer_comparison import scores


def test_expected_best_is_the_mean_over_all_draws():
    losses = [3.0, 0.5, 2.0, 0.7, math.inf]
    for n, found in enumerate(scores.expected_best(losses), start=1):
        draws = [min(draw) for draw in itertools.combinations(losses, n)]
        np.testing.assert_allclose(found, np.mean(draws))


def test_profiles_count_problems():
    rng = np.random.default_rng(0)
    times = rng.integers(1, 40, (3, 7)).astype(float)
    times[0, 2] = times[1, 5] = np.inf
    times[:, 6] = np.inf
    ratios = np.linspace(1, 4, 5)
    found = scores.performance_profile(times, ratios)
    for who, at in itertools.product(range(3), range(5)):
        solved = sum(
            times[who, each] <= ratios[at] * times[:, each].min()
            for each in range(7)
            if np.isfinite(times[who, each])
        )
        np.testing.assert_allclose(found[who, at], solved / 7)
    fine = np.linspace(1, 4, 30001)
    area = np.trapezoid(scores.performance_profile(times, fine), fine, axis=1) / 3
    np.testing.assert_allclose(scores.profile_area(times), area, atol=1e-4)


def test_a_problem_solved_at_its_start_is_solved():
    times = np.array([[0.0, 4.0], [3.0, 4.0]])
    np.testing.assert_array_equal(scores.profile_area(times), [1.0, (1 / 3 + 1) / 2])


def test_ranks_are_scipys():
    losses = np.random.default_rng(0).integers(0, 4, (5, 20)).astype(float)
    losses[2, 3] = np.inf
    np.testing.assert_array_equal(scores.ranks(losses), stats.rankdata(losses, axis=0))


def test_intervals_hold_the_mean_and_close_where_seeds_agree():
    losses = np.random.default_rng(0).normal(size=(3, 6, 8)) + np.arange(3)[:, None, None]
    mean, low, high = scores.bootstrap_ranks(losses)
    assert np.all((low <= mean) & (mean <= high))
    assert np.all(high - low > 0)
    assert list(np.argsort(mean)) == [0, 1, 2]
    mean, low, high = scores.bootstrap_ranks(losses[..., :1].repeat(8, axis=2))
    np.testing.assert_array_equal(low, high)
    losses[1, :, 3] = np.inf  # a seed that diverged puts its optimizer last
    assert scores.bootstrap_ranks(losses)[0][1] == 3


def test_the_target_leaves_a_part_of_the_way():
    assert scores.target([5.0, math.inf], [1.0, 2.0, math.inf], 0.25) == 2.0
