"""What the generated sets of labelled sequences share: sizes, files and reading."""

import dataclasses
import os
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.prepare import prepare
from structdl.datasets.sequences import Splits
from structdl.datasets.simulate_sequences import Labelled
from structdl.errors import require_at_least

VALUES_PER_EXAMPLE = 1 << 20


@dataclasses.dataclass(eq=False, kw_only=True)
class LabelledConfig(tfds.core.BuilderConfig):
    """What decides the sequences; its name holds all of it."""

    name: str = ""
    simulate: Callable[[list[int], int, int], Labelled]  # (seed, how many, time)
    time: int
    options: tuple[str, ...] = ()  # of simulate, for the name
    num_train: int
    num_validation: int = 1_000
    num_test: int = 1_000
    seed: int = 0

    def __post_init__(self):
        counts = f"{self.num_train}-{self.num_validation}-{self.num_test}"
        self.name = "-".join([f"T-{self.time}-{counts}", *self.options, f"seed-{self.seed}"])


class LabelledBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """An example holds a stretch of the sequences; needs neither raw files nor the network.

    A subclass names its features in `_info`, which are those of `Labelled`, and does not shuffle.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        numbers = {name: getattr(self.builder_config, f"num_{name}") for name in Splits._fields}
        return {name: self._generate_examples(name) for name, number in numbers.items() if number}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        inputs, targets = draw_split(self.builder_config, split)
        step = max(1, VALUES_PER_EXAMPLE // inputs[0].size)
        for start in range(0, len(inputs), step):
            rows = slice(start, start + step)
            yield start, {"inputs": inputs[rows], "targets": targets[rows]}


def load_splits(
    builder_class: type[LabelledBuilder],
    config: LabelledConfig,
    *,
    data_dir: str | os.PathLike | None,
) -> Splits:
    """Returns three `Labelled`; a split of 0 sequences has arrays without rows.

    Raises:
      InputError: a number out of its range, or the data folder cannot be written.
    """
    for name, least in (("num_train", 1), ("num_validation", 0), ("num_test", 0), ("seed", 0)):
        require_at_least(name, getattr(config, name), least)
    # TFDS wants its own object of those that it knows
    config = builder_class.get_builder_config(config.name) or config
    builder = prepare(builder_class, config, data_dir=data_dir)
    return Splits(*(_read_split(builder, name) for name in Splits._fields))


def draw_split(config: LabelledConfig, split: str) -> Labelled:
    """Draws the sequences of a split, from a stream of its own."""
    seed = [config.seed, Splits._fields.index(split), config.time]
    return config.simulate(seed, getattr(config, f"num_{split}"), config.time)


def _read_split(builder: tfds.core.DatasetBuilder, split: str) -> Labelled:
    if split not in builder.info.splits:
        return draw_split(builder.builder_config, split)  # without rows
    source = builder.as_data_source(split)
    examples = source.__getitems__(range(len(source)))
    return Labelled(
        *(np.concatenate([example[field] for example in examples]) for field in Labelled._fields)
    )
