"""Labels that spread along the edges: a baseline without features and without training.

Reference: Zhu, Ghahramani, Lafferty (2003), "Semi-supervised learning using Gaussian fields and
harmonic functions", ICML; Zhou, Bousquet, Lal, Weston, Schölkopf (2004), "Learning with local and
global consistency", NIPS 16.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from structdl.core.arrays import as_array
from structdl.core.masks import select
from structdl.core.segment import EdgeLayout, gather_receivers, gather_sum, segment_sum
from structdl.graphs.gcn import symmetric_normalization


def propagate_labels(
    labels: Float[Array | np.ndarray, "num_nodes classes"],
    is_labelled: Bool[Array, " num_nodes"],
    layout: EdgeLayout,
    edge_weights: Float[Array, " num_edges"] | None = None,
    *,
    num_iterations: int,
) -> Float[Array, "num_nodes classes"]:
    """The harmonic function of the labels: each node without one is the mean of its neighbours.

    F <- D^-1 W F with the labelled rows put back, which tends to F_u = (I - P_uu)^-1 P_ul Y_l, P =
    D^-1 W (eq. 5). A row of the result sums to the probability that a walk from its node has met a
    label within num_iterations steps; a node that cannot reach one has a row of zeros.

    Args:
      labels: Y, one-hot rows; those of nodes without a label are not read.
      is_labelled: which rows are given.
      layout: the edges s -> r.
      edge_weights: w_rs, not negative; None means 1.
      num_iterations: how often to average; static. A signal passes one edge each time.

    Reference: Zhu, Ghahramani, Lafferty (2003), eq. 2 to 5.
    Differs from the paper: the fixed point is iterated, not solved for, which needs only products
    with the edges.

    >>> from structdl.core.segment import edge_layout
    >>> path = edge_layout([0, 1, 1, 2], [1, 0, 2, 1], 3)
    >>> is_labelled = jnp.array([True, False, True])
    >>> propagate_labels(jnp.eye(3)[:, ::2], is_labelled, path, num_iterations=1)
    Array([[1. , 0. ],
           [0.5, 0.5],
           [0. , 1. ]], dtype=float32)
    """
    known = select(is_labelled, as_array(labels), 0)
    transitions = _transition_probabilities(layout, edge_weights)

    def step(scores, _):
        spread = gather_sum(scores, layout, weights=transitions)
        return select(is_labelled, known, spread), None

    return jax.lax.scan(step, known, length=num_iterations)[0]


def _transition_probabilities(layout: EdgeLayout, edge_weights):
    """The entries of D^-1 W, one per edge; 0 at a node of degree 0."""
    if edge_weights is None:
        edge_weights = jnp.ones(layout.num_edges)
    degrees = segment_sum(edge_weights, layout.receivers, layout.num_receivers, layout=layout)
    positive = degrees > 0
    inverse = jnp.where(positive, 1 / jnp.where(positive, degrees, 1), 0)
    return edge_weights * gather_receivers(inverse, layout)


def normalize_class_mass(
    scores: Float[Array, "num_nodes classes"],
    is_labelled: Bool[Array, " num_nodes"],
    priors: Float[Array, " classes"],
) -> Float[Array, "num_nodes classes"]:
    """Scales each class so that its share of the unlabelled nodes is its prior.

    scores[i, c] * priors[c] / sum over unlabelled j of scores[j, c]

    A class that no unlabelled node has any of keeps 0. Only the order within a row means something.

    Args:
      scores: of `propagate_labels`.
      is_labelled: which nodes do not count in the mass.
      priors: the share of each class, as among the labels.

    Reference: Zhu, Ghahramani, Lafferty (2003), section 4, eq. 9.
    """
    mass = jnp.sum(select(is_labelled, 0 * scores, scores), axis=0)
    scales = jnp.where(mass > 0, priors / jnp.where(mass > 0, mass, 1), 0)
    return scores * scales[None]


def spread_labels(
    labels: Float[Array | np.ndarray, "num_nodes classes"],
    is_labelled: Bool[Array, " num_nodes"],
    layout: EdgeLayout,
    edge_weights: Float[Array, " num_edges"] | None = None,
    *,
    alpha: Float[Array, ""] | float = 0.99,
    num_iterations: int,
) -> Float[Array, "num_nodes classes"]:
    """Zhou et al.: F <- alpha S F + (1 - alpha) Y, S = D^-1/2 W D^-1/2, from F = Y.

    It tends to (1 - alpha) (I - alpha S)^-1 Y; labels may be overruled. Arguments as in
    `propagate_labels`; the paper has no self-loops, and alpha = 0.99.

    Reference: Zhou, Bousquet, Lal, Weston, Schölkopf (2004), section 2, step 3.
    """
    known = select(is_labelled, as_array(labels), 0)
    weights = symmetric_normalization(layout, edge_weights)

    def step(scores, _):
        return alpha * gather_sum(scores, layout, weights=weights) + (1 - alpha) * known, None

    return jax.lax.scan(step, known, length=num_iterations)[0]
