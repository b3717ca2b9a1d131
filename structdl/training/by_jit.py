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
        (size,) = sizes(batch, 1)
        size //= jax.process_count()
        return slice(size * jax.process_index(), size * (jax.process_index() + 1))

    def put_all(tree, sharding):
        return jax.tree.map(lambda leaf: _put(leaf, sharding), tree)

    def of_state(state):
        if divides_seeds(state, mesh.size):
            return everywhere_of(by_seed, state)
        if run.shard_parameters:
            return jax.tree.map(
                lambda leaf: NamedSharding(mesh, _largest_axis(leaf, mesh.size)), state
            )
        return everywhere_of(everywhere, state)

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
            if divides_seeds(state, mesh.size):
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
    check = partial(require_enough, mesh.size)
    return Placement(put_data, compile_call, of_state, check, own_rows)


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
