"""Generated motions: limbs that turn as a whole, and motions that only their order tells apart."""

import numpy as np
import pytest

from structdl.datasets import motion_primitives
from structdl.datasets.motion_primitives import ACTIONS, SUBJECTS, load, simulate_motions
from structdl.datasets.msraction3d import BONES, JOINTS, PARTS
from structdl.errors import InputError


@pytest.fixture
def still(monkeypatch):
    """No noise."""
    monkeypatch.setattr(motion_primitives, "NOISE", 0.0)


def test_bones_keep_their_lengths(still):
    motions = simulate_motions(3, takes=1)
    for motion in motions:
        ends = motion.positions[:, [child for _, child in BONES]]
        starts = motion.positions[:, [parent for parent, _ in BONES]]
        lengths = np.linalg.norm(ends - starts, axis=-1)
        np.testing.assert_allclose(lengths, lengths[:1].repeat(len(lengths), 0), atol=1e-5)
    assert len(motions) == len(SUBJECTS) * len(ACTIONS)


def test_one_limb_moves_up_or_down(still):
    for motion in simulate_motions(3, takes=1):
        way, _, limb = ACTIONS[motion.label].partition(" ")
        moved = np.ptp(motion.positions, axis=0).max(axis=-1) > 0.01
        expected = np.isin(np.arange(len(JOINTS)), PARTS[limb][1:])  # its first joint is the pivot
        np.testing.assert_array_equal(moved, expected)
        heights = motion.positions[:, PARTS[limb][-1], 1]
        steps = np.diff(heights if way == "raise" else heights[::-1])
        assert (steps > -1e-5).all()
        assert np.ptp(heights) > 0.1


def test_a_motion_backwards_is_the_other_one(still):
    drawn = []

    class Same(np.random.Generator):
        def uniform(self, low, high, *args):
            return (np.asarray(low) + np.asarray(high)) / 2

        def integers(self, low, high):
            return 25

    rng = Same(np.random.PCG64(0))
    for label in (4, 5):
        drawn.append(motion_primitives._take(rng, label, 1.0))
    np.testing.assert_allclose(drawn[0][::-1], drawn[1], atol=1e-6)


def test_the_set_is_split_by_people(tmp_path):
    splits = load(validation_subjects=(5, 7), data_dir=tmp_path)
    people = [[1, 3, 9], [5, 7], [2, 4, 6, 8, 10]]
    for split, subjects in zip(splits, people, strict=True):
        assert np.unique(split.subjects).tolist() == subjects
        assert np.bincount(split.labels).tolist() == [4 * len(subjects)] * 8
        assert split.lengths.min() >= 20
        assert split.lengths.max() <= 40
    first = simulate_motions(0, takes=4)[0]
    np.testing.assert_array_equal(
        splits.train.positions[0, : len(first.positions)], first.positions
    )


def test_bad_numbers_are_named(tmp_path):
    with pytest.raises(InputError, match="takes is 0"):
        simulate_motions(0, takes=0)
    with pytest.raises(InputError, match=r"validation_subjects are \(4,\)"):
        load(validation_subjects=(4,), data_dir=tmp_path)
