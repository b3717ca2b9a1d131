"""Functions of a partitioned graph on a mesh, one part on each device; parameters on all.

A function of one part is what it would be of a whole graph: Linen modules and layers that go
through `gather_sum` and `gather_senders` need no change. For a GCN:

    mesh = parts_mesh(8)
    partition = make_partition(contiguous_parts(graph.num_nodes, 8), 8)
    parts = partition_graph(graph, partition, edge_weights=symmetric_weights(graph))
    parts = put_on_mesh(parts, mesh)
    features, labels, is_train = (
        put_on_mesh(to_parts(partition, each), mesh) for each in (features, labels, is_train)
    )

    def apply(params, part, features):
        return model.apply(params, features, part.layout, part.weights, train=True)

    def loss_of_part(params, part, features, labels, is_train):
        losses = softmax_cross_entropy(apply(params, part, features), labels)
        return jnp.sum(jnp.where(is_train, losses, 0)), jnp.sum(is_train)

    def loss(params):
        total, count = sum_over_parts(loss_of_part, mesh)(params, parts, features, labels, is_train)
        return total / count

    loss_value, gradient = jax.value_and_grad(loss)(params)
    logits = from_parts(partition, map_parts(apply, mesh)(params, parts, features))

Under jit, pass the parts and the node arrays as arguments. A loss divides the sum of all parts'
totals by that of their counts, so that it does not depend on the number of parts; the gradient of
the parameters is summed over the parts likewise. Random numbers are the same on every part unless
the key is folded with `jax.lax.axis_index(AXIS)`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from structdl.core.masks import select
from structdl.errors import InputError
from structdl.graphs.partition import AXIS, PartitionedGraph


def parts_mesh(num_parts: int) -> Mesh:
    """A mesh of one axis, of the first `num_parts` devices.

    Raises:
      InputError: there are not as many devices.
    """
    devices = jax.devices()
    if not 1 <= num_parts <= len(devices):
        raise InputError(
            f"num_parts = {num_parts}: {len(devices)} device(s) take 1 to {len(devices)} parts; "
            "use fewer, or give the process more devices"
        )
    return jax.make_mesh(
        (num_parts,), (AXIS,), axis_types=(AxisType.Auto,), devices=devices[:num_parts]
    )


def put_on_mesh(stacked: Any, mesh: Mesh) -> Any:
    """Puts each part of a pytree of [parts, ...] arrays on its device."""
    return jax.device_put(stacked, NamedSharding(mesh, PartitionSpec(AXIS)))


def map_parts(function: Callable, mesh: Mesh, *, clean: bool = True) -> Callable:
    """`function(params, part, *nodes)`, run on every part; its results are [parts, ...].

    `nodes` are pytrees of [num_rows, ...] arrays. What stands in rows that pad reaches no other
    row, but it would reach the gradient of a kernel as 0 * NaN. With `clean`, floats there become
    zeros first; without it, a copy of the nodes is saved: `to_parts` has zeros there already.
    """

    def one_part(params, stacked):
        out = function(params, *_one_part(clean, *stacked))
        return jax.tree.map(lambda leaf: leaf[None], out)

    return _on_mesh(one_part, mesh, PartitionSpec(AXIS))


def sum_over_parts(function: Callable, mesh: Mesh, *, clean: bool = True) -> Callable:
    """Like `map_parts`, for results to be summed over all parts, such as (total, count)."""

    def one_part(params, stacked):
        return lax.psum(function(params, *_one_part(clean, *stacked)), AXIS)

    return _on_mesh(one_part, mesh, PartitionSpec())


def _on_mesh(one_part, mesh, out_specs):
    mapped = jax.shard_map(
        one_part,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
        out_specs=out_specs,
    )

    def run(params, parts: PartitionedGraph, *nodes):
        num_parts = parts.mask.shape[0]
        if num_parts != mesh.size:
            raise ValueError(f"a graph of {num_parts} parts on a mesh of {mesh.size} devices")
        return mapped(params, (parts, *nodes))

    return run


def _one_part(clean, parts, *nodes):
    part, *nodes = jax.tree.map(lambda leaf: leaf[0], (parts, *nodes))

    def cleaned(leaf):
        is_float = jnp.issubdtype(leaf.dtype, jnp.inexact)
        return select(part.mask, leaf, 0) if is_float else leaf

    return part, *(jax.tree.map(cleaned, nodes) if clean else nodes)
