"""Strings of all splits in one array, which batches index."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.algorithmic_tasks.presets import Config
from structdl.datasets.algorithmic_tasks import load_addition, load_memorization, load_parity
from structdl.datasets.sequences import Splits, split_indices
from structdl.datasets.simulate_algorithmic import DIGITS


class Strings(NamedTuple):
    """Strings and what is to be said about them, as `simulate_algorithmic` tells."""

    inputs: jax.Array  # parity: [num, k]; else [num, time]; uint8
    targets: jax.Array  # parity: [num]; else [num, time]; uint8


def load(config: Config) -> tuple[Strings, Splits]:
    """The strings of all splits, and the indices of each split's.

    Raises:
      InputError: a length or a number of strings that is out of its range.
    """
    numbers = {"num_train": config.num_train, "data_dir": config.data.dir}
    match config.problem:
        case "parity":
            splits = load_parity(config.length, share=config.share, **numbers)
        case "addition":
            splits = load_addition(config.length, **numbers)
        case "memorization":
            splits = load_memorization(config.length, num_symbols=config.num_symbols, **numbers)
    strings = Strings(*map(np.concatenate, zip(*splits, strict=True)))
    return strings, split_indices([len(split.targets) for split in splits])


def num_classes(config: Config) -> int:
    """How many symbols a string has, and an answer too."""
    return {"parity": 2, "addition": 1 + DIGITS, "memorization": 1 + config.num_symbols}[
        config.problem
    ]


def features(config: Config, inputs: jax.Array) -> jax.Array:
    """What a model reads: bits [batch, k] as they are, symbols one-hot [batch, time, classes]."""
    if config.problem == "parity":
        return jnp.asarray(inputs, jnp.float32)
    return jax.nn.one_hot(inputs, num_classes(config), dtype=jnp.float32)
