"""Chords in a row: a generated set of polyphonic music, whose best predictor is known.

A bass note and a major or minor triad sound at each step. The next chord follows from the last
alone: its root a fourth or a fifth up, the relative chord, or the other triad on the same root.
"""

import os
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.poly_music import NUM_KEYS
from structdl.datasets.prepare import prepare
from structdl.datasets.sequences import Padded, Splits, pad
from structdl.errors import require_at_least

SEED = 0  # like a published set, the pieces are always the same
NUM_PIECES = {"train": 200, "validation": 50, "test": 50}
LENGTHS = (20, 60)  # of a piece, steps
NUM_CHORDS = 24  # twelve major triads from C upwards, then twelve minor

_PROBABILITIES = (0.4, 0.3, 0.2, 0.1)  # fourth, fifth, relative, other triad
_BASS, _TRIAD = 27, 39  # the C of the bass and that of the triad, as keys of a piano


class ChordProgressionsBuilder(tfds.core.GeneratorBasedBuilder):
    """One example a piece; needs neither raw files nor the network."""

    name = "chord_progressions"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        keys = tfds.features.Tensor(shape=(None, NUM_KEYS), dtype=np.uint8, encoding="bytes")
        return tfds.core.DatasetInfo(
            builder=self,
            description="Generated pieces of chords as piano rolls.",
            features=tfds.features.FeaturesDict({"keys": keys}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in Splits._fields}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        seed = [SEED, Splits._fields.index(split)]
        for number, chords in enumerate(simulate_chords(seed, NUM_PIECES[split], *LENGTHS)):
            yield number, {"keys": piano_keys(chords)}


def load(*, data_dir: str | os.PathLike | None = None) -> Splits:
    """Returns three `Padded` as `poly_music.load` does: values [num, time, 88] and lengths.

    Raises:
      InputError: the data folder cannot be written.
    """
    builder = prepare(ChordProgressionsBuilder, data_dir=data_dir)
    return Splits(*(_read_split(builder, split) for split in Splits._fields))


def simulate_chords(
    seed: int | list[int], num: int, shortest: int, longest: int
) -> list[np.ndarray]:
    """Draws pieces of shortest to longest steps: each an array [length] of chords, int32.

    Raises:
      InputError: a value out of its range.
    """
    require_at_least("num", num, 0)
    require_at_least("shortest", shortest, 1)
    require_at_least("longest", longest, shortest)
    rng = np.random.default_rng(seed)
    following, pieces = np.stack([_following(chord) for chord in range(NUM_CHORDS)]), []
    for length in rng.integers(shortest, longest + 1, num):
        moves = rng.choice(len(_PROBABILITIES), length - 1, p=_PROBABILITIES)
        chords = [rng.integers(NUM_CHORDS)]
        for move in moves:
            chords.append(following[chords[-1], move])
        pieces.append(np.array(chords, np.int32))
    return pieces


def piano_keys(chords: np.ndarray) -> np.ndarray:
    """The keys [length, 88] that chords sound, uint8.

    >>> np.flatnonzero(piano_keys(np.array([0]))[0])  # C major over C
    array([27, 39, 43, 46])
    """
    keys = np.zeros((len(chords), NUM_KEYS), np.uint8)
    root, minor = chords % 12, chords // 12
    for key in (_BASS + root, _TRIAD + root, _TRIAD + root + 4 - minor, _TRIAD + root + 7):
        keys[np.arange(len(chords)), key] = 1
    return keys


def least_loss() -> float:
    """The least mean negative log-likelihood of a step in nats, keys being independent.

    The entropies of the keys given the chord before, summed. Each move is a permutation of the
    chords, hence all chords are equally likely.
    """
    losses = []
    for chord in range(NUM_CHORDS):
        chances = _PROBABILITIES @ piano_keys(_following(chord)).astype(float)
        chances = chances[(chances > 0) & (chances < 1)]
        entropies = -chances * np.log(chances) - (1 - chances) * np.log(1 - chances)
        losses.append(np.sum(entropies))
    return float(np.mean(losses))


def _following(chord: int) -> np.ndarray:
    """The chords that may come next, in the order of their probabilities."""
    root, minor = chord % 12, chord // 12
    relative = (root + (3 if minor else 9)) % 12 + 12 * (1 - minor)
    return np.array(
        [(root + 5) % 12 + 12 * minor, (root + 7) % 12 + 12 * minor, relative, (chord + 12) % 24]
    )


def _read_split(builder: tfds.core.DatasetBuilder, split: str) -> Padded:
    source = builder.as_data_source(split)
    return pad([example["keys"] for example in source.__getitems__(range(len(source)))])
