"""Parity, addition and memorization; `simulate_algorithmic` says what an example is."""

import functools
import os

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.labelled_sequences import LabelledBuilder, LabelledConfig, load_splits
from structdl.datasets.sequences import Splits
from structdl.datasets.simulate_algorithmic import (
    SHARES,
    simulate_addition,
    simulate_memorization,
    simulate_parity,
)
from structdl.errors import require_at_least, require_known


def _info(builder: LabelledBuilder, description: str) -> tfds.core.DatasetInfo:
    """Rows of numbers; the targets of some sets are rows, those of others one number each."""
    config = builder.builder_config
    shapes = (array.shape[1:] for array in config.simulate(0, 0, config.time))
    features = {
        name: tfds.features.Tensor(shape=(None, *shape), dtype=np.uint8, encoding="bytes")
        for name, shape in zip(("inputs", "targets"), shapes, strict=True)
    }
    return tfds.core.DatasetInfo(
        builder=builder,
        description=description,
        features=tfds.features.FeaturesDict(features),
        disable_shuffling=True,  # fewer strings are the first of more
    )


def parity_config(num_bits: int, *, share: str, **numbers: int) -> LabelledConfig:
    """The config of strings of so many bits; numbers are those of `LabelledConfig`."""
    simulate = functools.partial(simulate_parity, share=share)
    return LabelledConfig(simulate=simulate, time=num_bits, options=(f"share-{share}",), **numbers)


def addition_config(num_digits: int, **numbers: int) -> LabelledConfig:
    """The config of integers of so many digits; numbers are those of `LabelledConfig`."""
    return LabelledConfig(simulate=simulate_addition, time=num_digits, **numbers)


def memorization_config(length: int, *, num_symbols: int, **numbers: int) -> LabelledConfig:
    """The config of strings of a length; numbers are those of `LabelledConfig`."""
    simulate = functools.partial(simulate_memorization, num_symbols=num_symbols)
    options = (f"{num_symbols}-symbols",)
    return LabelledConfig(simulate=simulate, time=length, options=options, **numbers)


class ParityBuilder(LabelledBuilder):
    """Inputs are [num, k] and targets [num], uint8."""

    name = "parity"
    BUILDER_CONFIGS = (parity_config(30, share="half", num_train=100_000),)

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, "Strings of bits, and whether an odd number of them is 1.")


class AdditionBuilder(LabelledBuilder):
    """Inputs and targets are [num, 3 digits + 4], uint8."""

    name = "addition"
    BUILDER_CONFIGS = (addition_config(15, num_train=100_000),)

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, "Two integers, digit by digit, and their sum.")


class MemorizationBuilder(LabelledBuilder):
    """Inputs and targets are [num, 2 length + 2], uint8."""

    name = "memorization"
    BUILDER_CONFIGS = (memorization_config(20, num_symbols=64, num_train=100_000),)

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, "Strings of symbols, and the same strings again.")


def load_parity(
    num_bits: int,
    *,
    share: str = "half",
    data_dir: str | os.PathLike | None = None,
    **numbers: int,
) -> Splits:
    """Returns three `Labelled`: inputs [num, k] and targets [num], uint8.

    Args:
      num_bits: k, at least 1.
      share: of ones in the strings to train on, see `simulate_parity`; those to validate and to
        test on have each bit at 1 with probability 1/2.
      data_dir: see `prepare`.
      numbers: num_train, num_validation, num_test and seed, see `LabelledConfig`.

    Raises:
      InputError: a value out of its range, or the data folder cannot be written.
    """
    require_at_least("the number of bits", num_bits, 1)
    require_known("share", share, SHARES)
    numbers = {"num_validation": 1000, "num_test": 1000} | numbers
    config = parity_config(num_bits, share="half", **(numbers | {"num_train": 1}))
    splits = load_splits(ParityBuilder, config, data_dir=data_dir)
    config = parity_config(
        num_bits, share=share, **(numbers | {"num_validation": 0, "num_test": 0})
    )
    train = load_splits(ParityBuilder, config, data_dir=data_dir).train
    return splits._replace(train=train)


def load_addition(
    num_digits: int, *, data_dir: str | os.PathLike | None = None, **numbers: int
) -> Splits:
    """Returns three `Labelled`: inputs and targets [num, 3 digits + 4], uint8.

    Args:
      num_digits: of each integer, 1 to 18.
      data_dir, numbers: see `load_parity`.

    Raises:
      InputError: a value out of its range, or the data folder cannot be written.
    """
    simulate_addition(0, 0, num_digits)  # refuses what it cannot draw
    config = addition_config(num_digits, **numbers)
    return load_splits(AdditionBuilder, config, data_dir=data_dir)


def load_memorization(
    length: int,
    *,
    num_symbols: int = 64,
    data_dir: str | os.PathLike | None = None,
    **numbers: int,
) -> Splits:
    """Returns three `Labelled`: inputs and targets [num, 2 length + 2], uint8.

    Args:
      length: of the strings, at least 1.
      num_symbols: how many there are to draw from, 1 to 255.
      data_dir, numbers: see `load_parity`.

    Raises:
      InputError: a value out of its range, or the data folder cannot be written.
    """
    simulate_memorization(0, 0, length, num_symbols=num_symbols)  # refuses what it cannot draw
    config = memorization_config(length, num_symbols=num_symbols, **numbers)
    return load_splits(MemorizationBuilder, config, data_dir=data_dir)
