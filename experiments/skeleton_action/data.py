"""Skeletons of all splits in one array, and how a batch of them is brought to one form."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from experiments.skeleton_action.presets import Config
from structdl.datasets import motion_primitives, msraction3d
from structdl.datasets.sequences import Splits, split_indices
from structdl.datasets.skeletons import Skeletons

ACTIONS = {"primitives": motion_primitives.ACTIONS, "msraction3d": msraction3d.ACTIONS}
# both sets have these
JOINTS, BONES, PARTS = msraction3d.JOINTS, msraction3d.BONES, msraction3d.PARTS
CENTRE = JOINTS.index("hip centre")


class Augmentation(NamedTuple):
    """How far training sequences are changed; each is drawn evenly from both sides."""

    rotation: float  # radians, about the vertical axis
    scaling: float  # share
    cropping: float  # share of the time


def load(config: Config) -> tuple[Skeletons, Splits]:
    """The sequences of all splits, and the indices of each split's.

    Raises:
      InputError: people for validation who cannot be, or a set that cannot be had.
    """
    options = {
        "validation_subjects": config.validation_subjects,
        "data_dir": config.data.dir,
    }
    if config.dataset == "primitives":
        splits = motion_primitives.load(**options)
    else:
        splits = msraction3d.load(**options, raw_dir=config.data.raw_dir)
    longest = max(split.positions.shape[1] for split in splits)
    positions = [
        np.pad(its, ((0, 0), (0, longest - its.shape[1]), (0, 0), (0, 0)))
        for its in (split.positions for split in splits)
    ]
    others = [np.concatenate([split[field] for split in splits]) for field in (1, 2, 3)]
    sizes = [len(split.labels) for split in splits]
    return Skeletons(np.concatenate(positions), *others), split_indices(sizes)


def prepare(
    positions: Float[Array, "batch time joints 3"],
    lengths: Int[Array, " batch"],
    frames: int,
    augmentation: Augmentation | None = None,
    key: Key[Array, ""] | None = None,
) -> Float[Array, "batch {frames} joints 3"]:
    """Sequences of one length, the hip centre of their first frame at 0.

    Args:
      positions: right-padded.
      lengths: of the sequences, at least 1.
      frames: how many there are to be, between which positions are interpolated.
      augmentation: of training sequences; None changes nothing.
      key: draws it.
    """
    batch = len(lengths)
    starts, shares = jnp.zeros(batch), jnp.ones(batch)
    if augmentation is not None:
        angle_key, scale_key, share_key, start_key = jax.random.split(key, 4)
        shares -= augmentation.cropping * jax.random.uniform(share_key, (batch,))
        starts = (1 - shares) * jax.random.uniform(start_key, (batch,))
    steps = jnp.linspace(0, 1, frames)[None]
    places = (lengths - 1)[:, None] * (starts[:, None] + shares[:, None] * steps)
    resampled = jax.vmap(_interpolate)(positions, places)
    resampled -= resampled[:, :1, CENTRE, None]
    if augmentation is None:
        return resampled
    angles = _both_sides(angle_key, batch, augmentation.rotation)
    scales = 1 + _both_sides(scale_key, batch, augmentation.scaling)
    return scales[:, None, None, None] * _turned(resampled, angles)


def _both_sides(key, batch: int, most: float) -> Float[Array, " batch"]:
    return most * jax.random.uniform(key, (batch,), minval=-1)


def _interpolate(
    positions: Float[Array, "time joints 3"], places: Float[Array, " frames"]
) -> Float[Array, "frames joints 3"]:
    before = jnp.floor(places).astype(jnp.int32)
    after = jnp.ceil(places).astype(jnp.int32)
    shares = (places - before)[:, None, None]
    return (1 - shares) * positions[before] + shares * positions[after]


def _turned(
    positions: Float[Array, "batch frames joints 3"], angles: Float[Array, " batch"]
) -> Float[Array, "batch frames joints 3"]:
    """About the vertical axis."""
    x, y, z = jnp.moveaxis(positions, -1, 0)
    cosines, sines = (function(angles)[:, None, None] for function in (jnp.cos, jnp.sin))
    return jnp.stack([cosines * x - sines * z, y, sines * x + cosines * z], axis=-1)
