"""What neural relational inference is made of, against loops over edges and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from structdl.core.distributions import laplace_log_prob, log_probabilities
from structdl.errors import InputError
from structdl.graphs.nri import (
    drawn_stretches,
    edge_accuracy,
    edge_confusion,
    edge_to_node,
    negative_elbo,
    node_to_edge,
    require_trajectories,
    teacher_forced,
)

BATCH, TIME, NODES, FEATURES, HIDDEN, TYPES = 2, 6, 4, 3, 5, 3
PAIRS = [(i, j) for i in range(NODES) for j in range(NODES) if i != j]


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def trajectories(time=TIME):
    return normal(0, BATCH, time, NODES, FEATURES)


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


@pytest.mark.parametrize("prediction_steps", [1, 4, 9])
def test_teacher_forcing_equals_a_loop(prediction_steps):
    states = trajectories()

    def predict(starts):  # [batch, stretches, M, nodes, features]
        factors = 2.0 ** jnp.arange(1, prediction_steps + 1)
        return starts[:, :, None] * factors[None, None, :, None, None]

    out = teacher_forced(predict, states, prediction_steps=prediction_steps)
    assert out.shape == (BATCH, TIME - 1, NODES, FEATURES)
    for time in range(TIME - 1):
        if time % prediction_steps == 0:
            last = states[:, time]
        last = 2 * last
        np.testing.assert_allclose(out[:, time], last, rtol=1e-5)


def test_values_that_are_not_finite_and_jumps_are_named():
    states = np.arange(2.0 * 5 * 3 * 2).reshape(2, 5, 3, 2) / 100
    require_trajectories(states, largest_change=0.07)
    jumping, missing = states.copy(), states.copy()
    jumping[1, 3:, 2, 1] += 1
    require_trajectories(jumping)
    with pytest.raises(InputError, match=r"1, object 2, feature 1 jumps from .* in frame 2 to"):
        require_trajectories(jumping, largest_change=0.07)
    for value in (np.nan, np.inf):
        missing[1, 0, 2, 0] = value
        with pytest.raises(InputError, match=f"1, object 2, feature 0 is {value} in frame 0"):
            require_trajectories(missing)


def test_teacher_forcing_needs_a_step():
    with pytest.raises(InputError, match="prediction_steps is 0: it must be at least 1"):
        teacher_forced(lambda starts: starts, trajectories(), prediction_steps=0)


@pytest.mark.parametrize(("num", "length"), [(1, 9), (2, 3), (3, 3), (4, 1), (9, 1)])
def test_drawn_stretches_are_cut_out_of_the_trajectories(num, length):
    states = trajectories(10)
    sizes, firsts = {"num_stretches": num, "prediction_steps": length}, set()
    for seed in range(20):
        given, targets = drawn_stretches(jax.random.key(seed), states, **sizes)
        assert given.shape[1] == num * length + 1
        (first,) = (t for t in range(9) if np.array_equal(given[:, 0], states[:, t]))
        firsts.add(first)
        for number in range(num):
            frame = first + number * (9 // num)
            stretch = slice(number * length, (number + 1) * length)
            np.testing.assert_array_equal(given[:, stretch], states[:, frame : frame + length])
            after = states[:, frame + 1 : frame + length + 1]
            np.testing.assert_array_equal(targets[:, stretch], after)
    assert firsts == set(range(9 - (num - 1) * (9 // num) - length + 1))


@pytest.mark.parametrize(
    ("sizes", "words"), [((4, 3), "give at most 3"), ((0, 3), "num_stretches"), ((1, 0), "steps")]
)
def test_stretches_that_do_not_fit_are_refused(sizes, words):
    num, length = sizes
    with pytest.raises(InputError, match=words):
        drawn_stretches(
            jax.random.key(0), trajectories(10), num_stretches=num, prediction_steps=length
        )


def test_the_diagonal_does_not_count_in_the_divergence():
    on = jnp.eye(NODES, dtype=bool)[None, :, :, None]
    logits = normal(6, BATCH, NODES, NODES, TYPES)
    changed = jnp.where(on, 100 * jnp.arange(3.0)[None, None, None], logits)
    targets = trajectories()
    for one, other in zip(
        negative_elbo(targets, targets, logits, variance=0.1),
        negative_elbo(targets, targets, changed, variance=0.1),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("options", "distribution"),
    [({}, scipy.stats.norm), ({"log_prob": laplace_log_prob}, scipy.stats.laplace)],
)
def test_elbo_by_hand(options, distribution):
    predictions, targets = trajectories(), normal(5, BATCH, TIME, NODES, FEATURES)
    logits, prior = normal(6, BATCH, NODES, NODES, TYPES), [0.7, 0.2, 0.1]
    errors, divergences = negative_elbo(
        predictions,
        targets,
        logits,
        variance=0.3,
        log_prior=log_probabilities("prior", prior),
        **options,
    )
    density = distribution(predictions, np.sqrt(0.3 / distribution.var())).logpdf(targets)
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
