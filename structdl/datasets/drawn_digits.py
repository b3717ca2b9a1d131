"""Drawn digits: a generated set of the form of MNIST, small and easy.

A digit is one of ten glyphs of 5 x 7 squares, turned, scaled and shifted at random, its strokes of
random strength, with noise on all pixels.
"""

import os
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.mnist import Digits
from structdl.datasets.prepare import prepare
from structdl.datasets.sequences import Splits
from structdl.errors import require_at_least

SEED = 0  # like a published set, the digits are always the same
NUM_DIGITS = {"train": 4000, "validation": 1000, "test": 1000}

_SIZE = 28
_SQUARE = 3  # pixels of a glyph's square, before scaling
_TURN, _SHIFT = 0.2, 2.0  # at most, in radians and in pixels
_SCALES, _STRENGTHS = (0.85, 1.1), (0.6, 1.0)
_NOISE = 0.08  # standard deviation, where 1 is the strongest stroke

_DRAWINGS = """
.###. ..#.. .###. .###. ...#. ##### ..##. ##### .###. .###.
#...# .##.. #...# #...# ..##. #.... .#... ....# #...# #...#
#...# ..#.. ....# ....# .#.#. ####. #.... ...#. #...# #...#
#...# ..#.. ...#. ..##. #..#. ....# ####. ..#.. .###. .####
#...# ..#.. ..#.. ....# ##### ....# #...# ..#.. #...# ....#
#...# ..#.. .#... #...# ...#. #...# #...# .#... #...# ...#.
.###. .###. ##### .###. ...#. .###. .###. .#... .###. .##..
"""
_ROWS = [row.split() for row in _DRAWINGS.split("\n") if row]
GLYPHS = np.array(
    [[[square == "#" for square in row[digit]] for row in _ROWS] for digit in range(10)], np.float32
)  # [10, 7, 5]


class DrawnDigitsBuilder(tfds.core.GeneratorBasedBuilder):
    """One example a split; needs neither raw files nor the network."""

    name = "drawn_digits"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (None, _SIZE, _SIZE)
        features = {
            "images": tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding="bytes"),
            "labels": tfds.features.Tensor(shape=(None,), dtype=np.int32, encoding="bytes"),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Generated images of digits, 28 x 28 pixels.",
            features=tfds.features.FeaturesDict(features),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in Splits._fields}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        seed = [SEED, Splits._fields.index(split)]
        yield 0, draw_digits(seed, NUM_DIGITS[split])._asdict()


def load(*, data_dir: str | os.PathLike | None = None) -> Splits:
    """Returns three `Digits` as `mnist.load` does: images [num, 28, 28] and labels [num].

    Raises:
      InputError: the data folder cannot be written.
    """
    builder = prepare(DrawnDigitsBuilder, data_dir=data_dir)
    sources = (builder.as_data_source(split) for split in Splits._fields)
    return Splits(*(Digits(source[0]["images"], source[0]["labels"]) for source in sources))


def draw_digits(seed: int | list[int], num: int) -> Digits:
    """Draws digits, all ten equally likely; `mnist.as_sequence` takes them.

    Raises:
      InputError: a value out of its range.
    """
    require_at_least("num", num, 0)
    rng = np.random.default_rng(seed)
    labels = rng.integers(10, size=num).astype(np.int32)
    turns = rng.uniform(-_TURN, _TURN, num)
    scales = rng.uniform(*_SCALES, num)
    shifts = rng.uniform(-_SHIFT, _SHIFT, (num, 2))
    strengths = rng.uniform(*_STRENGTHS, num)
    images = strengths[:, None, None] * place_glyphs(labels, turns, scales, shifts)
    images += rng.normal(0, _NOISE, images.shape)
    return Digits(np.round(255 * np.clip(images, 0, 1)).astype(np.uint8), labels)


def place_glyphs(
    labels: np.ndarray, turns: np.ndarray, scales: np.ndarray, shifts: np.ndarray
) -> np.ndarray:
    """Images [num, 28, 28] in [0, 1] of glyphs about the centre, bilinear between the squares.

    Args:
      labels: [num], the digits.
      turns: [num] in radians, clockwise.
      scales: [num]; a square is 3 pixels at 1.
      shifts: [num, 2], downwards and to the right, pixels.
    """
    centre = (_SIZE - 1) / 2
    rows, columns = np.indices((_SIZE, _SIZE)) - centre
    down = rows - shifts[:, 0, None, None]  # [num, 28, 28]
    right = columns - shifts[:, 1, None, None]
    cosine, sine = np.cos(turns)[:, None, None], np.sin(turns)[:, None, None]
    unit = (_SQUARE * scales)[:, None, None]
    padded = np.pad(GLYPHS, ((0, 0), (1, 1), (1, 1)))
    height, width = padded.shape[1:]
    # where in the padded glyph a pixel lies: its middle is the image's centre
    row = (cosine * down - sine * right) / unit + (height - 1) / 2
    column = (sine * down + cosine * right) / unit + (width - 1) / 2
    row, column = np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)
    top = np.minimum(row.astype(int), height - 2)
    left = np.minimum(column.astype(int), width - 2)
    below, beside = row - top, column - left
    digit = labels[:, None, None]
    return (
        (1 - below) * (1 - beside) * padded[digit, top, left]
        + (1 - below) * beside * padded[digit, top, left + 1]
        + below * (1 - beside) * padded[digit, top + 1, left]
        + below * beside * padded[digit, top + 1, left + 1]
    )
