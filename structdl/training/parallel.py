"""One program over several devices of a process: by jit over a mesh, or by pmap."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from structdl.training.run import Run

AXIS = "devices"
EXAMPLES = 3  # batches are [num_seeds, rounds, steps, examples, ...]


class Placement(NamedTuple):
    """Where a run's arrays lie and how its call is compiled.

    Fields:
      axis_name: the pmap axis over which the step must sum, or None.
      replicate: puts the task's data on every device.
      compile: `run_call -> compiled run_call`; the first argument is donated.
    """

    axis_name: str | None
    replicate: Callable[[Any], Any]
    compile: Callable[[Callable], Callable]


def on_devices(run: Run) -> Placement:
    """The placement for `--parallel none|jit|pmap`.

    The seeds' axis is divided where every group of seeds divides by the number of devices; else
    each batch's examples are, and leaves that do not divide are replicated.
    """
    num_devices = jax.local_device_count()
    divides_seeds = all(len(group) % num_devices == 0 for group in run.seed_groups())
    if run.parallel == "none":
        return Placement(None, jax.device_put, lambda call: jax.jit(call, donate_argnums=0))
    if run.parallel == "jit":
        return _by_mesh(num_devices, divides_seeds)
    return _by_pmap(num_devices, divides_seeds)


def _by_mesh(num_devices: int, divides_seeds: bool) -> Placement:
    mesh = jax.make_mesh((num_devices,), (AXIS,), axis_types=(AxisType.Auto,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    by_seed = NamedSharding(mesh, PartitionSpec(AXIS)) if divides_seeds else everywhere
    by_example = NamedSharding(mesh, PartitionSpec(*(None,) * EXAMPLES, AXIS))

    def of_batch(leaf):
        divides = not divides_seeds and _divides(leaf, num_devices)
        return jax.device_put(leaf, by_example if divides else by_seed)

    def compile_call(call):
        compiled = jax.jit(call, donate_argnums=0)

        def placed(state, data, seed_data, batches, eval_batches):
            state, seed_data = jax.device_put((state, seed_data), by_seed)
            eval_batches = jax.device_put(eval_batches, everywhere)
            return compiled(state, data, seed_data, jax.tree.map(of_batch, batches), eval_batches)

        return placed

    return Placement(None, lambda data: jax.device_put(data, everywhere), compile_call)


def _by_pmap(num_devices: int, divides_seeds: bool) -> Placement:
    def split(leaf, axis):
        sizes = (num_devices, leaf.shape[axis] // num_devices)
        return leaf.reshape(*leaf.shape[:axis], *sizes, *leaf.shape[axis + 1 :])

    def compile_over_seeds(call):
        mapped = jax.pmap(call, AXIS, in_axes=(0, None, 0, 0, None))

        def placed(state, data, seed_data, batches, eval_batches):
            by_seed = jax.tree.map(lambda leaf: split(leaf, 0), (state, seed_data, batches))
            results = mapped(by_seed[0], data, *by_seed[1:], eval_batches)
            return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), results)

        return placed

    def compile_over_examples(call):
        @functools.cache
        def mapped(axes, treedef):
            # the numbers of the devices are mapped in any case: pmap wants to see how many
            in_axes = (0, None, None, None, jax.tree.unflatten(treedef, axes), None)
            return jax.pmap(lambda device, *args: call(*args), AXIS, in_axes=in_axes)

        def placed(state, data, seed_data, batches, eval_batches):
            leaves, treedef = jax.tree.flatten(batches)
            axes = tuple(EXAMPLES if _divides(leaf, num_devices) else None for leaf in leaves)
            leaves = [
                leaf if axis is None else split(leaf, axis)
                for leaf, axis in zip(leaves, axes, strict=True)
            ]
            results = mapped(axes, treedef)(
                np.arange(num_devices),
                state,
                data,
                seed_data,
                jax.tree.unflatten(treedef, leaves),
                eval_batches,
            )
            return jax.tree.map(lambda leaf: leaf[0], results)  # equal on every device

        return placed

    if divides_seeds:
        return Placement(None, jax.device_put, compile_over_seeds)
    return Placement(AXIS, jax.device_put, compile_over_examples)


def _divides(leaf, num_devices: int) -> bool:
    return leaf.ndim > EXAMPLES and leaf.shape[EXAMPLES] % num_devices == 0
