"""A linear classifier on given features: how good an embedding is that never saw a label."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int


class LinearClassifier(NamedTuple):
    """The logits are features @ kernel + bias."""

    kernel: jax.Array  # [features, num_classes]
    bias: jax.Array  # [num_classes]

    def logits(
        self, features: Float[Array, "num_examples features"]
    ) -> Float[Array, "num_examples num_classes"]:
        """A row of logits an example."""
        return features @ self.kernel + self.bias[None]


def fit_linear_classifier(
    features: Float[Array, "num_examples features"],
    labels: Int[Array, " num_examples"],
    mask: Bool[Array, " num_examples"],
    num_classes: int,
    *,
    l2: float | Float[Array, ""] = 1e-3,
    num_steps: int = 500,
) -> LinearClassifier:
    """Logistic regression on the examples of a mask, by accelerated gradient descent.

    It minimises mean cross-entropy + l2 * |kernel|^2 / 2, with a step of 1 / L for L, a bound of
    the curvature, and Nesterov's momentum for strongly convex functions. The bias is not
    penalised. Pure and of fixed length: to be jitted, and vmapped over seeds and penalties.

    Args:
      features: one row an example; those outside the mask do not matter.
      labels: the class of each example; outside the mask any number.
      mask: the examples to learn from.
      num_classes: the width of the logits.
      l2: the penalty, relative to the mean loss; above 0.
      num_steps: how many steps; the distance shrinks by about 1 - (l2 / L)^(1/2) in each.

    Reference: Nesterov (2004), "Introductory lectures on convex optimization", section 2.2.1.
    """
    count = jnp.maximum(jnp.sum(mask), 1)
    labels = jnp.where(mask, labels, 0)
    # the largest eigenvalue of the mean outer product of [x, 1]; the softmax's Hessian is below 1/2
    squares = jnp.sum(features**2, axis=1) + 1
    curvature = jnp.max(jnp.where(mask, squares, 0)) / 2 + l2
    ratio = jnp.sqrt(l2 / curvature)
    momentum = (1 - ratio) / (1 + ratio)

    def loss(classifier: LinearClassifier):
        losses = optax.softmax_cross_entropy_with_integer_labels(
            classifier.logits(features), labels
        )
        return jnp.sum(losses, where=mask) / count + l2 * jnp.sum(classifier.kernel**2) / 2

    def step(carry, _):
        current, ahead = carry
        following = jax.tree.map(lambda x, g: x - g / curvature, ahead, jax.grad(loss)(ahead))
        ahead = jax.tree.map(lambda x, before: x + momentum * (x - before), following, current)
        return (following, ahead), None

    start = LinearClassifier(
        jnp.zeros((features.shape[1], num_classes), features.dtype),
        jnp.zeros(num_classes, features.dtype),
    )
    (found, _), _ = jax.lax.scan(step, (start, start), length=num_steps)
    return found
