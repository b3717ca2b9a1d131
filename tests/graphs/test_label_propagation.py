"""Label propagation against its closed forms, and against scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from structdl.core.segment import edge_layout
from structdl.graphs.label_propagation import (
    normalize_class_mass,
    propagate_labels,
    spread_labels,
)

propagate = jax.jit(propagate_labels, static_argnames="num_iterations")
spread = jax.jit(spread_labels, static_argnames="num_iterations")
NUM_NODES = 8
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def example(seed=0):
    """A connected weighted graph, its dense W, and labels of which most are hidden."""
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.uniform(0.5, 2.0, (NUM_NODES, NUM_NODES)), 1)
    path = np.eye(NUM_NODES, k=3, dtype=bool) | np.eye(NUM_NODES, k=4, dtype=bool)
    upper *= (rng.uniform(size=upper.shape) < 0.2) | path
    dense = upper + upper.T
    receivers, senders = np.nonzero(dense)
    layout = edge_layout(senders, receivers, NUM_NODES)
    weights = jnp.asarray(dense[receivers, senders], jnp.float32)
    labels = np.eye(3, dtype=np.float32)[rng.integers(0, 3, NUM_NODES)]
    labels[:3] = np.eye(3)
    is_labelled = np.arange(NUM_NODES) < 4
    return layout, weights, dense, labels, is_labelled


@pytest.mark.parametrize("seed", range(2))
def test_many_iterations_reach_the_harmonic_function(seed):
    layout, weights, dense, labels, is_labelled = example(seed)
    hidden = np.where(is_labelled[:, None], labels, np.nan)  # what is hidden is not read
    scores = propagate(
        jnp.asarray(hidden), jnp.asarray(is_labelled), layout, weights, num_iterations=500
    )
    transitions = dense / dense.sum(axis=1, keepdims=True)
    inner = transitions[4:, 4:]
    expected = np.linalg.solve(np.eye(4) - inner, transitions[4:, :4] @ labels[:4])
    np.testing.assert_allclose(scores[4:], expected, **CLOSE)
    np.testing.assert_array_equal(scores[:4], labels[:4])


def test_each_iteration_averages_and_clamps_once():
    layout, weights, dense, labels, is_labelled = example()
    expected = np.where(is_labelled[:, None], labels, 0)
    for _ in range(3):
        expected = dense @ expected / dense.sum(axis=1, keepdims=True)
        expected[is_labelled] = labels[is_labelled]
    scores = propagate(
        jnp.asarray(labels), jnp.asarray(is_labelled), layout, weights, num_iterations=3
    )
    np.testing.assert_allclose(scores, expected, **CLOSE)


def test_many_iterations_reach_the_closed_form_of_spreading():
    layout, weights, dense, labels, is_labelled = example()
    scores = spread(
        jnp.asarray(labels), jnp.asarray(is_labelled), layout, weights, alpha=0.9,
        num_iterations=300,
    )  # fmt: skip
    roots = np.sqrt(dense.sum(axis=1))
    normalized = dense / roots[:, None] / roots[None]
    known = np.where(is_labelled[:, None], labels, 0)
    expected = 0.1 * np.linalg.solve(np.eye(NUM_NODES) - 0.9 * normalized, known)
    np.testing.assert_allclose(scores, expected, **CLOSE)


def test_class_mass_is_that_of_the_priors():
    layout, weights, _, labels, is_labelled = example()
    mask, priors = jnp.asarray(is_labelled), jnp.array([0.5, 0.3, 0.2])
    scores = propagate(jnp.asarray(labels), mask, layout, weights, num_iterations=50)
    scaled = normalize_class_mass(scores, mask, priors)
    np.testing.assert_allclose(scaled[~is_labelled].sum(axis=0), priors, rtol=1e-5)
    ratios = np.asarray(scaled / scores)[4:]
    np.testing.assert_allclose(ratios, np.tile(ratios[:1], (4, 1)), rtol=1e-5)
    absent = normalize_class_mass(scores.at[4:, 1].set(0), mask, priors)
    np.testing.assert_array_equal(absent[:, 1], 0)


def test_nodes_out_of_reach_are_zero_with_finite_gradients():
    layout = edge_layout([0, 1, 3, 4], [1, 0, 4, 3], 6)
    labels, mask = jnp.eye(6)[:, :2], jnp.arange(6) == 0
    expected = np.zeros((6, 2))
    expected[:2, 0] = 1
    np.testing.assert_allclose(propagate(labels, mask, layout, num_iterations=5), expected)
    np.testing.assert_array_equal(spread(labels, mask, layout, num_iterations=5)[2:], 0)
    for function in (propagate, spread):
        gradient = jax.grad(
            lambda weights, function=function: jnp.sum(
                function(labels, mask, layout, weights, num_iterations=5) ** 2
            )
        )
        for weights in (jnp.ones(4), jnp.array([1.0, 1.0, 0.0, 0.0])):
            assert np.isfinite(gradient(weights)).all()
    nothing = edge_layout([], [], 3)
    scores = propagate(jnp.eye(3), jnp.array([True, False, False]), nothing, num_iterations=2)
    np.testing.assert_array_equal(scores, np.diag([1.0, 0, 0]))


def test_gradients_in_float64():
    with jax.enable_x64(True):
        layout, weights, _, labels, is_labelled = example()
        labels, mask = jnp.asarray(labels, jnp.float64), jnp.asarray(is_labelled)

        def output(weights):
            return propagate(labels, mask, layout, weights, num_iterations=4)

        check_grads(output, (jnp.asarray(weights, jnp.float64),), order=1, modes="rev")


def test_propagation_commutes_with_a_permutation_of_the_nodes():
    layout, weights, dense, labels, is_labelled = example()
    order = np.random.default_rng(0).permutation(NUM_NODES)
    permuted = dense[np.ix_(order, order)]
    receivers, senders = np.nonzero(permuted)
    other = edge_layout(senders, receivers, NUM_NODES)
    for function in (propagate, spread):
        expected = function(
            jnp.asarray(labels), jnp.asarray(is_labelled), layout, weights, num_iterations=4
        )
        actual = function(
            jnp.asarray(labels[order]),
            jnp.asarray(is_labelled[order]),
            other,
            jnp.asarray(permuted[receivers, senders], jnp.float32),
            num_iterations=4,
        )
        np.testing.assert_allclose(actual, expected[order], **CLOSE)


@pytest.mark.peers
@pytest.mark.parametrize("kind", ["LabelPropagation", "LabelSpreading"])
def test_scores_equal_scikit_learn(kind):
    peers = pytest.importorskip("sklearn.semi_supervised")
    layout, weights, dense, labels, is_labelled = example()
    classes = np.where(is_labelled, labels.argmax(axis=1), -1)
    options = {"kernel": lambda x, y: dense, "max_iter": 5000, "tol": 1e-12}
    arrays = jnp.asarray(labels), jnp.asarray(is_labelled), layout, weights
    if kind == "LabelPropagation":
        scores = propagate(*arrays, num_iterations=500)
    else:
        options["alpha"] = 0.8
        scores = spread(*arrays, alpha=0.8, num_iterations=500)
    peer = getattr(peers, kind)(**options).fit(np.zeros((NUM_NODES, 1)), classes)
    scores = np.asarray(scores) / np.sum(scores, axis=1, keepdims=True)  # the peer's last step
    np.testing.assert_allclose(scores, peer.label_distributions_, **CLOSE)
