import numpy as np
import pytest

from structdl.datasets import drawn_digits
from structdl.datasets.drawn_digits import GLYPHS, draw_digits, place_glyphs
from structdl.datasets.mnist import as_sequence
from structdl.errors import InputError

UPRIGHT = np.zeros(10), np.ones(10), np.zeros((10, 2))


def test_digits_are_those_of_the_seed_and_all_ten_are_likely(tmp_path):
    splits = drawn_digits.load(data_dir=tmp_path)
    for number, (images, labels) in enumerate(splits):
        again = draw_digits([0, number], len(labels))
        np.testing.assert_array_equal(images, again.images)
        np.testing.assert_array_equal(labels, again.labels)
        assert np.bincount(labels, minlength=10).min() > 0.07 * len(labels)
    assert (splits.train.images.dtype, splits.train.labels.dtype) == (np.uint8, np.int32)
    assert not np.array_equal(splits.train.images[:1000], splits.test.images)


def test_an_upright_glyph_has_its_squares_at_their_pixels():
    images = place_glyphs(np.arange(10), *UPRIGHT)
    centre = 13.5  # of 28 pixels
    for digit, glyph in enumerate(GLYPHS):
        for row in range(7):
            for column in range(5):
                # a square's middle lies between pixels: the mean of the four around it
                down, right = centre + 3 * (row - 3), centre + 3 * (column - 2)
                around = images[digit, int(down) : int(down) + 2, int(right) : int(right) + 2]
                neighbours = np.pad(glyph, 1)[row : row + 3, column : column + 3]
                weights = np.outer([1 / 12, 5 / 6, 1 / 12], [1 / 12, 5 / 6, 1 / 12])
                assert around.mean() == pytest.approx(np.sum(weights * neighbours), abs=1e-6)


def test_a_turn_is_clockwise_and_a_shift_goes_down_and_right():
    labels, scale = np.array([1, 1]), np.ones(2)

    def centre(image):
        rows, columns = np.indices(image.shape)
        return np.array([np.sum(rows * image), np.sum(columns * image)]) / image.sum()

    plain, shifted = place_glyphs(labels, np.zeros(2), scale, np.array([[0, 0], [1.5, -2]]))
    np.testing.assert_allclose(centre(shifted) - centre(plain), [1.5, -2], atol=1e-3)
    plain, turned = place_glyphs(labels, np.array([0, 0.3]), scale, np.zeros((2, 2)))
    assert centre(turned[:10])[1] > centre(plain[:10])[1] + 1


def test_a_nearest_mean_reads_most_of_them_at_every_size():
    train, test = draw_digits(1, 1500), draw_digits(2, 300)
    for size in (28, 14, 8):
        means = np.stack(
            [as_sequence(train.images[train.labels == d], size).mean(axis=0) for d in range(10)]
        )
        apart = np.square(as_sequence(test.images, size)[:, None] - means).sum(axis=(2, 3))
        assert 0.7 < np.mean(apart.argmin(axis=1) == test.labels) < 1


def test_no_digit_is_none_and_fewer_than_none_an_error():
    assert draw_digits(0, 0).images.shape == (0, 28, 28)
    with pytest.raises(InputError, match="num is -1: it must be at least 0"):
        draw_digits(0, -1)
