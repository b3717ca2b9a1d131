"""The copy memory task at any length; `simulate_copy_memory` says what an example is."""

import os

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.labelled_sequences import LabelledBuilder, LabelledConfig, load_splits
from structdl.datasets.sequences import Splits
from structdl.datasets.simulate_sequences import simulate_copy_memory
from structdl.errors import require_at_least


def make_config(time: int, **numbers: int) -> LabelledConfig:
    """The config of a set; numbers are those of `LabelledConfig`."""
    numbers = {"num_train": 10_000} | numbers
    return LabelledConfig(simulate=simulate_copy_memory, time=time, **numbers)


class CopyMemoryBuilder(LabelledBuilder):
    """Inputs and targets are [num, T + 20], uint8."""

    name = "copy_memory"
    BUILDER_CONFIGS = tuple(make_config(time) for time in (500, 1000))

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (None, simulate_copy_memory(0, 0, self.builder_config.time).inputs.shape[1])
        sequences = tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding="bytes")
        return tfds.core.DatasetInfo(
            builder=self,
            description="Ten symbols, a pause, and the symbols once more.",
            features=tfds.features.FeaturesDict({"inputs": sequences, "targets": sequences}),
            disable_shuffling=True,  # fewer sequences are the first of more
        )


def load(
    time: int,
    *,
    num_train: int = 10_000,
    num_validation: int = 1_000,
    num_test: int = 1_000,
    seed: int = 0,
    data_dir: str | os.PathLike | None = None,
) -> Splits:
    """Returns three `Labelled`: inputs and targets [num, T + 20], uint8, classes 0 to 9.

    A split depends on T and the seed, and not on the other splits; that of a smaller number is the
    beginning of that of a larger one.

    Args:
      time: T, at least 1.
      num_train: how many sequences to train on, by default as in the code of Bai et al. (2018).
      num_validation: how many to select on; 0 gives arrays without rows.
      num_test: how many to test on, as num_validation.
      seed: decides the sequences.
      data_dir: see `prepare`.

    Raises:
      InputError: a value out of its range, or the data folder cannot be written.
    """
    require_at_least("T", time, 1)
    config = make_config(
        time,
        num_train=num_train,
        num_validation=num_validation,
        num_test=num_test,
        seed=seed,
    )
    return load_splits(CopyMemoryBuilder, config, data_dir=data_dir)
