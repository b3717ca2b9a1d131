"""The likeliest sequences that a recurrent decoder writes: greedy and beam search."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree, Shaped

from structdl.errors import InputError, require_at_least


class Beams(NamedTuple):
    """The sequences that a search has found, of each example the best one first."""

    symbols: jax.Array  # [batch, beams, max_length], int32; `end` from the end on
    lengths: jax.Array  # [batch, beams], int32, with the `end`, if there is one; 0 for none
    scores: jax.Array  # [batch, beams], log probability / length ** length_penalty; -inf for none


class _Search(NamedTuple):
    time: jax.Array
    state: Any  # leaves [batch * beams, ...]
    last: jax.Array  # [batch, beams]
    finished: jax.Array  # [batch, beams]
    beams: Beams
    totals: jax.Array  # [batch, beams], log probabilities


def beam_search(
    step: Callable[[Any, Int[Array, " rows"]], tuple[Any, Float[Array, "rows symbols"]]],
    state: PyTree[Shaped[Array, "batch ..."]],
    *,
    start: int,
    end: int,
    beams: int,
    max_length: int,
    length_penalty: float = 0.0,
) -> Beams:
    """Searches for the sequences of largest log probability / length ** length_penalty.

    Of all continuations of the beams the best ones become the new beams. One that has ended stays
    as it is and holds its place as long as no better ones take it; one of max_length symbols ends
    there. With one beam it is greedy search. It may be called under jit.

    Logits without a softmax, because one of them is NaN or +inf or all are -inf, make every
    continuation of their beam impossible. Where fewer sequences than `beams` are possible, none at
    all included, the remaining places have a score of -inf, a length of 0 and `end` throughout.

    Args:
      step: `(state, last symbols) -> (state, logits of the next)`, pure, of rows that do not know
        of one another; logits may be -inf for what is never to be written.
      state: what the decoder starts from; the first axis of every leaf is the batch, which may be
        empty.
      start: the symbol that is read first, and not written.
      end: the symbol that ends a sequence.
      beams: how many sequences are kept of each example.
      max_length: of what is written, `end` included.
      length_penalty: 0 compares log probabilities, which favours short sequences, 1 their means
        over the symbols.

    Raises:
      InputError: beams or max_length below 1, a negative length_penalty, or a state without
        arrays.

    >>> def step(state, last):
    ...     return state, jnp.log(jnp.array([[0.5, 0.2, 0.3]])) + jnp.zeros((len(last), 1))
    >>> found = beam_search(step, jnp.zeros(1), start=0, end=2, beams=2, max_length=2)
    >>> found.symbols.tolist(), found.lengths.tolist()
    ([[[2, 2], [0, 0]]], [[1, 2]])
    >>> [round(float(score), 2) for score in found.scores[0]]  # log 0.3 and log 0.25
    [-1.2, -1.39]

    Reference: Sutskever, Vinyals, Le (2014), "Sequence to sequence learning with neural networks",
    arXiv:1409.3215, section 3.2. Graves (2012), "Sequence transduction with recurrent neural
    networks", arXiv:1211.3711, for the division by the length.
    """
    for name, value in (("beams", beams), ("max_length", max_length)):
        require_at_least(name, value, 1)
    if not length_penalty >= 0:
        raise InputError(f"length_penalty is {length_penalty}: it must be at least 0")
    leaves = jax.tree.leaves(state)
    if not leaves:
        raise InputError("state has no arrays: it needs one, whose first axis is the batch")
    batch = leaves[0].shape[0]

    def advance(search: _Search) -> _Search:
        state, logits = step(search.state, search.last.reshape(-1))
        return _advance(search, state, logits, end=end, length_penalty=length_penalty)

    def goes_on(search: _Search):
        return (search.time < max_length) & ~jnp.all(search.finished)

    empty = Beams(
        jnp.full((batch, beams, max_length), end, jnp.int32),
        jnp.zeros((batch, beams), jnp.int32),
        # at first all beams are the same one, of which one is to count
        jnp.zeros((batch, beams)).at[:, 1:].set(-jnp.inf),
    )
    return _only_possible(
        jax.lax.while_loop(goes_on, advance, _begin(state, empty, start)).beams, end
    )


def _begin(state, empty: Beams, start: int) -> _Search:
    """Before the first symbol: each beam has the state of its example."""
    shape = empty.lengths.shape
    return _Search(
        time=jnp.zeros((), jnp.int32),
        state=jax.tree.map(lambda leaf: jnp.repeat(leaf, shape[1], axis=0), state),
        last=jnp.full(shape, start, jnp.int32),
        finished=jnp.zeros(shape, bool),
        beams=empty,
        totals=empty.scores,
    )


def _advance(search: _Search, state, logits, *, end: int, length_penalty: float) -> _Search:
    """One more symbol of every beam; state and logits are those after its last one."""
    (batch, beams), num = search.last.shape, logits.shape[-1]
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32)).reshape(batch, beams, num)
    log_probs = jnp.where(jnp.isnan(log_probs), -jnp.inf, log_probs)
    ends = jnp.where(jnp.arange(num) == end, 0.0, -jnp.inf)[None, None]
    log_probs = jnp.where(search.finished[..., None], ends, log_probs)
    totals = search.totals[..., None] + log_probs
    lengths = search.beams.lengths + ~search.finished
    scores = totals / lengths[..., None].astype(jnp.float32) ** length_penalty
    scores, chosen = jax.lax.top_k(scores.reshape(batch, beams * num), beams)
    parents, symbols = chosen // num, (chosen % num).astype(jnp.int32)
    finished, lengths, written = jax.tree.map(
        lambda leaf: _of_parents(leaf, parents),
        (search.finished, lengths, search.beams.symbols),
    )
    rows = (jnp.arange(batch)[:, None] * beams + parents).reshape(-1)
    return _Search(
        time=search.time + 1,
        state=jax.tree.map(lambda leaf: leaf[rows], state),
        last=symbols,
        finished=finished | (symbols == end),
        beams=Beams(written.at[:, :, search.time].set(symbols), lengths, scores),
        totals=jnp.take_along_axis(totals.reshape(batch, beams * num), chosen, axis=1),
    )


def _only_possible(found: Beams, end: int) -> Beams:
    """Empties the places of sequences whose probability is 0."""
    possible = found.scores > -jnp.inf
    return Beams(
        jnp.where(possible[..., None], found.symbols, end),
        jnp.where(possible, found.lengths, 0),
        found.scores,
    )


def _of_parents(leaf: Array, parents: Int[Array, "batch beams"]) -> Array:
    """For each new beam what its parent has."""
    index = parents.reshape(*parents.shape, *(1,) * (leaf.ndim - 2))
    return jnp.take_along_axis(leaf, index, axis=1)
