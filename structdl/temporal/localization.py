"""From scores of frames to intervals of actions, and how good intervals are.

All of it runs on the host, on NumPy arrays: what is found has no fixed size.

Reference: thresholds and scores as in Paul, Roy, Roy-Chowdhury (2018), "W-TALC", arXiv:1807.10418;
the measure is that of ActivityNet: Caba Heilbron, Escorcia, Ghanem, Niebles (2015), CVPR.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from structdl.errors import InputError

IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))


class Interval(NamedTuple):
    """Frames from `start` up to, and not with, `end`."""

    start: int
    end: int
    score: float


def overlap(one: tuple[int, int], other: tuple[int, int]) -> float:
    """Intersection over union of two intervals (start, end).

    >>> overlap((0, 4), (2, 6))
    0.3333333333333333
    """
    shared = min(one[1], other[1]) - max(one[0], other[0])
    union = max(one[1], other[1]) - min(one[0], other[0])
    return max(shared, 0) / union if union > 0 else 0.0


def find_intervals(
    activation: np.ndarray,
    *,
    thresholds: Sequence[float] = (0.2, 0.35, 0.5, 0.65, 0.8),
    margin: float = 0.25,
    max_overlap: float = 0.5,
) -> list[Interval]:
    """Where one action is in one video: runs of frames above thresholds, the best first.

    A run's score is the mean activation within, less that of the frames about it: as many on each
    side as the margin's share of its length, and one at least. Of runs that overlap the best is
    kept.

    Args:
      activation: of the frames, [time].
      thresholds: shares of the way from the lowest activation to the highest.
      margin: how far about a run one looks.
      max_overlap: the intersection over union up to which two runs are both kept.

    Raises:
      InputError: there are no frames, or an activation is not finite.

    >>> [tuple(found) for found in find_intervals(np.array([0.0, 1.0, 1.0, 0.0]))]
    [(1, 3, 1.0)]
    """
    if activation.ndim != 1 or not activation.size or not np.isfinite(activation).all():
        raise InputError(
            f"activation of shape {activation.shape}: expected a finite number for each frame of "
            "at least one"
        )
    low, high = activation.min(), activation.max()
    runs = {
        run
        for threshold in thresholds
        for run in _runs(activation > low + threshold * (high - low))
    }
    found = [Interval(*run, _contrast(activation, *run, margin)) for run in sorted(runs)]
    return suppress(found, max_overlap)


def _runs(is_on: np.ndarray) -> list[tuple[int, int]]:
    changes = np.flatnonzero(np.diff(np.concatenate([[0], is_on.astype(np.int8), [0]])))
    return [(int(start), int(end)) for start, end in changes.reshape(-1, 2)]


def _contrast(activation: np.ndarray, start: int, end: int, margin: float) -> float:
    width = max(int(margin * (end - start)), 1)
    about = np.concatenate(
        [activation[max(start - width, 0) : start], activation[end : end + width]]
    )
    inside = activation[start:end].mean()
    return float(inside - about.mean()) if about.size else float(inside - activation.min())


def suppress(intervals: Sequence[Interval], max_overlap: float) -> list[Interval]:
    """Non-maximum suppression: the best first, without those that overlap a better one by more.

    >>> suppress([Interval(0, 4, 0.5), Interval(0, 5, 0.9), Interval(6, 8, 0.1)], 0.5)
    [Interval(start=0, end=5, score=0.9), Interval(start=6, end=8, score=0.1)]
    """
    kept = []
    for interval in sorted(intervals, key=lambda interval: -interval.score):
        if all(overlap(interval[:2], other[:2]) <= max_overlap for other in kept):
            kept.append(interval)
    return kept


def average_precision(
    found: Sequence[tuple[int, Interval]],
    true: Sequence[tuple[int, tuple[int, int]]],
    iou: float,
) -> float:
    """Of one action: the area under precision over recall, interpolated; NaN where it never occurs.

    From the best score on, an interval is right if of the true ones in its video that are not taken
    yet the one that overlaps most does so by `iou` or more.

    Args:
      found: video and interval.
      true: video, and (start, end).
      iou: the intersection over union from which on an interval is right.
    """
    if not true:
        return float("nan")
    taken = [False] * len(true)
    is_right = []
    for video, interval in sorted(found, key=lambda pair: -pair[1].score):
        candidates = [
            (overlap(interval[:2], other), number)
            for number, (its, other) in enumerate(true)
            if its == video and not taken[number]
        ]
        best, number = max(candidates, default=(0.0, -1))
        is_right.append(number >= 0 and best >= iou)
        if is_right[-1]:
            taken[number] = True
    return _area(np.array(is_right, bool), len(true))


def _area(is_right: np.ndarray, num_true: int) -> float:
    """Each precision counts as the best at its recall or a higher one."""
    right = np.cumsum(is_right)
    precision = right / np.arange(1, len(right) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(best[is_right]) / num_true)


def mean_average_precision(
    found: Sequence[Sequence[tuple[int, Interval]]],
    true: Sequence[Sequence[tuple[int, tuple[int, int]]]],
    thresholds: Sequence[float] = IOU_THRESHOLDS,
) -> np.ndarray:
    """`average_precision` of each threshold and action, [thresholds, classes].

    The mean over actions that occur is `np.nanmean(..., axis=1)`.

    Args:
      found, true: for each action what `average_precision` takes.

    Raises:
      InputError: not as many actions were looked for as there are.
    """
    if len(found) != len(true):
        raise InputError(f"found has {len(found)} actions, and true {len(true)}")
    return np.array(
        [
            [average_precision(its, real, iou) for its, real in zip(found, true, strict=True)]
            for iou in thresholds
        ]
    )
