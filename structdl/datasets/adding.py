"""The adding problem at any length; `simulate_adding` says what an example is and whose it is."""

import functools
import os

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.labelled_sequences import LabelledBuilder, LabelledConfig, load_splits
from structdl.datasets.sequences import Splits
from structdl.datasets.simulate_sequences import MARKS, simulate_adding
from structdl.errors import require_at_least, require_known


def make_config(time: int, *, marks: str = "anywhere", **numbers: int) -> LabelledConfig:
    """The config of a set; numbers are those of `LabelledConfig`."""
    simulate = functools.partial(simulate_adding, marks=marks)
    numbers = {"num_train": 50_000} | numbers
    return LabelledConfig(simulate=simulate, time=time, options=(marks,), **numbers)


class AddingBuilder(LabelledBuilder):
    """Inputs are [num, time, 2] and targets [num], float32."""

    name = "adding"
    BUILDER_CONFIGS = tuple(make_config(time) for time in (200, 600))

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (None, self.builder_config.time, 2)
        features = {
            "inputs": tfds.features.Tensor(shape=shape, dtype=np.float32, encoding="bytes"),
            "targets": tfds.features.Tensor(shape=(None,), dtype=np.float32, encoding="bytes"),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Numbers of which two are marked, and the sum of these two.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # fewer sequences are the first of more
        )


def load(
    time: int,
    *,
    num_train: int = 50_000,
    num_validation: int = 1_000,
    num_test: int = 1_000,
    marks: str = "anywhere",
    seed: int = 0,
    data_dir: str | os.PathLike | None = None,
) -> Splits:
    """Returns three `Labelled`: inputs [num, time, 2] and targets [num], float32.

    A split depends on T, the marks and the seed, and not on the other splits; that of a smaller
    number is the beginning of that of a larger one. With T = 600 the 50 000 sequences to train on
    take 240 MB.

    Args:
      time: the length T, at least 2.
      num_train: how many sequences to train on.
      num_validation: how many to select on; 0 gives arrays without rows.
      num_test: how many to test on, as num_validation.
      marks: "anywhere" as in Bai et al. (2018), or "halves"; see `simulate_adding`.
      seed: decides the sequences.
      data_dir: see `prepare`.

    Raises:
      InputError: a value out of its range, or the data folder cannot be written.
    """
    require_at_least("T", time, 2)
    require_known("marks", marks, MARKS)
    config = make_config(
        time,
        num_train=num_train,
        num_validation=num_validation,
        num_test=num_test,
        marks=marks,
        seed=seed,
    )
    return load_splits(AddingBuilder, config, data_dir=data_dir)
