"""What the sets of moving skeletons share: their form, and joining sequences of varied length."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from structdl.datasets.sequences import pad


class Skeletons(NamedTuple):
    """Sequences of a split; x, y and z are in metres, and y is up."""

    positions: np.ndarray  # [num, time, joints, 3], float32; zeros past the end
    lengths: np.ndarray  # [num], int32, frames
    labels: np.ndarray  # [num], int32, from 0
    subjects: np.ndarray  # [num], int32, as the set numbers them


class Sequence3D(NamedTuple):
    """One sequence, and what is known of it."""

    positions: np.ndarray  # [time, joints, 3], float32
    label: int
    subject: int


def as_skeletons(sequences: Sequence[Sequence3D], num_joints: int) -> Skeletons:
    """Sequences padded to the longest of them; of none, arrays without rows."""
    if not sequences:
        numbers = np.zeros(0, np.int32)
        return Skeletons(np.zeros((0, 1, num_joints, 3), np.float32), numbers, numbers, numbers)
    positions, labels, subjects = zip(*sequences, strict=True)
    return Skeletons(*pad(positions), np.array(labels, np.int32), np.array(subjects, np.int32))
