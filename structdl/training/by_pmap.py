"""One program on each of several devices, by pmap, that sums over them itself."""

from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from structdl.training.placement import (
    AXIS,
    EXAMPLES,
    Placement,
    divides,
    divides_seeds,
    everywhere_of,
    require_enough,
)


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


def by_pmap(devices) -> Placement:
    """The placement for `--parallel pmap`."""
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def compile_call(run_call_over):
        over_seeds = _pmap_over_seeds(run_call_over(None), devices)
        over_examples = _pmap_over_examples(run_call_over, devices)

        def placed(state, *inputs):
            by_seed = divides_seeds(state, len(devices))
            return (over_seeds if by_seed else over_examples)(state, *inputs)

        return placed

    check = partial(require_enough, len(devices))
    return Placement(jax.device_put, compile_call, partial(everywhere_of, sharding), check)


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
