import numpy as np
import pytest

from structdl.datasets import chord_progressions
from structdl.datasets.chord_progressions import least_loss, piano_keys, simulate_chords
from structdl.errors import InputError


def test_every_step_is_a_bass_and_a_triad_and_pieces_are_those_of_the_seed(tmp_path):
    splits = chord_progressions.load(data_dir=tmp_path)
    for values, lengths in splits:
        valid = np.arange(values.shape[1]) < lengths[:, None]
        np.testing.assert_array_equal(values.sum(axis=2), 4 * valid)
    again = [piano_keys(piece) for piece in simulate_chords([0, 0], 200, 20, 60)]
    np.testing.assert_array_equal(splits.train.values[3, : splits.train.lengths[3]], again[3])
    assert not np.array_equal(splits.train.values[0, :20], splits.test.values[0, :20])


def test_the_next_chord_follows_from_the_last_with_the_stated_chances():
    pieces = simulate_chords(1, 400, 50, 50)
    after_c = np.concatenate([piece[1:][piece[:-1] == 0] for piece in pieces])
    # F major, G major, A minor, C minor
    shares = [np.mean(after_c == chord) for chord in (5, 7, 21, 12)]
    np.testing.assert_allclose(shares, [0.4, 0.3, 0.2, 0.1], atol=0.05)
    assert sum(shares) == pytest.approx(1)


def test_the_least_loss_is_that_of_the_counted_chances():
    pieces = simulate_chords(2, 2000, 60, 60)
    before = np.concatenate([piece[:-1] for piece in pieces])
    keys = piano_keys(np.concatenate([piece[1:] for piece in pieces])).astype(float)
    chances = np.stack([keys[before == chord].mean(axis=0) for chord in range(24)])[before]
    likelihoods = np.where(keys == 1, chances, 1 - chances)
    assert -np.log(likelihoods).sum(axis=1).mean() == pytest.approx(least_loss(), abs=0.02)


def test_a_length_out_of_its_range_is_an_error():
    with pytest.raises(InputError, match="longest is 3: it must be at least 4"):
        simulate_chords(0, 1, 4, 3)
