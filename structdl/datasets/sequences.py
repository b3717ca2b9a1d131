"""What the sequence sets share: splits, and sequences of different lengths in one array."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from structdl.errors import InputError


class Splits(NamedTuple):
    """The three parts of a set, each in the set's own form."""

    train: Any
    validation: Any
    test: Any


class Padded(NamedTuple):
    """Sequences of different lengths, padded on the right with zeros."""

    values: np.ndarray  # [num, time, ...], time the longest of them
    lengths: np.ndarray  # [num], int32


def pad(sequences: Sequence[np.ndarray]) -> Padded:
    """Puts sequences [length, ...] of one dtype into one array.

    Raises:
      InputError: there are none.

    >>> values, lengths = pad([np.array([1, 2]), np.array([3])])
    >>> values, lengths
    (array([[1, 2], [3, 0]]), array([2, 1], dtype=int32))
    """
    if not sequences:
        raise InputError("no sequences to pad: expected at least one")
    lengths = np.array([len(sequence) for sequence in sequences], np.int32)
    shape = (len(sequences), lengths.max(), *sequences[0].shape[1:])
    values = np.zeros(shape, sequences[0].dtype)
    for row, sequence in zip(values, sequences, strict=True):
        row[: len(sequence)] = sequence
    return Padded(values, lengths)


def split_indices(sizes: Sequence[int]) -> Splits:
    """Where the splits of these sizes lie in one array of all of them, one after another.

    >>> split_indices([2, 1, 1])
    Splits(train=array([0, 1]), validation=array([2]), test=array([3]))
    """
    return Splits(*np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1]))
