"""Recurrent layers: cells against loops, the derivative by hand against JAX's, and padding."""

from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from structdl.core.scan import AffineParams, unroll, unroll_affine
from structdl.errors import InputError
from structdl.recurrent.cells import GRUParams, LSTMParams, RNNParams, lstm_step, rnn_step
from structdl.recurrent.layers import gru_layer, lstm_layer, rnn_layer

BATCH, TIME, IN_FEATURES, HIDDEN = 4, 5, 3, 6
LENGTHS = [3, 0, 5, 1]
LAYERS = {
    "rnn": rnn_layer,
    "rnn-sin": partial(rnn_layer, activation=jnp.sin),
    "gru": gru_layer,
    "gru-writes": partial(gru_layer, update_keeps=False),
    "lstm": lstm_layer,
}


def make_case(name, dtype=np.float32, seed=0):
    """Parameters, an initial carry and inputs."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape).astype(dtype))

    def kernels(gates):
        return normal(IN_FEATURES, gates * HIDDEN), normal(HIDDEN, gates * HIDDEN)

    match name.split("-")[0]:
        case "rnn":
            params, carry = RNNParams(*kernels(1), normal(HIDDEN)), normal(BATCH, HIDDEN)
        case "gru":
            biases = normal(3 * HIDDEN), normal(3 * HIDDEN)
            params, carry = GRUParams(*kernels(3), *biases), normal(BATCH, HIDDEN)
        case "lstm":
            params = LSTMParams(*kernels(4), normal(4 * HIDDEN))
            carry = normal(BATCH, HIDDEN), normal(BATCH, HIDDEN)
    return params, carry, normal(BATCH, TIME, IN_FEATURES)


def sigmoid(value):
    return 1 / (1 + np.exp(-value))


def test_rnn_step_equals_the_loop():
    params, carry, xs = make_case("rnn")
    kernel, recurrent, bias = (np.asarray(leaf, np.float64) for leaf in params)
    x, old = np.asarray(xs[:, 0], np.float64), np.asarray(carry, np.float64)
    expected = np.zeros((BATCH, HIDDEN))
    for row in range(BATCH):
        for unit in range(HIDDEN):
            expected[row, unit] = bias[unit]
            for place in range(IN_FEATURES):
                expected[row, unit] += x[row, place] * kernel[place, unit]
            for place in range(HIDDEN):
                expected[row, unit] += old[row, place] * recurrent[place, unit]
    new, output = rnn_step(params, carry, xs[:, 0])
    np.testing.assert_allclose(new, np.tanh(expected), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(new, output)
    one, _ = rnn_step(params, carry[1], xs[1, 0], activation=jnp.sin)
    np.testing.assert_allclose(one, np.sin(expected[1]), rtol=1e-5, atol=1e-5)


def test_lstm_step_equals_the_loop():
    params, (cell, hidden), xs = make_case("lstm")
    x = xs[:, 0]
    new, output = lstm_step(params, (cell, hidden), x)
    new_cell, new_hidden = map(np.asarray, new)
    weights = [np.asarray(leaf, np.float64) for leaf in params]
    for row in range(BATCH):
        gates = np.asarray(x[row]) @ weights[0] + np.asarray(hidden[row]) @ weights[1] + weights[2]
        for unit in range(HIDDEN):
            enter, keep, candidate, show = (gates[gate * HIDDEN + unit] for gate in range(4))
            expected = sigmoid(keep) * float(cell[row, unit]) + sigmoid(enter) * np.tanh(candidate)
            np.testing.assert_allclose(new_cell[row, unit], expected, rtol=1e-5, atol=1e-6)
            expected = sigmoid(show) * np.tanh(expected)
            np.testing.assert_allclose(new_hidden[row, unit], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(new_hidden, output)


def loss(layer, method, lengths, reverse, params, carry, xs):
    """A number that every output and every final state enters with a weight of its own."""
    last, ys = layer(params, carry, xs, lengths=lengths, reverse=reverse, method=method)
    weights = jnp.arange(1, HIDDEN + 1, dtype=ys.dtype)
    total = jnp.sum(ys**2 * weights[None, None])
    for leaf in jax.tree.leaves(last):
        total += jnp.sum(jnp.sin(3 * leaf) * weights[None])
    return total, (last, ys)


@cache  # of compiled programs, for several tests
def evaluate(name, method, reverse=False):
    """(params, carry, xs, lengths) -> ((loss, (last, ys)), gradients), compiled."""

    def run(params, carry, xs, lengths):
        function = partial(loss, LAYERS[name], method, lengths, reverse)
        return jax.value_and_grad(function, argnums=(0, 1, 2), has_aux=True)(params, carry, xs)

    return jax.jit(run)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_the_derivative_by_hand_is_that_of_the_scan(name, reverse):
    with jax.enable_x64(True):
        case = make_case(name, np.float64)
        lengths = jnp.array(LENGTHS) if reverse else None
        by_hand = evaluate(name, "fused_backward", reverse)(*case, lengths)
        by_scan = evaluate(name, "scan", reverse)(*case, lengths)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11), by_hand, by_scan
        )


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_gradients_in_float64(name):
    with jax.enable_x64(True):
        # smaller, so that finite differences of five steps are near the derivative
        case = jax.tree.map(lambda leaf: 0.3 * leaf, make_case(name, np.float64))

        @jax.jit
        def outputs(params, carry, xs):
            return loss(LAYERS[name], "auto", jnp.array(LENGTHS), True, params, carry, xs)[0]

        check_grads(outputs, case, order=1, modes="rev")


def test_any_pointwise_update_will_do():
    """Without a derivative of its own, with a bias, and with a carry of three leaves."""

    def update(from_input, from_carry, carry):
        count, (slow, hidden) = carry
        slow = 0.5 * slow + from_input * jnp.cos(from_carry)
        return count + 1, (slow, jnp.tanh(slow + count * from_carry) - 0.1 * hidden)

    params, carry, xs = make_case("rnn")
    params = AffineParams(params[0], params[2], params[1], params[2] / 2)
    carry = (jnp.ones((BATCH, HIDDEN)), (carry / 2, carry))

    def plain(params, carry, x):
        from_carry = carry[1][1] @ params.recurrent_kernel + params.recurrent_bias[None]
        new = update(x @ params.input_kernel + params.input_bias[None], from_carry, carry)
        return new, new[1][1]

    def total(run):
        def function(params, carry, xs):
            last, ys = run(params, carry, xs, lengths=jnp.array(LENGTHS))
            return jnp.sum(jnp.sin(ys)) + sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(last))

        return jax.jit(jax.value_and_grad(function, argnums=(0, 1, 2)))(params, carry, xs)

    actual, expected = total(partial(unroll_affine, update)), total(partial(unroll, plain))
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=2e-5, atol=2e-5), actual, expected
    )


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_padding_changes_no_bit(name, reverse):
    params, carry, xs = make_case(name)
    lengths = jnp.array(LENGTHS)
    run = evaluate(name, "auto", reverse)
    expected = run(params, carry, xs, lengths)
    is_padding = (jnp.arange(TIME)[None] >= lengths[:, None])[..., None]
    for value in (jnp.nan, 1e30):
        actual = run(params, carry, jnp.where(is_padding, value, xs), lengths)
        jax.tree.map(np.testing.assert_array_equal, actual, expected)
    gradients = expected[1]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    np.testing.assert_array_equal(jnp.where(is_padding, gradients[2], 0), 0)

    longer = jnp.pad(xs, ((0, 0), (0, 7), (0, 0)), constant_values=jnp.nan)
    (_, (last, ys)), (params_bar, carry_bar, xs_bar) = run(params, carry, longer, lengths)
    (_, (expected_last, expected_ys)), expected_bars = expected
    jax.tree.map(np.testing.assert_array_equal, last, expected_last)
    np.testing.assert_array_equal(ys[:, :TIME], expected_ys)
    np.testing.assert_array_equal(ys[:, TIME:], 0)
    jax.tree.map(np.testing.assert_array_equal, carry_bar, expected_bars[1])
    np.testing.assert_array_equal(xs_bar[:, :TIME], expected_bars[2])
    # one sum over batch and time: only its order may differ
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-5),
        params_bar,
        expected_bars[0],
    )


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_a_batch_of_padding_returns_the_initial_state(name):
    params, carry, xs = make_case(name)
    run = evaluate(name, "auto")
    value = run(params, carry, jnp.full_like(xs, jnp.nan), jnp.zeros(BATCH, jnp.int32))
    (_, (last, ys)), (params_bar, carry_bar, xs_bar) = value
    jax.tree.map(np.testing.assert_array_equal, last, carry)
    np.testing.assert_array_equal(ys, 0)
    for leaf in jax.tree.leaves((params_bar, xs_bar)):
        np.testing.assert_array_equal(leaf, 0)
    weights = np.arange(1, HIDDEN + 1)[None]
    for bar, leaf in zip(jax.tree.leaves(carry_bar), jax.tree.leaves(carry), strict=True):
        np.testing.assert_allclose(bar, 3 * np.cos(3 * leaf) * weights, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_vmap_over_seeds_is_one_seed_after_another(name):
    cases = [make_case(name, seed=seed) for seed in range(3)]
    lengths = jnp.array(LENGTHS)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *cases)
    run = evaluate(name, "auto")
    together = jax.jit(jax.vmap(run, in_axes=(0, 0, 0, None)))(*stacked, lengths)
    for seed, case in enumerate(cases):
        jax.tree.map(
            lambda one, all_, at=seed: np.testing.assert_allclose(
                all_[at], one, rtol=1e-4, atol=1e-4
            ),
            run(*case, lengths),
            together,
        )


def test_a_reset_before_the_product_is_scanned():
    case = make_case("gru")
    auto, scan = (
        gru_layer(*case, reset_after=False, method=method)[1] for method in ("auto", "scan")
    )
    np.testing.assert_array_equal(auto, scan)
    assert np.abs(auto - gru_layer(*case)[1]).max() > 1e-2
    with pytest.raises(ValueError, match="reset_after"):
        gru_layer(*case, reset_after=False, method="fused_backward")


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_cudnn_is_given_the_weights_in_its_order(lengths, reverse, monkeypatch):
    """JAX's reference implementation in cuDNN's place."""
    from jax.experimental import rnn

    def reference(xs, hidden, cell, weights, lengths, *sizes):
        in_features, features, num_layers, _, bidirectional, *_ = sizes
        unpacked = rnn.unpack_lstm_weights(
            weights, in_features, features, num_layers, bidirectional
        )
        return rnn.lstm_ref(xs, hidden, cell, *unpacked, lengths, *sizes)

    case = make_case("lstm")
    with pytest.raises(ValueError, match="GPU"):
        lstm_layer(*case, method="cudnn")
    monkeypatch.setattr(rnn, "lstm", reference)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    lengths = None if lengths is None else jnp.array(lengths)
    actual, expected = (
        lstm_layer(*case, lengths=lengths, reverse=reverse, method=method)
        for method in ("cudnn", "scan")
    )
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-6), actual, expected
    )


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_a_layer_refuses_lengths_that_no_sequence_has(name):
    params, carry, xs = make_case(name)
    lengths = jnp.full(len(xs), xs.shape[1]).at[1].add(1)
    with pytest.raises(InputError, match=r"lengths\[1\] = "):
        LAYERS[name](params, carry, xs, lengths=lengths)


@pytest.mark.parametrize("method", ["fused_backward", "scan"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_no_time_at_all_gives_back_the_carry_and_has_a_derivative(name, reverse, method):
    params, carry, xs = make_case(name)

    def last(params, carry, xs):
        state, ys = LAYERS[name](params, carry, xs, reverse=reverse, method=method)
        assert ys.shape[1] == 0
        return sum(map(jnp.sum, jax.tree.leaves(state))), state

    (_, state), (params_bar, carry_bar, xs_bar) = jax.value_and_grad(
        last, argnums=(0, 1, 2), has_aux=True
    )(params, carry, xs[:, :0])
    chex.assert_trees_all_equal(state, carry)
    chex.assert_trees_all_equal(params_bar, jax.tree.map(jnp.zeros_like, params))
    chex.assert_trees_all_equal(carry_bar, jax.tree.map(jnp.ones_like, carry))
    assert xs_bar.shape == (len(xs), 0, xs.shape[2])


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_a_wrong_parameter_is_named(name):
    params, carry, xs = make_case(name)
    with pytest.raises(AssertionError, match="shape"):
        LAYERS[name](params._replace(input_kernel=params.input_kernel[:, :-1]), carry, xs)
    with pytest.raises(Exception, match=r"shape|batch"):
        LAYERS[name](params, carry, xs[:-1])
