"""Trajectories of all splits in one array, which batches index; scaled by those of training."""

import numpy as np

from experiments.relational_inference.presets import Config
from structdl.datasets import particles
from structdl.datasets.sequences import Splits, split_indices
from structdl.datasets.simulate_particles import Trajectories

# features that share a unit are scaled together
SCALED_TOGETHER = {
    "springs": ((0, 1), (2, 3)),
    "charged": ((0, 1), (2, 3)),
    "kuramoto": ((0,), (1,), (2,)),
}


def load(config: Config) -> tuple[Trajectories, Splits]:
    """The systems of all splits, and the indices of each split's.

    Raises:
      InputError: a number out of its range.
    """
    splits = particles.load(
        config.dataset,
        objects=config.objects,
        num_train=config.num_train,
        num_validation=config.num_validation,
        num_test=config.num_test,
        data_dir=config.data.dir,
    )
    states = np.concatenate([split.states for split in splits])
    edges = np.concatenate([split.edges for split in splits])
    indices = split_indices([len(split.states) for split in splits])
    scaled = scale(states, splits.train.states, SCALED_TOGETHER[config.dataset])
    return Trajectories(scaled, edges), indices


def scale(
    states: np.ndarray, training: np.ndarray, together: tuple[tuple[int, ...], ...]
) -> np.ndarray:
    """Each group of features so that those of training lie from -1 to 1.

    Args:
      states: [num, time, objects, features].
      training: those of training, which decide the scale.
      together: groups of features.
    """
    scaled = np.empty_like(states)
    for group in map(list, together):
        low, high = training[..., group].min(), training[..., group].max()
        scaled[..., group] = 2 * (states[..., group] - low) / max(high - low, 1e-12) - 1
    return scaled
