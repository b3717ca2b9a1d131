"""Where the arrays of a run lie, and which of its axes divide over devices."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from structdl.errors import InputError

AXIS = "devices"
EXAMPLES = 3  # batches are [num_seeds, rounds, steps, examples, ...]
EVAL_EXAMPLES = 1  # those of a validation are [num_batches, examples, ...]


class Placement(NamedTuple):
    """Where a run's arrays lie and how its call is compiled.

    Fields:
      put_data: brings the task's data to the devices.
      compile: `run_call_over -> compiled run_call`, whose first argument may be donated.
        `run_call_over(axis)` is the call that sums over an axis of devices which each hold some
        of a step's examples; None where the compiler does so, or every device has all of them.
      of_state: where the leaves of a state of these shapes lie.
      check: refuses a first batch [num_seeds, examples, ...] that cannot be divided.
      own_rows: of such a batch's examples, those that this process reads, as a `Share`; None where
        it reads all of them.
    """

    put_data: Callable[[Any], Any]
    compile: Callable[[Callable[[str | None], Callable]], Callable]
    of_state: Callable[[Any], Any]
    check: Callable[[Any], None] = lambda batch: None
    own_rows: Callable[[Any], slice | None] = lambda batch: None


class Share(NamedTuple):
    """Stacked batches of which this process has read the rows of its own devices."""

    batches: Any


def everywhere_of(sharding, tree):
    """The sharding for every leaf."""
    return jax.tree.map(lambda leaf: sharding, tree)


def divides_seeds(state, num_devices: int) -> bool:
    """Whether the axis of seeds divides by the number of devices."""
    return state.stopped.shape[0] % num_devices == 0


def divides(tree, axis: int, num_devices: int) -> bool:
    """Whether a batch's examples divide by the number of devices.

    Leaves whose sizes differ are no examples side by side, but nodes, edges and graphs, say, that
    refer to one another: those are not divided.
    """
    found = sizes(tree, axis)
    return len(found) == 1 and all(size % num_devices == 0 for size in found)


def require_enough(num_devices: int, batch) -> None:
    """Raises InputError for a batch [num_seeds, examples, ...] of fewer examples than devices."""
    num_seeds = len(jax.tree.leaves(batch)[0]) if jax.tree.leaves(batch) else 0
    found = sizes(batch, 1)
    if num_seeds % num_devices and len(found) == 1 and max(found) < num_devices:
        raise InputError(
            f"a batch of {max(found)} examples is fewer than the {num_devices} devices that "
            "--parallel divides it over: give a larger batch, or --num-devices."
        )


def sizes(tree, axis: int) -> set[int]:
    """Of the axis, in the leaves that have it."""
    return {leaf.shape[axis] for leaf in jax.tree.leaves(tree) if leaf.ndim > axis}
