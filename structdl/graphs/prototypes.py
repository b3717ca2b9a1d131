"""Prototypes of actions that know of one another, matched with the frames of a video.

Which actions occur together is a graph over actions, and a graph convolutional network over it
turns what describes each action into its prototype. How like a frame is to an action is how near it
is to the prototype; from labels of whole videos alone that is learned by the frames that are
nearest.

Reference: Huang, Huang, Ouyang, Wang (2020), "Relational prototypical network for weakly supervised
temporal action localization", AAAI; the graph: Chen, Wei, Wang, Guo (2019), "Multi-label image
recognition with graph convolutional networks", arXiv:1904.03582.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from structdl.core.masks import length_mask
from structdl.core.scan import check_lengths
from structdl.errors import InputError


def co_occurrence_graph(
    labels: Bool[Array, "videos classes"], *, threshold: float = 0.2, neighbour_share: float = 0.3
) -> Float[Array, "classes classes"]:
    """How much each action's prototype takes of each other's: rows that sum to 1.

    P(j | i) = M_ij / N_i, of M_ij videos that have both and N_i that have i. An action's neighbours
    are those j with P(j | i) of the threshold or more, which share `neighbour_share` evenly; the
    rest is its own, and all of it where it has no neighbours.

    Args:
      labels: which actions the videos of training have.
      threshold: tau.
      neighbour_share: p, from 0 to 1.

    Raises:
      InputError: a threshold or a share out of its range.

    Reference: Chen et al. (2019), eq. 6 to 8; rows sum to 1 already, so that a GCN's normalisation
    would change nothing but for columns.

    >>> both_or_one = jnp.array([[True, True, False], [True, False, False], [False, False, True]])
    >>> co_occurrence_graph(both_or_one, neighbour_share=0.5).round(2).tolist()
    [[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]
    """
    if not 0 < threshold <= 1:
        raise InputError(f"threshold is {threshold}: give a number above 0, up to 1")
    if not 0 <= neighbour_share <= 1:
        raise InputError(f"neighbour_share is {neighbour_share}: give a number from 0 to 1")
    has = labels.astype(jnp.float32)
    together = has.T @ has
    conditional = together / jnp.maximum(jnp.diagonal(together), 1)[:, None]
    own = jnp.eye(len(together))
    neighbours = jnp.where(own > 0, 0.0, conditional >= threshold)
    count = jnp.sum(neighbours, axis=1, keepdims=True)
    share = jnp.where(count > 0, neighbour_share, 0.0)
    return (1 - share) * own + share * neighbours / jnp.maximum(count, 1)


def matching_scores(
    frames: Float[Array, "*batch features"], prototypes: Float[Array, "classes features"]
) -> Float[Array, "*batch classes"]:
    """s_tj = -||x_t - p_j||^2, of every frame and every prototype.

    As 2 x p - ||x||^2 - ||p||^2 it is one product of matrices; rounding is kept from above 0.
    """
    lengths = jnp.sum(frames**2, axis=-1, keepdims=True)
    to_prototypes = jnp.sum(prototypes**2, axis=-1)
    to_prototypes = to_prototypes.reshape((1,) * (frames.ndim - 1) + to_prototypes.shape)
    return jnp.minimum(2 * frames @ prototypes.T - lengths - to_prototypes, 0)


def best_frames_mean(
    scores: Float[Array, "batch time classes"], lengths: Int[Array, " batch"], *, share: float
) -> Float[Array, "batch classes"]:
    """Of every action the mean score of the frames that score best: what a video is said to have.

    Args:
      scores: of frames.
      lengths: of right-padded videos, at least 1.
      share: how many of a video's frames count, rounded down, but one at least.

    Raises:
      InputError: the lengths are not those of the videos, or the share is not above 0, up to 1.

    Reference: multiple-instance learning as in Paul, Roy, Roy-Chowdhury (2018), "W-TALC",
    arXiv:1807.10418, eq. 2.
    """
    if not 0 < share <= 1:
        raise InputError(f"share is {share}: give a number above 0, up to 1")
    batch, time = scores.shape[:2]
    check_lengths(lengths, batch=batch, time=time)
    counts = jnp.maximum((share * lengths).astype(jnp.int32), 1)
    valid = length_mask(lengths, time)[..., None]
    ranked = -jnp.sort(jnp.where(valid, -scores, jnp.inf), axis=1)  # the best first
    best = jnp.arange(time)[None, :, None] < counts[:, None, None]
    return jnp.sum(jnp.where(best, ranked, 0), axis=1) / counts[:, None]


def video_loss(
    scores: Float[Array, "batch classes"], labels: Bool[Array, "batch classes"]
) -> Float[Array, " batch"]:
    """The cross-entropy of a softmax over actions with the video's actions, all as likely.

    Videos without any action give 0.

    Reference: Paul et al. (2018), eq. 3 and 4.
    """
    targets = labels / jnp.maximum(jnp.sum(labels, axis=1, keepdims=True), 1)
    return -jnp.sum(targets * jax.nn.log_softmax(scores), axis=1)


class CoOccurrenceGCN(nn.Module):
    """Prototypes of all actions, from what describes them and from whom they occur with.

    H' = leaky_relu(A H W + b), and no activation after the last layer.

    Attributes:
      widths: the features of each layer; the last are a prototype's.
    """

    widths: Sequence[int]

    @nn.compact
    def __call__(
        self,
        descriptions: Float[Array, "classes description_features"],
        graph: Float[Array, "classes classes"],
    ) -> Float[Array, "classes features"]:
        hidden = descriptions
        for number, width in enumerate(self.widths):
            hidden = nn.leaky_relu(hidden, 0.2) if number else hidden
            hidden = graph @ nn.Dense(width, name=f"layer_{number}")(hidden)
        return hidden


class PrototypeMatcher(nn.Module):
    """Scores of every frame for every action, and the prototypes that they come from.

    Frames are embedded by two layers; scores are `matching_scores` times a learned positive scale.

    Attributes:
      features: of a prototype and of an embedded frame.
      hidden: of the embedding's first layer, and of the GCN's.
      relational: whether prototypes come from `CoOccurrenceGCN`; else each is a parameter of its
        own, independent of the others.
      dropout: of what enters the second layer of the embedding.
    """

    features: int
    hidden: int
    relational: bool = True
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        frames: Float[Array, "batch time in_features"],
        descriptions: Float[Array, "classes description_features"],
        graph: Float[Array, "classes classes"],
        *,
        train: bool,
    ) -> tuple[Float[Array, "batch time classes"], Float[Array, "classes features"]]:
        hidden = nn.relu(nn.Dense(self.hidden, name="first")(frames))
        hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
        embedded = nn.Dense(self.features, name="second")(hidden)
        if self.relational:
            gcn = CoOccurrenceGCN((self.hidden, self.features), name="gcn")
            prototypes = gcn(descriptions, graph)
        else:
            shape = (len(descriptions), self.features)
            prototypes = self.param("prototypes", nn.initializers.normal(0.5), shape)
        log_scale = self.param("log_scale", nn.initializers.zeros, ())
        return jnp.exp(log_scale) * matching_scores(embedded, prototypes), prototypes
