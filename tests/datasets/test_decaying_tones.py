import numpy as np
import pytest

from structdl.datasets import decaying_tones
from structdl.datasets.decaying_tones import NOISE, least_loss, simulate_tones
from structdl.errors import InputError


def test_recordings_are_those_of_the_seed_and_padded_with_zeros(tmp_path):
    splits = decaying_tones.load(data_dir=tmp_path)
    assert [len(split.lengths) for split in splits] == [200, 40, 40]
    again = simulate_tones([0, 0], 200, 800, 1600)
    for number, (wave, length) in enumerate(zip(*splits.train, strict=True)):
        np.testing.assert_array_equal(wave[:length], again[number])
        assert not wave[length:].any()
    assert not np.array_equal(splits.train.values[0, :800], splits.test.values[0, :800])


def test_without_noise_each_tone_obeys_its_own_recurrence():
    """The sum of n decaying sinusoids follows linearly from its last 2 n samples."""
    (wave,) = simulate_tones(1, 1, 1200, 1200, noise=0.0)
    wave = wave[600:].astype(float)  # all tones have set in
    past = np.lib.stride_tricks.sliding_window_view(wave[:-1], 6)

    def error(x):
        coefficients, *_ = np.linalg.lstsq(x, wave[6:], rcond=1e-12)
        return np.abs(x @ coefficients - wave[6:]).max()

    assert error(past) < 1e-3 * np.abs(wave).max()
    assert error(past) < 0.1 * error(past[:, 2:])


def test_the_least_loss_is_that_of_who_knows_the_tones():
    clean, noisy = (simulate_tones(2, 50, 1000, 1000, noise=each) for each in (0.0, NOISE))
    errors = np.concatenate(noisy) - np.concatenate(clean)
    losses = 0.5 * (errors / NOISE) ** 2 + np.log(NOISE) + 0.5 * np.log(2 * np.pi)
    assert 10 * losses.mean() == pytest.approx(least_loss(10), abs=0.1)


def test_a_length_out_of_its_range_is_an_error():
    with pytest.raises(InputError, match="longest is 3: it must be at least 4"):
        simulate_tones(0, 1, 4, 3)
