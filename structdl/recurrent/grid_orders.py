"""The two orders in which `structdl.recurrent.grid_lstm` computes a grid: nested, and a wavefront.

Both take `block(transforms, states) -> states` and give the states at the far edges. Here the batch
is the last axis but one of a state, [*other extents, batch, features], and `keep` [*extents, batch]
says which blocks are within their sequences, or is None.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from structdl.core.masks import select


class Transform(NamedTuple):
    """W and b of one dimension; gates lie side by side: input, forget, candidate, output.

    Along a dimension in which weights are not shared both have an axis of its extent in front, in
    the order of the dimensions.
    """

    kernel: jax.Array  # [*unshared extents, sum of all hiddens, gates]
    bias: jax.Array  # [*unshared extents, gates]


class State(NamedTuple):
    """What goes along a dimension."""

    hidden: jax.Array  # [..., features]
    memory: jax.Array  # [..., features], or [..., 0] of a dimension without an LSTM


def _choose(keep: Array | None, new: Sequence[State], old: Sequence[State]) -> list[State]:
    if keep is None:
        return list(new)
    return jax.tree.map(partial(select, keep), list(new), list(old))


def nested(block, extents, shared, transforms, states, keep, rematerialize, level=0):
    """The grid from dimension `level` on, of blocks whose places along those before are fixed.

    States of dimensions before `level` have the extents from there on in front, the others these
    but for their own.
    """
    if level == len(extents):
        return _choose(keep, block(transforms, states), states)
    fixed = None if shared[level] else transforms

    def step(state, at):
        others, its, keep = at
        inside = [*others[:level], state, *others[level:]]
        its = transforms if its is None else its
        far = nested(block, extents, shared, its, inside, keep, False, level + 1)
        return far[level], [*far[:level], *far[level + 1 :]]

    others = [*states[:level], *states[level + 1 :]]
    step = jax.checkpoint(step) if rematerialize else step
    last, others = jax.lax.scan(step, states[level], (others, fixed, keep), extents[level])
    return [*others[:level], last, *others[level:]]


def wavefront(block, extents, shared, transforms, edges, keep, rematerialize):
    """All blocks of a diagonal at once.

    Of the longest dimension, the leading one, a step sees one block for each place along all
    others: its place is the step's number less the sum of these. Along the leading dimension a
    state stays where it is from one step to the next; along another it moves one place on, and
    what enters there comes in.
    """
    number = len(extents)
    lead = int(np.argmax(extents))
    rest = [d for d in range(number) if d != lead]
    steps = np.arange(sum(extents) - number + 1)
    cells = np.indices([extents[d] for d in rest])  # [rest, *extents of rest]
    place = steps.reshape(-1, *(1,) * len(rest)) - cells.sum(axis=0)
    active = (place >= 0) & (place < extents[lead])
    place = np.clip(place, 0, extents[lead] - 1)
    mask = jnp.asarray(active)[..., None]
    if keep is not None:
        mask &= jnp.moveaxis(keep, lead, 0)[(place, *cells)]
    skews = {d: _Skew(extents, lead, d) for d in rest}
    entering = [jax.tree.map(skews[d].to_steps, edges[d]) for d in rest]
    weights_at = _weights(transforms, shared, lead, rest, extents)

    def step(states, at):
        entering, mask, place = at
        inputs = list(states)
        for axis, (d, edge) in enumerate(zip(rest, entering, strict=True)):
            inputs[d] = jax.tree.map(partial(_move_on, axis), states[d], edge)
        states = _choose(mask, block(weights_at(place), inputs), inputs)
        leaving = [
            jax.tree.map(lambda leaf, axis=axis: jnp.take(leaf, -1, axis), states[d])
            for axis, d in enumerate(rest)
        ]
        return states, leaving

    before = [
        jax.tree.map(
            lambda own, leader: jnp.zeros((*leader.shape[:-1], own.shape[-1]), own.dtype),
            edge,
            State(edges[lead].hidden, edges[lead].hidden),
        )
        for edge in edges
    ]
    before[lead] = edges[lead]
    step = jax.checkpoint(step) if rematerialize else step
    states, leaving = jax.lax.scan(step, before, (entering, mask, jnp.asarray(place)))
    for d, far in zip(rest, leaving, strict=True):
        states[d] = jax.tree.map(skews[d].to_edge, far)
    return states


def _move_on(axis: int, state: Array, edge: Array) -> Array:
    """A state one place further along an axis; the edge enters at the first place."""
    kept = jax.lax.slice_in_dim(state, 0, state.shape[axis] - 1, axis=axis)
    return jnp.concatenate([jnp.expand_dims(edge, axis), kept], axis=axis)


class _Skew:
    """Between an edge of dimension d, [*extents but d's, ...], and the steps of a wavefront."""

    def __init__(self, extents: Sequence[int], lead: int, d: int):
        others = [j for j in range(len(extents)) if j not in (lead, d)]
        self._cells = np.indices([extents[j] for j in others])
        self._axis = [j for j in range(len(extents)) if j != d].index(lead)
        self._sums = self._cells.sum(axis=0)  # [*others]
        self._extent, self._delay = extents[lead], extents[d] - 1
        self._steps = sum(extents) - len(extents) + 1

    def to_steps(self, edge: Array) -> Array:
        """[steps, *others, ...]: what enters at each step."""
        place = np.arange(self._steps).reshape(-1, *(1,) * self._sums.ndim) - self._sums
        place = np.clip(place, 0, self._extent - 1)
        return jnp.moveaxis(edge, self._axis, 0)[(place, *self._cells)]

    def to_edge(self, leaving: Array) -> Array:
        """The edge, of what leaves at each step."""
        places = np.arange(self._extent).reshape(-1, *(1,) * self._sums.ndim)
        step = places + self._sums + self._delay
        return jnp.moveaxis(leaving[(step, *self._cells)], 0, self._axis)


def _weights(transforms, shared, lead: int, rest: Sequence[int], extents: Sequence[int]):
    """`place -> transforms` of the blocks of a step, with axes in front that fit theirs."""
    unshared = [d for d, same in enumerate(shared) if not same]
    if not unshared:
        return lambda place: transforms
    cells = np.indices([extents[d] for d in rest], sparse=True)

    def at(place):
        index = tuple(place if d == lead else cells[rest.index(d)] for d in unshared)
        # bias: an axis for the batch
        return [Transform(kernel[index], bias[index][..., None, :]) for kernel, bias in transforms]

    return at
