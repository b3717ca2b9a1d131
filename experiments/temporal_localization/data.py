"""The videos of a seed in one array of fixed size, which batches index, and the actions' graph."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.temporal_localization.presets import Config
from structdl.datasets import untrimmed_streams
from structdl.datasets.sequences import Splits, split_indices
from structdl.graphs.prototypes import co_occurrence_graph

MAX_TIME = 80  # frames, of the longest video that there can be


class Videos(NamedTuple):
    """All splits, one after another, and what is known of the actions."""

    frames: jax.Array  # [num, time, features], float32; zeros past the end
    lengths: jax.Array  # [num], int32
    labels: jax.Array  # [num, classes], bool
    descriptions: jax.Array  # [classes, description_features]
    graph: jax.Array  # [classes, classes], of the videos of training


def indices(config: Config) -> Splits:
    """The numbers of each split's videos, the same for every seed."""
    return split_indices([config.num_train, config.num_validation, config.num_test])


def load(config: Config, seed: int) -> Splits:
    """Three `Streams`, see `untrimmed_streams.load`.

    Raises:
      InputError: a number out of its range.
    """
    return untrimmed_streams.load(
        num_train=config.num_train,
        num_validation=config.num_validation,
        num_test=config.num_test,
        group_share=config.group_share,
        seed=seed,
        data_dir=config.data.dir,
    )


def videos_of(config: Config, seed: int) -> Videos:
    """The videos of a seed; labels of validation and test are there for metrics alone.

    Raises:
      InputError: see `load` and `co_occurrence_graph`.
    """
    splits = load(config, seed)
    frames = [
        np.pad(split.frames, ((0, 0), (0, MAX_TIME - split.frames.shape[1]), (0, 0)))
        for split in splits
    ]
    its = config.model
    graph = co_occurrence_graph(
        jnp.asarray(splits.train.labels),
        threshold=its.threshold,
        neighbour_share=its.neighbour_share,
    )
    return Videos(
        np.concatenate(frames),
        np.concatenate([split.lengths for split in splits]),
        np.concatenate([split.labels for split in splits]),
        untrimmed_streams.world_of(seed, config.group_share).descriptions,
        np.asarray(graph),
    )
