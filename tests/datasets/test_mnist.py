"""MNIST: idx files written by hand, the public set, and digits as sequences against loops."""

import gzip
import hashlib
import importlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from structdl.datasets import mnist
from structdl.datasets.prepare import RawFile
from structdl.errors import InputError


def idx(array, magic=None):
    header = struct.pack(f">{1 + array.ndim}I", magic or 2048 + array.ndim, *array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0)


def small_digits(num, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num, 28, 28), np.uint8), rng.integers(0, 10, num)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes the four contents as the raw files and registers them as they are."""
    monkeypatch.delenv("STRUCTDL_RAW_DIR", raising=False)
    monkeypatch.setenv("STRUCTDL_DATA_DIR", str(tmp_path / "data"))

    def write_contents(*contents):
        folder = tmp_path / "raw" / "mnist"
        folder.mkdir(parents=True)
        raw_files = []
        for raw_file, content in zip(mnist.RAW_FILES, contents, strict=True):
            (folder / raw_file.name).write_bytes(content)
            sha256 = hashlib.sha256(content).hexdigest()
            url = f"http://127.0.0.1:9/{raw_file.name}"
            raw_files.append(RawFile(raw_file.name, url, len(content), sha256))
        monkeypatch.setattr(mnist, "RAW_FILES", tuple(raw_files))
        return folder.parent

    return write_contents


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The public set, where this machine has its raw files."""
    given = os.environ.get("STRUCTDL_RAW_DIR")
    folder = Path(given) if given else Path(__file__).parents[3] / "shared" / "data"
    if not (folder / "mnist" / "train-images-idx3-ubyte.gz").exists():
        pytest.skip("no raw MNIST files: set STRUCTDL_RAW_DIR")
    return mnist.load(raw_dir=folder, data_dir=tmp_path_factory.mktemp("data"))


def test_small_set_and_its_validation_part(write, monkeypatch):
    monkeypatch.setattr(mnist, "IMAGES_PER_EXAMPLE", 4)
    (images, labels), (test_images, test_labels) = small_digits(10, 0), small_digits(5, 1)
    raw_dir = write(idx(images), idx(labels), idx(test_images), idx(test_labels))
    mnist.load(num_validation=3, raw_dir=raw_dir)
    # Prepared: read again, with the raw files out of reach, and cut elsewhere.
    for num_validation in (3, 0, 9):
        splits = mnist.load(num_validation=num_validation)
        cut = 10 - num_validation
        np.testing.assert_array_equal(splits.train.images, images[:cut])
        np.testing.assert_array_equal(splits.validation.images, images[cut:])
        np.testing.assert_array_equal(splits.validation.labels, labels[cut:])
        np.testing.assert_array_equal(splits.test.images, test_images)
        np.testing.assert_array_equal(splits.test.labels, test_labels)
        assert (splits.train.images.dtype, splits.train.labels.dtype) == (np.uint8, np.int32)
    for num_validation in (-1, 10):
        with pytest.raises(InputError, match=f"num_validation is {num_validation}: .* 0 to 9"):
            mnist.load(num_validation=num_validation)


def test_public_set(real):
    assert [len(split.images) for split in real] == [50_000, 10_000, 10_000]
    labels = np.concatenate([real.train.labels, real.validation.labels])
    # Published counts of the digits 0 to 9.
    assert np.bincount(labels).tolist() == [
        *(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
    ]
    assert np.bincount(real.test.labels).tolist() == [
        *(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
    ]
    assert labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    pixels = mnist.as_sequence(np.concatenate([real.train.images, real.validation.images]))
    assert pixels.mean() == pytest.approx(mnist.MEAN, abs=5e-5)
    assert pixels.std() == pytest.approx(mnist.STANDARD_DEVIATION, abs=5e-5)
    # What the crop of 8 x 8 leaves out is nearly nothing.
    inner = real.test.images[:, 2:26, 2:26]
    assert inner.sum(dtype=np.int64) > 0.997 * real.test.images.sum(dtype=np.int64)


@pytest.mark.parametrize(("size", "block", "margin"), [(28, 1, 0), (14, 2, 0), (8, 3, 2)])
def test_as_sequence_equals_a_loop(size, block, margin):
    images, _ = small_digits(3, 0)
    sequences = mnist.as_sequence(images, size)
    assert (sequences.shape, sequences.dtype) == ((3, size * size, 1), np.float32)
    order = mnist.permutation(size, 7)
    permuted = mnist.as_sequence(images, size, permutation_seed=7)
    standardized = mnist.as_sequence(images, size, standardize=True)
    for number, image in enumerate(images.astype(np.float64)):
        expected = []
        for row in range(margin, 28 - margin, block):
            for column in range(margin, 28 - margin, block):
                expected.append(image[row : row + block, column : column + block].mean() / 255)
        np.testing.assert_allclose(sequences[number, :, 0], expected, rtol=1e-6)
        for place, pixel in enumerate(order):
            assert permuted[number, place] == sequences[number, pixel]
        np.testing.assert_allclose(
            standardized[number, :, 0], (np.array(expected) - 0.1307) / 0.3081, atol=1e-5
        )


def test_permutation_is_fixed_and_of_its_seed():
    assert mnist.permutation(14, 0)[:6].tolist() == [163, 71, 39, 155, 97, 153]
    assert sorted(mnist.permutation(28, 3).tolist()) == list(range(784))
    assert not np.array_equal(mnist.permutation(28, 3), mnist.permutation(28, 4))


def test_unknown_size():
    with pytest.raises(InputError, match="size is 16: it must be one of 28, 14, 8"):
        mnist.as_sequence(small_digits(1, 0)[0], 16)


IMAGES, LABELS = small_digits(4, 0)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (idx(IMAGES)[:-20], idx(LABELS), "images.gz: not a readable gzipped file"),
        (b"pixels", idx(LABELS), "images.gz: not a readable gzipped file"),
        (gzip.compress(b"", mtime=0), idx(LABELS), "images.gz: begins with 0, expected 2051"),
        (idx(IMAGES, 2049), idx(LABELS), "images.gz: begins with 2049, expected 2051"),
        (idx(IMAGES[:, :, :27]), idx(LABELS), r"images of \(28, 27\), expected \(28, 28\)"),
        (idx(IMAGES), idx(LABELS[:3]), "labels.gz: 3 labels of 4 images"),
        (idx(IMAGES), idx(LABELS + 10), "labels.gz: label 1., expected 0 to 9"),
        (
            idx(IMAGES),
            gzip.compress(struct.pack(">2I", 2049, 5) + b"abc", mtime=0),
            "labels.gz: 3 bytes of values, expected 5",
        ),
        (
            # 2^64, which is 0 in 64 bits
            gzip.compress(struct.pack(">4I", 2051, 1 << 31, 1 << 31, 4), mtime=0),
            idx(LABELS),
            f"images.gz: 0 bytes of values, expected {1 << 64}",
        ),
    ],
)
def test_wrong_files_are_named(tmp_path, images, labels, message):
    paths = tmp_path / "images.gz", tmp_path / "labels.gz"
    for path, content in zip(paths, (images, labels), strict=True):
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        mnist.read_raw(*paths)


def test_unpacked_bytes_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "MAX_UNPACKED_BYTES", 1000)
    path = tmp_path / "images.gz"
    path.write_bytes(idx(IMAGES))
    with pytest.raises(InputError, match=r"images.gz: unpacks to more than 1000 bytes"):
        mnist.read_raw(path, path)


def test_missing_and_altered_raw_files_are_listed(write):
    raw_dir = write(*[idx(IMAGES), idx(LABELS)] * 2)
    (raw_dir / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    (raw_dir / "mnist" / "train-labels-idx1-ubyte.gz").write_bytes(idx(LABELS[:2]))
    message = r"(?s)2 of 4 .*train-labels-idx1-ubyte.gz: found .*t10k-labels.*: missing"
    with pytest.raises(InputError, match=message):
        mnist.load(raw_dir=raw_dir)


def test_stays_beside_the_catalogue_of_tfds():
    catalogue = importlib.import_module("tensorflow_datasets.image_classification.mnist")
    assert catalogue.MNIST.name == mnist.MnistBuilder.name
    assert tfds.builder_cls("mnist") is catalogue.MNIST
