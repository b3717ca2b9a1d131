"""What the sets of moving skeletons share: their form, and their splits by who is seen."""

import io
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.sequences import Splits, pad
from structdl.errors import InputError


class Skeletons(NamedTuple):
    """Sequences of a split; x, y and z are in metres, and y is up."""

    positions: np.ndarray  # [num, time, joints, 3], float32; zeros past the end
    lengths: np.ndarray  # [num], int32, frames
    labels: np.ndarray  # [num], int32, from 0
    subjects: np.ndarray  # [num], int32, as the set numbers them


class Motion(NamedTuple):
    """One sequence, and what is known of it."""

    positions: np.ndarray  # [time, joints, 3], float32
    label: int
    subject: int


def motion_features(num_joints: int) -> tfds.features.FeaturesDict:
    """Those of a builder whose examples are of the fields of `Motion`."""
    shape = (None, num_joints, 3)
    return tfds.features.FeaturesDict(
        {
            "positions": tfds.features.Tensor(shape=shape, dtype=np.float32, encoding="bytes"),
            "label": tfds.features.Scalar(dtype=np.int32),
            "subject": tfds.features.Scalar(dtype=np.int32),
        }
    )


def require_validation(validation_subjects: Sequence[int], subjects: Sequence[int]) -> None:
    """Raises InputError where people for validation are not some of those with odd numbers."""
    odd = {subject for subject in subjects if subject % 2}
    if not set(validation_subjects) < odd:
        raise InputError(
            f"validation_subjects are {tuple(validation_subjects)}: give some, and not all, of "
            f"{sorted(odd)}"
        )


def read_splits(
    builder: tfds.core.DatasetBuilder, validation_subjects: Sequence[int], num_joints: int
) -> Splits:
    """Three `Skeletons` of a prepared set: even people are the test, odd ones the other two."""
    source = builder.as_data_source("full")
    parts = {name: [] for name in Splits._fields}
    for example in source.__getitems__(range(len(source))):
        motion = Motion(example["positions"], int(example["label"]), int(example["subject"]))
        name = "validation" if motion.subject in validation_subjects else "train"
        parts[name if motion.subject % 2 else "test"].append(motion)
    return Splits(*(as_skeletons(motions, num_joints) for motions in parts.values()))


def as_skeletons(motions: Sequence[Motion], num_joints: int) -> Skeletons:
    """Sequences padded to the longest of them; of none, arrays without rows."""
    if not motions:
        numbers = np.zeros(0, np.int32)
        return Skeletons(np.zeros((0, 1, num_joints, 3), np.float32), numbers, numbers, numbers)
    positions, labels, subjects = zip(*motions, strict=True)
    return Skeletons(*pad(positions), np.array(labels, np.int32), np.array(subjects, np.int32))


def parse_numbers(content: bytes, where: str, *, delimiter: str | None = None) -> np.ndarray:
    """A table of numbers, [lines, numbers a line], float32.

    Raises:
      InputError: says `where`, and what is wrong: a word that is not a number, lines of different
        lengths, a number that is not finite in float32.
    """
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of no lines at all
            rows = np.loadtxt(io.BytesIO(content), np.float32, delimiter=delimiter, ndmin=2)
    except ValueError as error:
        raise InputError(f"{where}: {str(error)[:200]}") from None
    if not np.isfinite(rows).all():
        raise InputError(f"{where} has a number that is not finite")
    return rows
