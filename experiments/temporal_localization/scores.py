"""Intervals of a split's videos, and their mean average precision."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.temporal_localization.data import load, videos_of
from experiments.temporal_localization.presets import Config
from structdl.datasets import untrimmed_streams
from structdl.datasets.untrimmed_streams import Streams, world_of
from structdl.graphs.prototypes import PrototypeMatcher, best_frames_mean
from structdl.temporal.localization import (
    IOU_THRESHOLDS,
    Interval,
    find_intervals,
    mean_average_precision,
)
from structdl.training.loop import Fit
from structdl.training.task import Task

SHOWN = (0.5, 0.75, 0.95)  # intersections over union with figures of their own
NUM_RARE = untrimmed_streams.NUM_CLASSES // 2
LEAST_CHANCE = 0.05  # of an action, by the softmax over a video's, to be looked for in it


def score(config: Config, task: Task, result: Fit) -> dict[str, np.ndarray]:
    """Mean average precision on validation and test, [num_seeds].

    At an intersection over union of .5, .75 and .95, and the mean over .5:.05:.95, of all actions
    and of the half of them that is rarest.
    """
    found = {}
    for place, seed in enumerate(result.seeds):
        params = jax.tree.map(lambda leaf, place=place: leaf[place], result.selected[0])
        rare = np.argsort(world_of(seed, config.group_share).frequencies)[:10]
        for split in ("validation", "test"):
            table = precision_table(config, params, seed, split)
            means = np.nanmean(table, axis=1)
            its = {
                f"map_{round(100 * iou)}": means[IOU_THRESHOLDS.index(iou)]
                for iou in (0.5, 0.75, 0.95)
            }
            its |= {"map_average": means.mean(), "map_average_rare": np.nanmean(table[:, rare])}
            for name, value in its.items():
                found.setdefault(f"{split}_{name}", []).append(value)
    return {name: np.array(values) for name, values in found.items()}


def precision_table(config: Config, params, seed: int, split: str) -> np.ndarray:
    """The average precision of each threshold and action, [thresholds, classes]."""
    streams = getattr(load(config, seed), split)
    num_classes = streams.labels.shape[1]
    intervals = locate(config, params, seed, streams)
    found, true = ([[] for _ in range(num_classes)] for _ in range(2))
    for video, (its, real) in enumerate(zip(intervals, streams.intervals, strict=True)):
        for action, candidates in its.items():
            found[action] += [(video, interval) for interval in candidates]
        for action, start, end in real.tolist():
            true[action].append((video, (start, end)))
    return mean_average_precision(found, true)


def locate(config: Config, params, seed: int, streams: Streams) -> list[dict[int, list[Interval]]]:
    """For each video the intervals of each action that it seems to have.

    An interval's score is its contrast times the action's chance in the video.
    """
    scores, chances = activations(config, params, seed, streams)
    return [
        {
            int(action): [
                interval._replace(score=interval.score * float(chance[action]))
                for interval in find_intervals(its[:length, action])
            ]
            for action in np.flatnonzero(chance >= LEAST_CHANCE)
        }
        for its, chance, length in zip(scores, chances, streams.lengths, strict=True)
    ]


def activations(
    config: Config, params, seed: int, streams: Streams
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of frames, [num, time, classes], and chances of actions in videos, [num, classes]."""
    its, videos = config.model, videos_of(config, seed)
    model = PrototypeMatcher(its.features, its.hidden, its.relational)

    @jax.jit
    def run(frames, lengths):
        known = jnp.asarray(videos.descriptions), jnp.asarray(videos.graph)
        scores, _ = model.apply({"params": params}, frames, *known, train=False)
        best = best_frames_mean(scores, lengths, share=config.frame_share)
        return scores, jax.nn.softmax(best)

    return tuple(map(np.asarray, run(jnp.asarray(streams.frames), jnp.asarray(streams.lengths))))
