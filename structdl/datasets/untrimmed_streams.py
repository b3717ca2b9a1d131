"""Untrimmed streams as a set on disk; `simulate_streams` says what a video is made of."""

import dataclasses
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.prepare import prepare
from structdl.datasets.sequences import Splits, pad
from structdl.datasets.simulate_streams import World, draw_streams, make_world
from structdl.errors import require_at_least

NUM_CLASSES = 20
NUM_FEATURES = 64


class Streams(NamedTuple):
    """The videos of a split."""

    frames: np.ndarray  # [num, time, features], float32; zeros past the end
    lengths: np.ndarray  # [num], int32
    labels: np.ndarray  # [num, classes], bool: which actions a video has
    intervals: tuple[np.ndarray, ...]  # of each video [occurrences, 3]: class, start, end


@dataclasses.dataclass(eq=False, kw_only=True)
class StreamsConfig(tfds.core.BuilderConfig):
    """What decides the videos; its name holds all of it."""

    name: str = ""
    num_train: int = 400
    num_validation: int = 200
    num_test: int = 400
    group_share: float = 0.5
    seed: int = 0

    def __post_init__(self):
        counts = f"{self.num_train}-{self.num_validation}-{self.num_test}"
        self.name = f"{counts}-alike-{self.group_share:g}-seed-{self.seed}"


class UntrimmedStreamsBuilder(tfds.core.GeneratorBasedBuilder):
    """One example a video; needs neither raw files nor the network."""

    name = "untrimmed_streams"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (StreamsConfig(),)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "frames": tfds.features.Tensor(
                shape=(None, NUM_FEATURES), dtype=np.float32, encoding="bytes"
            ),
            "intervals": tfds.features.Tensor(shape=(None, 3), dtype=np.int32, encoding="bytes"),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Frame features of videos in which actions of groups occur together.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # fewer videos are the first of more
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in Splits._fields}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        its = self.builder_config
        world = world_of(its.seed, its.group_share)
        seed = [its.seed, Splits._fields.index(split)]
        streams = draw_streams(seed, world, num=getattr(its, f"num_{split}"))
        for number, stream in enumerate(streams):
            yield number, stream._asdict()


def world_of(seed: int, group_share: float = 0.5) -> World:
    """What the videos of a set share; what describes the actions is known to who learns."""
    return make_world(
        seed, num_classes=NUM_CLASSES, num_features=NUM_FEATURES, group_share=group_share
    )


def load(
    *,
    num_train: int = 400,
    num_validation: int = 200,
    num_test: int = 400,
    group_share: float = 0.5,
    seed: int = 0,
    data_dir: str | os.PathLike | None = None,
) -> Splits:
    """Returns three `Streams`.

    A split depends on the seed and on how alike a group's actions are; that of fewer videos is the
    beginning of that of more.

    Args:
      num_train, num_validation, num_test: how many videos.
      group_share: see `make_world`.
      seed: decides the world and the videos.
      data_dir: see `prepare`.

    Raises:
      InputError: a value out of its range, or the data folder cannot be written.
    """
    sizes = {"num_train": num_train, "num_validation": num_validation, "num_test": num_test}
    for name, value in sizes.items():
        require_at_least(name, value, 1)
    require_at_least("seed", seed, 0)
    world_of(seed, group_share)  # which refuses another share
    config = StreamsConfig(group_share=group_share, seed=seed, **sizes)
    # TFDS wants its own object of those that it knows
    config = UntrimmedStreamsBuilder.get_builder_config(config.name) or config
    builder = prepare(UntrimmedStreamsBuilder, config, data_dir=data_dir)
    return Splits(*(_read_split(builder, split) for split in Splits._fields))


def _read_split(builder: tfds.core.DatasetBuilder, split: str) -> Streams:
    source = builder.as_data_source(split)
    examples = source.__getitems__(range(len(source)))
    intervals = tuple(example["intervals"] for example in examples)
    labels = np.zeros((len(examples), NUM_CLASSES), bool)
    for row, its in zip(labels, intervals, strict=True):
        row[its[:, 0]] = True
    return Streams(*pad([example["frames"] for example in examples]), labels, intervals)
