"""Generated streams: who occurs with whom, how often, and what frames show."""

import numpy as np
import pytest

from structdl.datasets.simulate_streams import draw_streams, make_world
from structdl.datasets.untrimmed_streams import load, world_of
from structdl.errors import InputError

SIZES = {"num_train": 6, "num_validation": 3, "num_test": 4}


def test_themes_and_companions_are_as_frequent_as_said():
    world = make_world(1, num_classes=8, group_size=4, companions=0.3, strangers=0.02)
    assert world.frequencies.sum() == pytest.approx(1)
    np.testing.assert_allclose(
        np.sort(world.frequencies)[::-1] * np.arange(1, 9), world.frequencies.max(), rtol=1e-6
    )
    streams = draw_streams(0, world, num=4000)
    has = np.zeros((len(streams), 8), bool)
    for row, stream in zip(has, streams, strict=True):
        row[stream.intervals[:, 0]] = True
    assert has.sum(axis=1).max() <= 3  # a theme and at most two companions
    is_group = world.co_occurrence == 0.3
    assert (is_group.sum(axis=1) == 3).all()
    together = np.array([has[has[:, i]].mean(axis=0) for i in range(8)])
    assert together[is_group].min() > 3 * together[world.co_occurrence == 0.02].max()
    order = np.argsort(world.frequencies)
    assert has[:, order[-1]].sum() > 2 * has[:, order[0]].sum()


def test_frames_show_their_action_and_the_scene():
    world = make_world(1, num_classes=6, group_size=3, num_features=16)
    for stream in draw_streams(0, world, num=20, noise=0.0, scene=0.5):
        is_action = np.zeros(len(stream.frames), bool)
        assert 40 <= len(stream.frames) <= 80
        for _, start, end in stream.intervals:
            assert 0 <= start < end <= len(stream.frames)
            assert not is_action[start:end].any()  # one at a time
            is_action[start:end] = True
        background = stream.frames[~is_action]
        np.testing.assert_allclose(background, background[:1].repeat(len(background), 0))
        assert np.linalg.norm(background[0]) == pytest.approx(0.5, rel=1e-5)
        for action, start, end in stream.intervals:
            shown = stream.frames[start:end] - background[0]
            expected = np.broadcast_to(world.directions[action], shown.shape)
            np.testing.assert_allclose(shown, expected, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_a_group_looks_and_is_described_alike(share):
    world = make_world(0, num_features=512, num_descriptions=512, group_share=share)
    is_group = (world.co_occurrence > 0.1) & (world.co_occurrence < 1)
    for rows in (world.directions, world.descriptions):
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
        alike = rows @ rows.T
        assert alike[is_group].mean() == pytest.approx(share, abs=0.06)
        assert abs(alike[world.co_occurrence < 0.1].mean()) < 0.06


def test_the_set_is_what_is_drawn(tmp_path):
    splits = load(seed=3, data_dir=tmp_path, **SIZES)
    for number, (split, num) in enumerate(zip(splits, (6, 3, 4), strict=True)):
        streams = draw_streams([3, number], world_of(3), num=num)
        for place, stream in enumerate(streams):
            length = len(stream.frames)
            assert split.lengths[place] == length
            np.testing.assert_array_equal(split.frames[place, :length], stream.frames)
            assert (split.frames[place, length:] == 0).all()
            np.testing.assert_array_equal(split.intervals[place], stream.intervals)
            has = np.unique(stream.intervals[:, 0])
            np.testing.assert_array_equal(np.flatnonzero(split.labels[place]), has)
    more = load(seed=3, data_dir=tmp_path, **SIZES | {"num_train": 9})
    np.testing.assert_array_equal(more.train.labels[:6], splits.train.labels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_test": 0}, "num_test is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"group_share": 1.5}, "group_share is 1.5: give a number from 0 to 1"),
    ],
)
def test_bad_numbers_are_named(changes, message, tmp_path):
    with pytest.raises(InputError, match=message):
        load(data_dir=tmp_path, **SIZES | changes)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"time": (19, 30)}, "time is 19"), ({"time": (30, 20)}, "the longest time is 20")],
)
def test_streams_too_short(options, message):
    with pytest.raises(InputError, match=message):
        draw_streams(0, make_world(0), num=1, **options)
