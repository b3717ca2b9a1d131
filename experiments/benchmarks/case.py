"""What a family of benchmarks is made of."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

# Sets up in the process that it is called in, and returns what is timed: a function that waits
# for its own result. A family's module imports jax and torch only inside of these.
Prepare = Callable[[], Callable[[], Any]]

OURS = "structdl"


class Case(NamedTuple):
    """One computation as structdl does it and as its peers do it.

    Fields:
      name: what is computed.
      sides: how to prepare each side, by its name; OURS is among them.
      goals: the ratio that is hoped for, by the peer's name.
      units: how many of the named thing one call of a side does: steps, say. By side; else 1.
      whole_process: whether a call starts a process of its own: it is not warmed up, and is
        repeated less often.
      own_clock: whether a call returns its seconds itself, say because it does a part of the work
        and reckons what all of it takes.
      gpu_goals: further goals, where the device is a GPU.
    """

    name: str
    sides: Mapping[str, Prepare]
    goals: Mapping[str, float] = {}
    units: Mapping[str, int] = {}
    whole_process: bool = False
    own_clock: bool = False
    gpu_goals: Mapping[str, float] = {}
