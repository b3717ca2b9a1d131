"""Pieces of all splits in one array, and the batches that index them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from experiments.polyphonic_music.presets import Config
from structdl.datasets import chord_progressions, poly_music
from structdl.datasets.sequences import Splits, split_indices
from structdl.errors import InputError, nearest_names
from structdl.training.batches import Stretch, in_order, shuffled_stretches

DATASETS = ("chord_progressions", *poly_music.RAW_FILES)


class Pieces(NamedTuple):
    """Pieces of music, padded on the right."""

    keys: jax.Array  # [num_pieces, time, 88], uint8
    lengths: jax.Array  # [num_pieces], int32


def load(config: Config) -> tuple[Pieces, Splits]:
    """The pieces of all splits, and the indices of each split's.

    Raises:
      InputError: an unknown set, or one that cannot be had.
    """
    if config.dataset == "chord_progressions":
        splits = chord_progressions.load(data_dir=config.data.dir)
    elif config.dataset in poly_music.RAW_FILES:
        splits = poly_music.load(
            config.dataset, data_dir=config.data.dir, raw_dir=config.data.raw_dir
        )
    else:
        raise InputError(
            f"--dataset is {config.dataset!r}: {nearest_names(config.dataset, DATASETS)}"
        )
    time = max(split.values.shape[1] for split in splits)
    keys = np.concatenate(
        [np.pad(values, ((0, 0), (0, time - values.shape[1]), (0, 0))) for values, _ in splits]
    )
    lengths = np.concatenate([split.lengths for split in splits])
    return Pieces(keys, lengths), split_indices([len(split.lengths) for split in splits])


def train_batches(
    lengths: np.ndarray, examples: np.ndarray, batch_size: int, max_time: int
) -> Callable[[int, int], Stretch]:
    """`batch(step, seed)`: see `shuffled_stretches`.

    Raises:
      InputError: a batch larger than the training set.
    """
    return shuffled_stretches(examples, batch_size, lengths, max_time)


def eval_batches(examples: np.ndarray, batch_size: int) -> Sequence[Stretch]:
    """Whole pieces in their order."""
    batches = in_order(examples, batch_size)
    return [Stretch(pieces, np.zeros_like(pieces)) for pieces in batches]
