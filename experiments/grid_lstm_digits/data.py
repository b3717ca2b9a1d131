"""Digits of all splits as images in one array, which batches index; and their random shifts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from experiments.digits import load_digits
from experiments.grid_lstm_digits.presets import Config
from structdl.datasets import mnist
from structdl.datasets.sequences import Splits, split_indices


class DigitImages(NamedTuple):
    """Digits as images."""

    pixels: jax.Array  # [num, size, size], float32, 0 (paper) to 1 (ink)
    labels: jax.Array  # [num], int32


def load(config: Config) -> tuple[DigitImages, Splits]:
    """The digits of all splits, and the indices of each split's.

    Raises:
      InputError: a size that digits do not come in, or a set that cannot be had.
    """
    splits = load_digits(config.dataset, config.data)
    pixels = [
        mnist.as_sequence(images, config.size).reshape(-1, config.size, config.size)
        for images, _ in splits
    ]
    labels = np.concatenate([split.labels for split in splits])
    indices = split_indices([len(split.labels) for split in splits])
    return DigitImages(np.concatenate(pixels), labels), indices


def shift(
    key: Key[Array, ""], images: Float[Array, "batch height width"], most: int
) -> Float[Array, "batch height width"]:
    """Each image moved up or down and to a side by 0 to `most` pixels; zeros come in."""
    if most == 0:
        return images
    batch, height, width = images.shape
    padded = jnp.pad(images, ((0, 0), (most, most), (most, most)))
    starts = jax.random.randint(key, (batch, 2), 0, 2 * most + 1)

    def cut(image, start):
        return jax.lax.dynamic_slice(image, start, (height, width))

    return jax.vmap(cut)(padded, starts)
