"""The Reencoder against a loop over blocks in NumPy, row by row against all at once."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structdl.errors import InputError
from structdl.recurrent.reencoder import Reencoder

FEATURES, DEPTH, EMBEDDING = 4, 3, 5
LENGTHS = np.array([6, 3, 1])
MODEL = Reencoder(FEATURES, DEPTH)


@pytest.fixture(scope="module")
def sentences():
    keys = jax.random.split(jax.random.key(0), 3)
    source = jax.random.normal(keys[0], (3, 6, EMBEDDING))
    target = jax.random.normal(keys[1], (3, 4, EMBEDDING))
    variables = MODEL.init(keys[2], source, jnp.asarray(LENGTHS), target)
    return variables, source, target


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(gates, memory):
    enter, forget, candidate, leave = np.split(gates, 4)
    memory = sigmoid(forget) * memory + sigmoid(enter) * np.tanh(candidate)
    return np.tanh(sigmoid(leave) * memory), memory


def by_hand(params, source, target):
    """The outputs of one sentence [target, outputs], block by block; no padding."""
    params = jax.tree.map(np.asarray, params)
    deep = np.zeros((len(target), len(source), DEPTH))
    outputs = []
    for layer in range(2):
        kernel, bias = params[f"kernel_{layer}"], params[f"bias_{layer}"]
        project = {side: params[f"{side}_{layer}"] for side in ("source", "target")}
        # the second layer begins at the other end
        order = range(len(source)) if layer == 0 else range(len(source) - 1, -1, -1)
        entering = source @ project["source"]["kernel"] + project["source"]["bias"]
        along_target = {i: np.split(entering[i], 2) for i in order}
        leaving, rows = np.zeros_like(deep), []
        for j, word in enumerate(target):
            told = word @ project["target"]["kernel"] + project["target"]["bias"]
            hidden, memory = np.split(told, 2)
            for i in order:
                joined = np.concatenate([hidden, along_target[i][0], deep[j, i]])
                gates = joined @ kernel + bias
                hidden, memory = lstm(gates, memory)
                along_target[i] = lstm(gates, along_target[i][1])
                if layer == 0:
                    leaving[j, i] = joined @ params["depth_kernel_0"] + params["depth_bias_0"]
            rows.append(np.concatenate([hidden, memory]))
        deep = leaving
        outputs.append(np.stack(rows))
    return np.concatenate(outputs, axis=-1)


@pytest.mark.parametrize("order", ["nested", "wavefront"])
def test_it_equals_a_loop_over_blocks_of_each_sentence_alone(sentences, order):
    variables, source, target = sentences
    model = Reencoder(FEATURES, DEPTH, order=order)
    outputs = jax.jit(model.apply)(variables, source, jnp.asarray(LENGTHS), target)
    for row, length in enumerate(LENGTHS):
        its = np.asarray(source[row, :length]), np.asarray(target[row])
        expected = by_hand(variables["params"], *its)
        np.testing.assert_allclose(outputs[row], expected, rtol=1e-5, atol=1e-6)


def test_row_by_row_equals_all_rows_at_once(sentences):
    variables, source, target = sentences
    lengths = jnp.asarray(LENGTHS)
    outputs = MODEL.apply(variables, source, lengths, target)
    state = MODEL.apply(variables, source, lengths, method="enter")
    for place in range(target.shape[1]):
        word = target[:, place : place + 1]
        row, state = MODEL.apply(variables, state, word, lengths, method="rows")
        np.testing.assert_allclose(row[:, 0], outputs[:, place], rtol=1e-5, atol=1e-6)


def test_padding_and_later_words_change_no_bit(sentences):
    variables, source, target = sentences
    lengths = jnp.asarray(LENGTHS)

    @jax.jit
    def loss(variables, source, target):
        outputs = MODEL.apply(variables, source, lengths, target)[:, :3]
        return jnp.sum(outputs**2), outputs

    found = jax.value_and_grad(loss, has_aux=True)(variables, source, target)
    padded = jnp.where(jnp.arange(6)[None, :, None] < LENGTHS[:, None, None], source, jnp.nan)
    changed = target.at[:, 3].set(9.0)
    chex.assert_trees_all_equal(
        found, jax.value_and_grad(loss, has_aux=True)(variables, padded, changed)
    )


def test_each_word_reads_the_whole_source_and_the_words_before(sentences):
    variables, source, target = sentences

    @jax.jit
    def outputs(source, target):
        return MODEL.apply(variables, source[None], jnp.array([6]), target[None])[0]

    of_source, of_target = jax.jacobian(outputs, argnums=(0, 1))(source[0], target[0])
    assert (jnp.abs(of_source).max(axis=(1, 3)) > 0).all()
    seen = np.asarray(jnp.abs(of_target).max(axis=(1, 3)) > 0)
    np.testing.assert_array_equal(seen, np.tril(np.ones((4, 4), bool)))


@pytest.mark.parametrize("name", ["features", "depth_features", "num_layers"])
def test_no_width_and_no_layer_are_errors(sentences, name):
    _, source, target = sentences
    model = Reencoder(**({"features": 2, "depth_features": 2} | {name: 0}))
    with pytest.raises(InputError, match=f"{name} is 0"):
        model.init(jax.random.key(0), source, jnp.asarray(LENGTHS), target)
