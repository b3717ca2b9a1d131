"""Digits of all splits as sequences of pixels in one array, which batches index."""

from typing import NamedTuple

import jax
import numpy as np

from experiments.digits import load_digits
from experiments.sequential_digits.presets import Config
from structdl.datasets import mnist
from structdl.datasets.sequences import Splits, split_indices

PERMUTATION_SEED = 0  # one order of the pixels for all runs


class PixelSequences(NamedTuple):
    """Digits as sequences of pixels."""

    pixels: jax.Array  # [num, size * size, 1], float32
    labels: jax.Array  # [num], int32


def load(config: Config) -> tuple[PixelSequences, Splits]:
    """The digits of all splits, and the indices of each split's.

    Raises:
      InputError: a size that digits do not come in, or a set that cannot be had.
    """
    splits = load_digits(config.dataset, config.data)
    seed = PERMUTATION_SEED if config.permuted else None
    pixels = [
        mnist.as_sequence(images, config.size, permutation_seed=seed, standardize=True)
        for images, _ in splits
    ]
    labels = np.concatenate([split.labels for split in splits])
    indices = split_indices([len(split.labels) for split in splits])
    return PixelSequences(np.concatenate(pixels), labels), indices


def in_place(pixels: np.ndarray, config: Config) -> np.ndarray:
    """Sequences [num, size * size, 1] as images [num, size, size], the permutation undone."""
    images = pixels[..., 0]
    if config.permuted:
        order = mnist.permutation(config.size, PERMUTATION_SEED)
        images = images[:, np.argsort(order)]
    return images.reshape(-1, config.size, config.size)
