"""Batches of indices into arrays that stay on the device: shuffled epochs, and splits in order."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from structdl.errors import InputError


def shuffled_epochs(
    examples: Int[np.ndarray, " num"], batch_size: int
) -> Callable[[int, int], Int[np.ndarray, " batch"]]:
    """Returns `batch(step, seed)`, a Task's: an epoch goes once through the examples, shuffled.

    The order of an epoch is a function of seed and epoch alone. The examples that fill no whole
    batch at an epoch's end are left out of that epoch.

    Args:
      examples: indices of the examples of training.
      batch_size: how many make a step.

    Raises:
      InputError: a batch that is empty, or larger than the training set.

    >>> batch = shuffled_epochs(np.arange(10, 16), 3)
    >>> sorted([*batch(0, 0).tolist(), *batch(1, 0).tolist()])
    [10, 11, 12, 13, 14, 15]
    """
    if not 1 <= batch_size <= len(examples):
        raise InputError(
            f"--batch-size is {batch_size}: give 1 to {len(examples)}, as many as there are "
            "examples of training."
        )
    steps_per_epoch = len(examples) // batch_size

    @functools.lru_cache(maxsize=1)  # steps come in their order
    def order(epoch: int, seed: int) -> np.ndarray:
        return np.random.default_rng([seed, epoch]).permutation(examples).astype(np.int32)

    def batch(step: int, seed: int) -> np.ndarray:
        epoch, place = divmod(step, steps_per_epoch)
        return order(epoch, seed)[place * batch_size : (place + 1) * batch_size]

    return batch


class Stretch(NamedTuple):
    """What of some sequences a batch shows."""

    examples: Int[np.ndarray, " batch"]  # int32; -1 stands for none
    starts: Int[np.ndarray, " batch"]  # int32, where in each the stretch begins


def shuffled_stretches(
    examples: Int[np.ndarray, " num"], batch_size: int, lengths: Int[np.ndarray, " all"], size: int
) -> Callable[[int, int], Stretch]:
    """`shuffled_epochs` of sequences; of one longer than `size` a stretch at random.

    Args:
      examples: indices of the sequences of training.
      batch_size: how many make a step.
      lengths: of all sequences that can be named, in the order of their indices.
      size: how much of a sequence a step sees at most.

    Raises:
      InputError: as `shuffled_epochs`.

    >>> batch = shuffled_stretches(np.array([1]), 1, lengths=np.array([9, 5]), size=3)
    >>> all(0 <= batch(step, 0).starts[0] <= 2 for step in range(20))
    True
    """
    batches = shuffled_epochs(examples, batch_size)

    def batch(step: int, seed: int) -> Stretch:
        chosen = batches(step, seed)
        last_start = np.maximum(lengths[chosen] - size, 0)
        starts = np.random.default_rng([seed, step, 1]).integers(0, last_start + 1)
        return Stretch(chosen, starts.astype(np.int32))

    return batch


def in_order(examples: Int[np.ndarray, " num"], batch_size: int) -> list[np.ndarray]:
    """The examples of a split in batches of one size; -1 fills up the last and does not count.

    A split smaller than a batch is one batch of its own size.

    >>> in_order(np.array([5, 6, 7]), 2)
    [array([5, 6], dtype=int32), array([ 7, -1], dtype=int32)]
    """
    size = min(batch_size, len(examples))
    parts = [examples[start : start + size] for start in range(0, len(examples), size or 1)]
    return [
        np.pad(part, (0, size - len(part)), constant_values=-1).astype(np.int32) for part in parts
    ]
