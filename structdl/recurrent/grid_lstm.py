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
What stands there must be finite: the weights' gradients would have 0 times it.

Reference: Kalchbrenner, Danihelka, Graves (2015), "Grid long short-term memory", arXiv:1507.01526,
section 3; equations 7 to 10.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from structdl.core.scan import check_lengths
from structdl.errors import InputError, require_at_least, require_known
from structdl.recurrent.gates import gate_biases, gate_kernels
from structdl.recurrent.grid_orders import State, Transform, nested, wavefront

Kind = Literal["lstm", "relu", "identity"]
Order = Literal["auto", "nested", "wavefront"]
_WASTE = 1.5  # blocks that a wavefront computes, over those of the grid
_WIDE = 2**18  # weights of a kernel; beyond it processors' caches no longer hold the gradient


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
        that of `default_order`.
      rematerialize: whether the derivative keeps, of each step along the first dimension (of each
        diagonal), only what enters it, and computes the rest again.

    Raises:
      InputError: no dimension, an extent below 1, an edge or a transform of another shape, lengths
        of another number or batch, a length beyond its extent, a priority that is no dimension or
        comes twice, an unknown kind or order.
    """
    number = len(extents)
    require_at_least("the number of dimensions", number, 1)
    kinds = tuple(kinds or ("lstm",) * number)
    shared = tuple(shared or (True,) * number)
    require_known("order", order, get_args(Order))
    _check(transforms, edges, extents, kinds, shared)
    _check_priority(priority, number)
    block = partial(grid_block, kinds=kinds, priority=priority, squash_memory=squash_memory)
    inside = [jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -2), edge) for edge in edges]
    keep = _within(extents, lengths, edges[0].hidden.shape[0])
    order = default_order(transforms, extents) if order == "auto" else order
    run = nested if order == "nested" else wavefront
    far = run(block, tuple(extents), shared, list(transforms), inside, keep, rematerialize)
    return tuple(jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -2, 0), state) for state in far)


def default_order(transforms: Sequence[Transform], extents: Sequence[int]) -> str:
    """The order that is faster on JAX's default device, as measured for training steps.

    On a GPU what counts is the number of steps one after another. On a CPU too a wavefront is
    faster by its larger products, but it also computes what is outside of the grid in its first and
    last steps: where that is half as much again as the grid itself, nested loops are chosen, unless
    blocks are wide. Nested loops add to the weights' gradients once a block, and not once a
    diagonal, which at a width of 400 costs more than the waste.

    >>> narrow = [Transform(jnp.zeros((200, 400)), jnp.zeros(400))] * 2
    >>> default_order(narrow, (50, 6))
    'wavefront'
    """
    if jax.default_backend() != "cpu":
        return "wavefront"
    lanes = math.prod(extents) // max(extents)
    waste = (sum(extents) - len(extents) + 1) * lanes / math.prod(extents)
    wide = any(kernel.shape[-2] * kernel.shape[-1] > _WIDE for kernel, _ in transforms)
    return "nested" if waste >= _WASTE and not wide else "wavefront"


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


def _check_priority(priority: Sequence[int], number: int) -> None:
    if len({*priority} & {*range(number)}) != len(priority):
        raise InputError(
            f"priority is {tuple(priority)}: give dimensions, 0 to {number - 1}, each of them once"
        )


def _within(extents: Sequence[int], lengths, batch: int) -> Array | None:
    """[*extents, batch]: whether a block is within its sequence along every dimension."""
    if lengths is None:
        return None
    if len(lengths) != len(extents):
        raise InputError(f"there are {len(lengths)} lengths for {len(extents)} dimensions")
    if all(length is None for length in lengths):
        return None
    keep = jnp.ones((*extents, batch), bool)
    for d, length in enumerate(lengths):
        if length is not None:
            check_lengths(length, batch=batch, time=extents[d], name=f"lengths[{d}]")
            shape = [extents[d] if j == d else 1 for j in range(len(extents))]
            places = jnp.arange(extents[d]).reshape(*shape, 1)
            keep &= places < length.reshape(*(1,) * len(extents), batch)
    return keep


def as_state(values: Float[Array, "... both"], *, with_memory: bool = True) -> State:
    """A hidden vector and a memory of one width, of a projection that has both side by side.

    Without memory, as along a dimension that has none, all of it is the hidden vector.

    >>> as_state(jnp.arange(4.0)).memory.tolist()
    [2.0, 3.0]
    >>> as_state(jnp.arange(4.0), with_memory=False).memory.shape
    (0,)
    """
    if not with_memory:
        return State(values, values[..., :0])
    return State(*jnp.split(values, 2, axis=-1))


def as_values(state: State) -> Float[Array, "... both"]:
    """Hidden and memory side by side: what is read from a far edge.

    >>> as_values(State(jnp.ones(1), jnp.zeros(2))).tolist()
    [1.0, 0.0, 0.0]
    """
    return jnp.concatenate(state, axis=-1)


class GridLSTM(nn.Module):
    """A grid of blocks and its parameters; see `grid_lstm`.

    Attributes:
      extents, kinds, shared, priority, squash_memory, order, rematerialize: see `grid_lstm`.
      features: the width of each dimension's hidden vector, and of its memory.
      weights_of: for each dimension the one whose transform it uses; (0, 0, 2) shares that of the
        first with the second. None: each has its own.
      forget_bias: at which the forget gates' biases start; the others start at 0.
      kernel_init: how each gate's kernel starts.

    Parameters: `kernel_0`, `bias_0` and on, as in `Transform`, of each dimension that has its own.

    Raises:
      InputError: dimensions that share weights and differ in kind or width; see also `grid_lstm`.
    """

    extents: Sequence[int]
    features: Sequence[int]
    kinds: Sequence[str] | None = None
    shared: Sequence[bool] | None = None
    weights_of: Sequence[int] | None = None
    priority: Sequence[int] = ()
    squash_memory: bool = False
    forget_bias: float = 1.0
    order: str = "auto"
    rematerialize: bool = False
    kernel_init: Callable = nn.initializers.glorot_uniform()

    @nn.compact
    def __call__(
        self,
        edges: Sequence[State | None],
        lengths: Sequence[Int[Array, " batch"] | None] | None = None,
    ) -> tuple[State, ...]:
        """What leaves the grid; of the edges one or more are given, None stands for zeros."""
        kinds = tuple(self.kinds or ("lstm",) * len(self.extents))
        _check_widths(self.extents, self.features, kinds, edges, self.shared, self.weights_of)
        return grid_lstm(
            self._transforms(kinds),
            fill_edges(edges, self.extents, self.features, kinds),
            self.extents,
            kinds=kinds,
            shared=self.shared,
            priority=self.priority,
            squash_memory=self.squash_memory,
            lengths=lengths,
            order=self.order,
            rematerialize=self.rematerialize,
        )

    def _transforms(self, kinds: Sequence[str]) -> list[Transform]:
        shared = self.shared or (True,) * len(self.extents)
        unshared = [extent for extent, same in zip(self.extents, shared, strict=True) if not same]
        own = range(len(kinds)) if self.weights_of is None else self.weights_of
        made = {}
        for d in sorted(set(own)):
            width, gates = self.features[d], 4 if kinds[d] == "lstm" else 1
            shape = (*unshared, sum(self.features), gates * width)
            bias_init = gate_biases(self.forget_bias) if gates > 1 else nn.initializers.zeros
            made[d] = Transform(
                self.param(f"kernel_{d}", gate_kernels(self.kernel_init, gates), shape),
                self.param(f"bias_{d}", bias_init, (*unshared, gates * width)),
            )
        return [made[d] for d in own]


def fill_edges(
    edges: Sequence[State | None],
    extents: Sequence[int],
    features: Sequence[int],
    kinds: Sequence[str],
) -> list[State]:
    """The edges, with zeros where there is None."""
    given = next(edge.hidden for edge in edges if edge is not None)
    filled = []
    for d, edge in enumerate(edges):
        if edge is None:
            others = (extent for j, extent in enumerate(extents) if j != d)
            shape = (given.shape[0], *others)
            memory = features[d] if kinds[d] == "lstm" else 0
            edge = State(
                jnp.zeros((*shape, features[d]), given.dtype),
                jnp.zeros((*shape, memory), given.dtype),
            )
            # XLA would compute at compile time, slowly, what becomes of so many zeros
            edge = jax.lax.optimization_barrier(edge)
        filled.append(edge)
    return filled


def _check_widths(extents, features, kinds, edges, shared, weights_of) -> None:
    numbers = {"features": features, "kinds": kinds, "edges": edges}
    numbers |= {"shared": shared, "weights_of": weights_of}
    for name, values in numbers.items():
        if values is not None and len(values) != len(extents):
            raise InputError(f"there are {len(values)} {name} for {len(extents)} dimensions")
    for d, width in enumerate(features):
        require_at_least(f"features[{d}]", width, 1)
        require_at_least(f"extents[{d}]", extents[d], 1)
    if all(edge is None for edge in edges):
        raise InputError("no edge is given: a grid without any input has no batch")
    for d, other in enumerate(weights_of or ()):
        if not 0 <= other < len(extents) or weights_of[other] != other:
            raise InputError(
                f"weights_of[{d}] is {other}: name a dimension that has weights of its own"
            )
        for name, values in (("features", features), ("kinds", kinds)):
            if values[d] != values[other]:
                raise InputError(
                    f"dimensions {d} and {other} share weights, and their {name} are {values[d]} "
                    f"and {values[other]}: they must be the same"
                )
