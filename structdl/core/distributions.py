"""Log-probabilities, divergences and samples of the distributions that latent variables have."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from structdl.errors import InputError


def gumbel_softmax(
    key: Key[Array, ""],
    logits: Float[Array, "*shape categories"],
    temperature: Float[Array, ""] | float,
    *,
    hard: bool = False,
) -> Float[Array, "*shape categories"]:
    """A sample of a categorical distribution that has a gradient: softmax((logits + g) / tau).

    g is standard Gumbel noise, so that the largest entry is a sample of softmax(logits) at every
    temperature tau; the smaller tau, the closer to one-hot.

    Args:
      key: a typed key.
      logits: unnormalised log-probabilities, along the last axis.
      temperature: tau, above 0.
      hard: gives the one-hot vector of the largest entry, with the gradient of the soft sample: the
        straight-through estimator.

    Reference: Jang, Gu, Poole (2017), "Categorical reparameterization with Gumbel-softmax",
    arXiv:1611.01144, eq. 2 and section 2.2; Maddison, Mnih, Teh (2017), "The concrete
    distribution", arXiv:1611.00712.
    """
    noise = jax.random.gumbel(key, logits.shape, logits.dtype)
    soft = jax.nn.softmax((logits + noise) / temperature)
    if not hard:
        return soft
    one_hot = jax.nn.one_hot(jnp.argmax(soft, axis=-1), soft.shape[-1], dtype=soft.dtype)
    # in this order the value is one-hot to the last bit
    return one_hot + (soft - jax.lax.stop_gradient(soft))


def categorical_kl(
    logits: Float[Array, "*shape categories"],
    log_prior: Float[Array, " categories"] | None = None,
) -> Float[Array, "*shape"]:
    """The divergence of categorical distributions from a prior: sum of q (log q - log p).

    Args:
      logits: of q, unnormalised.
      log_prior: log p, see `log_probabilities`; None means the uniform distribution.

    >>> bool(categorical_kl(jnp.array([5.0, 5.0])) == 0)
    True
    """
    log_q = jax.nn.log_softmax(logits)
    if log_prior is None:
        log_prior = jnp.full(logits.shape[-1:], -np.log(logits.shape[-1]), logits.dtype)
    shared = log_prior.reshape((1,) * (logits.ndim - 1) + log_prior.shape)
    return jnp.sum(jnp.exp(log_q) * (log_q - shared), axis=-1)


def log_probabilities(name: str, probabilities) -> Float[Array, " categories"]:
    """The logarithms of the probabilities that a user gave, as `name`, for a prior.

    Raises:
      InputError: one of them is not above 0, or their sum is not 1.

    >>> log_probabilities("--prior", [0.5, 0.6])
    Traceback (most recent call last):
    structdl.errors.InputError: --prior is [0.5, 0.6], with the sum 1.1: probabilities sum to 1
    """
    given = np.asarray(probabilities, np.float64)
    if given.ndim != 1 or not given.size or not (given > 0).all():
        raise InputError(
            f"{name} is {given.tolist()}: it must be a list of probabilities above 0, since what "
            "has the prior 0 can never be inferred"
        )
    if not abs(given.sum() - 1) < 1e-4:
        raise InputError(
            f"{name} is {given.tolist()}, with the sum {given.sum():g}: probabilities sum to 1"
        )
    return jnp.log(jnp.asarray(given / given.sum()))


def gaussian_log_prob(
    values: Float[Array, "*shape"],
    means: Float[Array, "*shape"],
    variance: Float[Array, ""] | float,
) -> Float[Array, "*shape"]:
    """The log-density of normal distributions: -(x - mu)^2 / (2 s^2) - log(2 pi s^2) / 2.

    Args:
      values: x.
      means: mu, of the shape of the values.
      variance: s^2, one for all.

    >>> float(gaussian_log_prob(jnp.array(1.0), jnp.array(1.0), 1 / (2 * np.pi)))
    -0.0
    """
    return -((values - means) ** 2) / (2 * variance) - jnp.log(2 * np.pi * variance) / 2


def laplace_log_prob(
    values: Float[Array, "*shape"],
    means: Float[Array, "*shape"],
    variance: Float[Array, ""] | float,
) -> Float[Array, "*shape"]:
    """The log-density of Laplace distributions: -|x - mu| / b - log(2 b), with s^2 = 2 b^2.

    Arguments are those of `gaussian_log_prob`. Values far out count less than there.

    >>> float(laplace_log_prob(jnp.array(1.0), jnp.array(1.0), 1 / 2))
    -0.0
    """
    scale = jnp.sqrt(variance / 2)
    return -jnp.abs(values - means) / scale - jnp.log(2 * scale)
