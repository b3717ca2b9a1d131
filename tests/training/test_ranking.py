"""ROC-AUC and average precision: by hand, against scikit-learn, with ties, masks and one class."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

from structdl.training.ranking import average_precision, roc_auc

SCORES = jnp.array([0.9, 0.8, 0.8, 0.3, 0.1])
LABELS = jnp.array([1, 0, 1, 1, 0])


def test_by_hand():
    # pairs: 0.9 wins both, 0.8 ties one and wins one, 0.3 loses one and wins one
    np.testing.assert_allclose(roc_auc(SCORES, LABELS), (2 + 1.5 + 1) / 6, rtol=1e-6)
    # precision at 0.9 is 1 of 1, at 0.8 2 of 3, at 0.3 3 of 4
    np.testing.assert_allclose(
        average_precision(SCORES, LABELS), (1 + 2 / 3 + 3 / 4) / 3, rtol=1e-6
    )


@pytest.mark.peers
@given(st.integers(0, 10**6), st.sampled_from([1, 2, 40]))
def test_equal_to_scikit_learn_with_ties_and_a_mask(seed, levels):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    scores = (rng.integers(0, levels + 1, 30) / 7 - 1).astype(np.float32)
    labels, mask = rng.integers(0, 2, 30), rng.random(30) < 0.7
    labels[:2], mask[:2] = [0, 1], True
    arrays = jnp.asarray(scores), jnp.asarray(labels), jnp.asarray(mask)
    expected = metrics.roc_auc_score(labels[mask], scores[mask])
    np.testing.assert_allclose(jax.jit(roc_auc)(*arrays), expected, rtol=1e-5)
    expected = metrics.average_precision_score(labels[mask], scores[mask])
    np.testing.assert_allclose(jax.jit(average_precision)(*arrays), expected, rtol=1e-5)


@pytest.mark.parametrize("metric", [roc_auc, average_precision])
def test_what_is_masked_never_counts(metric):
    scores = jnp.array([0.9, 0.8, 0.8, 0.3, 0.1, jnp.nan, jnp.inf, -jnp.inf])
    labels = jnp.array([1, 0, 1, 1, 0, 1, 0, 1])
    mask = jnp.arange(8) < 5
    np.testing.assert_array_equal(metric(scores, labels, mask), metric(SCORES, LABELS))
    assert np.isnan(metric(scores, labels))


@pytest.mark.parametrize("metric", [roc_auc, average_precision])
def test_infinite_scores_are_ranked_as_large_ones(metric):
    labels, mask = jnp.array([1, 0, 1, 0, 0, 1, 0]), jnp.arange(7) < 6
    infinite = jnp.array([jnp.inf, jnp.inf, 0.0, 1.0, -jnp.inf, -jnp.inf, 5.0])
    finite = jnp.array([9.0, 9.0, 0.0, 1.0, -9.0, -9.0, 5.0])
    np.testing.assert_array_equal(metric(infinite, labels, mask), metric(finite, labels, mask))


def test_one_class_or_none_has_a_defined_value():
    ones, zeros, nothing = jnp.ones(5, int), jnp.zeros(5, int), jnp.zeros(5, bool)
    for labels, mask in [(ones, None), (zeros, None), (LABELS, nothing), (LABELS, LABELS == 0)]:
        assert roc_auc(SCORES, labels, mask) == 0.5
    assert average_precision(SCORES, zeros) == 0
    assert average_precision(SCORES, LABELS, nothing) == 0
    assert average_precision(SCORES, ones) == 1
    empty = jnp.zeros(0), jnp.zeros(0, int)
    assert (roc_auc(*empty), average_precision(*empty)) == (0.5, 0)


def test_vmapped_over_tasks_each_with_its_mask():
    rng = np.random.default_rng(0)
    scores = jnp.asarray(rng.normal(size=(20, 3)).astype(np.float32))
    labels, mask = jnp.asarray(rng.integers(0, 2, (20, 3))), jnp.asarray(rng.random((20, 3)) < 0.8)
    together = jax.vmap(roc_auc, in_axes=1)(scores, labels, mask)
    each = [roc_auc(scores[:, task], labels[:, task], mask[:, task]) for task in range(3)]
    np.testing.assert_array_equal(together, jnp.stack(each))
