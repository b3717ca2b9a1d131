"""Spatial reasoning and temporal stack learning against loops over parts, frames and clips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structdl.errors import InputError
from structdl.graphs.sr_tsl import SRTSL, ReasoningParams, clip_weights, reason, skip_clip_lstm
from structdl.recurrent.cells import LSTMParams, lstm_step

BATCH, TIME, PARTS, FEATURES, HIDDEN = 2, 7, 3, 4, 5


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def lstm_params(seed, in_features, hidden):
    gates = 4 * hidden
    return LSTMParams(
        normal(seed, in_features, gates), normal(seed + 1, hidden, gates), normal(seed + 2, gates)
    )


def reasoning_params():
    cell = lstm_params(2, 2 * FEATURES, FEATURES)
    return ReasoningParams(normal(0, FEATURES, FEATURES), normal(1, FEATURES), cell)


@pytest.mark.parametrize("num_steps", [0, 1, 3])
def test_reasoning_equals_a_loop_over_parts(num_steps):
    params, nodes = reasoning_params(), normal(9, BATCH, TIME, PARTS, FEATURES)
    found = reason(params, nodes, num_steps=num_steps)
    for number, time in [(0, 0), (1, 6)]:
        parts = [nodes[number, time, k] for k in range(PARTS)]
        states = [(jnp.zeros(FEATURES), jnp.zeros(FEATURES))] * PARTS
        for _ in range(num_steps):
            said = [part @ params.message_kernel + params.message_bias for part in parts]
            new = []
            for k in range(PARTS):
                heard = sum(said[i] for i in range(PARTS) if i != k)
                states[k], change = lstm_step(
                    params.cell, states[k], jnp.concatenate([parts[k], heard])
                )
                new.append(parts[k] + change)
            parts = new
        np.testing.assert_allclose(found[number, time], jnp.stack(parts), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("clip", [1, 3, 7])
def test_clips_start_from_what_was_before(clip):
    params, xs = lstm_params(3, FEATURES, HIDDEN), normal(9, BATCH, TIME, FEATURES)
    found = skip_clip_lstm(params, xs, clip=clip)
    assert found.shape == (BATCH, TIME // clip, HIDDEN)
    total = jnp.zeros((BATCH, HIDDEN))
    for place in range(TIME // clip):
        carry = (jnp.zeros_like(total), total)
        for time in range(place * clip, (place + 1) * clip):
            carry, hidden = lstm_step(params, carry, xs[:, time])
        total += hidden
        np.testing.assert_allclose(found[:, place], total, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("clip", "message"), [(0, "clip is 0"), (8, "sequences have 7 frames, less than one clip")]
)
def test_clips_that_are_none(clip, message):
    with pytest.raises(InputError, match=message):
        skip_clip_lstm(
            lstm_params(3, FEATURES, HIDDEN), normal(9, BATCH, TIME, FEATURES), clip=clip
        )


def test_reasoning_commutes_with_a_permutation_of_parts():
    params, nodes, order = (
        reasoning_params(),
        normal(9, BATCH, PARTS, FEATURES),
        np.array([2, 0, 1]),
    )
    found = reason(params, nodes, num_steps=2)
    moved = reason(params, nodes[:, order], num_steps=2)
    np.testing.assert_allclose(moved, found[:, order], rtol=1e-4, atol=1e-5)


def parts_of(time=TIME):
    return [normal(n, BATCH, time, width) for n, width in enumerate((6, 3, 9))]


def test_logits_of_a_clip_know_nothing_of_later_ones():
    model, parts = SRTSL(4, FEATURES, HIDDEN, clip=3), parts_of()
    params = model.init(jax.random.key(0), parts, train=False)
    logits = model.apply(params, parts, train=False)
    assert logits.shape == (BATCH, 2, 4)
    changed = [part.at[:, 3:].add(1.0) for part in parts]
    other = model.apply(params, changed, train=False)
    np.testing.assert_allclose(other[:, 0], logits[:, 0], rtol=1e-5, atol=1e-6)
    assert np.abs(other[:, 1] - logits[:, 1]).max() > 1e-3
    # frames after the last whole clip are left out
    changed = [part.at[:, 6:].add(1.0) for part in parts]
    np.testing.assert_allclose(model.apply(params, changed, train=False), logits, rtol=1e-6)


def test_velocities_matter_by_themselves():
    model, parts = SRTSL(4, FEATURES, HIDDEN, num_steps=0, clip=3), parts_of()
    variables = model.init(jax.random.key(0), parts, train=False)
    params = dict(variables["params"])
    params["position_logits"] = jax.tree.map(jnp.zeros_like, params["position_logits"])
    still = [jnp.broadcast_to(part[:, :1], part.shape) for part in parts]
    other = [jnp.broadcast_to(part[:, 3:4], part.shape) for part in parts]
    one, two = (model.apply({"params": params}, given, train=False) for given in (still, other))
    np.testing.assert_allclose(one, two, atol=1e-6)  # who does not move has no velocity
    moving = model.apply({"params": params}, parts, train=False)
    assert np.abs(moving - one).max() > 1e-3


def test_gradients_reach_every_parameter():
    model, parts = SRTSL(4, FEATURES, HIDDEN, clip=3, dropout=0.5), parts_of()
    variables = model.init(jax.random.key(0), parts, train=False)

    def loss(variables):
        rngs = {"dropout": jax.random.key(1)}
        logits = model.apply(variables, parts, train=True, rngs=rngs)
        return jnp.sum(logits**2 * clip_weights(2)[None, :, None])

    for path, gradient in jax.tree.leaves_with_path(jax.jit(jax.grad(loss))(variables)):
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, path
