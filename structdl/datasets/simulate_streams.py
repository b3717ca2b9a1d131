"""Untrimmed videos as streams of frame features, with a known matrix of who occurs with whom.

Actions come in groups. A video has a theme, an action drawn by how frequent actions are, and up to
two other actions by the co-occurrence matrix; each occurs in one or two intervals, with background
between. A frame of an action is the action's direction, a direction that all frames of the video
have, and noise; background has the latter two alone.
"""

from typing import NamedTuple

import numpy as np

from structdl.errors import InputError, require_at_least


class World(NamedTuple):
    """What all videos of a set share."""

    directions: np.ndarray  # [classes, features], float32: what a frame of an action shows
    descriptions: np.ndarray  # [classes, description_features], float32: as word vectors would be
    frequencies: np.ndarray  # [classes], of being a video's theme; they sum to 1
    co_occurrence: np.ndarray  # [classes, classes]: of j to be there where i is the theme


class Stream(NamedTuple):
    """One video."""

    frames: np.ndarray  # [time, features], float32
    intervals: np.ndarray  # [num, 3], int32: class, start, end (not with it), by class and start


def make_world(
    seed: int,
    *,
    num_classes: int = 20,
    group_size: int = 4,
    num_features: int = 64,
    num_descriptions: int = 64,
    group_share: float = 0.5,
    tail: float = 1.0,
    companions: float = 0.4,
    strangers: float = 0.01,
) -> World:
    """Draws what all videos share.

    Args:
      seed: decides all of it.
      num_classes: how many actions there are.
      group_size: how many make a group, whose actions occur together and look alike.
      num_features: of a frame.
      num_descriptions: of what describes an action.
      group_share: of a direction's squared length that is its group's and not its own; the same
        holds of descriptions.
      tail: actions of rank r are as frequent as r^-tail; ranks are drawn.
      companions: how likely each other action of the group is where one is the theme.
      strangers: how likely each action of another group is.

    Raises:
      InputError: a value out of its range.
    """
    for name, value in (("num_classes", num_classes), ("group_size", group_size)):
        require_at_least(name, value, 1)
    for name, value in (("num_features", num_features), ("num_descriptions", num_descriptions)):
        require_at_least(name, value, 1)
    shares = {"group_share": group_share, "companions": companions, "strangers": strangers}
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise InputError(f"{name} is {value}: give a number from 0 to 1")
    require_at_least("tail", tail, 0)
    rng = np.random.default_rng(seed)
    groups = rng.permutation(num_classes) // group_size
    same = groups[:, None] == groups
    chances = np.where(same, companions, strangers)
    np.fill_diagonal(chances, 1.0)
    ranks = 1.0 + rng.permutation(num_classes)
    frequencies = ranks**-tail
    return World(
        _alike(rng, groups, num_features, group_share),
        _alike(rng, groups, num_descriptions, group_share),
        frequencies / frequencies.sum(),
        chances,
    )


def _alike(rng, groups: np.ndarray, width: int, share: float) -> np.ndarray:
    """Vectors of length 1, of which those of a group have a part in common."""
    common, own = (_unit(rng.normal(size=(len(groups), width))) for _ in range(2))
    mixed = np.sqrt(share) * common[groups] + np.sqrt(1 - share) * own
    return _unit(mixed).astype(np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def draw_streams(
    seed: int | list[int],
    world: World,
    *,
    num: int,
    time: tuple[int, int] = (40, 80),
    noise: float = 0.15,
    scene: float = 1.0,
) -> list[Stream]:
    """Draws videos.

    Args:
      seed: decides them; fewer videos are the first of more.
      world: what they share.
      num: how many.
      time: how many frames the shortest and the longest has, at least 20.
      noise: the standard deviation of each feature of a frame.
      scene: the length of the direction that all frames of a video have.

    Raises:
      InputError: a value out of its range.
    """
    require_at_least("num", num, 0)
    require_at_least("time", time[0], 20)
    require_at_least("the longest time", time[1], time[0])
    require_at_least("noise", noise, 0)
    rng = np.random.default_rng(seed)
    return [_draw_stream(rng, world, time, noise, scene) for _ in range(num)]


def _draw_stream(rng, world: World, time: tuple[int, int], noise: float, scene: float) -> Stream:
    length = int(rng.integers(time[0], time[1] + 1))
    theme = rng.choice(len(world.frequencies), p=world.frequencies)
    there = np.flatnonzero(rng.random(len(world.frequencies)) < world.co_occurrence[theme])
    companions = rng.permutation(there[there != theme])[:2]
    occurrences = [
        action for action in (theme, *companions) for _ in range(int(rng.integers(1, 3)))
    ]
    intervals = _place(rng, rng.permutation(occurrences), length)
    width = world.directions.shape[1]
    frames = noise * rng.normal(size=(length, width))
    frames += scene * _unit(rng.normal(size=(1, width)))
    for action, start, end in intervals:
        frames[start:end] += world.directions[action]
    return Stream(frames.astype(np.float32), intervals)


def _place(rng, actions: np.ndarray, length: int) -> np.ndarray:
    """Each action within a stretch of its own, of which it takes 40 to 80 %, none at an edge."""
    bounds = np.linspace(0, length, len(actions) + 1).astype(int)
    rows = []
    for action, low, high in zip(actions, bounds, bounds[1:], strict=False):
        room = high - low - 1  # one frame of background at least
        size = max(int(room * rng.uniform(0.4, 0.8)), 1)
        start = low + int(rng.integers(0, room - size + 1))
        rows.append((action, start, start + size))
    return np.array(sorted(rows), np.int32)
