"""Neural relational inference against loops over edges, by hand, and under permutations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from structdl.core.distributions import gumbel_softmax, log_probabilities
from structdl.errors import InputError
from structdl.graphs.nri import (
    MarkovDecoder,
    MarkovParams,
    MLPEncoder,
    edge_accuracy,
    edge_confusion,
    edge_to_node,
    markov_step,
    negative_elbo,
    node_to_edge,
    rollout,
    teacher_forced,
)

BATCH, TIME, NODES, FEATURES, HIDDEN, TYPES = 2, 6, 4, 3, 5, 3
PAIRS = [(i, j) for i in range(NODES) for j in range(NODES) if i != j]


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def trajectories():
    return normal(0, BATCH, TIME, NODES, FEATURES)


def relaxed_types(seed=1):
    """Edge types with weights on the diagonal too, where they must not count."""
    return jax.nn.softmax(normal(seed, BATCH, NODES, NODES, TYPES))


def perturbed(tree, seed=7):
    """Parameters none of which is 0 or 1."""
    leaves, structure = jax.tree.flatten(tree)
    moved = [leaf + 0.2 * jnp.abs(normal(seed + n, *leaf.shape)) for n, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, moved)


def decoder_params(sending_types, seed=2):
    pair, message = (sending_types, 2 * FEATURES, HIDDEN), (sending_types, HIDDEN, HIDDEN)
    widths = [FEATURES + HIDDEN, HIDDEN, HIDDEN, FEATURES]
    output = [
        (normal(seed + n, widths[n], widths[n + 1]), normal(seed + 9 + n, widths[n + 1]))
        for n in range(3)
    ]
    biases = 1 + jnp.abs(normal(seed + 3, 2, sending_types, HIDDEN))  # no message is all zeros
    return MarkovParams(
        normal(seed + 4, *pair), biases[0], normal(seed + 5, *message), biases[1], tuple(output)
    )


def permuted_edges(edges, order):
    return edges[:, order][:, :, order]


def test_node_to_edge_is_a_dense_layer_of_pairs():
    given = trajectories(), normal(1, 2 * FEATURES, HIDDEN), normal(2, HIDDEN)
    edges = np.asarray(node_to_edge(*given))
    nodes, kernel, bias = map(np.asarray, given)
    assert edges.shape == (BATCH, TIME, NODES, NODES, HIDDEN)
    for i in range(NODES):
        for j in range(NODES):
            pair = np.concatenate([nodes[:, :, i], nodes[:, :, j]], axis=-1)
            np.testing.assert_allclose(
                edges[:, :, i, j], pair @ kernel + bias, rtol=1e-4, atol=1e-5
            )


def test_edge_to_node_is_a_mean_over_senders():
    edges = np.array(normal(3, BATCH, NODES, NODES, HIDDEN))
    edges[:, range(NODES), range(NODES)] = np.nan
    expected = np.zeros((BATCH, NODES, HIDDEN))
    for i, j in PAIRS:
        expected[:, j] += edges[:, i, j] / (NODES - 1)
    out = edge_to_node(jnp.asarray(edges))
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)
    alone = edge_to_node(jnp.full((1, 1, 1, HIDDEN), jnp.nan))
    np.testing.assert_array_equal(alone, 0)


def loop_decoder(params, nodes, edge_types, sending_types):
    """One step of the decoder, edge after edge, for one graph."""

    def relu(x):
        return np.maximum(x, 0)

    received = np.zeros((NODES, HIDDEN))
    for i, j in PAIRS:
        pair = np.concatenate([nodes[i], nodes[j]])
        for number, edge_type in enumerate(sending_types):
            hidden = relu(pair @ params.pair_kernels[number] + params.pair_biases[number])
            message = relu(hidden @ params.message_kernels[number] + params.message_biases[number])
            received[j] += edge_types[i, j, edge_type] * message
    change = np.concatenate([nodes, received], axis=-1)
    for number, (kernel, bias) in enumerate(params.output):
        change = (relu(change) if number else change) @ kernel + bias
    return nodes + change


@pytest.mark.parametrize("sending_types", [[0, 1, 2], [1, 2]])
def test_markov_step_equals_a_loop_over_edges(sending_types):
    params, nodes, edge_types = decoder_params(len(sending_types)), trajectories(), relaxed_types()
    # one graph for all times of a trajectory
    out = np.asarray(markov_step(params, nodes, edge_types[:, None]))
    host = jax.tree.map(np.asarray, (params, nodes, edge_types))
    for number in range(BATCH):
        for time in range(TIME):
            expected = loop_decoder(host[0], host[1][number, time], host[2][number], sending_types)
            np.testing.assert_allclose(out[number, time], expected, rtol=1e-4, atol=1e-4)


def test_more_message_networks_than_types():
    with pytest.raises(ValueError, match="4 message networks for 3 edge types"):
        markov_step(decoder_params(4), trajectories()[:, 0], relaxed_types())


def test_objects_without_edges_do_not_see_each_other():
    nodes = trajectories()[0, 0]
    edges = jnp.zeros((NODES, NODES), jnp.int32).at[2, 0].set(1)
    edge_types = jax.nn.one_hot(edges, TYPES)
    jacobian = jax.jacobian(lambda nodes: markov_step(decoder_params(2), nodes, edge_types))(nodes)
    influence = np.abs(np.asarray(jacobian)).sum(axis=(1, 3)) > 0  # of the second on the first
    expected = np.eye(NODES, dtype=bool)
    expected[0, 2] = True
    np.testing.assert_array_equal(influence, expected)
    # where type 0 has a network too, every object sees all others
    params = decoder_params(3)
    jacobian = jax.jacobian(lambda nodes: markov_step(params, nodes, edge_types))(nodes)
    assert (np.abs(np.asarray(jacobian)).sum(axis=(1, 3)) > 0).all()


def test_rollout_repeats_the_step():
    params, edge_types = decoder_params(2), relaxed_types()
    params = params._replace(output=jax.tree.map(lambda leaf: leaf / 10, params.output))
    nodes = trajectories()[:, 0]
    out = rollout(params, nodes, edge_types, num_steps=4)
    assert out.shape == (BATCH, 4, NODES, FEATURES)
    for step in range(4):
        nodes = markov_step(params, nodes, edge_types)
        np.testing.assert_allclose(out[:, step], nodes, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prediction_steps", [1, 4, 9])
def test_teacher_forcing_equals_a_loop(prediction_steps):
    decoder = MarkovDecoder(HIDDEN, TYPES, skip_first=True)
    states, edge_types = trajectories(), relaxed_types()
    variables = decoder.init(jax.random.key(0), states[:, 0], edge_types, num_steps=1)
    variables = perturbed(variables)

    def predict(starts):
        return decoder.apply(variables, starts, edge_types[:, None], num_steps=prediction_steps)

    out = teacher_forced(predict, states, prediction_steps=prediction_steps)
    assert out.shape == (BATCH, TIME - 1, NODES, FEATURES)
    for time in range(TIME - 1):
        if time % prediction_steps == 0:
            last = states[:, time]
        last = decoder.apply(variables, last, edge_types, num_steps=1)[:, 0]
        np.testing.assert_allclose(out[:, time], last, rtol=1e-4, atol=1e-4)


def test_teacher_forcing_needs_a_step():
    with pytest.raises(InputError, match="prediction_steps is 0: it must be at least 1"):
        teacher_forced(lambda starts: starts, trajectories(), prediction_steps=0)


def loop_encoder(params, states, statistics):
    """The encoder edge after edge; `statistics` None means those of this batch."""
    numbers = {"Dense": 0, "_PairDense": 0, "_AfterFirst": 0}

    def next_params(kind):
        name = f"{kind}_{numbers[kind]}"
        numbers[kind] += 1
        return name

    def elu(x):
        return np.where(x > 0, x, np.exp(x) - 1)

    def rest(rows):
        name = next_params("_AfterFirst")
        inner = params[name]["Dense_0"]
        hidden = elu(elu(rows) @ inner["kernel"] + inner["bias"])
        if statistics is None:
            mean, var = hidden.mean(axis=(0, 1)), hidden.var(axis=(0, 1))
        else:
            mean, var = (statistics[name]["BatchNorm_0"][key] for key in ("mean", "var"))
        norm = params[name]["BatchNorm_0"]
        return (hidden - mean) / np.sqrt(var + 1e-5) * norm["scale"] + norm["bias"]

    def dense(rows, layer):
        return rows @ layer["kernel"] + layer.get("bias", 0)

    def pairs_of(nodes):
        pairs = [np.concatenate([nodes[:, i], nodes[:, j]], axis=-1) for i, j in PAIRS]
        return np.stack(pairs, axis=1)

    nodes = rest(dense(states.transpose(0, 2, 1, 3).reshape(BATCH, NODES, -1), params["Dense_0"]))
    first = rest(dense(pairs_of(nodes), params["_PairDense_0"]))
    received = np.zeros((BATCH, NODES, HIDDEN))
    for number, (_, j) in enumerate(PAIRS):
        received[:, j] += first[:, number] / (NODES - 1)
    nodes = rest(dense(received, params["Dense_1"]))
    kernel = np.concatenate([params["_PairDense_1"]["kernel"], params["Dense_2"]["kernel"]])
    joined = np.concatenate([pairs_of(nodes), first], axis=-1)
    second = rest(joined @ kernel + params["_PairDense_1"]["bias"])
    return dense(second, params["Dense_3"])


@pytest.mark.parametrize("train", [False, True])
def test_encoder_equals_a_loop_over_edges(train):
    encoder, states = MLPEncoder(HIDDEN, TYPES), trajectories()
    variables = perturbed(encoder.init(jax.random.key(0), states, train=False))
    out = encoder.apply(variables, states, train=train, mutable=["batch_stats"] if train else False)
    logits = np.asarray(out[0] if train else out)
    host = jax.tree.map(np.asarray, variables)
    expected = loop_encoder(
        host["params"], np.asarray(states), None if train else host["batch_stats"]
    )
    assert logits.shape == (BATCH, NODES, NODES, TYPES)
    for number, (i, j) in enumerate(PAIRS):
        np.testing.assert_allclose(logits[:, i, j], expected[:, number], rtol=1e-3, atol=1e-3)


def test_model_commutes_with_a_permutation_of_the_objects():
    encoder, decoder = MLPEncoder(HIDDEN, TYPES), MarkovDecoder(HIDDEN, TYPES)
    states, order = trajectories(), np.array([2, 0, 3, 1])
    variables = perturbed(encoder.init(jax.random.key(0), states, train=False))

    def logits_of(states):
        logits, _ = encoder.apply(variables, states, train=True, mutable=["batch_stats"])
        return logits

    logits = logits_of(states)
    off = ~np.eye(NODES, dtype=bool)
    moved = np.asarray(logits_of(states[:, :, order]))
    np.testing.assert_allclose(
        moved[:, off], permuted_edges(np.asarray(logits), order)[:, off], rtol=1e-3, atol=1e-4
    )
    edge_types = jax.nn.softmax(logits)
    first = {"nodes": states[:, 0], "edge_types": edge_types, "num_steps": 2}
    params = perturbed(decoder.init(jax.random.key(1), **first))
    predictions = decoder.apply(params, **first)
    moved = {"nodes": states[:, 0, order], "edge_types": permuted_edges(edge_types, order)}
    other = decoder.apply(params, **moved, num_steps=2)
    np.testing.assert_allclose(other, predictions[:, :, order], rtol=1e-3, atol=1e-3)


def test_the_diagonal_does_not_count():
    encoder, decoder = MLPEncoder(HIDDEN, TYPES), MarkovDecoder(HIDDEN, TYPES)
    states, edge_types = trajectories(), relaxed_types()
    on = jnp.eye(NODES, dtype=bool)[None, :, :, None]
    changed = jnp.where(on, jnp.nan, edge_types)
    first = {"nodes": states[:, 0], "num_steps": 2}
    variables = decoder.init(jax.random.key(1), edge_types=edge_types, **first)
    out = decoder.apply(variables, edge_types=edge_types, **first)
    np.testing.assert_array_equal(decoder.apply(variables, edge_types=changed, **first), out)
    logits = encoder.init_with_output(jax.random.key(0), states, train=False)[0]
    changed = jnp.where(on, 100 * jnp.arange(3.0)[None, None, None], logits)
    targets = states[:, 1:]
    for one, other in zip(
        negative_elbo(targets, targets, logits, variance=0.1),
        negative_elbo(targets, targets, changed, variance=0.1),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_elbo_by_hand():
    predictions, targets = trajectories(), normal(5, BATCH, TIME, NODES, FEATURES)
    logits, prior = normal(6, BATCH, NODES, NODES, TYPES), [0.7, 0.2, 0.1]
    errors, divergences = negative_elbo(
        predictions, targets, logits, variance=0.3, log_prior=log_probabilities("prior", prior)
    )
    density = scipy.stats.norm(predictions, np.sqrt(0.3)).logpdf(targets)
    np.testing.assert_allclose(errors, -density.sum(axis=(1, 2, 3)), rtol=1e-4)
    expected, uniform = np.zeros(BATCH), np.zeros(BATCH)
    for number in range(BATCH):
        for i, j in PAIRS:
            q = np.exp(np.asarray(logits[number, i, j], np.float64))
            q /= q.sum()
            expected[number] += scipy.stats.entropy(q, prior)
            uniform[number] += scipy.stats.entropy(q, np.full(TYPES, 1 / TYPES))
    np.testing.assert_allclose(divergences, expected, rtol=1e-4)
    _, divergences = negative_elbo(predictions, targets, logits, variance=0.3)
    np.testing.assert_allclose(divergences, uniform, rtol=1e-4)


def test_edge_accuracy_by_hand():
    # three objects, and type 2 is called 0, 0 is called 1, 1 is called 2: one of six is wrong
    edges = jnp.array([[[9, 0, 2], [0, 9, 1], [2, 1, 9]]])
    found = jnp.array([[[0, 1, 0], [1, 0, 2], [0, 1, 0]]])
    confusion = edge_confusion(10 * jax.nn.one_hot(found, 3), edges)
    np.testing.assert_array_equal(confusion, [[0, 2, 0], [0, 1, 1], [2, 0, 0]])
    assert [int(number) for number in edge_accuracy(confusion)] == [5, 6]
    # over two batches there is one naming, not one for each
    swapped = jnp.array([[0, 3], [3, 0]])
    assert [int(number) for number in edge_accuracy(swapped)] == [6, 6]
    assert [int(number) for number in edge_accuracy(swapped + jnp.diag(jnp.array([3, 4])))] == [
        7,
        13,
    ]


def test_gradients_of_the_whole_are_finite_and_reach_everything():
    encoder, decoder = MLPEncoder(HIDDEN, 2), MarkovDecoder(HIDDEN, 2, skip_first=True)
    states, edge_types = trajectories(), relaxed_types()[..., :2]
    variables = encoder.init(jax.random.key(0), states, train=False)
    first = decoder.init(jax.random.key(1), states[:, 0], edge_types, num_steps=1)

    def loss(params):
        given = variables | {"params": params[0]}
        logits, _ = encoder.apply(given, states, train=True, mutable=["batch_stats"])
        edge_types = gumbel_softmax(jax.random.key(2), logits, 0.5)[:, None]
        predictions = teacher_forced(
            lambda starts: decoder.apply(params[1], starts, edge_types, num_steps=3),
            *(states,),
            prediction_steps=3,
        )
        errors, divergences = negative_elbo(predictions, states[:, 1:], logits, variance=5e-5)
        return jnp.mean(errors + divergences)

    gradients = jax.jit(jax.grad(loss))((variables["params"], first))
    for path, gradient in jax.tree.leaves_with_path(gradients):
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, path
