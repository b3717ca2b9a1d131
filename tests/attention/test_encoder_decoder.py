"""The encoder-decoder: against its own parts put together by hand, padding, and word by word."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structdl.attention.encoder_decoder import EncoderDecoder
from structdl.attention.soft import GlobalAttention
from structdl.recurrent.stacked import LSTM

LENGTHS = np.array([5, 2, 1])


@pytest.fixture(params=[False, True], ids=["without attention", "with attention"])
def case(request):
    keys = jax.random.split(jax.random.key(0), 3)
    source = jax.random.normal(keys[0], (3, 5, 4))
    target = jax.random.normal(keys[1], (3, 3, 4))
    model = EncoderDecoder(6, 2, attention=request.param)

    def init(model, source, lengths, target):
        return model.write(model.read(source, lengths, train=False), target, train=False)

    variables = model.init(keys[2], source, jnp.asarray(LENGTHS), target, method=init)
    return model, variables, source, target


@partial(jax.jit, static_argnums=0)
def run(model, variables, source, target):
    reading = model.apply(variables, source, jnp.asarray(LENGTHS), train=False, method="read")
    return model.apply(variables, reading, target, train=False, method="write")[0]


def test_it_equals_its_parts_for_each_sentence_alone(case):
    model, variables, source, target = case
    params, found = variables["params"], run(*case)
    layers = LSTM(6, 2)
    for row, length in [(0, 5), (1, 2)]:
        turned = source[row : row + 1, :length][:, ::-1]
        places, carry = layers.apply({"params": params["reader"]}, turned, train=False)
        outputs, _ = layers.apply(
            {"params": params["writer"]}, target[row : row + 1], carry=carry, train=False
        )
        if model.attention:
            outputs = GlobalAttention(6).apply({"params": params["attend"]}, outputs, places)
        np.testing.assert_allclose(found[row], outputs[0], rtol=1e-4, atol=1e-6)


def test_word_by_word_equals_all_words_at_once(case):
    model, variables, source, target = case
    state = model.apply(variables, source, jnp.asarray(LENGTHS), train=False, method="read")
    assert {leaf.shape[0] for leaf in jax.tree.leaves(state)} == {3}
    rows = []
    for place in range(target.shape[1]):
        word = target[:, place : place + 1]
        row, state = model.apply(variables, state, word, train=False, method="write")
        rows.append(row)
    np.testing.assert_allclose(jnp.concatenate(rows, 1), run(*case), rtol=1e-5, atol=1e-6)


def test_padding_changes_no_bit(case):
    model, variables, source, target = case
    padding = np.arange(5)[None, :, None] >= LENGTHS[:, None, None]
    changed = jnp.where(padding, 9.0, source)
    chex.assert_trees_all_equal(run(*case), run(model, variables, changed, target))
