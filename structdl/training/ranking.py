"""Metrics of a ranking, exact and jit-able: the area under the ROC curve, and average precision.

Neither is a mean over examples: score a whole split in one batch.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def roc_auc(
    scores: Float[Array, " num"],
    labels: Int[Array, " num"] | Bool[Array, " num"],
    mask: Bool[Array, " num"] | None = None,
) -> Float[Array, ""]:
    """How often a positive example is scored above a negative one; a tie counts half.

    Without a positive or without a negative example the value is 0.5, that of any constant score.
    A NaN among the scores that count gives NaN.

    Args:
      scores: larger for what is thought positive.
      labels: positive where 1 or True; anything else is negative.
      mask: the examples that count; None means all.

    >>> round(float(roc_auc(jnp.array([0.1, 0.4, 0.4, 0.8]), jnp.array([0, 0, 1, 1]))), 3)
    0.875
    """
    positive, counted = _positive_and_counted(labels, mask)
    negative = counted & ~positive
    num_positive, num_negative = jnp.sum(positive), jnp.sum(negative)
    # what is no negative is put at the end; the number of negatives tells it from a score of inf
    sorted_negatives = jnp.sort(jnp.where(negative, scores, jnp.inf))
    below = jnp.searchsorted(sorted_negatives, scores, side="left")
    below_or_equal = jnp.searchsorted(sorted_negatives, scores, side="right")
    below_or_equal = jnp.minimum(below_or_equal, num_negative)
    shares = (below + below_or_equal) / (2 * jnp.maximum(num_negative, 1))
    area = jnp.sum(shares, where=positive) / jnp.maximum(num_positive, 1)
    area = jnp.where((num_positive > 0) & (num_negative > 0), area, 0.5)
    return _nan_like(area, scores, counted)


def average_precision(
    scores: Float[Array, " num"],
    labels: Int[Array, " num"] | Bool[Array, " num"],
    mask: Bool[Array, " num"] | None = None,
) -> Float[Array, ""]:
    """The mean over positive examples of the precision among all that are scored as high.

    AP = sum over thresholds n of (recall_n - recall_(n-1)) precision_n, where equal scores share a
    threshold. Without a positive example the value is 0. Arguments, and NaN, as in `roc_auc`.

    >>> round(float(average_precision(jnp.array([0.9, 0.8, 0.7]), jnp.array([1, 0, 1]))), 3)
    0.833
    """
    positive, counted = _positive_and_counted(labels, mask)
    num_positive = jnp.sum(positive)
    retrieved = _at_least(scores, counted)
    precision = _at_least(scores, positive) / jnp.maximum(retrieved, 1)
    value = jnp.sum(precision, where=positive) / jnp.maximum(num_positive, 1)
    return _nan_like(value, scores, counted)


def _positive_and_counted(labels, mask):
    counted = jnp.ones(labels.shape, bool) if mask is None else mask
    return (labels == 1) & counted, counted


def _at_least(scores, chosen):
    """For each score, how many of the chosen ones are not below it."""
    ordered = jnp.sort(jnp.where(chosen, scores, -jnp.inf))
    above = scores.shape[0] - jnp.searchsorted(ordered, scores, side="left")
    return jnp.minimum(above, jnp.sum(chosen))  # at a score of -inf also what is not chosen


def _nan_like(value, scores, counted):
    return jnp.where(jnp.any(jnp.isnan(scores) & counted), jnp.nan, value)
