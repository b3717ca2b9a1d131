"""Intervals and their average precision: by hand, against loops, and against scikit-learn."""

import numpy as np
import pytest

from structdl.errors import InputError
from structdl.temporal.localization import (
    IOU_THRESHOLDS,
    Interval,
    average_precision,
    find_intervals,
    mean_average_precision,
    overlap,
    suppress,
)


@pytest.mark.parametrize("seed", range(6))
def test_overlap_counts_frames(seed):
    rng = np.random.default_rng(seed)
    (a, b), (c, d) = (np.sort(rng.choice(12, 2, replace=False)).tolist() for _ in range(2))
    one, other = set(range(a, b)), set(range(c, d))
    assert overlap((a, b), (c, d)) == pytest.approx(len(one & other) / len(one | other))
    assert overlap((3, 3), (3, 3)) == 0


def test_two_steps_are_found_at_their_edges():
    activation = np.zeros(20)
    activation[3:7], activation[12:18] = 1.0, 0.6
    first, second = find_intervals(activation)
    assert first == (3, 7, 1.0)
    assert second[:2] == (12, 18)
    assert second.score == pytest.approx(0.6)


def test_a_peak_on_a_step_is_inside_it():
    activation = np.array([0, 0, 0.5, 0.5, 0.5, 1, 0.5, 0.5, 0.5, 0, 0])
    found = find_intervals(activation, thresholds=(0.2, 0.8), max_overlap=0.5)
    assert {interval[:2] for interval in found} == {(2, 9), (5, 6)}
    assert find_intervals(activation, thresholds=(0.2, 0.8), max_overlap=0.1)[0][:2] == (2, 9)


def test_nothing_stands_out_of_what_is_level():
    assert find_intervals(np.ones(5)) == []
    assert find_intervals(np.array([2.0])) == []


@pytest.mark.parametrize("bad", [np.zeros(0), np.array([0.0, np.nan]), np.zeros((2, 2))])
def test_what_is_no_activation(bad):
    with pytest.raises(InputError, match="expected a finite number for each frame"):
        find_intervals(bad)


@pytest.mark.parametrize("seed", range(5))
def test_suppression_keeps_a_best_set(seed):
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, 20, 12)
    found = [
        Interval(int(start), int(start + rng.integers(1, 8)), float(rng.random()))
        for start in starts
    ]
    kept = suppress(found, 0.3)
    for place, interval in enumerate(kept):
        assert all(overlap(interval[:2], other[:2]) <= 0.3 for other in kept[:place])
    for lost in set(found) - set(kept):
        assert any(
            overlap(lost[:2], other[:2]) > 0.3 and other.score >= lost.score for other in kept
        )


def test_average_precision_by_hand():
    true = [(0, (0, 10)), (0, (20, 30)), (1, (0, 10)), (2, (5, 15))]
    found = [
        (0, Interval(0, 10, 0.9)),  # right
        (0, Interval(1, 10, 0.8)),  # the same again: wrong
        (1, Interval(0, 6, 0.7)),  # right by an IoU of 0.6
        (3, Interval(0, 10, 0.6)),  # another video
        (0, Interval(20, 29, 0.5)),  # right
    ]
    # precisions 1, 1/2, 2/3, 1/2, 3/5, of which those at right ones: 1, 2/3, 3/5; one is missed
    assert average_precision(found, true, 0.5) == pytest.approx((1 + 2 / 3 + 3 / 5) / 4)
    # at 0.7 the third is wrong: 1, 1/2, 1/3, 1/4, 2/5
    assert average_precision(found, true, 0.7) == pytest.approx((1 + 2 / 5) / 4)
    assert average_precision([], true, 0.5) == 0
    assert np.isnan(average_precision(found, [], 0.5))


def test_precision_is_interpolated():
    true = [(0, (0, 10)), (1, (0, 10))]
    found = [
        (2, Interval(0, 10, 0.9)),
        (0, Interval(0, 10, 0.8)),
        (1, Interval(0, 10, 0.7)),
    ]
    # at recall 1/2 the precision is 1/2, and at recall 1 it is 2/3, which counts for both
    assert average_precision(found, true, 0.5) == pytest.approx(2 / 3)


@pytest.mark.peers
@pytest.mark.parametrize("seed", range(5))
def test_average_precision_of_one_interval_a_video_is_a_rankings(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    is_right = np.concatenate([np.ones(8, bool), rng.random(32) < 0.4])
    scores = rng.permutation(40) / 40
    # each video has an interval, found exactly or not at all
    found = [
        (video, Interval(0, 10, float(score)) if right else Interval(50, 60, float(score)))
        for video, (score, right) in enumerate(zip(scores, is_right, strict=True))
    ]
    true = [(video, (0, 10)) for video in np.flatnonzero(is_right).tolist()]
    precision, recall, _ = metrics.precision_recall_curve(is_right, scores)
    best = np.maximum.accumulate(precision)  # recall falls from left to right
    expected = -np.sum(np.diff(recall) * best[:-1])
    assert average_precision(found, true, 0.5) == pytest.approx(expected)


def test_the_mean_is_over_actions_that_occur():
    true = [[(0, (0, 10))], [], [(0, (0, 10))]]
    found = [[(0, Interval(0, 10, 1.0))], [], [(0, Interval(0, 7, 1.0))]]
    table = mean_average_precision(found, true)
    assert table.shape == (len(IOU_THRESHOLDS), 3)
    np.testing.assert_array_equal(np.isnan(table), [[False, True, False]] * 10)
    shares = np.nanmean(table, axis=1)
    np.testing.assert_array_equal(shares, [1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5])
    with pytest.raises(InputError, match="found has 2 actions, and true 3"):
        mean_average_precision(found[:2], true)
