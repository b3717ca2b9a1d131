"""Loss and accuracy over the nodes of a split."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int


def totals(
    logits: Float[Array, "num_nodes classes"],
    labels: Int[Array, " num_nodes"],
    mask: Bool[Array, " num_nodes"],
) -> dict[str, tuple]:
    """Cross-entropy and accuracy over the nodes of a mask, as (total, count)."""
    # a node without a label is in no split
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
    correct = jnp.argmax(logits, axis=-1) == labels
    count = jnp.sum(mask)
    return {
        "loss": (jnp.sum(losses, where=mask), count),
        "accuracy": (jnp.sum(correct, where=mask), count),
    }
