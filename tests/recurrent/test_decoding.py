"""Beam search against all sequences there are, and against a search written in NumPy."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structdl.errors import InputError
from structdl.recurrent.decoding import beam_search

START, END, SYMBOLS, LONGEST = 0, 1, 4, 4
WIDTH = 3


@pytest.fixture(scope="module")
def decoder():
    """A small recurrent decoder, in NumPy and in JAX, and the states of two sentences."""
    rng = np.random.default_rng(1)
    embed, recurrent, readout = (
        rng.normal(size=shape) for shape in ((SYMBOLS, WIDTH), (WIDTH, WIDTH), (WIDTH, SYMBOLS))
    )
    states = rng.normal(size=(2, WIDTH))

    def by_hand(state, symbol):
        state = np.tanh(state @ recurrent + embed[symbol])
        logits = 2 * state @ readout
        return state, logits - np.log(np.exp(logits).sum())

    tables = [jnp.asarray(table, jnp.float32) for table in (embed, recurrent, readout)]

    def step(state, symbols):
        hidden = jnp.tanh(state["hidden"] @ tables[1] + tables[0][symbols])
        return {"hidden": hidden, "read": state["read"] + 1}, 2 * hidden @ tables[2]

    state = {"hidden": jnp.asarray(states, jnp.float32), "read": jnp.zeros(2, jnp.int32)}
    return by_hand, states, step, state


def search(step, state, beams, penalty=0.0, longest=LONGEST):
    options = dict(start=START, end=END, max_length=longest, length_penalty=penalty)
    found = jax.jit(lambda state: beam_search(step, state, beams=beams, **options))(state)
    return jax.tree.map(np.asarray, found)


def total_of(by_hand, state, symbols):
    """The log probability of a sequence."""
    total, last = 0.0, START
    for symbol in symbols:
        state, log_probs = by_hand(state, last)
        total, last = total + log_probs[symbol], symbol
    return total


def all_sequences():
    """Those that end, and those that are cut off."""
    others = [symbol for symbol in range(SYMBOLS) if symbol != END]
    for length in range(LONGEST):
        yield from ((*body, END) for body in itertools.product(others, repeat=length))
    yield from itertools.product(others, repeat=LONGEST)


def search_by_hand(by_hand, state, beams, penalty):
    """[(score, symbols)], the best first."""
    alive = [(0.0, 0.0, (), state)]
    for _ in range(LONGEST):
        candidates = []
        for score, total, symbols, state in alive:
            if END in symbols:
                candidates.append((score, total, symbols, state))
                continue
            new, log_probs = by_hand(state, symbols[-1] if symbols else START)
            for symbol in range(SYMBOLS):
                sum_ = total + log_probs[symbol]
                candidates.append(
                    (sum_ / (len(symbols) + 1) ** penalty, sum_, (*symbols, symbol), new)
                )
        alive = sorted(candidates, key=lambda it: -it[0])[:beams]
    return [(score, symbols) for score, _, symbols, _ in alive]


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0])
def test_beams_enough_for_all_find_the_best_of_all(decoder, penalty):
    by_hand, states, step, state = decoder
    everything = list(all_sequences())
    found = search(step, state, len(everything), penalty)
    for row in range(2):
        scores = {
            symbols: total_of(by_hand, states[row], symbols) / len(symbols) ** penalty
            for symbols in everything
        }
        order = sorted(scores, key=scores.get, reverse=True)
        np.testing.assert_allclose(found.scores[row], [scores[key] for key in order], rtol=1e-4)
        for place, symbols in enumerate(order[:5]):
            written = found.symbols[row, place]
            assert tuple(written[: found.lengths[row, place]]) == symbols
            assert (written[found.lengths[row, place] :] == END).all()


@pytest.mark.parametrize("beams", [1, 2, 3, 5])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_it_equals_a_search_by_hand(decoder, beams, penalty):
    by_hand, states, step, state = decoder
    found = search(step, state, beams, penalty)
    for row in range(2):
        expected = search_by_hand(by_hand, states[row], beams, penalty)
        for place, (score, symbols) in enumerate(expected):
            assert tuple(found.symbols[row, place][: len(symbols)]) == symbols
            assert found.lengths[row, place] == len(symbols)
            assert math.isclose(found.scores[row, place], score, rel_tol=1e-4)


def test_one_beam_takes_the_likeliest_symbol_each_time(decoder):
    by_hand, states, step, state = decoder
    found = search(step, state, 1, penalty=1.0)
    for row in range(2):
        hidden, last, written = states[row], START, []
        while last != END and len(written) < LONGEST:
            hidden, log_probs = by_hand(hidden, last)
            last = int(log_probs.argmax())
            written.append(last)
        assert found.symbols[row, 0, : found.lengths[row, 0]].tolist() == written


def test_what_has_ended_keeps_its_score_and_what_is_forbidden_is_never_written():
    logits = jnp.log(jnp.array([0.0, 0.6, 0.4, 0.0]))  # END is the likeliest

    def step(state, symbols):
        return state, jnp.broadcast_to(logits[None], (len(symbols), 4))

    found = search(step, jnp.zeros(1), 3, longest=5)
    np.testing.assert_allclose(np.exp(found.scores[0]), [0.6, 0.24, 0.096], rtol=1e-5)
    assert found.symbols[0, :, :3].tolist() == [[1, 1, 1], [2, 1, 1], [2, 2, 1]]
    assert found.lengths[0].tolist() == [1, 2, 3]
    assert np.isfinite(found.scores).all()
    few = search(step, jnp.zeros(1), 3, longest=1)  # there are two sequences
    assert np.isneginf(few.scores[0, 2])
    assert few.lengths[0, 2] == 0
    assert few.symbols[0, 2].tolist() == [END]


def test_logits_without_a_softmax_never_win():
    """Each example has its own table of logits by the last symbol."""
    nothing, good = [-np.inf] * SYMBOLS, [0.0, -np.inf, 1.0, 0.5]
    broken = [0.0, np.nan, 1.0, 9.0]
    rows = {
        "whole": [good, good, good, good],
        "all NaN": [[np.nan] * SYMBOLS] * SYMBOLS,
        "nothing": [nothing] * SYMBOLS,
        "infinite": [[0.0, np.inf, 0.0, 0.0]] * SYMBOLS,
        "broken after 2": [good, good, broken, good],  # the likeliest symbol leads to NaN
        "nothing after 2": [good, good, nothing, good],
    }
    tables = jnp.array([*rows.values()])

    def step(state, symbols):
        return state, tables[state, symbols]

    found = search(step, jnp.arange(len(rows)), 2, longest=2)
    assert not np.isnan(found.scores).any()
    for place, name in enumerate(rows):
        if name in ("all NaN", "nothing", "infinite"):
            assert np.isneginf(found.scores[place]).all(), name
            assert found.lengths[place].tolist() == [0, 0], name
            assert (found.symbols[place] == END).all(), name
        else:
            assert np.isfinite(found.scores[place]).all(), name
            assert (2 in found.symbols[place, :, 0]) == (name == "whole"), name
    (alone,) = search(step, jnp.zeros(1, jnp.int32), 2, longest=2).scores
    assert found.scores[0].tolist() == alone.tolist()  # the rows beside it change nothing


def test_an_empty_batch_has_no_sequences(decoder):
    *_, step, state = decoder
    found = search(step, jax.tree.map(lambda leaf: leaf[:0], state), 3)
    assert [leaf.shape for leaf in found] == [(0, 3, LONGEST), (0, 3), (0, 3)]
    assert [leaf.dtype for leaf in found] == [np.int32, np.int32, np.float32]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beams": 0}, "beams is 0"),
        ({"max_length": 0}, "max_length is 0"),
        ({"length_penalty": -1.0}, "length_penalty is -1.0"),
    ],
)
def test_bad_options_are_named(decoder, options, message):
    *_, step, state = decoder
    options = dict(start=START, end=END, beams=1, max_length=2) | options
    with pytest.raises(InputError, match=message):
        beam_search(step, state, **options)


def test_a_state_without_a_batch_is_refused(decoder):
    *_, step, _ = decoder
    with pytest.raises(InputError, match="state has no arrays"):
        beam_search(step, (), start=START, end=END, beams=1, max_length=2)
