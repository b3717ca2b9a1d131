"""Sequences of all splits in one array, which batches index."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from experiments.synthetic_sequences.presets import Config
from structdl.datasets import adding, copy_memory
from structdl.datasets.sequences import Splits, split_indices
from structdl.datasets.simulate_sequences import NUM_CLASSES, NUM_SYMBOLS, memoryless_loss
from structdl.training.curves import Baseline


class Sequences(NamedTuple):
    """Sequences and what is to be said about them, as `simulate_sequences` tells."""

    inputs: jax.Array  # adding: [num, time, 2], float32; copy: [num, time + 20], uint8
    targets: jax.Array  # adding: [num], float32; copy: [num, time + 20], uint8


class Problem(NamedTuple):
    """What a model of a problem reads and says."""

    in_features: int
    num_outputs: int
    last: bool  # whether it answers after the last step alone


PROBLEMS = {
    "adding": Problem(2, 1, last=True),
    "copy": Problem(NUM_CLASSES, NUM_CLASSES, last=False),
}


def load(config: Config) -> tuple[Sequences, Splits]:
    """The sequences of all splits, and the indices of each split's.

    Raises:
      InputError: a length or a number of sequences that is out of its range.
    """
    load_splits: Callable = {"adding": adding.load, "copy": copy_memory.load}[config.problem]
    splits = load_splits(config.length, num_train=config.num_train, data_dir=config.data.dir)
    sequences = Sequences(*map(np.concatenate, zip(*splits, strict=True)))
    return sequences, split_indices([len(split.targets) for split in splits])


def reach_of(config: Config) -> int:
    """How many steps an answer asks for, the one after which it is said included."""
    return config.length if config.problem == "adding" else config.length + NUM_SYMBOLS + 1


def baseline(config: Config) -> Baseline:
    """The loss of who remembers nothing."""
    if config.problem == "adding":
        return Baseline("always 1, the mean", 1 / 6)
    return Baseline("without memory", memoryless_loss(config.length))
