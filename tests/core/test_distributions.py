"""Samples, divergences and densities against SciPy, torch and frequencies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from jax.test_util import check_grads

from structdl.core.distributions import (
    categorical_kl,
    gaussian_log_prob,
    gumbel_softmax,
    laplace_log_prob,
    log_probabilities,
)
from structdl.errors import InputError

PROBABILITIES = np.array([0.6, 0.3, 0.1])


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 5.0])
@pytest.mark.parametrize("hard", [False, True])
def test_largest_entries_are_samples_of_the_categorical(temperature, hard):
    logits = jnp.broadcast_to(jnp.log(jnp.asarray(PROBABILITIES)) + 7, (20_000, 3))
    sample = np.asarray(gumbel_softmax(jax.random.key(0), logits, temperature, hard=hard))
    np.testing.assert_allclose(sample.sum(axis=-1), 1, rtol=1e-5)
    counts = np.bincount(sample.argmax(axis=-1), minlength=3)
    assert scipy.stats.chisquare(counts, 20_000 * PROBABILITIES).pvalue > 0.001
    if hard:
        assert set(np.unique(sample)) == {0, 1}
    else:  # the lower the temperature, the closer to one-hot
        low, high = {0.1: (0.9, 1), 0.5: (0.75, 0.9), 5.0: (0.34, 0.5)}[temperature]
        assert low < sample.max(axis=-1).mean() < high


def test_soft_sample_of_two_is_logistic():
    # the log-ratio of a sample of two categories is (difference of logits + logistic noise) / tau
    logits = jnp.broadcast_to(jnp.array([1.0, -0.5]), (5_000, 2))
    sample = np.asarray(gumbel_softmax(jax.random.key(1), logits, 2.0), np.float64)
    ratios = np.log(sample[:, 0] / sample[:, 1])
    assert scipy.stats.kstest(ratios, scipy.stats.logistic(1.5 / 2, 1 / 2).cdf).pvalue > 0.001


def test_hard_sample_has_the_gradient_of_the_soft_one():
    logits, weights = normal(0, 4, 3), normal(1, 4, 3)

    def gradient(hard):
        def total(logits):
            return jnp.sum(weights * gumbel_softmax(jax.random.key(2), logits, 0.7, hard=hard))

        return jax.grad(total)(logits)

    np.testing.assert_array_equal(gradient(True), gradient(False))
    # the gradient of a softmax, by hand
    soft = np.asarray(gumbel_softmax(jax.random.key(2), logits, 0.7))
    inner = (weights * soft).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(gradient(True), soft * (weights - inner) / 0.7, rtol=1e-4, atol=1e-6)


def test_kl_equals_scipy():
    logits = 3 * normal(3, 2, 4, 3)
    q = scipy.special.softmax(np.asarray(logits, np.float64), axis=-1)
    uniform = scipy.stats.entropy(q, np.full(3, 1 / 3), axis=-1)
    np.testing.assert_allclose(categorical_kl(logits), uniform, rtol=1e-4, atol=1e-6)
    prior = log_probabilities("--prior", PROBABILITIES)
    given = scipy.stats.entropy(q, np.broadcast_to(PROBABILITIES, q.shape), axis=-1)
    np.testing.assert_allclose(categorical_kl(logits, prior), given, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(categorical_kl(prior, prior), 0, atol=1e-7)


def test_kl_of_a_certain_distribution_is_finite():
    logits = jnp.array([0.0, 500.0])
    value, gradient = jax.value_and_grad(categorical_kl)(logits)
    assert float(value) == pytest.approx(np.log(2))
    assert np.isfinite(gradient).all()


@pytest.mark.peers
def test_kl_and_its_gradient_equal_torch():
    torch = pytest.importorskip("torch")
    logits = normal(4, 5, 3)
    theirs = torch.tensor(np.array(logits), requires_grad=True)
    prior = torch.distributions.Categorical(torch.tensor(PROBABILITIES, dtype=torch.float32))
    q = torch.distributions.Categorical(logits=theirs)
    value = torch.distributions.kl_divergence(q, prior)
    value.sum().backward()
    log_prior = log_probabilities("--prior", PROBABILITIES)
    mine = categorical_kl(logits, log_prior)
    gradient = jax.grad(lambda logits: jnp.sum(categorical_kl(logits, log_prior)))(logits)
    np.testing.assert_allclose(mine, value.detach().numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("log_prob", "density"),
    [(gaussian_log_prob, scipy.stats.norm), (laplace_log_prob, scipy.stats.laplace)],
)
def test_log_densities_equal_scipys(log_prob, density):
    values, means = normal(5, 3, 4), normal(6, 3, 4)
    for variance in (5e-5, 0.7):
        expected = density(means, np.sqrt(variance / density.var())).logpdf(values)
        np.testing.assert_allclose(log_prob(values, means, variance), expected, rtol=1e-4)
    with jax.enable_x64(True):
        arguments = [jnp.asarray(array, jnp.float64) for array in (values, means, 0.7)]
        check_grads(jax.jit(log_prob), arguments, order=1, modes="rev")


@pytest.mark.parametrize("given", [[], [0.5, 0.5, 0.0], [1.5, -0.5], [np.nan, 1.0], [[0.5, 0.5]]])
def test_what_is_no_distribution(given):
    with pytest.raises(InputError, match=r"--prior is .* it must be a list of probabilities above"):
        log_probabilities("--prior", given)


def test_probabilities_that_do_not_sum_to_one():
    with pytest.raises(InputError, match=r"--prior is \[0.91, 0.03\], with the sum 0.94"):
        log_probabilities("--prior", [0.91, 0.03])
