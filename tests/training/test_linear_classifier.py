"""The linear classifier against scikit-learn, and what it must not look at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structdl.training.linear_classifier import fit_linear_classifier


def examples(num_examples=60):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, num_examples)
    features = rng.normal(size=(num_examples, 5)) + 0.8 * np.eye(3, 5)[labels]
    return features.astype(np.float32), labels.astype(np.int32), np.arange(num_examples) < 40


@pytest.mark.peers
def test_equals_logistic_regression():
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels, mask = examples()
    found = fit_linear_classifier(*map(jnp.asarray, (features, labels, mask)), 3, l2=0.05)
    # there the penalty is set against the sum of the losses
    oracle = linear_model.LogisticRegression(C=1 / (0.05 * 40), tol=1e-8)
    oracle.fit(features[mask], labels[mask])
    np.testing.assert_allclose(found.kernel, oracle.coef_.T, atol=1e-3)
    bias = np.asarray(found.bias) - np.mean(found.bias)
    np.testing.assert_allclose(bias, oracle.intercept_ - oracle.intercept_.mean(), atol=1e-3)


def test_the_gradient_vanishes_at_what_is_found():
    features, labels, mask = examples()
    found = fit_linear_classifier(
        *map(jnp.asarray, (features, labels, mask)), 3, l2=0.01, num_steps=1500
    )
    chances = np.asarray(jax.nn.softmax(found.logits(jnp.asarray(features))))[mask]
    errors = (chances - np.eye(3)[labels[mask]]) / mask.sum()
    np.testing.assert_allclose(features[mask].T @ errors + 0.01 * found.kernel, 0, atol=1e-4)
    np.testing.assert_allclose(errors.sum(axis=0), 0, atol=1e-4)


def test_only_the_mask_is_learned_from():
    features, labels, mask = examples()
    one = fit_linear_classifier(*map(jnp.asarray, (features, labels, mask)), 3)
    labels = np.where(mask, labels, -1)
    features = np.where(mask[:, None], features, 100)
    other = fit_linear_classifier(*map(jnp.asarray, (features, labels, mask)), 3)
    np.testing.assert_allclose(one.kernel, other.kernel, atol=1e-6)
    none = fit_linear_classifier(jnp.asarray(features), jnp.asarray(labels), jnp.zeros(60, bool), 3)
    np.testing.assert_array_equal(none.kernel, 0)
