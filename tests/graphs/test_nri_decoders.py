"""The decoders of neural relational inference against loops over edges, and under permutations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structdl.errors import InputError
from structdl.graphs.nri_decoders import (
    UNROLLED,
    MarkovDecoder,
    MarkovParams,
    RecurrentDecoder,
    RecurrentParams,
    markov_step,
    recurrent_predictions,
    recurrent_step,
    rollout,
)
from structdl.graphs.nri_messages import MessageParams, received_messages
from structdl.recurrent.cells import GRUParams, gru_step

BATCH, TIME, NODES, FEATURES, HIDDEN, TYPES = 2, 6, 4, 3, 5, 3
PAIRS = [(i, j) for i in range(NODES) for j in range(NODES) if i != j]

DECODERS = [MarkovDecoder, RecurrentDecoder]


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def trajectories(time=TIME):
    return normal(0, BATCH, time, NODES, FEATURES)


def relaxed_types(seed=1):
    """Edge types with weights on the diagonal too, where they must not count."""
    return jax.nn.softmax(normal(seed, BATCH, NODES, NODES, TYPES))


def perturbed(tree, seed=7):
    """Parameters none of which is 0 or 1."""
    leaves, structure = jax.tree.flatten(tree)
    moved = [leaf + 0.2 * jnp.abs(normal(seed + n, *leaf.shape)) for n, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, moved)


def permuted_edges(edges, order):
    return edges[:, order][:, :, order]


def output_params(seed, inputs):
    widths = [inputs, HIDDEN, HIDDEN, FEATURES]
    return tuple(
        (normal(seed + n, widths[n], widths[n + 1]), normal(seed + 9 + n, widths[n + 1]))
        for n in range(3)
    )


def message_params(seed, sending_types, features):
    biases = 1 + jnp.abs(normal(seed, 2, sending_types, HIDDEN))  # no message is all zeros
    return MessageParams(
        normal(seed + 1, sending_types, 2 * features, HIDDEN),
        biases[0],
        normal(seed + 2, sending_types, HIDDEN, HIDDEN),
        biases[1],
    )


def markov_params(sending_types, seed=2):
    messages = message_params(seed, sending_types, FEATURES)
    return MarkovParams(messages, output_params(seed + 20, FEATURES + HIDDEN))


def recurrent_params(sending_types, seed=2):
    gates = 3 * HIDDEN
    cell = GRUParams(
        normal(seed + 5, HIDDEN + FEATURES, gates),
        normal(seed + 6, HIDDEN, gates),
        normal(seed + 7, gates),
        normal(seed + 8, gates),
    )
    messages = message_params(seed, sending_types, HIDDEN)
    return RecurrentParams(messages, cell, output_params(seed + 20, HIDDEN))


def relu(x):
    return np.maximum(x, 0)


def loop_received(params, nodes, edge_types, sending_types, activation):
    """The sum of the messages to each object, edge after edge, for one graph."""
    received = np.zeros((NODES, HIDDEN))
    for i, j in PAIRS:
        pair = np.concatenate([nodes[i], nodes[j]])
        for number, edge_type in enumerate(sending_types):
            hidden = activation(pair @ params.pair_kernels[number] + params.pair_biases[number])
            message = activation(hidden @ params.kernels[number] + params.biases[number])
            received[j] += edge_types[i, j, edge_type] * message
    return received


def loop_output(layers, x):
    for number, (kernel, bias) in enumerate(layers):
        x = (relu(x) if number else x) @ kernel + bias
    return x


@pytest.mark.parametrize("sending_types", [[0, 1, 2], [1, 2]])
def test_markov_step_equals_a_loop_over_edges(sending_types):
    params, nodes, edge_types = markov_params(len(sending_types)), trajectories(), relaxed_types()
    # one graph for all times of a trajectory
    out = np.asarray(markov_step(params, nodes, edge_types[:, None]))
    host = jax.tree.map(np.asarray, (params, nodes, edge_types))
    for number in range(BATCH):
        for time in range(TIME):
            its = host[1][number, time]
            received = loop_received(host[0].messages, its, host[2][number], sending_types, relu)
            joined = np.concatenate([its, received], axis=-1)
            expected = its + loop_output(host[0].output, joined)
            np.testing.assert_allclose(out[number, time], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sending_types", [[0, 1, 2], [1, 2]])
def test_recurrent_step_equals_a_loop_over_edges(sending_types):
    params, edge_types = recurrent_params(len(sending_types)), relaxed_types()
    nodes, hidden = trajectories()[:, 0], normal(4, BATCH, NODES, HIDDEN)
    new, out = map(np.asarray, recurrent_step(params, hidden, nodes, edge_types))
    host = jax.tree.map(np.asarray, (params, hidden, nodes, edge_types))
    for number in range(BATCH):
        its, state = host[2][number], host[1][number]
        sums = loop_received(host[0].messages, state, host[3][number], sending_types, np.tanh)
        joined = np.concatenate([sums / (NODES - 1), its], axis=-1)
        expected, _ = gru_step(params.cell, jnp.asarray(state), jnp.asarray(joined, jnp.float32))
        np.testing.assert_allclose(new[number], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            out[number], its + loop_output(host[0].output, new[number]), rtol=1e-4, atol=1e-4
        )


def test_more_message_networks_than_types():
    with pytest.raises(ValueError, match="4 message networks for 3 edge types"):
        markov_step(markov_params(4), trajectories()[:, 0], relaxed_types())


def test_objects_without_edges_do_not_see_each_other():
    nodes = trajectories()[0, 0]
    edges = jnp.zeros((NODES, NODES), jnp.int32).at[2, 0].set(1)
    edge_types = jax.nn.one_hot(edges, TYPES)
    jacobian = jax.jacobian(lambda nodes: markov_step(markov_params(2), nodes, edge_types))(nodes)
    influence = np.abs(np.asarray(jacobian)).sum(axis=(1, 3)) > 0  # of the second on the first
    expected = np.eye(NODES, dtype=bool)
    expected[0, 2] = True
    np.testing.assert_array_equal(influence, expected)
    # where type 0 has a network too, every object sees all others
    params = markov_params(3)
    jacobian = jax.jacobian(lambda nodes: markov_step(params, nodes, edge_types))(nodes)
    assert (np.abs(np.asarray(jacobian)).sum(axis=(1, 3)) > 0).all()


def test_an_object_alone_receives_nothing():
    nodes, edge_types = trajectories()[:, 0, :1], relaxed_types()[:, :1, :1]
    for given in (nodes, nodes[0]):
        types = edge_types if given.ndim == 3 else edge_types[0]
        out = received_messages(message_params(0, 3, FEATURES), given, types, activation=jnp.tanh)
        np.testing.assert_array_equal(out, jnp.zeros((*given.shape[:-1], HIDDEN)))


@pytest.mark.parametrize("num_steps", [4, UNROLLED + 3])
def test_rollout_repeats_the_step(num_steps):
    params, edge_types = markov_params(2), relaxed_types()
    params = params._replace(output=jax.tree.map(lambda leaf: leaf / 10, params.output))
    nodes = trajectories()[:, 0]
    out = rollout(params, nodes, edge_types, num_steps=num_steps)
    assert out.shape == (BATCH, num_steps, NODES, FEATURES)
    for step in range(num_steps):
        nodes = markov_step(params, nodes, edge_types)
        np.testing.assert_allclose(out[:, step], nodes, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prediction_steps", [1, 4, 9])
def test_markov_decoder_starts_from_every_mth_state(prediction_steps):
    decoder = MarkovDecoder(HIDDEN, TYPES, skip_first=True)
    states, edge_types = trajectories(), relaxed_types()
    variables = decoder.init(jax.random.key(0), states, edge_types, prediction_steps=1)
    variables = perturbed(variables)
    out = decoder.apply(variables, states, edge_types, prediction_steps=prediction_steps)
    assert out.shape == (BATCH, TIME - 1, NODES, FEATURES)
    for time in range(TIME - 1):
        if time % prediction_steps == 0:
            last = states[:, time]
        pair = jnp.stack([last, last], axis=1)
        last = decoder.apply(variables, pair, edge_types, prediction_steps=1)[:, 0]
        np.testing.assert_allclose(out[:, time], last, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("prediction_steps", "burn_in"), [(1, 0), (2, 0), (9, 0), (9, 3), (2, 4)])
def test_recurrent_predictions_equal_a_loop(prediction_steps, burn_in):
    params, edge_types = recurrent_params(3), relaxed_types()
    params = params._replace(output=jax.tree.map(lambda leaf: leaf / 10, params.output))
    states = trajectories()
    out = recurrent_predictions(
        params, states, edge_types, prediction_steps=prediction_steps, burn_in=burn_in
    )
    assert out.shape == (BATCH, TIME - 1, NODES, FEATURES)
    hidden = jnp.zeros((BATCH, NODES, HIDDEN))
    for time in range(TIME - 1):
        if time % prediction_steps == 0 or time < burn_in:
            last = states[:, time]
        hidden, last = recurrent_step(params, hidden, last, edge_types)
        np.testing.assert_allclose(out[:, time], last, rtol=1e-4, atol=1e-4)


def test_recurrent_predictions_need_a_step():
    with pytest.raises(InputError, match="prediction_steps is 0: it must be at least 1"):
        recurrent_predictions(
            recurrent_params(3), trajectories(), relaxed_types(), prediction_steps=0
        )


@pytest.mark.parametrize("decoder_class", DECODERS)
def test_predictions_commute_with_a_permutation_of_the_objects(decoder_class):
    decoder, order = decoder_class(HIDDEN, TYPES), np.array([2, 0, 3, 1])
    states, edge_types = trajectories(), relaxed_types()
    params = perturbed(decoder.init(jax.random.key(1), states, edge_types, prediction_steps=2))
    predictions = decoder.apply(params, states, edge_types, prediction_steps=2)
    moved = states[:, :, order], permuted_edges(edge_types, order)
    other = decoder.apply(params, *moved, prediction_steps=2)
    np.testing.assert_allclose(other, predictions[:, :, order], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("decoder_class", DECODERS)
def test_the_diagonal_does_not_count(decoder_class):
    decoder = decoder_class(HIDDEN, TYPES)
    states, edge_types = trajectories(), relaxed_types()
    changed = jnp.where(jnp.eye(NODES, dtype=bool)[None, :, :, None], jnp.nan, edge_types)
    variables = decoder.init(jax.random.key(1), states, edge_types, prediction_steps=2)
    out = decoder.apply(variables, states, edge_types, prediction_steps=2)
    other = decoder.apply(variables, states, changed, prediction_steps=2)
    np.testing.assert_array_equal(other, out)
