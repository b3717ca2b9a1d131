"""unroll against a Python loop over each sequence by itself, and against torch's packed cells."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st
from jax.test_util import check_grads

from structdl.core.scan import AffineParams, reverse_within, unroll, unroll_affine
from structdl.errors import InputError

BATCH, TIME, FEATURES, HIDDEN = 4, 5, 2, 3
LENGTHS = [3, 0, 5, 1]


def tanh_step(params, carry, x):
    """A cell whose carry and output differ, with a counter in integers beside the state."""
    state, count = carry
    state = jnp.tanh(x["features"] @ params["input"] + state @ params["recurrent"])
    return (state, count + x["weight"]), {
        "doubled": 2 * state,
        "count": count,
        "even": count % 2 == 0,
    }


def make_case(seed=0):
    keys = jax.random.split(jax.random.key(seed), 4)
    params = {
        "input": jax.random.normal(keys[0], (FEATURES, HIDDEN)),
        "recurrent": jax.random.normal(keys[1], (HIDDEN, HIDDEN)),
    }
    carry = (jax.random.normal(keys[2], (BATCH, HIDDEN)), jnp.arange(10, 10 + BATCH))
    xs = {
        "features": jax.random.normal(keys[3], (BATCH, TIME, FEATURES)),
        "weight": jnp.arange(1, BATCH * TIME + 1).reshape(BATCH, TIME),
    }
    return params, carry, xs


def loop(params, carry, xs, lengths, reverse):
    """Each sequence by itself, in NumPy and float64."""
    state, count = (np.array(leaf, dtype) for leaf, dtype in zip(carry, (float, int), strict=True))
    weights = {name: np.array(value, float) for name, value in params.items()}
    doubled, counts = np.zeros((BATCH, TIME, HIDDEN)), np.zeros((BATCH, TIME), int)
    even = np.zeros((BATCH, TIME), bool)
    for row, length in enumerate(lengths):
        for time in reversed(range(length)) if reverse else range(length):
            x = np.array(xs["features"][row, time], float)
            state[row] = np.tanh(x @ weights["input"] + state[row] @ weights["recurrent"])
            doubled[row, time], counts[row, time] = 2 * state[row], count[row]
            even[row, time] = count[row] % 2 == 0
            count[row] += int(xs["weight"][row, time])
    return (state, count), {"doubled": doubled, "count": counts, "even": even}


def assert_trees_close(actual, expected):
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-6), actual, expected
    )


run = jax.jit(
    lambda params, carry, xs, lengths, reverse: unroll(
        tanh_step, params, carry, xs, lengths=lengths, reverse=reverse
    ),
    static_argnames="reverse",
)


@given(st.lists(st.integers(0, TIME), min_size=BATCH, max_size=BATCH), st.booleans())
def test_equals_a_loop_over_each_sequence(lengths, reverse):
    params, carry, xs = make_case(seed=sum(lengths))
    actual = run(params, carry, xs, jnp.array(lengths), reverse)
    assert_trees_close(actual, loop(params, carry, xs, lengths, reverse))


@pytest.mark.parametrize("reverse", [False, True])
def test_without_lengths_every_sequence_is_whole(reverse):
    params, carry, xs = make_case()
    actual = run(params, carry, xs, None, reverse)
    assert_trees_close(actual, loop(params, carry, xs, [TIME] * BATCH, reverse))


def test_steps_per_iteration_do_not_change_the_result():
    params, carry, xs = make_case()
    expected = run(params, carry, xs, jnp.array(LENGTHS), False)
    for steps in (2, True):
        actual = unroll(tanh_step, params, carry, xs, lengths=jnp.array(LENGTHS), unroll=steps)
        assert_trees_close(actual, expected)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("padding", [jnp.nan, 1e30])
def test_padding_changes_no_bit_of_results_and_gradients(padding, reverse):
    params, carry, xs = make_case()
    lengths = jnp.array(LENGTHS)
    is_padding = jnp.arange(TIME)[None] >= lengths[:, None]

    def loss(params, state, features):
        carry_and_ys = unroll(
            tanh_step,
            params,
            (state, carry[1]),
            {**xs, "features": features},
            lengths=lengths,
            reverse=reverse,
        )
        (last, _), ys = carry_and_ys
        return jnp.sum(last**2) + jnp.sum(jnp.sin(ys["doubled"])), carry_and_ys

    evaluate = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))
    expected = evaluate(params, carry[0], xs["features"])
    other = jnp.where(is_padding[..., None], padding, xs["features"])
    actual = evaluate(params, carry[0], other)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
    gradients = expected[1]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert np.abs(gradients[0]["input"]).min() > 0
    np.testing.assert_array_equal(np.array(gradients[2])[np.array(is_padding)], 0)


def test_gradients_in_float64():
    with jax.enable_x64(True):
        params, carry, xs = jax.tree.map(
            lambda leaf: (
                leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
            ),
            make_case(),
        )

        @jax.jit
        def outputs(params, state):
            carry_in = (state, carry[1])
            (last, _), ys = unroll(
                tanh_step, params, carry_in, xs, lengths=jnp.array(LENGTHS), reverse=True
            )
            return last, ys["doubled"]

        check_grads(outputs, (params, carry[0]), order=1, modes="rev")


def test_no_inputs_are_named():
    with pytest.raises(InputError, match=r"xs has arrays of the shapes \[\]"):
        unroll(lambda _, carry, x: (carry, x), (), jnp.zeros(3), ())


def test_disagreeing_shapes_raise():
    params, carry, xs = make_case()
    with pytest.raises(Exception, match=r"shape|batch"):
        unroll(tanh_step, params, carry, {**xs, "weight": xs["weight"][:, :-1]})
    with pytest.raises(Exception, match=r"shape|batch"):
        unroll(tanh_step, params, (carry[0][:-1], carry[1]), xs)


def lstm_step(params, carry, x):
    """torch's LSTM: gates i, f, g, o."""
    hidden, cell = carry
    gates = x @ params["weight_ih"].T + hidden @ params["weight_hh"].T + params["bias"][None]
    input_gate, forget_gate, candidate, output_gate = jnp.split(gates, 4, axis=-1)
    cell = jax.nn.sigmoid(forget_gate) * cell + jax.nn.sigmoid(input_gate) * jnp.tanh(candidate)
    hidden = jax.nn.sigmoid(output_gate) * jnp.tanh(cell)
    return (hidden, cell), hidden


def gru_step(params, carry, x):
    """torch's GRU: gates r, z, n, with the reset inside the candidate's recurrent term."""
    (hidden,) = carry
    from_input = jnp.split(x @ params["weight_ih"].T + params["bias_ih"][None], 3, axis=-1)
    from_hidden = jnp.split(hidden @ params["weight_hh"].T + params["bias_hh"][None], 3, axis=-1)
    reset = jax.nn.sigmoid(from_input[0] + from_hidden[0])
    update = jax.nn.sigmoid(from_input[1] + from_hidden[1])
    candidate = jnp.tanh(from_input[2] + reset * from_hidden[2])
    hidden = (1 - update) * candidate + update * hidden
    return (hidden,), hidden


@pytest.mark.peers
@pytest.mark.parametrize(("name", "step"), [("LSTM", lstm_step), ("GRU", gru_step)])
def test_both_directions_equal_torch_on_packed_sequences(name, step):
    torch = pytest.importorskip("torch")
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    lengths = [3, 5, 1, 2]  # torch packs no empty sequence
    features = make_case()[2]["features"]
    peer = getattr(torch.nn, name)(FEATURES, HIDDEN, batch_first=True, bidirectional=True)
    packed = pack_padded_sequence(
        torch.tensor(np.array(features)),
        torch.tensor(lengths),
        batch_first=True,
        enforce_sorted=False,
    )
    peer_out, peer_state = peer(packed)
    peer_out = (
        pad_packed_sequence(peer_out, batch_first=True, total_length=TIME)[0].detach().numpy()
    )
    peer_state = peer_state if isinstance(peer_state, tuple) else (peer_state,)
    zeros = tuple(jnp.zeros((BATCH, HIDDEN)) for _ in peer_state)
    for direction, suffix in enumerate(("", "_reverse")):
        params = {
            part: jnp.array(getattr(peer, f"{part}_l0{suffix}").detach().numpy())
            for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        params["bias"] = params["bias_ih"] + params["bias_hh"]
        last, ys = unroll(
            step, params, zeros, features, lengths=jnp.array(lengths), reverse=direction == 1
        )
        expected = peer_out[..., direction * HIDDEN : (direction + 1) * HIDDEN]
        np.testing.assert_allclose(ys, expected, rtol=1e-5, atol=1e-6)
        for actual, state in zip(last, peer_state, strict=True):
            np.testing.assert_allclose(actual, state[direction].detach(), rtol=1e-5, atol=1e-6)


def test_reverse_within_equals_a_loop_and_so_does_its_derivative():
    values = jnp.arange(24.0).reshape(3, 4, 2)
    lengths = jnp.array([4, 2, 0])
    expected = np.array(values)
    for row, length in enumerate([4, 2, 0]):
        expected[row, :length] = expected[row, :length][::-1]
    np.testing.assert_array_equal(reverse_within(values, lengths), expected)
    weights = jnp.asarray(np.random.default_rng(0).normal(size=values.shape), jnp.float32)
    found = jax.grad(lambda values: jnp.sum(weights * reverse_within(values, lengths)))(values)
    np.testing.assert_array_equal(found, reverse_within(weights, lengths))


def test_second_derivatives_of_unroll_affine_are_those_of_unroll():
    rng, lengths = np.random.default_rng(0), jnp.array([3, 0])

    def update(from_input, from_carry, carry):
        (hidden,) = carry
        return (jnp.tanh(from_input + from_carry) * jnp.cos(hidden),)

    def step(params, carry, x):
        from_input = x @ params.input_kernel + params.input_bias[None]
        carry = update(from_input, carry[0] @ params.recurrent_kernel, carry)
        return carry, carry[0]

    def curvature(run, params, first, xs):
        def loss(*args):
            (last,), ys = run(*args, lengths=lengths)
            return jnp.sum(jnp.sin(last)) + jnp.sum(ys**3)

        def squared(*args):
            gradients = jax.grad(loss, argnums=(0, 1, 2))(*args)
            return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradients))

        return jax.jit(jax.grad(squared, argnums=(0, 1, 2)))(params, (first,), xs)

    with jax.enable_x64(True):
        shapes = [(2, 3), (3,), (3, 3), (2, 3), (2, 4, 2)]
        *arrays, first, xs = (jnp.asarray(rng.normal(size=shape)) for shape in shapes)
        params = AffineParams(*arrays)
        actual = curvature(partial(unroll_affine, update), params, first, xs)
        expected = curvature(partial(unroll, step), params, first, xs)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12), actual, expected)
