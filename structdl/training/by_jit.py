"""One program over a mesh of devices, which the compiler divides: seeds, examples, parameters."""

from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from structdl.training.placement import (
    AXIS,
    EVAL_EXAMPLES,
    EXAMPLES,
    Placement,
    Share,
    divides,
    divides_seeds,
    everywhere_of,
    require_enough,
    sizes,
)
from structdl.training.run import Run


def by_jit(mesh: Mesh, run: Run) -> Placement:
    """The placement for `--parallel jit`."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    by_seed = NamedSharding(mesh, PartitionSpec(AXIS))
    of_state = partial(_of_state, mesh, run.shard_parameters)

    def put_inputs(seed_data, batches, eval_batches, *, by_seeds: bool):
        if by_seeds:
            return *_put_all((seed_data, batches), by_seed), _put_all(eval_batches, everywhere)
        is_share = isinstance(batches, Share)
        return (
            _put_all(seed_data, everywhere),
            _put_share(mesh, batches.batches) if is_share else _put(mesh, batches, EXAMPLES),
            _put(mesh, eval_batches, EVAL_EXAMPLES),
        )

    def compile_call(run_call_over):
        compiled = {}

        def placed(state, data, *inputs):
            shardings, size = of_state(state), len(state.stopped)
            if size not in compiled:  # a last group of seeds may be smaller
                # with its state where that was before, a call is compiled once
                compiled[size] = jax.jit(
                    run_call_over(None),
                    donate_argnums=0,
                    out_shardings=(shardings, everywhere),
                    compiler_options=run.compiler_options,
                )
            state = jax.tree.map(_put_leaf, state, shardings)
            inputs = put_inputs(*inputs, by_seeds=divides_seeds(state, mesh.size))
            return compiled[size](state, data, *inputs)

        return placed

    put_data = partial(_put_all, sharding=everywhere)
    check, own_rows = partial(require_enough, mesh.size), partial(_own_rows, mesh)
    return Placement(put_data, compile_call, of_state, check, own_rows)


def _of_state(mesh: Mesh, shard_parameters: bool, state):
    if divides_seeds(state, mesh.size):
        return everywhere_of(NamedSharding(mesh, PartitionSpec(AXIS)), state)
    if shard_parameters:
        return jax.tree.map(lambda leaf: NamedSharding(mesh, _largest_axis(leaf, mesh.size)), state)
    return everywhere_of(NamedSharding(mesh, PartitionSpec()), state)


def _own_rows(mesh: Mesh, batch) -> slice | None:
    num_seeds = len(jax.tree.leaves(batch)[0]) if jax.tree.leaves(batch) else 0
    by_seeds = num_seeds % mesh.size == 0
    if jax.process_count() == 1 or by_seeds or not divides(batch, 1, mesh.size):
        return None
    (size,) = sizes(batch, 1)
    size //= jax.process_count()
    return slice(size * jax.process_index(), size * (jax.process_index() + 1))


def _by_example(mesh: Mesh, axis: int, leaf) -> NamedSharding:
    """Of a leaf whose examples divide; one that has none goes to every device."""
    spec = (*(None,) * axis, AXIS) if leaf.ndim > axis else ()
    return NamedSharding(mesh, PartitionSpec(*spec))


def _put(mesh: Mesh, batches, axis: int):
    """Batches with their examples divided, where they divide."""
    if not divides(batches, axis, mesh.size):
        return _put_all(batches, NamedSharding(mesh, PartitionSpec()))
    return jax.tree.map(lambda leaf: _put_leaf(leaf, _by_example(mesh, axis, leaf)), batches)


def _put_share(mesh: Mesh, batches):
    """The whole batches, of which each process has its share."""

    def put(leaf):
        sharding = _by_example(mesh, EXAMPLES, leaf)
        if leaf.ndim <= EXAMPLES:
            return _put_leaf(leaf, sharding)
        before, (size, *after) = leaf.shape[:EXAMPLES], leaf.shape[EXAMPLES:]
        whole = (*before, size * jax.process_count(), *after)
        return jax.make_array_from_process_local_data(sharding, leaf, whole)

    return jax.tree.map(put, batches)


def _put_all(tree, sharding):
    return jax.tree.map(lambda leaf: _put_leaf(leaf, sharding), tree)


def _put_leaf(leaf, sharding):
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
