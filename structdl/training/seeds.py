"""Seeds as an axis: groups of them are trained by one vmapped program."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def over_seeds(function: Callable, in_axes: tuple[int | None, ...]) -> Callable:
    """vmap over the seeds' axis; a group of one seed runs as that seed alone would.

    The difference matters: a convolution whose kernels have a batch axis of 1 is slow on CPU.
    """

    def mapped(*args):
        sizes = {
            leaf.shape[0]
            for axis, arg in zip(in_axes, args, strict=True)
            if axis == 0
            for leaf in jax.tree.leaves(arg)
        }
        if sizes != {1}:
            return jax.vmap(function, in_axes)(*args)
        alone = [
            jax.tree.map(lambda leaf: leaf[0], arg) if axis == 0 else arg
            for axis, arg in zip(in_axes, args, strict=True)
        ]
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], function(*alone))

    return mapped


def group_name(seeds: Sequence[int]) -> str:
    """The name of a group's checkpoints and curves.

    >>> group_name([3]), group_name([0, 1, 2])
    ('seed-3', 'seeds-0-2')
    """
    return f"seed-{seeds[0]}" if len(seeds) == 1 else f"seeds-{seeds[0]}-{seeds[-1]}"


def stack(trees: Sequence[Any]):
    """Stacks the leaves of equal pytrees along a new first axis, on the host."""
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *trees)
