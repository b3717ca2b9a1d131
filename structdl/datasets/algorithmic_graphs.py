"""Generated graph tasks: paths, circuits, colours far away, deductions like bAbI 4, 15, 16, 18.

What an example of each is stands with the functions of `simulate_algorithmic_graphs`. Graphs that
are the same up to the numbering of their nodes are in the same split, which a hash of the graph
chooses: a network, which does not see the numbers, is tested on graphs it was not trained on.

Reference: Li, Tarlow, Brockschmidt, Zemel (2016), "Gated graph sequence neural networks",
arXiv:1511.05493, section 5. The authors' code trains on 50 examples of a bAbI task and selects on
50, which are the default numbers here, except where a task says otherwise.
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.prepare import prepare
from structdl.datasets.simulate_algorithmic_graphs import (
    TASKS,
    AlgorithmicGraph,
    AlgorithmicTask,
    fingerprint,
)
from structdl.errors import InputError, require_known

_SPLITS = ("train", "validation", "test")
_DRAWS_PER_EXAMPLE = 100  # of which a third is expected to belong to the split


class AlgorithmicGraphs(NamedTuple):
    """The splits of a task."""

    task: AlgorithmicTask
    train: list[AlgorithmicGraph]
    validation: list[AlgorithmicGraph]
    test: list[AlgorithmicGraph]


@dataclasses.dataclass(eq=False, kw_only=True)
class AlgorithmicGraphsConfig(tfds.core.BuilderConfig):
    """What decides the examples; its name holds all of it."""

    name: str = ""
    task: str
    num_train: int
    num_validation: int
    num_test: int
    smallest: int
    largest: int
    seed: int

    def __post_init__(self):
        counts = f"{self.num_train}-{self.num_validation}-{self.num_test}"
        self.name = f"{self.task}-{counts}-size-{self.smallest}-{self.largest}-seed-{self.seed}"


def config_of(
    task: str, num_train=None, num_validation=50, num_test=1000, sizes=None, seed=0
) -> AlgorithmicGraphsConfig:
    """The configuration of a task; arguments as in `load`."""
    smallest, largest = TASKS[task].sizes if sizes is None else sizes
    return AlgorithmicGraphsConfig(
        task=task,
        num_train=TASKS[task].num_train if num_train is None else num_train,
        num_validation=num_validation,
        num_test=num_test,
        smallest=smallest,
        largest=largest,
        seed=seed,
    )


class AlgorithmicGraphsBuilder(tfds.core.GeneratorBasedBuilder):
    """One example a graph; needs neither raw files nor the network."""

    name = "algorithmic_graphs"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = tuple(map(config_of, TASKS))

    def _info(self) -> tfds.core.DatasetInfo:
        task = TASKS[self.builder_config.task]
        indices = tfds.features.Tensor(shape=(None,), dtype=np.int32)
        annotations = tfds.features.Tensor(shape=(None, task.num_annotations), dtype=np.float32)
        features = {
            "num_nodes": tfds.features.Scalar(dtype=np.int32),
            "senders": indices,
            "receivers": indices,
            "edge_types": indices,
            "annotations": annotations,
            "targets": indices,
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Generated graphs with a question and its answer.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # fewer examples are the first of more
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        splits = {name: draw_split(self.builder_config, name) for name in _SPLITS}
        return {name: self._generate_examples(graphs) for name, graphs in splits.items() if graphs}

    def _generate_examples(self, graphs: list[AlgorithmicGraph]) -> Iterator[tuple[int, dict]]:
        for place, graph in enumerate(graphs):
            yield place, graph._asdict()


def load(
    task: str,
    *,
    num_train: int | None = None,
    num_validation: int = 50,
    num_test: int = 1000,
    sizes: tuple[int, int] | None = None,
    seed: int = 0,
    data_dir: str | os.PathLike | None = None,
) -> AlgorithmicGraphs:
    """Returns the splits of a task.

    Tasks are shortest_path, euler_circuit, far_colour, babi04, babi15, babi16 and babi18.

    A split depends on the task, the sizes and the seed, and not on the other splits; that of a
    smaller number is the beginning of that of a larger one.

    Args:
      task: its name.
      num_train: how many graphs to train on; None means the task's own default.
      num_validation: how many to select on.
      num_test: how many to test on.
      sizes: the smallest and the largest size of a graph, in the task's own measure (see
        `simulate_algorithmic_graphs`); each between them is drawn as often. None means the task's
        own default.
      seed: decides the graphs.
      data_dir: see `prepare`.

    Raises:
      InputError: unknown task; a number or size out of range; graphs of these sizes are too much
        alike for three splits; the data folder cannot be written.
    """
    require_known("task", task, TASKS)
    config = config_of(task, num_train, num_validation, num_test, sizes, seed)
    _check(config)
    # TFDS wants its own object of those that it knows
    config = AlgorithmicGraphsBuilder.get_builder_config(config.name) or config
    builder = prepare(AlgorithmicGraphsBuilder, config, data_dir=data_dir)
    splits = {
        name: [_from_record(record) for record in builder.as_data_source(name)]
        if name in builder.info.splits
        else []
        for name in _SPLITS
    }
    return AlgorithmicGraphs(TASKS[task], **splits)


def draw_split(config: AlgorithmicGraphsConfig, split: str) -> list[AlgorithmicGraph]:
    """Draws the graphs of a split: those that hash to it, of a stream of its own.

    Raises:
      InputError: the graphs of these sizes are too much alike: none or few hash to this split.
    """
    task, place = TASKS[config.task], _SPLITS.index(split)
    rng = np.random.default_rng([config.seed, place, *config.task.encode()])
    number = getattr(config, f"num_{split}")
    graphs = []
    for _ in range(_DRAWS_PER_EXAMPLE * number):
        if len(graphs) == number:
            break
        graph = task.generate(rng, int(rng.integers(config.smallest, config.largest + 1)))
        digest = hashlib.sha256(fingerprint(graph)).digest()
        if int.from_bytes(digest[:8], "little") % len(_SPLITS) == place:
            graphs.append(graph)
    if len(graphs) < number:
        raise InputError(
            f"sizes = ({config.smallest}, {config.largest}): {_DRAWS_PER_EXAMPLE * number} draws "
            f"of {config.task} gave {len(graphs)} of {number} graphs for {split}, since they are "
            "much alike and each kind belongs to one split; raise the largest size"
        )
    return graphs


def _check(config: AlgorithmicGraphsConfig) -> None:
    for name, least in (("num_train", 1), ("num_validation", 0), ("num_test", 0), ("seed", 0)):
        if getattr(config, name) < least:
            raise InputError(f"{name} = {getattr(config, name)}: it must be {least} or more")
    least = TASKS[config.task].min_size
    if not least <= config.smallest <= config.largest:
        raise InputError(
            f"sizes = ({config.smallest}, {config.largest}): {config.task} has sizes from {least}, "
            "and the first must not be above the second"
        )


def _from_record(record: dict) -> AlgorithmicGraph:
    return AlgorithmicGraph(**record | {"num_nodes": int(record["num_nodes"])})
