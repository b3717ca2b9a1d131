"""Sums and means of {name: (total, count)}: means are taken once, at the very end."""

from collections.abc import Iterable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from structdl.training.task import TotalAndCount


def class_totals(
    logits: Float[Array, "*shape classes"],
    labels: Int[Array | np.ndarray, "*shape"],
    mask: Bool[Array | np.ndarray, "*shape"],
) -> dict[str, TotalAndCount]:
    """Cross-entropy in nats and accuracy over what counts: the totals and counts of both.

    Args:
      logits: of the classes.
      labels: the classes; below 0 where there is none, which is not to count.
      mask: True where it counts.

    >>> found = class_totals(jnp.zeros((2, 2)), jnp.array([0, -1]), jnp.array([True, False]))
    >>> {name: (round(float(total), 3), int(count)) for name, (total, count) in found.items()}
    {'loss': (0.693, 1), 'accuracy': (1.0, 1)}
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
    correct, count = jnp.argmax(logits, axis=-1) == labels, jnp.sum(mask)
    return {
        "loss": (jnp.sum(losses, where=mask), count),
        "accuracy": (jnp.sum(correct, where=mask), count),
    }


def add_totals(parts: Iterable[dict[str, TotalAndCount]]) -> dict[str, TotalAndCount]:
    """Adds totals and counts name by name over batches.

    >>> add_totals([{"loss": (6.0, 3)}, {"loss": (1.0, 1)}])
    {'loss': (7.0, 4)}
    """
    return reduce(lambda left, right: jax.tree.map(lambda a, b: a + b, left, right), parts)


def means(totals: dict[str, TotalAndCount]) -> dict[str, Any]:
    """total / count of every metric; NaN where nothing was counted.

    >>> means({"loss": (np.float32(6.0), np.float32(3.0))})
    {'loss': np.float32(2.0)}
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return {name: np.divide(total, count) for name, (total, count) in totals.items()}


def summarize(values: Iterable[float] | np.ndarray) -> dict:
    """Mean and sample standard deviation over the seeds that have a value, and every value.

    A seed without one (it diverged, or nothing was counted) is None among the values. The
    standard deviation of a single seed is 0.

    >>> summarize([1.0, 3.0, float("nan")])
    {'mean': 2.0, 'std': 1.4142135623730951, 'count': 2, 'values': [1.0, 3.0, None]}
    """
    values = [float(value) if np.isfinite(value) else None for value in values]
    finite = [value for value in values if value is not None]
    return {
        "mean": float(np.mean(finite)) if finite else None,
        "std": float(np.std(finite, ddof=1)) if len(finite) > 1 else 0.0 if finite else None,
        "count": len(finite),
        "values": values,
    }
