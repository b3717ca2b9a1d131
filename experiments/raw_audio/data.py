"""Recordings on the device, and which stretches of them each batch shows."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from experiments.raw_audio.presets import INPUTS, TARGETS, Config
from structdl.datasets import decaying_tones, spoken_digits
from structdl.datasets.sequences import Splits, split_indices
from structdl.datasets.spoken_digits import num_frames
from structdl.errors import InputError, nearest_names
from structdl.training.batches import Stretch, shuffled_stretches

DATASETS = ("decaying_tones", "spoken_digits")


class Recordings(NamedTuple):
    """Recordings, padded on the right."""

    waves: jax.Array  # [num_recordings, INPUTS + TARGETS * steps], float32
    steps: jax.Array  # [num_recordings], int32, how many lie within each


def load(config: Config) -> tuple[Recordings, Splits]:
    """The recordings of all splits, and the indices of each split's.

    Raises:
      InputError: an unknown dataset, or one that is not available.
    """
    if config.dataset == "decaying_tones":
        splits = decaying_tones.load(data_dir=config.data.dir)
    elif config.dataset == "spoken_digits":
        splits = spoken_digits.load(
            max_time=config.max_samples, data_dir=config.data.dir, raw_dir=config.data.raw_dir
        )
    else:
        raise InputError(
            f"--dataset is {config.dataset!r}: {nearest_names(config.dataset, DATASETS)}"
        )
    steps = num_frames(np.concatenate([split[1] for split in splits])).astype(np.int32)
    steps = np.minimum(steps, (config.max_samples - INPUTS) // TARGETS)
    time = INPUTS + TARGETS * int(steps.max())
    waves = [_fitted(split[0], time) for split in splits]
    return Recordings(np.concatenate(waves), steps), split_indices([len(each) for each in waves])


def train_batches(
    steps: np.ndarray, examples: np.ndarray, batch_size: int, max_steps: int
) -> Callable[[int, int], Stretch]:
    """`batch(step, seed)`: see `shuffled_stretches`; starts are counted in steps.

    Raises:
      InputError: a batch larger than the training set.
    """
    return shuffled_stretches(examples, batch_size, steps, max_steps)


def whole(examples: np.ndarray) -> Stretch:
    """Whole recordings, all in one batch."""
    return Stretch(examples.astype(np.int32), np.zeros(len(examples), np.int32))


def _fitted(waves: np.ndarray, time: int) -> np.ndarray:
    return np.pad(waves[:, :time], ((0, 0), (0, max(0, time - waves.shape[1]))))
