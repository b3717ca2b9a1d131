"""Stacked recurrent layers against PyTorch's, and what the modules add."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structdl.errors import InputError
from structdl.recurrent.cells import GRUParams, LSTMParams, RNNParams
from structdl.recurrent.layers import gru_layer, lstm_layer, rnn_layer
from structdl.recurrent.stacked import GRU, LSTM, RNN, run_stack

BATCH, TIME, IN_FEATURES, HIDDEN = 4, 5, 3, 6
LENGTHS = [3, 1, 5, 2]  # PyTorch packs no empty sequence
# compiles in a fraction of the time of an orthogonal one
SIMPLE = {"recurrent_kernel_init": jax.nn.initializers.normal(0.3)}
MODULES = {"RNN": RNN, "GRU": GRU, "LSTM": LSTM}


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def from_torch(name, weights):
    """Our layer and its parameters for one of PyTorch's: [w_ih, w_hh, b_ih, b_hh]."""
    kernel, recurrent, *biases = (jnp.asarray(each.detach().numpy().T) for each in weights)
    if name == "GRU":
        return gru_layer, GRUParams(kernel, recurrent, *biases)
    layer, make = {"RNN": (rnn_layer, RNNParams), "LSTM": (lstm_layer, LSTMParams)}[name]
    return layer, make(kernel, recurrent, biases[0] + biases[1])


@pytest.mark.peers
@pytest.mark.parametrize(("num_layers", "bidirectional"), [(1, False), (2, True)])
@pytest.mark.parametrize("name", MODULES)
def test_outputs_states_and_gradients_equal_torch(name, num_layers, bidirectional):
    """One layer on whole sequences; two in both directions on packed ones."""
    torch = pytest.importorskip("torch")
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    directions = 1 + bidirectional
    lengths = LENGTHS if bidirectional else [TIME] * BATCH
    peer = getattr(torch.nn, name)(
        IN_FEATURES, HIDDEN, num_layers, batch_first=True, bidirectional=bidirectional
    )
    xs = normal(0, BATCH, TIME, IN_FEATURES)
    states = [normal(1 + place, num_layers * directions, BATCH, HIDDEN) for place in range(2)]
    states = states if name == "LSTM" else states[:1]  # (cell, hidden)
    cotangents = normal(3, BATCH, TIME, directions * HIDDEN), [state / 2 for state in states]

    peer_xs, *peer_states = (torch.tensor(np.array(a), requires_grad=True) for a in (xs, *states))
    packed = pack_padded_sequence(peer_xs, torch.tensor(lengths), True, enforce_sorted=False)
    first = (peer_states[1], peer_states[0]) if name == "LSTM" else peer_states[0]
    peer_ys, peer_last = peer(packed, first)
    peer_ys, _ = pad_packed_sequence(peer_ys, batch_first=True, total_length=TIME)
    peer_last = peer_last[::-1] if name == "LSTM" else (peer_last,)
    outputs = (peer_ys, *peer_last)
    torch.autograd.backward(
        outputs, [torch.tensor(np.array(a)) for a in (cotangents[0], *cotangents[1])]
    )

    layer, _ = from_torch(name, peer.all_weights[0])
    params = [from_torch(name, weights)[1] for weights in peer.all_weights]

    @jax.jit
    def run(params, carry, xs):
        bound = [partial(layer, each) for each in params]
        layers = [bound[at : at + directions] for at in range(0, len(bound), directions)]
        given = jnp.array(lengths) if bidirectional else None
        carry = tuple(carry) if name == "LSTM" else carry[0]
        outputs, last = run_stack(layers, carry, xs, lengths=given)
        return outputs, list(last) if name == "LSTM" else [last]

    (ys, last), pullback = jax.vjp(run, params, states, xs)
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip((ys, *last), outputs, strict=True):
        close(mine, theirs.detach())
    params_bar, states_bar, xs_bar = pullback(cotangents)
    for mine, theirs in zip((xs_bar, *states_bar), (peer_xs, *peer_states), strict=True):
        close(mine, theirs.grad)
    for mine, weights in zip(params_bar, peer.all_weights, strict=True):
        biases = (mine.input_bias, mine.recurrent_bias) if name == "GRU" else (mine.bias,) * 2
        arrays = mine.input_kernel, mine.recurrent_kernel, *biases
        for array, theirs in zip(arrays, weights, strict=True):
            close(array, theirs.grad.numpy().T)


def init(module, xs, seed=0):
    return jax.jit(partial(module.init, train=False))(jax.random.key(seed), xs)


def apply_jitted(module):
    return jax.jit(module.apply, static_argnames="train")


def test_parameters_start_as_documented():
    xs = normal(0, BATCH, TIME, IN_FEATURES)
    module = LSTM(HIDDEN, num_layers=2, bidirectional=True, learn_initial_state=True)
    params = init(module, xs)["params"]
    assert set(params) == {
        *("layers_0", "layers_0_backward", "layers_1", "layers_1_backward"),
        *("initial_cell", "initial_hidden"),
    }
    bias = params["layers_1"]["bias"].reshape(4, HIDDEN)
    np.testing.assert_array_equal(bias, np.array([0, 1, 0, 0])[:, None] * np.ones(HIDDEN))
    for gate in np.split(np.asarray(params["layers_0"]["recurrent_kernel"]), 4, axis=1):
        np.testing.assert_allclose(gate.T @ gate, np.eye(HIDDEN), atol=1e-5)
    kernel, other = (
        np.asarray(params[name]["input_kernel"]) for name in ("layers_1", "layers_1_backward")
    )
    assert kernel.shape == (2 * HIDDEN, 4 * HIDDEN)
    limit = (6 / (3 * HIDDEN)) ** 0.5  # of each gate, not of all side by side
    assert 0.9 * limit < np.abs(kernel).max() <= limit
    assert np.abs(kernel - other).max() > 0.1

    plain = LSTM(HIDDEN, forget_bias=0.0, recurrent_kernel_init=jax.nn.initializers.ones)
    params = init(plain, xs)["params"]
    np.testing.assert_array_equal(params["layers_0"]["bias"], 0)
    np.testing.assert_array_equal(params["layers_0"]["recurrent_kernel"], 1)


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_the_initial_state_is_learned_or_given(name):
    xs, lengths = normal(0, BATCH, TIME, IN_FEATURES), jnp.array([3, 0, 5, 0])
    module = MODULES[name](HIDDEN, num_layers=2, learn_initial_state=True, **SIMPLE)
    params = init(module, xs)["params"]
    names = [key for key in params if key.startswith("initial")]
    assert names == (["initial_cell"] if name == "LSTM" else []) + ["initial_hidden"]
    for place, each in enumerate(names):
        assert params[each].shape == (2, HIDDEN)
        params[each] = normal(place + 1, 2, HIDDEN)
    apply = apply_jitted(module)
    outputs, last = apply({"params": params}, xs, train=False, lengths=lengths)
    for leaf, each in zip(jax.tree.leaves(last), names, strict=True):
        np.testing.assert_array_equal(leaf[:, 1], params[each])
        assert np.abs(leaf[:, 0] - params[each]).max() > 1e-2

    def total(params):
        return jnp.sum(module.apply({"params": params}, xs, train=False, lengths=lengths)[0])

    gradients = jax.jit(jax.grad(total))(params)
    assert all(np.abs(gradients[each]).min() > 0 for each in names)

    shape = (2, BATCH, HIDDEN)
    given = [jnp.broadcast_to(params[each][:, None], shape) for each in names]
    given = tuple(given) if name == "LSTM" else given[0]
    fixed = MODULES[name](HIDDEN, num_layers=2)
    layers = {key: value for key, value in params.items() if key not in names}
    zero, _ = apply_jitted(fixed)({"params": layers}, xs, train=False, lengths=lengths)
    assert np.abs(zero - outputs).max() > 1e-2
    for each, tree in ((fixed, layers), (module, params)):
        again, _ = each.apply({"params": tree}, xs, train=False, lengths=lengths, carry=given)
        np.testing.assert_allclose(again, outputs, rtol=1e-5, atol=1e-6)


def test_dropout_is_between_layers_and_in_training_only():
    xs = normal(0, BATCH, TIME, IN_FEATURES)
    keys = [jax.random.key(seed) for seed in (1, 2)]
    single, double = (GRU(HIDDEN, count, dropout_rate=0.5, **SIMPLE) for count in (1, 2))
    params = init(double, xs)
    apply = apply_jitted(double)
    evaluated, expected = apply(params, xs, train=False)
    first, last = apply(params, xs, train=True, rngs={"dropout": keys[0]})
    second, _ = apply(params, xs, train=True, rngs={"dropout": keys[1]})
    assert np.abs(first - second).max() > 1e-2
    # the first layer's final state has met no dropout, the second's has
    np.testing.assert_array_equal(last[0], expected[0])
    assert np.abs(last[1] - expected[1]).max() > 1e-2
    undropped = GRU(HIDDEN, num_layers=2).apply(params, xs, train=True)[0]
    np.testing.assert_allclose(undropped, evaluated, rtol=1e-5, atol=1e-6)
    # nothing lies between the layers of one: no key is asked for
    one = {"params": {"layers_0": params["params"]["layers_0"]}}
    trained, _ = single.apply(one, xs, train=True)
    np.testing.assert_allclose(trained, single.apply(one, xs, train=False)[0], rtol=1e-6)


def test_what_is_dropped_is_scaled():
    """With an identity for a second layer the outputs are the first layer's, doubled or 0."""
    identity = RNNParams(jnp.eye(HIDDEN), jnp.zeros((HIDDEN, HIDDEN)), jnp.zeros(HIDDEN))
    first = RNNParams(normal(0, IN_FEATURES, HIDDEN), normal(1, HIDDEN, HIDDEN), normal(2, HIDDEN))
    layers = [[partial(rnn_layer, first)], [partial(rnn_layer, identity, activation=lambda x: x)]]
    xs, carry = normal(3, BATCH, TIME, IN_FEATURES), jnp.zeros((2, BATCH, HIDDEN))
    kept, _ = run_stack(layers, carry, xs)
    dropped, _ = run_stack(layers, carry, xs, dropout_rate=0.5, key=jax.random.key(0))
    ratio = np.asarray(dropped / kept)
    np.testing.assert_allclose(ratio, np.where(ratio > 1, 2, 0), atol=1e-5)
    assert 0.3 < np.mean(ratio > 1) < 0.7


def test_seeds_under_vmap():
    xs, lengths = normal(0, BATCH, TIME, IN_FEATURES), jnp.array(LENGTHS)
    module = GRU(HIDDEN, bidirectional=True, **SIMPLE)

    def train(key, xs):
        params = module.init(key, xs, train=False)

        def total(params):
            return jnp.sum(module.apply(params, xs, train=True, lengths=lengths)[0] ** 2)

        return jax.grad(total)(params)

    keys = jax.random.split(jax.random.key(0), 2)
    together = jax.jit(jax.vmap(train, in_axes=(0, None)))(keys, xs)
    alone = jax.jit(train)(jax.random.split(jax.random.key(0), 2)[1], xs)
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a[1], e, rtol=1e-4, atol=1e-5), together, alone
    )


@pytest.mark.parametrize("name", MODULES)
def test_a_network_of_nothing_is_refused(name):
    xs = normal(0, BATCH, TIME, IN_FEATURES)
    with pytest.raises(InputError, match="num_layers is 0"):
        init(MODULES[name](HIDDEN, num_layers=0), xs)
    with pytest.raises(InputError, match="features is 0"):
        init(MODULES[name](0), xs)


def test_a_stack_of_nothing_and_a_negative_dropout_rate_are_refused():
    xs = normal(0, BATCH, TIME, IN_FEATURES)
    for layers in ([], [[]]):
        with pytest.raises(InputError, match="one layer or more"):
            run_stack(layers, jnp.zeros((0, BATCH, HIDDEN)), xs)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    with pytest.raises(InputError, match="dropout rate = -1"):
        GRU(HIDDEN, num_layers=2, dropout_rate=-1.0).init(keys, xs, train=True)


def test_a_carry_of_other_layers_is_refused():
    xs = normal(0, BATCH, TIME, IN_FEATURES)
    params = init(GRU(HIDDEN, num_layers=2, **SIMPLE), xs)
    with pytest.raises(AssertionError, match="shape"):
        GRU(HIDDEN, num_layers=2).apply(
            params, xs, train=False, carry=jnp.zeros((1, BATCH, HIDDEN))
        )
