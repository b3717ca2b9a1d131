"""The encoders of neural relational inference against loops, and under permutations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structdl.core.distributions import gumbel_softmax
from structdl.errors import InputError
from structdl.graphs.nri import negative_elbo
from structdl.graphs.nri_decoders import MarkovDecoder, RecurrentDecoder
from structdl.graphs.nri_encoders import CNNEncoder, MLPEncoder

BATCH, TIME, NODES, FEATURES, HIDDEN, TYPES = 2, 13, 4, 3, 5, 3
PAIRS = [(i, j) for i in range(NODES) for j in range(NODES) if i != j]


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


def cnn(num_types=TYPES):
    return CNNEncoder(HIDDEN, num_types, kernel_size=4)


class Loop:
    """An encoder edge after edge, with the parameters of the module."""

    def __init__(self, variables, train):
        host = jax.tree.map(np.asarray, variables)
        self.params, self.statistics, self.train = host["params"], host["batch_stats"], train

    def norm(self, rows, *path):
        params, statistics = self.params, self.statistics
        for name in path:
            params, statistics = params[name], statistics[name]
        mean, var = statistics["mean"], statistics["var"]
        if self.train:
            over = tuple(range(rows.ndim - 1))
            mean, var = rows.mean(axis=over), rows.var(axis=over)
        return (rows - mean) / np.sqrt(var + 1e-5) * params["scale"] + params["bias"]

    def after_first(self, rows, *path):
        params = self.params
        for name in path:
            params = params[name]
        hidden = elu(dense(elu(rows), params["Dense_0"]))
        return self.norm(hidden, *path, "BatchNorm_0")

    def second_round(self, first):
        params, name = self.params["_SecondRound_0"], "_SecondRound_0"
        received = np.zeros((BATCH, NODES, HIDDEN))
        for number, (_, j) in enumerate(PAIRS):
            received[:, j] += first[:, number] / (NODES - 1)
        nodes = self.after_first(dense(received, params["Dense_0"]), name, "_AfterFirst_0")
        kernel = np.concatenate([params["_PairDense_0"]["kernel"], params["Dense_1"]["kernel"]])
        joined = np.concatenate([pairs_of(nodes), first], axis=-1)
        rows = joined @ kernel + params["_PairDense_0"]["bias"]
        return dense(self.after_first(rows, name, "_AfterFirst_1"), params["Dense_2"])


def elu(x):
    return np.where(x > 0, x, np.exp(x) - 1)


def dense(rows, layer):
    return rows @ layer["kernel"] + layer.get("bias", 0)


def pairs_of(nodes):
    return np.stack([np.concatenate([nodes[:, i], nodes[:, j]], axis=-1) for i, j in PAIRS], axis=1)


def loop_mlp(loop, states):
    paths = states.transpose(0, 2, 1, 3).reshape(BATCH, NODES, -1)
    nodes = loop.after_first(dense(paths, loop.params["Dense_0"]), "_AfterFirst_0")
    return loop.second_round(
        loop.after_first(dense(pairs_of(nodes), loop.params["_PairDense_0"]), "_AfterFirst_1")
    )


def convolve(rows, layer):
    """[batch, time, features] to [batch, time - size + 1, features]."""
    size = len(layer["kernel"])
    columns = [
        np.einsum("...tf,tfo->...o", rows[..., start : start + size, :], layer["kernel"])
        for start in range(rows.shape[-2] - size + 1)
    ]
    return np.stack(columns, axis=-2) + layer["bias"]


def loop_cnn(loop, states):
    params = loop.params
    senders, receivers = np.split(params["Conv_0"]["kernel"], 2, axis=-1)
    kernel = np.concatenate([senders, receivers], axis=1)  # of a pair's features
    bias = sum(np.split(params["Conv_0"]["bias"], 2))
    pairs = pairs_of(states.transpose(0, 2, 1, 3))  # [batch, pairs, time, 2 * features]
    hidden = loop.norm(
        np.maximum(convolve(pairs, {"kernel": kernel, "bias": bias}), 0), "BatchNorm_0"
    )
    frames = hidden.shape[2] // 2
    pooled = hidden[:, :, : 2 * frames].reshape(*hidden.shape[:2], frames, 2, -1).max(axis=3)
    hidden = loop.norm(np.maximum(convolve(pooled, params["Conv_1"]), 0), "BatchNorm_1")
    attention = np.exp(dense(hidden, params["Dense_0"]))
    attention /= attention.sum(axis=2, keepdims=True)
    return loop.second_round(np.sum(attention * dense(hidden, params["Dense_1"]), axis=2))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    ("encoder", "expect"), [(MLPEncoder(HIDDEN, TYPES), loop_mlp), (cnn(), loop_cnn)]
)
def test_encoder_equals_a_loop_over_edges(encoder, expect, train):
    states = trajectories(TIME)
    variables = perturbed(encoder.init(jax.random.key(0), states, train=False))
    out = encoder.apply(variables, states, train=train, mutable=["batch_stats"] if train else False)
    logits = np.asarray(out[0] if train else out)
    expected = expect(Loop(variables, train), np.asarray(states))
    assert logits.shape == (BATCH, NODES, NODES, TYPES)
    for number, (i, j) in enumerate(PAIRS):
        np.testing.assert_allclose(logits[:, i, j], expected[:, number], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("encoder", [MLPEncoder(HIDDEN, TYPES), cnn()])
def test_logits_commute_with_a_permutation_of_the_objects(encoder):
    states, order = trajectories(TIME), np.array([2, 0, 3, 1])
    variables = perturbed(encoder.init(jax.random.key(0), states, train=False))

    def logits_of(states):
        return encoder.apply(variables, states, train=True, mutable=["batch_stats"])[0]

    off = ~np.eye(NODES, dtype=bool)
    expected = permuted_edges(np.asarray(logits_of(states)), order)[:, off]
    moved = np.asarray(logits_of(states[:, :, order]))[:, off]
    np.testing.assert_allclose(moved, expected, rtol=1e-3, atol=1e-3)


def test_too_few_frames_for_the_convolutions():
    states = trajectories(10)
    with pytest.raises(InputError, match="trajectories of 10 frames: two convolutions"):
        cnn().init(jax.random.key(0), states, train=False)
    cnn().init(jax.random.key(0), trajectories(11), train=False)


@pytest.mark.parametrize("encoder", [MLPEncoder(HIDDEN, 2), cnn(2)])
@pytest.mark.parametrize("decoder_class", [MarkovDecoder, RecurrentDecoder])
def test_gradients_of_the_whole_are_finite_and_reach_everything(encoder, decoder_class):
    decoder, states = decoder_class(HIDDEN, 2, skip_first=True), trajectories(TIME)
    variables = encoder.init(jax.random.key(0), states, train=False)
    edge_types = relaxed_types()[..., :2]
    first = decoder.init(jax.random.key(1), states, edge_types, prediction_steps=1)

    def loss(params):
        given = variables | {"params": params[0]}
        logits, _ = encoder.apply(given, states, train=True, mutable=["batch_stats"])
        edge_types = gumbel_softmax(jax.random.key(2), logits, 0.5)
        predictions = decoder.apply(params[1], states, edge_types, prediction_steps=3)
        errors, divergences = negative_elbo(predictions, states[:, 1:], logits, variance=5e-5)
        return jnp.mean(errors + divergences)

    gradients = jax.jit(jax.grad(loss))((variables["params"], first))
    for path, gradient in jax.tree.leaves_with_path(gradients):
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, path
