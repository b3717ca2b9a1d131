"""One program over several devices: by jit over a mesh, or by pmap, over seeds or over examples."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from structdl.errors import InputError, require_at_least
from structdl.training.run import Run

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


def on_devices(run: Run) -> Placement:
    """The placement for `--parallel none|jit|pmap`.

    The seeds' axis of a group is divided where it divides by the number of devices, else each
    batch's examples. A batch that does not divide is computed whole on every device.

    Raises:
      InputError: more devices than there are, or options that this kind of parallel does not have.
    """
    devices = devices_of(run)
    if run.shard_parameters and run.parallel != "jit":
        raise InputError("--shard-parameters divides them over a mesh: give --parallel jit.")
    if run.parallel != "jit" and jax.process_count() > 1:
        raise InputError(f"--parallel {run.parallel} is for one process: give --parallel jit.")
    if run.parallel == "pmap" and run.deterministic:
        raise InputError("--deterministic tells jit's compiler, not pmap's: give --parallel jit.")
    match run.parallel:
        case "none":
            return _on_one(run)
        case "jit":
            return _by_jit(Mesh(devices, (AXIS,), axis_types=(AxisType.Auto,)), run)
        case "pmap":
            return _by_pmap(devices)


def devices_of(run: Run) -> list[jax.Device]:
    """The devices that a run asks for: one, the first ones, or those of all processes.

    Raises:
      InputError: there are fewer, or not all where there are several processes.
    """
    require_at_least("--num-devices", run.num_devices, 0)
    if run.parallel == "none":
        if run.num_devices > 1:
            raise InputError("--num-devices divides a run: give --parallel jit or pmap too.")
        return jax.local_devices()[:1]
    devices = jax.devices()
    if run.num_devices > len(devices):
        raise InputError(
            f"--num-devices is {run.num_devices}, and there are {len(devices)} of the platform "
            f"{devices[0].platform}; on a CPU the variable JAX_NUM_CPU_DEVICES makes more."
        )
    if run.num_devices and jax.process_count() > 1:
        raise InputError("--num-devices is for one process: several take all devices they have.")
    return devices[: run.num_devices] if run.num_devices else devices


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def shared(axis: str, params):
    """Parameters that all devices of an axis hold: their cotangents are summed over it."""
    return params


shared.defvjp(lambda axis, params: (params, None), lambda axis, _, bar: (jax.lax.psum(bar, axis),))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def summed(axis: str, tree):
    """Sums over the devices of an axis, of which each one's addend has the sum's cotangent.

    With `shared` it gives every device the derivative of the sum. That of `jax.lax.psum` alone
    would count each addend once for every device.
    """
    return jax.lax.psum(tree, axis)


summed.defvjp(lambda axis, tree: (jax.lax.psum(tree, axis), None), lambda axis, _, bar: (bar,))


def _on_one(run: Run) -> Placement:
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def compile_call(run_call_over):
        options = run.compiler_options
        return jax.jit(run_call_over(None), donate_argnums=0, compiler_options=options)

    return Placement(jax.device_put, compile_call, partial(_everywhere, sharding))


def _by_jit(mesh: Mesh, run: Run) -> Placement:
    everywhere = NamedSharding(mesh, PartitionSpec())
    by_seed = NamedSharding(mesh, PartitionSpec(AXIS))

    def put_examples(tree, axis: int):
        spec = PartitionSpec(*(None,) * axis, AXIS)
        divided = divides(tree, axis, mesh.size)

        def put(leaf):
            has_examples = divided and leaf.ndim > axis
            return _put(leaf, NamedSharding(mesh, spec) if has_examples else everywhere)

        return jax.tree.map(put, tree)

    def put_share(tree):
        """The whole batches, of which each process has its share."""
        sharding = NamedSharding(mesh, PartitionSpec(*(None,) * EXAMPLES, AXIS))

        def put(leaf):
            if leaf.ndim <= EXAMPLES:
                return _put(leaf, everywhere)
            before, (size, *after) = leaf.shape[:EXAMPLES], leaf.shape[EXAMPLES:]
            whole = (*before, size * jax.process_count(), *after)
            return jax.make_array_from_process_local_data(sharding, leaf, whole)

        return jax.tree.map(put, tree)

    def own_rows(batch) -> slice | None:
        num_seeds = len(jax.tree.leaves(batch)[0]) if jax.tree.leaves(batch) else 0
        by_seeds = num_seeds % mesh.size == 0
        if jax.process_count() == 1 or by_seeds or not divides(batch, 1, mesh.size):
            return None
        (size,) = _sizes(batch, 1)
        size //= jax.process_count()
        return slice(size * jax.process_index(), size * (jax.process_index() + 1))

    def put_all(tree, sharding):
        return jax.tree.map(lambda leaf: _put(leaf, sharding), tree)

    def of_state(state):
        if _divides_seeds(state, mesh.size):
            return _everywhere(by_seed, state)
        if run.shard_parameters:
            return jax.tree.map(
                lambda leaf: NamedSharding(mesh, _largest_axis(leaf, mesh.size)), state
            )
        return _everywhere(everywhere, state)

    def compile_call(run_call_over):
        compiled = {}

        def placed(state, data, seed_data, batches, eval_batches):
            shardings, size = of_state(state), len(state.stopped)
            if size not in compiled:  # a last group of seeds may be smaller
                # with its state where that was before, a call is compiled once
                compiled[size] = jax.jit(
                    run_call_over(None),
                    donate_argnums=0,
                    out_shardings=(shardings, everywhere),
                    compiler_options=run.compiler_options,
                )
            state = jax.tree.map(_put, state, shardings)
            if _divides_seeds(state, mesh.size):
                seed_data, batches = put_all((seed_data, batches), by_seed)
                eval_batches = put_all(eval_batches, everywhere)
            else:
                seed_data = put_all(seed_data, everywhere)
                is_share = isinstance(batches, Share)
                batches = (
                    put_share(batches.batches) if is_share else put_examples(batches, EXAMPLES)
                )
                eval_batches = put_examples(eval_batches, EVAL_EXAMPLES)
            return compiled[size](state, data, seed_data, batches, eval_batches)

        return placed

    put_data = partial(put_all, sharding=everywhere)
    check = partial(_require_enough, mesh.size)
    return Placement(put_data, compile_call, of_state, check, own_rows)


def _everywhere(sharding, tree):
    """The sharding for every leaf."""
    return jax.tree.map(lambda leaf: sharding, tree)


def _divides_seeds(state, num_devices: int) -> bool:
    return state.stopped.shape[0] % num_devices == 0


def _put(leaf, sharding):
    """An array where it shall lie; of several processes each gives what its own devices hold."""
    if jax.process_count() == 1:
        return jax.device_put(leaf, sharding)
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return leaf  # it came from a call, or from a checkpoint
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _largest_axis(leaf, num_devices: int) -> PartitionSpec:
    """Divides the largest axis after that of seeds, of those that divide."""
    sizes = [size if size % num_devices == 0 else 0 for size in leaf.shape[1:]]
    if not any(sizes):
        return PartitionSpec()
    return PartitionSpec(*(None,) * (1 + sizes.index(max(sizes))), AXIS)


def _by_pmap(devices) -> Placement:
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def compile_call(run_call_over):
        over_seeds = _pmap_over_seeds(run_call_over(None), devices)
        over_examples = _pmap_over_examples(run_call_over, devices)

        def placed(state, *inputs):
            by_seed = _divides_seeds(state, len(devices))
            return (over_seeds if by_seed else over_examples)(state, *inputs)

        return placed

    check = partial(_require_enough, len(devices))
    return Placement(jax.device_put, compile_call, partial(_everywhere, sharding), check)


def _pmap_over_seeds(call: Callable, devices) -> Callable:
    mapped = jax.pmap(call, AXIS, in_axes=(0, None, 0, 0, None), devices=devices)
    mesh = Mesh(devices, (AXIS,), axis_types=(AxisType.Auto,))
    by_device = NamedSharding(mesh, PartitionSpec(AXIS))

    def placed(state, data, seed_data, batches, eval_batches):
        state, seed_data, batches = jax.tree.map(
            # pmap takes no array that is bound to one device
            lambda leaf: jax.device_put(leaf.reshape(len(devices), -1, *leaf.shape[1:]), by_device),
            (state, seed_data, batches),
        )
        results = mapped(state, data, seed_data, batches, eval_batches)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), results)

    return placed


def _pmap_over_examples(run_call_over: Callable[[str | None], Callable], devices) -> Callable:
    axes = (None, None, None, 0, None)
    mapped = {
        # where every device has the whole batch, each draws what one device would
        divided: jax.pmap(
            run_call_over(AXIS if divided else None),
            AXIS,
            in_axes=axes,
            out_axes=None,
            devices=devices,
        )
        for divided in (False, True)
    }

    def placed(state, data, seed_data, batches, eval_batches):
        divided = divides(batches, EXAMPLES, len(devices))
        parts = jax.tree.map(partial(_on_each, len(devices), divided), batches)
        return mapped[divided](state, data, seed_data, parts, eval_batches)

    return placed


def _on_each(num_devices: int, divided: bool, leaf):
    """A leaf of batches with an axis of devices in front, its examples divided over it."""
    if not divided or leaf.ndim <= EXAMPLES:
        return np.broadcast_to(leaf, (num_devices, *leaf.shape))
    return np.stack(np.split(leaf, num_devices, axis=EXAMPLES))


def divides(tree, axis: int, num_devices: int) -> bool:
    """Whether a batch's examples divide by the number of devices.

    Leaves whose sizes differ are no examples side by side, but nodes, edges and graphs, say, that
    refer to one another: those are not divided.
    """
    sizes = _sizes(tree, axis)
    return len(sizes) == 1 and all(size % num_devices == 0 for size in sizes)


def _require_enough(num_devices: int, batch) -> None:
    """Raises InputError for a batch [num_seeds, examples, ...] of fewer examples than devices."""
    num_seeds = len(jax.tree.leaves(batch)[0]) if jax.tree.leaves(batch) else 0
    sizes = _sizes(batch, 1)
    if num_seeds % num_devices and len(sizes) == 1 and max(sizes) < num_devices:
        raise InputError(
            f"a batch of {max(sizes)} examples is fewer than the {num_devices} devices that "
            "--parallel divides it over: give a larger batch, or --num-devices."
        )


def _sizes(tree, axis: int) -> set[int]:
    return {leaf.shape[axis] for leaf in jax.tree.leaves(tree) if leaf.ndim > axis}
