"""The adding problem at any length; `simulate_adding` says what an example is and whose it is."""

import dataclasses
import os
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.prepare import prepare
from structdl.datasets.sequences import Splits, require
from structdl.datasets.simulate_sequences import MARKS, Labelled, simulate_adding
from structdl.errors import InputError, nearest_names

NUMBERS_PER_EXAMPLE = 1 << 20  # about 4 MB


@dataclasses.dataclass(eq=False, kw_only=True)
class AddingConfig(tfds.core.BuilderConfig):
    """What decides the sequences; its name holds all of it."""

    name: str = ""
    time: int
    num_train: int = 50_000
    num_validation: int = 1_000
    num_test: int = 1_000
    marks: str = "anywhere"
    seed: int = 0

    def __post_init__(self):
        counts = f"{self.num_train}-{self.num_validation}-{self.num_test}"
        self.name = f"T-{self.time}-{counts}-{self.marks}-seed-{self.seed}"


class AddingBuilder(tfds.core.GeneratorBasedBuilder):
    """An example holds a stretch of the sequences; needs neither raw files nor the network."""

    name = "adding"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = tuple(AddingConfig(time=time) for time in (200, 600))

    def _info(self) -> tfds.core.DatasetInfo:
        time = self.builder_config.time
        features = {
            "inputs": tfds.features.Tensor(
                shape=(None, time, 2), dtype=np.float32, encoding="bytes"
            ),
            "targets": tfds.features.Tensor(shape=(None,), dtype=np.float32, encoding="bytes"),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Numbers of which two are marked, and the sum of these two.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # fewer sequences are the first of more
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        numbers = {name: getattr(self.builder_config, f"num_{name}") for name in Splits._fields}
        return {name: self._generate_examples(name) for name, number in numbers.items() if number}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        inputs, targets = draw_split(self.builder_config, split)
        step = max(1, NUMBERS_PER_EXAMPLE // inputs[0].size)
        for start in range(0, len(inputs), step):
            rows = slice(start, start + step)
            yield start, {"inputs": inputs[rows], "targets": targets[rows]}


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
    require("T", time, 2)
    require("num_train", num_train, 1)
    for name, value in (("num_validation", num_validation), ("num_test", num_test), ("seed", seed)):
        require(name, value, 0)
    if marks not in MARKS:
        raise InputError(f"unknown marks {marks!r}: {nearest_names(marks, MARKS)}")
    config = AddingConfig(
        time=time,
        num_train=num_train,
        num_validation=num_validation,
        num_test=num_test,
        marks=marks,
        seed=seed,
    )
    # TFDS wants its own object of those that it knows
    config = AddingBuilder.get_builder_config(config.name) or config
    builder = prepare(AddingBuilder, config, data_dir=data_dir)
    return Splits(*(_read_split(builder, name) for name in Splits._fields))


def draw_split(config: AddingConfig, split: str) -> Labelled:
    """Draws the sequences of a split, from a stream of its own."""
    seed = [config.seed, Splits._fields.index(split), config.time]
    return simulate_adding(seed, getattr(config, f"num_{split}"), config.time, marks=config.marks)


def _read_split(builder: tfds.core.DatasetBuilder, split: str) -> Labelled:
    if split not in builder.info.splits:
        return draw_split(builder.builder_config, split)  # without rows
    source = builder.as_data_source(split)
    examples = source.__getitems__(range(len(source)))
    return Labelled(
        *(np.concatenate([example[field] for example in examples]) for field in Labelled._fields)
    )
