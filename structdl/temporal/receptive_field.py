"""How far back a stack of dilated causal convolutions sees, and whether that fits a task."""

import warnings
from collections.abc import Sequence

import numpy as np

from structdl.errors import InputError, require_at_least


def require_size(name: str, size: int) -> None:
    """Raises InputError unless a size is a whole number of at least 1.

    >>> require_size("dilation", 0)
    Traceback (most recent call last):
    structdl.errors.InputError: dilation = 0: it must be at least 1, and a whole number
    """
    if not isinstance(size, int | np.integer) or size < 1:
        raise InputError(f"{name} = {size}: it must be at least 1, and a whole number")


def doubling_dilations(num_levels: int) -> tuple[int, ...]:
    """The paper's dilations, 2^i at level i = 0, 1 and on.

    Raises:
      InputError: a negative number of levels.
    """
    require_at_least("num_levels", num_levels, 0)
    return tuple(2**level for level in range(num_levels))


def receptive_field(
    kernel_size: int, dilations: int | Sequence[int], *, convolutions_per_block: int = 2
) -> int:
    """How many inputs an output sees, its own included: 1 + convolutions * (k - 1) * sum(d).

    Args:
      kernel_size: k, the taps of each convolution.
      dilations: of each level, or the number of levels, whose dilations then double.
      convolutions_per_block: how many convolutions a level has.

    Raises:
      InputError: a size below 1.

    >>> receptive_field(7, 8), receptive_field(3, (1, 2, 4), convolutions_per_block=1)
    (3061, 15)
    """
    if isinstance(dilations, int):
        dilations = doubling_dilations(dilations)
    sizes = {"kernel_size": kernel_size, "convolutions_per_block": convolutions_per_block}
    sizes |= {f"dilations[{level}]": dilation for level, dilation in enumerate(dilations)}
    for name, size in sizes.items():
        require_size(name, size)
    return 1 + convolutions_per_block * (kernel_size - 1) * sum(dilations)


def levels_to_cover(kernel_size: int, time: int, *, convolutions_per_block: int = 2) -> int:
    """The fewest levels of doubling dilations with which the last output sees the first input.

    Raises:
      InputError: one tap sees no past, however many levels there are.

    >>> levels_to_cover(7, 784)
    7
    """
    levels = 1
    while (
        receptive_field(kernel_size, levels, convolutions_per_block=convolutions_per_block) < time
    ):
        if kernel_size == 1:
            raise InputError(
                "kernel_size = 1: every level sees the present only, so that none covers the "
                f"{time} steps of a sequence; give it 2 or more"
            )
        levels += 1
    return levels


def warn_beyond_sequence(kernel_size: int, dilations: Sequence[int], time: int) -> None:
    """Warns where the receptive field is larger than the sequence; the result is defined.

    The paper's own networks are mostly larger, since the field doubles with each level. What it
    costs is work: the taps that lie before the first input meet zeros only. There is no warning
    where all taps have something to see and fewer levels would not cover the sequence.
    """
    field = receptive_field(kernel_size, dilations)
    dead = [dilation for dilation in dilations if (kernel_size - 1) * dilation >= time]
    if field <= time or not (dead or len(dilations) > levels_to_cover(kernel_size, time)):
        return
    learns = (
        f"; taps of the dilations {dead} meet nothing but zeros, and never learn" if dead else ""
    )
    warnings.warn(
        f"the receptive field of {field} steps (kernel_size = {kernel_size}, dilations = "
        f"{tuple(dilations)}) is larger than the sequence of {time}{learns}. "
        f"{levels_to_cover(kernel_size, time)} levels of doubling dilations cover it: take fewer "
        "levels or a smaller kernel, or say warn_beyond=False",
        stacklevel=2,
    )


def require_reach(kernel_size: int, dilations: int | Sequence[int], steps: int) -> None:
    """Refuses a network whose last output does not see as far back as a task asks for.

    Args:
      kernel_size: k, the taps of each convolution.
      dilations: as in `receptive_field`.
      steps: how many inputs the last output must see, its own included.

    Raises:
      InputError: the receptive field is smaller; names the number of levels that would do.
    """
    field = receptive_field(kernel_size, dilations)
    if field < steps:
        raise InputError(
            f"the receptive field of {field} steps does not hold the {steps} that this task asks "
            f"for: with a kernel of {kernel_size} it takes "
            f"{levels_to_cover(kernel_size, steps)} levels of doubling dilations"
        )
