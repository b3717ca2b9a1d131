"""Grid LSTM: LSTM cells along every dimension of a grid, and two orders in which to compute it.

A block of N dimensions takes N hidden vectors and N memories and gives as many. Blocks stand on a
grid of N extents; what leaves one along a dimension enters the next one there. Inputs are the
vectors that enter the grid at its near edges, outputs those that leave it at its far edges.

Along a dimension d a block is of one of three kinds, of the concatenation H of all its hiddens:
  "lstm"      [i, f, g, o] = H W_d + b_d;  memory' = sigmoid(f) memory + sigmoid(i) tanh(g);
              hidden' = tanh(sigmoid(o) memory')
  "relu"      hidden' = max(0, H W_d + b_d)
  "identity"  hidden' = H W_d + b_d
The latter two have no memory: theirs has a width of 0.

Edges, states and lengths are ordered by dimension. An edge of dimension d is an array [batch, *the
extents of the other dimensions, features]. Past a sequence's length along any dimension a block
passes on what it is given, so that what leaves at the far edge is the state at the sequence's end.

Reference: Kalchbrenner, Danihelka, Graves (2015), "Grid long short-term memory", arXiv:1507.01526,
section 3; equations 7 to 10.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from structdl.core.masks import select
from structdl.core.scan import check_lengths
from structdl.errors import InputError, require_known

Kind = Literal["lstm", "relu", "identity"]
Order = Literal["auto", "nested", "wavefront"]


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


def grid_block(
    transforms: Sequence[Transform],
    states: Sequence[State],
    *,
    kinds: Sequence[str] | None = None,
    priority: Sequence[int] = (),
    squash_memory: bool = False,
) -> tuple[State, ...]:
    """One block: what leaves it along each dimension.

    Args:
      transforms: of each dimension, without axes in front.
      states: what enters along each dimension, leaves [..., features].
      kinds: of each dimension; None means "lstm" for all.
      priority: dimensions computed after the others, one after another, from what these give: H
        then has the new hiddens of all that are done.
      squash_memory: hidden' = sigmoid(o) tanh(memory'), the usual form, in place of the paper's.

    >>> ones = Transform(jnp.ones((2, 1)), jnp.zeros(1))
    >>> one, two = (State(jnp.array([value]), jnp.zeros(0)) for value in (1.0, 2.0))
    >>> first, last = grid_block([ones, ones], [one, two], kinds=["identity"] * 2, priority=[1])
    >>> first.hidden.tolist(), last.hidden.tolist()
    ([3.0], [5.0])
    """
    kinds = kinds or ("lstm",) * len(states)
    found, hiddens = {}, [state.hidden for state in states]
    rounds = [[d for d in range(len(states)) if d not in priority], *([d] for d in priority)]
    for dimensions in rounds:
        joined = jnp.concatenate(hiddens, axis=-1)
        for d in dimensions:
            gates = joined @ transforms[d].kernel
            gates += jnp.broadcast_to(transforms[d].bias, gates.shape)
            found[d] = _of_kind(kinds[d], gates, states[d].memory, squash_memory)
        for d in dimensions:
            hiddens[d] = found[d].hidden
    return tuple(found[d] for d in range(len(states)))


def _of_kind(kind: str, gates: Array, memory: Array, squash_memory: bool) -> State:
    if kind == "identity":
        return State(gates, memory)
    if kind == "relu":
        return State(jax.nn.relu(gates), memory)
    enter, forget, candidate, leave = jnp.split(gates, 4, axis=-1)
    memory = jax.nn.sigmoid(forget) * memory + jax.nn.sigmoid(enter) * jnp.tanh(candidate)
    gate = jax.nn.sigmoid(leave)
    return State(gate * jnp.tanh(memory) if squash_memory else jnp.tanh(gate * memory), memory)


def grid_lstm(
    transforms: Sequence[Transform],
    edges: Sequence[State],
    extents: Sequence[int],
    *,
    kinds: Sequence[str] | None = None,
    shared: Sequence[bool] | None = None,
    priority: Sequence[int] = (),
    squash_memory: bool = False,
    lengths: Sequence[Int[Array, " batch"] | None] | None = None,
    order: str = "auto",
    rematerialize: bool = False,
) -> tuple[State, ...]:
    """Runs a grid of blocks: what leaves it at the far edge of each dimension.

    Args:
      transforms: of each dimension; two may be one, whose weights these dimensions share.
      edges: what enters along each dimension, leaves [batch, *other extents, features].
      extents: the number of blocks along each dimension.
      kinds, priority, squash_memory: see `grid_block`.
      shared: for each dimension whether all blocks along it have the same weights; None means all.
      lengths: of each dimension those of right-padded sequences, or None; see the top of this file.
      order: "nested", a loop in a loop for each dimension; "wavefront", all blocks of a diagonal at
        once, sum(extents) - N + 1 steps one after another; both give the same result. "auto" is
        "wavefront"; which one is faster where has not been measured yet.
      rematerialize: whether the derivative keeps, of each step along the first dimension (of each
        diagonal), only what enters it, and computes the rest again.

    Raises:
      InputError: an extent below 1, an edge or a transform of another shape, a length beyond its
        extent, an unknown kind or order.
    """
    number = len(extents)
    kinds = tuple(kinds or ("lstm",) * number)
    shared = tuple(shared or (True,) * number)
    require_known("order", order, get_args(Order))
    _check(transforms, edges, extents, kinds, shared)
    block = partial(grid_block, kinds=kinds, priority=priority, squash_memory=squash_memory)
    inside = [jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -2), edge) for edge in edges]
    keep = _within(extents, lengths)
    run = _nested if order == "nested" else _wavefront
    far = run(block, tuple(extents), shared, list(transforms), inside, keep, rematerialize)
    return tuple(jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -2, 0), state) for state in far)


def _check(transforms, edges, extents, kinds, shared) -> None:
    numbers = {"transforms": transforms, "edges": edges, "kinds": kinds, "shared": shared}
    for name, values in numbers.items():
        if len(values) != len(extents):
            raise InputError(f"there are {len(values)} {name} for {len(extents)} dimensions")
    for d, extent in enumerate(extents):
        if extent < 1:
            raise InputError(f"extents[{d}] is {extent}: a grid has a block or more each way")
        require_known(f"kinds[{d}]", kinds[d], get_args(Kind))
    batch, joined = edges[0].hidden.shape[0], sum(edge.hidden.shape[-1] for edge in edges)
    unshared = [extent for extent, same in zip(extents, shared, strict=True) if not same]
    for d, (transform, edge) in enumerate(zip(transforms, edges, strict=True)):
        others = [extent for j, extent in enumerate(extents) if j != d]
        width = edge.hidden.shape[-1]
        lstm = kinds[d] == "lstm"
        for name, found, expected in (
            (f"edges[{d}].hidden", edge.hidden, (batch, *others, width)),
            (f"edges[{d}].memory", edge.memory, (batch, *others, width * lstm)),
            (
                f"transforms[{d}].kernel",
                transform.kernel,
                (*unshared, joined, width * (1 + 3 * lstm)),
            ),
            (f"transforms[{d}].bias", transform.bias, (*unshared, width * (1 + 3 * lstm))),
        ):
            if found.shape != expected:
                raise InputError(f"{name} has shape {found.shape}: it must be {expected}")


def _within(extents: Sequence[int], lengths) -> Array | None:
    """[*extents, batch]: whether a block is within its sequence along every dimension."""
    if lengths is None or all(length is None for length in lengths):
        return None
    batch = next(length.shape[0] for length in lengths if length is not None)
    keep = jnp.ones((*extents, batch), bool)
    for d, length in enumerate(lengths):
        if length is not None:
            check_lengths(length, extents[d])
            shape = [extents[d] if j == d else 1 for j in range(len(extents))]
            places = jnp.arange(extents[d]).reshape(*shape, 1)
            keep &= places < length.reshape(*(1,) * len(extents), batch)
    return keep


def _choose(keep: Array | None, new: Sequence[State], old: Sequence[State]) -> list[State]:
    if keep is None:
        return list(new)
    return jax.tree.map(partial(select, keep), list(new), list(old))


def _nested(block, extents, shared, transforms, states, keep, rematerialize, level=0):
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
        far = _nested(block, extents, shared, its, inside, keep, False, level + 1)
        return far[level], [*far[:level], *far[level + 1 :]]

    others = [*states[:level], *states[level + 1 :]]
    step = jax.checkpoint(step) if rematerialize else step
    last, others = jax.lax.scan(step, states[level], (others, fixed, keep), extents[level])
    return [*others[:level], last, *others[level:]]


def _wavefront(block, extents, shared, transforms, edges, keep, rematerialize):
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
