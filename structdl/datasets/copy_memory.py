"""The copy memory task at any length; `simulate_copy_memory` says what an example is."""

import dataclasses
import os
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.prepare import prepare
from structdl.datasets.sequences import Splits, require
from structdl.datasets.simulate_sequences import Labelled, simulate_copy_memory

BYTES_PER_EXAMPLE = 1 << 20


@dataclasses.dataclass(eq=False, kw_only=True)
class CopyMemoryConfig(tfds.core.BuilderConfig):
    """What decides the sequences; its name holds all of it."""

    name: str = ""
    time: int
    num_train: int = 10_000
    num_validation: int = 1_000
    num_test: int = 1_000
    seed: int = 0

    def __post_init__(self):
        counts = f"{self.num_train}-{self.num_validation}-{self.num_test}"
        self.name = f"T-{self.time}-{counts}-seed-{self.seed}"


class CopyMemoryBuilder(tfds.core.GeneratorBasedBuilder):
    """An example holds a stretch of the sequences; needs neither raw files nor the network."""

    name = "copy_memory"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = tuple(CopyMemoryConfig(time=time) for time in (500, 1000))

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (None, simulate_copy_memory(0, 0, self.builder_config.time).inputs.shape[1])
        sequences = tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding="bytes")
        return tfds.core.DatasetInfo(
            builder=self,
            description="Ten symbols, a pause, and the symbols once more.",
            features=tfds.features.FeaturesDict({"inputs": sequences, "targets": sequences}),
            disable_shuffling=True,  # fewer sequences are the first of more
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        numbers = {name: getattr(self.builder_config, f"num_{name}") for name in Splits._fields}
        return {name: self._generate_examples(name) for name, number in numbers.items() if number}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        inputs, targets = draw_split(self.builder_config, split)
        step = max(1, BYTES_PER_EXAMPLE // inputs[0].size)
        for start in range(0, len(inputs), step):
            rows = slice(start, start + step)
            yield start, {"inputs": inputs[rows], "targets": targets[rows]}


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
    require("T", time, 1)
    require("num_train", num_train, 1)
    for name, value in (("num_validation", num_validation), ("num_test", num_test), ("seed", seed)):
        require(name, value, 0)
    config = CopyMemoryConfig(
        time=time,
        num_train=num_train,
        num_validation=num_validation,
        num_test=num_test,
        seed=seed,
    )
    # TFDS wants its own object of those that it knows
    config = CopyMemoryBuilder.get_builder_config(config.name) or config
    builder = prepare(CopyMemoryBuilder, config, data_dir=data_dir)
    return Splits(*(_read_split(builder, name) for name in Splits._fields))


def draw_split(config: CopyMemoryConfig, split: str) -> Labelled:
    """Draws the sequences of a split, from a stream of its own."""
    seed = [config.seed, Splits._fields.index(split), config.time]
    return simulate_copy_memory(seed, getattr(config, f"num_{split}"), config.time)


def _read_split(builder: tfds.core.DatasetBuilder, split: str) -> Labelled:
    if split not in builder.info.splits:
        return draw_split(builder.builder_config, split)  # without rows
    source = builder.as_data_source(split)
    examples = source.__getitems__(range(len(source)))
    return Labelled(
        *(np.concatenate([example[field] for example in examples]) for field in Labelled._fields)
    )
