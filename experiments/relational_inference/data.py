"""Trajectories of all splits in one array, which batches index; scaled by those of training.

Of a walking person a state is the rotation of a joint and its change since the frame before; no
edges are known.
"""

import numpy as np

from experiments.relational_inference.presets import Config
from structdl.datasets import cmu_mocap, particles
from structdl.datasets.sequences import Splits, split_indices
from structdl.datasets.simulate_particles import Trajectories
from structdl.errors import InputError, require_at_most
from structdl.graphs.nri import require_trajectories

# features that share a unit are scaled together
SCALED_TOGETHER = {
    "springs": ((0, 1), (2, 3)),
    "charged": ((0, 1), (2, 3)),
    "kuramoto": ((0,), (1,), (2,)),
    "walking": ((0, 1, 2), (3, 4, 5)),
}
UNKNOWN = -1  # the type of an edge


def load(config: Config) -> tuple[Trajectories, Splits]:
    """The systems of all splits, and the indices of each split's.

    Raises:
      InputError: a number out of its range, or motions that cannot be had.
    """
    splits = _motions(config) if config.dataset == "walking" else _simulated(config)
    states = np.concatenate([split.states for split in splits])
    edges = np.concatenate([split.edges for split in splits])
    indices = split_indices([len(split.states) for split in splits])
    require_trajectories(states)
    scaled = scale(states, splits.train.states, SCALED_TOGETHER[config.dataset])
    return Trajectories(scaled, edges), indices


def _simulated(config: Config) -> Splits:
    return particles.load(
        config.dataset,
        objects=config.objects,
        num_train=config.num_train,
        num_validation=config.num_validation,
        num_test=config.num_test,
        data_dir=config.data.dir,
    )


def _motions(config: Config) -> Splits:
    """The first stretches of each split, as many as are asked for."""
    found = cmu_mocap.load(config.dataset, data_dir=config.data.dir, raw_dir=config.data.raw_dir)
    joints, splits = found.train.shape[2], []
    if config.objects != joints:
        raise InputError(f"--objects is {config.objects}: of walking give {joints}, its joints")
    for name, rotations in found._asdict().items():
        number = getattr(config, f"num_{name}")
        require_at_most(f"--num-{name}", number, len(rotations))
        rotations = rotations[:number]
        changes = np.diff(rotations, axis=1, prepend=rotations[:, :1])
        edges = np.full((number, joints, joints), UNKNOWN, np.int32)
        splits.append(Trajectories(np.concatenate([rotations, changes], axis=-1), edges))
    return Splits(*splits)


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
