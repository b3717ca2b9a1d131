"""A mixture of Gaussians with diagonal covariances, as the outputs of a network say it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# the least log standard deviation that is approached; samples are standardized
LOG_SCALE_FLOOR = -7.0


class Mixture(NamedTuple):
    """The parameters of a mixture for each of any number of places."""

    log_weights: jax.Array  # [..., components], normalized
    means: jax.Array  # [..., components, features]
    log_scales: jax.Array  # [..., components, features], above LOG_SCALE_FLOOR


def num_outputs(components: int, features: int) -> int:
    """How many numbers say a mixture."""
    return components * (1 + 2 * features)


def mixture_of(outputs: Float[Array, "*any outputs"], components: int, features: int) -> Mixture:
    """Reads a network's outputs: weights, means, log standard deviations.

    weight = softmax(a);  log scale = floor + softplus(b - floor), which is b well above the floor.
    """
    logits, means, raw = jnp.split(outputs, [components, components * (1 + features)], axis=-1)
    shape = (*outputs.shape[:-1], components, features)
    log_scales = LOG_SCALE_FLOOR + jax.nn.softplus(raw.reshape(shape) - LOG_SCALE_FLOOR)
    return Mixture(jax.nn.log_softmax(logits), means.reshape(shape), log_scales)


def log_density(mixture: Mixture, x: Float[Array, "*any features"]) -> Float[Array, "*any"]:
    """log sum_k weight_k prod_d N(x_d; mean_kd, scale_kd), in nats."""
    z = (x[..., None, :] - mixture.means) * jnp.exp(-mixture.log_scales)
    of_features = -0.5 * z**2 - mixture.log_scales - 0.5 * jnp.log(2 * jnp.pi)
    return jax.nn.logsumexp(mixture.log_weights + jnp.sum(of_features, axis=-1), axis=-1)


def moments(
    mixture: Mixture,
) -> tuple[Float[Array, "*any features"], Float[Array, "*any features"]]:
    """Mean and standard deviation of each feature."""
    weights = jnp.exp(mixture.log_weights)[..., None]
    mean = jnp.sum(weights * mixture.means, axis=-2)
    spread = jnp.exp(2 * mixture.log_scales) + (mixture.means - mean[..., None, :]) ** 2
    return mean, jnp.sqrt(jnp.sum(weights * spread, axis=-2))
