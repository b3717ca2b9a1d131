"""One program over several devices: by jit over a mesh, or by pmap, over seeds or over examples."""

import dataclasses
from functools import partial

import jax
from jax.sharding import AxisType, Mesh

from structdl.errors import InputError, require_at_least
from structdl.training.by_jit import by_jit
from structdl.training.by_pmap import by_pmap
from structdl.training.placement import AXIS, Placement, everywhere_of
from structdl.training.run import Run


def on_devices(run: Run) -> Placement:
    """The placement for `--parallel none|jit|pmap`.

    The seeds' axis of a group is divided where it divides by the number of devices, else each
    batch's examples. A batch that does not divide is computed whole on every device. Over seeds,
    with a whole batch, and under jit, a run draws what it draws on one device; over examples by
    pmap it does not, see `structdl.training.step.make_train_step`.

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
            return by_jit(Mesh(devices, (AXIS,), axis_types=(AxisType.Auto,)), run)
        case "pmap":
            return by_pmap(devices)


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


def with_counted_devices(run: Run) -> Run:
    """The run with the number of all devices in place of 0, where it decides what is drawn."""
    if run.parallel != "pmap" or run.num_devices:
        return run
    return dataclasses.replace(run, num_devices=jax.device_count())


def _on_one(run: Run) -> Placement:
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def compile_call(run_call_over):
        options = run.compiler_options
        return jax.jit(run_call_over(None), donate_argnums=0, compiler_options=options)

    return Placement(jax.device_put, compile_call, partial(everywhere_of, sharding))
