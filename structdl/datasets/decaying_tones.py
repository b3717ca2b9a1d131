"""Tones that set in and die away: generated recordings, with a bound on how well they are told.

A recording is the sum of a few sinusoids, each of which begins somewhere in the first half and
decays, and of white noise.
"""

import math
import os
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.prepare import prepare
from structdl.datasets.sequences import Padded, Splits, pad
from structdl.errors import require_at_least

SEED = 0  # like a published set, the recordings are always the same
NUM_RECORDINGS = {"train": 200, "validation": 40, "test": 40}
LENGTHS = (800, 1600)  # of a recording, samples
NUM_TONES = 3
NOISE = 0.05  # its standard deviation; a tone begins with an amplitude of 0.5 to 1.5

_FREQUENCIES = (0.01, 0.1)  # cycles a sample
_DECAYS = (100, 400)  # samples until a tone has fallen to 1 / e


class DecayingTonesBuilder(tfds.core.GeneratorBasedBuilder):
    """One example a recording; needs neither raw files nor the network."""

    name = "decaying_tones"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        wave = tfds.features.Tensor(shape=(None,), dtype=np.float32, encoding="bytes")
        return tfds.core.DatasetInfo(
            builder=self,
            description="Generated sums of decaying sinusoids and noise.",
            features=tfds.features.FeaturesDict({"wave": wave}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in Splits._fields}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        seed = [SEED, Splits._fields.index(split)]
        waves = simulate_tones(seed, NUM_RECORDINGS[split], *LENGTHS)
        for number, wave in enumerate(waves):
            yield number, {"wave": wave}


def load(*, data_dir: str | os.PathLike | None = None) -> Splits:
    """Returns three `Padded`: values [num, time], float32, and lengths.

    Raises:
      InputError: the data folder cannot be written.
    """
    builder = prepare(DecayingTonesBuilder, data_dir=data_dir)
    return Splits(*(_read_split(builder, split) for split in Splits._fields))


def simulate_tones(
    seed: int | list[int], num: int, shortest: int, longest: int, *, noise: float = NOISE
) -> list[np.ndarray]:
    """Draws recordings of shortest to longest samples, each [length], float32.

    Args:
      seed: the same seed gives the same tones, with any noise.
      num: how many recordings.
      shortest, longest: their lengths.
      noise: its standard deviation.

    Raises:
      InputError: a value out of its range.
    """
    require_at_least("num", num, 0)
    require_at_least("shortest", shortest, 2)
    require_at_least("longest", longest, shortest)
    rng, rng_noise = np.random.default_rng(seed).spawn(2)
    return [
        (_tones(rng, length) + noise * rng_noise.standard_normal(length)).astype(np.float32)
        for length in rng.integers(shortest, longest + 1, num).tolist()
    ]


def least_loss(samples: int) -> float:
    """The entropy of the noise of so many samples, in nats.

    Below it no negative log-likelihood of samples comes on average, since noise has no past.

    >>> round(least_loss(10), 2)
    -15.77
    """
    return samples * (math.log(NOISE) + 0.5 * math.log(2 * math.pi * math.e))


def _tones(rng: np.random.Generator, length: int) -> np.ndarray:
    onsets = rng.integers(0, length // 2, (NUM_TONES, 1))
    frequencies = np.exp(rng.uniform(*np.log(_FREQUENCIES), (NUM_TONES, 1)))
    decays = rng.uniform(*_DECAYS, (NUM_TONES, 1))
    amplitudes, phases = rng.uniform([0.5, 0], [1.5, 2 * np.pi], (NUM_TONES, 2)).T[..., None]
    since = np.arange(length) - onsets
    tones = amplitudes * np.sin(2 * np.pi * frequencies * since + phases)
    return np.sum(np.where(since >= 0, tones * np.exp(-np.maximum(since, 0) / decays), 0), axis=0)


def _read_split(builder: tfds.core.DatasetBuilder, split: str) -> Padded:
    source = builder.as_data_source(split)
    return pad([example["wave"] for example in source.__getitems__(range(len(source)))])
