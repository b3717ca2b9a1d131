"""The gated recurrent unit against a loop over its units, and against PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from structdl.core.scan import unroll
from structdl.recurrent.cells import GRUParams, gru_step

BATCH, IN_FEATURES, HIDDEN = 4, 3, 5


def random_params(seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    shapes = [(IN_FEATURES, 3 * HIDDEN), (HIDDEN, 3 * HIDDEN), (3 * HIDDEN,), (3 * HIDDEN,)]
    return GRUParams(*(jnp.asarray(rng.normal(size=shape).astype(dtype)) for shape in shapes))


def random_state(seed=1, batch=(BATCH,), dtype=np.float32):
    rng = np.random.default_rng(seed)
    carry, x = rng.normal(size=(*batch, HIDDEN)), rng.normal(size=(*batch, IN_FEATURES))
    return jnp.asarray(carry.astype(dtype)), jnp.asarray(x.astype(dtype))


def sigmoid(value):
    return 1 / (1 + np.exp(-value))


def slow_gru(params, carry, x, update_keeps, reset_after):
    """One element, unit by unit, in float64."""
    input_kernel, recurrent_kernel, input_bias, recurrent_bias = (
        np.asarray(array, np.float64) for array in params
    )
    carry, x = np.asarray(carry, np.float64), np.asarray(x, np.float64)

    def from_input(column):
        return sum(x[i] * input_kernel[i, column] for i in range(len(x))) + input_bias[column]

    def from_carry(column, carry):
        products = (carry[i] * recurrent_kernel[i, column] for i in range(HIDDEN))
        return sum(products) + recurrent_bias[column]

    reset = np.array([sigmoid(from_input(u) + from_carry(u, carry)) for u in range(HIDDEN)])
    new = []
    for unit in range(HIDDEN):
        column = HIDDEN + unit
        update = sigmoid(from_input(column) + from_carry(column, carry))
        column = 2 * HIDDEN + unit
        if reset_after:
            recurrent = reset[unit] * from_carry(column, carry)
        else:
            recurrent = from_carry(column, reset * carry)
        candidate = np.tanh(from_input(column) + recurrent)
        kept = update if update_keeps else 1 - update
        new.append(kept * carry[unit] + (1 - kept) * candidate)
    return np.array(new)


OPTIONS = [(True, True), (True, False), (False, True), (False, False)]


@pytest.mark.parametrize(("update_keeps", "reset_after"), OPTIONS)
def test_step_equals_the_loop(update_keeps, reset_after):
    params, (carry, x) = random_params(), random_state()
    new, output = gru_step(params, carry, x, update_keeps=update_keeps, reset_after=reset_after)
    expected = [
        slow_gru(params, carry[row], x[row], update_keeps, reset_after) for row in range(BATCH)
    ]
    np.testing.assert_allclose(new, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(new, output)


def test_the_options_differ():
    params, (carry, x) = random_params(), random_state()
    results = [
        gru_step(params, carry, x, update_keeps=keeps, reset_after=after)[0]
        for keeps, after in OPTIONS
    ]
    for place, one in enumerate(results):
        for other in results[:place]:
            assert np.abs(one - other).max() > 1e-2


def test_one_element_and_any_batch_axes():
    params, (carry, x) = random_params(), random_state(batch=(2, 3))
    new, _ = gru_step(params, carry, x)
    one, _ = gru_step(params, carry[1, 2], x[1, 2])
    np.testing.assert_allclose(new[1, 2], one, rtol=1e-5, atol=1e-6)
    mapped, _ = jax.vmap(jax.vmap(lambda h, x: gru_step(params, h, x)))(carry, x)
    np.testing.assert_allclose(new, mapped, rtol=1e-5, atol=1e-6)


def test_a_wrong_parameter_is_named():
    params, (carry, x) = random_params(), random_state()
    with pytest.raises(AssertionError, match="shape"):
        gru_step(params._replace(input_kernel=params.input_kernel[:, :-1]), carry, x)


@pytest.mark.parametrize("reset_after", [True, False])
def test_gradients_in_float64(reset_after):
    with jax.enable_x64(True):
        params = random_params(dtype=np.float64)
        carry, x = random_state(dtype=np.float64)

        @jax.jit
        def output(params, carry, x):
            return gru_step(params, carry, x, reset_after=reset_after)[0]

        check_grads(output, (params, carry, x), order=1, modes="rev")


@pytest.mark.peers
def test_cell_and_gradients_equal_torch():
    torch = pytest.importorskip("torch")
    params, (carry, x) = random_params(), random_state()
    peer = torch.nn.GRUCell(IN_FEATURES, HIDDEN)
    # the peer's gates stand in the same order: reset, update, new
    weights = (peer.weight_ih, peer.weight_hh, peer.bias_ih, peer.bias_hh)
    with torch.no_grad():
        for weight, array in zip(weights, params, strict=True):
            weight.copy_(torch.tensor(np.array(array).T))
    peer_carry, peer_x = (torch.tensor(np.array(a), requires_grad=True) for a in (carry, x))
    peer_out = peer(peer_x, peer_carry)
    cotangent = np.random.default_rng(2).normal(size=(BATCH, HIDDEN)).astype(np.float32)
    peer_out.backward(torch.tensor(cotangent))

    out, pullback = jax.vjp(lambda *args: gru_step(*args)[0], params, carry, x)
    np.testing.assert_allclose(out, peer_out.detach(), rtol=1e-5, atol=1e-5)
    params_bar, *state_bar = pullback(jnp.asarray(cotangent))
    for mine, theirs in zip(params_bar, weights, strict=True):
        np.testing.assert_allclose(mine, theirs.grad.numpy().T, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(state_bar, (peer_carry, peer_x), strict=True):
        np.testing.assert_allclose(mine, theirs.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.peers
def test_sequence_under_unroll_equals_torch():
    torch = pytest.importorskip("torch")
    params, time = random_params(), 6
    peer = torch.nn.GRU(IN_FEATURES, HIDDEN, batch_first=True)
    weights = (peer.weight_ih_l0, peer.weight_hh_l0, peer.bias_ih_l0, peer.bias_hh_l0)
    with torch.no_grad():
        for weight, array in zip(weights, params, strict=True):
            weight.copy_(torch.tensor(np.array(array).T))
    _, xs = random_state(batch=(BATCH, time))
    with torch.no_grad():
        expected, _ = peer(torch.tensor(np.array(xs)))
    _, ys = unroll(gru_step, params, jnp.zeros((BATCH, HIDDEN)), xs)
    np.testing.assert_allclose(ys, expected, rtol=1e-5, atol=1e-5)
