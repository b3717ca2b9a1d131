"""One program over several devices of a process: by jit over a mesh, or by pmap over seeds."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from structdl.errors import InputError
from structdl.training.run import Run

AXIS = "devices"
EXAMPLES = 3  # batches are [num_seeds, rounds, steps, examples, ...]


class Placement(NamedTuple):
    """Where a run's arrays lie and how its call is compiled.

    Fields:
      replicate: puts the task's data on every device.
      compile: `run_call -> compiled run_call`; the first argument may be donated.
    """

    replicate: Callable[[Any], Any]
    compile: Callable[[Callable], Callable]


def on_devices(run: Run) -> Placement:
    """The placement for `--parallel none|jit|pmap`.

    The seeds' axis is divided where every group of seeds divides by the number of devices. Else
    jit divides each batch's examples, and replicates leaves that do not divide.

    Raises:
      InputError: pmap where the seeds do not divide. Examples under pmap would need the sums of
        loss, gradients and model state written out; jit has them from the compiler.
    """
    num_devices = jax.local_device_count()
    divides_seeds = all(len(group) % num_devices == 0 for group in run.seed_groups())
    if run.parallel == "none":
        return Placement(jax.device_put, lambda call: jax.jit(call, donate_argnums=0))
    if run.parallel == "jit":
        return _by_mesh(num_devices, divides_seeds)
    if not divides_seeds:
        raise InputError(
            f"--parallel pmap divides the seeds: groups of {len(run.seed_groups()[0])} seeds do "
            f"not divide by {num_devices} devices. Change --num-seeds or --seeds-per-call, or give "
            "--parallel jit, which divides batches too."
        )
    return Placement(jax.device_put, lambda call: _pmap_over_seeds(call, num_devices))


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

    return Placement(lambda data: jax.device_put(data, everywhere), compile_call)


def _pmap_over_seeds(call: Callable, num_devices: int) -> Callable:
    mapped = jax.pmap(call, AXIS, in_axes=(0, None, 0, 0, None))

    def placed(state, data, seed_data, batches, eval_batches):
        state, seed_data, batches = jax.tree.map(
            lambda leaf: leaf.reshape(num_devices, -1, *leaf.shape[1:]), (state, seed_data, batches)
        )
        results = mapped(state, data, seed_data, batches, eval_batches)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), results)

    return placed


def _divides(leaf, num_devices: int) -> bool:
    return leaf.ndim > EXAMPLES and leaf.shape[EXAMPLES] % num_devices == 0
