"""MNIST: 70 000 handwritten digits as images, and as sequences of pixels.

Reference: LeCun, Bottou, Bengio, Haffner (1998), "Gradient-based learning applied to document
recognition", Proceedings of the IEEE 86(11). As sequences, in order and permuted: Le, Jaitly,
Hinton (2015), "A simple way to initialize recurrent networks of rectified linear units",
arXiv:1504.00941, section 4.2.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.prepare import RawFile, prepare, url_infos
from structdl.datasets.sequences import Splits
from structdl.datasets.unpacking import read_gzip
from structdl.errors import InputError

MAX_UNPACKED_BYTES = 1 << 26  # of a file; the training images have 47 MB
IMAGES_PER_EXAMPLE = 1000
SIZES = (28, 14, 8)  # of a digit as a sequence

# Of the training pixels in [0, 1], to three digits, as torchvision's examples have them.
MEAN, STANDARD_DEVIATION = 0.1307, 0.3081

_PUBLIC_FOLDER = "https://storage.googleapis.com/cvdf-datasets/mnist"
_REGISTERED = {
    "train-images-idx3-ubyte.gz": (
        9912422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    "train-labels-idx1-ubyte.gz": (
        28881,
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    "t10k-images-idx3-ubyte.gz": (
        1648877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    "t10k-labels-idx1-ubyte.gz": (
        4542,
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
}
RAW_FILES = tuple(
    RawFile(name, f"{_PUBLIC_FOLDER}/{name}", size, sha256)
    for name, (size, sha256) in _REGISTERED.items()
)


class Digits(NamedTuple):
    """Images of digits and which digit each shows."""

    images: np.ndarray  # [num, 28, 28], uint8
    labels: np.ndarray  # [num], int32, 0 to 9


# Not registered with TFDS, whose catalogue has a set of this name.
class MnistBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """An example holds a stretch of the images."""

    name = "mnist"
    VERSION = tfds.core.Version("1.0.0")

    @property
    def url_infos(self) -> dict[str, tfds.download.checksums.UrlInfo]:
        return url_infos(RAW_FILES)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "images": tfds.features.Tensor(shape=(None, 28, 28), dtype=np.uint8, encoding="bytes"),
            "labels": tfds.features.Tensor(shape=(None,), dtype=np.uint8, encoding="bytes"),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits, 28 x 28 pixels.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # the last of the training images are for validation
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        paths = [Path(dl_manager.download(raw_file.url)) for raw_file in RAW_FILES]
        return {
            "train": self._generate_examples(*paths[:2]),
            "test": self._generate_examples(*paths[2:]),
        }

    def _generate_examples(
        self, images_path: Path, labels_path: Path
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        images, labels = read_raw(images_path, labels_path)
        for start in range(0, len(images), IMAGES_PER_EXAMPLE):
            rows = slice(start, start + IMAGES_PER_EXAMPLE)
            yield start, {"images": images[rows], "labels": labels[rows].astype(np.uint8)}


def load(
    *,
    num_validation: int = 10_000,
    data_dir: str | os.PathLike | None = None,
    raw_dir: str | os.PathLike | None = None,
) -> Splits:
    """Returns three `Digits`: 50 000 to train on, 10 000 for validation, and the test set's 10 000.

    The last `num_validation` images of the training set are those for validation; `prepare`
    explains the folders.

    Raises:
      InputError: num_validation out of range; the data cannot be had (see `prepare`) or is not what
        it should be.
    """
    builder = prepare(MnistBuilder, raw_files=RAW_FILES, raw_dir=raw_dir, data_dir=data_dir)
    (images, labels), test = (_read_split(builder, split) for split in ("train", "test"))
    if not 0 <= num_validation < len(images):
        raise InputError(
            f"num_validation is {num_validation}: it must be 0 to {len(images) - 1}, since it is "
            "taken from the training images"
        )
    cut = len(images) - num_validation
    return Splits(Digits(images[:cut], labels[:cut]), Digits(images[cut:], labels[cut:]), test)


def as_sequence(
    images: np.ndarray,
    size: int = 28,
    *,
    permutation_seed: int | None = None,
    standardize: bool = False,
) -> np.ndarray:
    """Pixels one after another, row by row: [num, size * size, 1] float32 in [0, 1].

    Size 14 has the means of blocks of 2 x 2 pixels. Size 8 has the means of blocks of 3 x 3, of the
    inner 24 x 24: MNIST's digits lie within 20 x 20 pixels about their centre of mass, and little
    of them is outside.

    Args:
      images: [num, 28, 28], uint8.
      size: 28, 14 or 8.
      permutation_seed: None for the order of the rows; or the seed of the order in which the pixels
        come, the same for all images (`permutation`).
      standardize: whether MEAN is subtracted and STANDARD_DEVIATION divides, as in the code of Bai
        et al. (2018), arXiv:1803.01271. They are those of 28 x 28 at every size.

    Raises:
      InputError: another size.

    >>> image = np.zeros((1, 28, 28), np.uint8)
    >>> image[0, 0, 2] = 255
    >>> as_sequence(image, 14)[0, :3, 0]
    array([0.  , 0.25, 0.  ], dtype=float32)
    """
    if size not in SIZES:
        raise InputError(f"size is {size}: it must be one of {', '.join(map(str, SIZES))}")
    block = 28 // size
    margin = (28 - block * size) // 2
    pixels = images[:, margin : 28 - margin, margin : 28 - margin]
    blocks = pixels.reshape(-1, size, block, size, block)  # [num, rows, block, columns, block]
    means = blocks.mean(axis=(2, 4), dtype=np.float32) if block > 1 else pixels.astype(np.float32)
    values = means.reshape(len(images), size * size, 1) / 255
    if permutation_seed is not None:
        values = values[:, permutation(size, permutation_seed)]
    if standardize:
        values = (values - np.float32(MEAN)) / np.float32(STANDARD_DEVIATION)
    return values


def permutation(size: int, seed: int) -> np.ndarray:
    """The order of the pixels [size * size] in a permuted sequence; a test holds it as it is.

    >>> permutation(8, 0)[:5]
    array([16, 36, 27,  8, 44])
    """
    return np.random.default_rng(seed).permutation(size * size)


def read_raw(images_path: Path, labels_path: Path) -> Digits:
    """Reads gzipped idx files: a magic number and the sizes, 4 bytes each, and the bytes.

    Raises:
      InputError: names the file and the value that is wrong.
    """
    images = _read_idx(images_path, num_dimensions=3)
    labels = _read_idx(labels_path, num_dimensions=1)
    if images.shape[1:] != (28, 28):
        raise InputError(f"{images_path}: images of {images.shape[1:]}, expected (28, 28)")
    if len(labels) != len(images):
        raise InputError(f"{labels_path}: {len(labels)} labels of {len(images)} images")
    if labels.max(initial=0) > 9:
        raise InputError(f"{labels_path}: label {labels.max()}, expected 0 to 9")
    return Digits(images, labels.astype(np.int32))


def _read_idx(path: Path, *, num_dimensions: int) -> np.ndarray:
    content = read_gzip(path, MAX_UNPACKED_BYTES)
    magic, header = 2048 + num_dimensions, 4 * (1 + num_dimensions)
    numbers = np.frombuffer(content[:header].ljust(header, b"\0"), ">u4").tolist()
    if numbers[0] != magic:
        raise InputError(f"{path}: begins with {numbers[0]}, expected {magic} as idx files do")
    size = math.prod(numbers[1:])
    if len(content) - header != size:
        raise InputError(f"{path}: {len(content) - header} bytes of values, expected {size}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(numbers[1:])


def _read_split(builder: tfds.core.DatasetBuilder, split: str) -> Digits:
    source = builder.as_data_source(split)
    examples = source.__getitems__(range(len(source)))
    images, labels = (
        np.concatenate([example[field] for example in examples]) for field in Digits._fields
    )
    return Digits(images, labels.astype(np.int32))
