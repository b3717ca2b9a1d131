"""Interacting objects as a set on disk: springs, charges or oscillators, at any size."""

import dataclasses
import os
from collections.abc import Iterator

import jax
import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.prepare import prepare
from structdl.datasets.sequences import Splits
from structdl.datasets.simulate_particles import (
    Trajectories,
    simulate_charged,
    simulate_kuramoto,
    simulate_springs,
)
from structdl.errors import require_at_least, require_known

SIMULATORS = {
    "springs": simulate_springs,
    "charged": simulate_charged,
    "kuramoto": simulate_kuramoto,
}
FEATURES = {
    "springs": ("x", "y", "x velocity", "y velocity"),
    "charged": ("x", "y", "x velocity", "y velocity"),
    "kuramoto": ("phase velocity", "sine of phase", "frequency"),
}
VALUES_PER_EXAMPLE = 1 << 20


@dataclasses.dataclass(eq=False, kw_only=True)
class ParticlesConfig(tfds.core.BuilderConfig):
    """What decides the systems; its name holds all of it."""

    name: str = ""
    kind: str = "springs"
    objects: int = 5
    num_frames: int = 49
    num_train: int = 50_000
    num_validation: int = 10_000
    num_test: int = 10_000
    seed: int = 0

    def __post_init__(self):
        counts = f"{self.num_train}-{self.num_validation}-{self.num_test}"
        sizes = f"{self.objects}-objects-{self.num_frames}-frames"
        self.name = f"{self.kind}-{sizes}-{counts}-seed-{self.seed}"


class ParticlesBuilder(tfds.core.GeneratorBasedBuilder):
    """An example holds a stretch of the systems; needs neither raw files nor the network."""

    name = "particles"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = tuple(ParticlesConfig(kind=kind) for kind in SIMULATORS)

    def _info(self) -> tfds.core.DatasetInfo:
        its = self.builder_config
        states = (None, its.num_frames, its.objects, len(FEATURES[its.kind]))
        edges = (None, its.objects, its.objects)
        features = {
            "states": tfds.features.Tensor(shape=states, dtype=np.float32, encoding="bytes"),
            "edges": tfds.features.Tensor(shape=edges, dtype=np.int32, encoding="bytes"),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Simulated trajectories of interacting objects, and their interactions.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # fewer systems are the first of more
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in Splits._fields}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        its = self.builder_config
        number = getattr(its, f"num_{split}")
        with jax.enable_x64(False):  # the same set whatever a program computes in
            key = jax.random.fold_in(jax.random.key(its.seed), Splits._fields.index(split))
            found = SIMULATORS[its.kind](
                key, num=number, objects=its.objects, num_frames=its.num_frames
            )
        states, edges = map(np.asarray, found)
        step = max(1, VALUES_PER_EXAMPLE // states[0].size)
        for start in range(0, number, step):
            rows = slice(start, start + step)
            yield start, {"states": states[rows], "edges": edges[rows]}


def load(
    kind: str,
    *,
    objects: int = 5,
    num_frames: int = 49,
    num_train: int = 50_000,
    num_validation: int = 10_000,
    num_test: int = 10_000,
    seed: int = 0,
    data_dir: str | os.PathLike | None = None,
) -> Splits:
    """Returns three `Trajectories` of NumPy arrays; `FEATURES` names what a state holds.

    A split depends on the kind, the number of objects and the seed; that of fewer systems is the
    beginning of that of more. 50 000 systems of five particles take 200 MB.

    Args:
      kind: springs, charged or kuramoto, simulated with the defaults of `simulate_particles`.
      objects: how many a system has.
      num_frames: of a trajectory.
      num_train, num_validation, num_test: how many systems.
      seed: decides the systems.
      data_dir: see `prepare`.

    Raises:
      InputError: a value out of its range, or the data folder cannot be written.
    """
    require_known("system of particles", kind, SIMULATORS)
    sizes = {
        "num_train": num_train,
        "num_validation": num_validation,
        "num_test": num_test,
        "num_frames": num_frames,
    }
    for name, value in sizes.items():
        require_at_least(name, value, 1)
    require_at_least("objects", objects, 2)
    require_at_least("seed", seed, 0)
    config = ParticlesConfig(kind=kind, objects=objects, seed=seed, **sizes)
    # TFDS wants its own object of those that it knows
    config = ParticlesBuilder.get_builder_config(config.name) or config
    builder = prepare(ParticlesBuilder, config, data_dir=data_dir)
    return Splits(*(_read_split(builder, split) for split in Splits._fields))


def _read_split(builder: tfds.core.DatasetBuilder, split: str) -> Trajectories:
    source = builder.as_data_source(split)
    examples = source.__getitems__(range(len(source)))
    return Trajectories(
        *(np.concatenate([example[field] for example in examples]) for field in ("states", "edges"))
    )
