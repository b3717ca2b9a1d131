"""Soft attention: a mean over places, weighted by how well each fits a query."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from structdl.core.masks import masked_softmax


def dot_scores(
    queries: Float[Array, "*batch queries features"], keys: Float[Array, "*batch places features"]
) -> Float[Array, "*batch queries places"]:
    """How well each place fits each query: their inner product.

    A key that is not finite makes the gradients of all queries NaN, even where its score is masked
    later: set padded keys to 0 before.

    >>> dot_scores(jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 0.0], [0.0, 1.0]]))
    Array([[3., 2.]], dtype=float32)
    """
    return jnp.einsum("...qf,...pf->...qp", queries, keys)


def general_scores(
    queries: Float[Array, "*batch queries features"],
    keys: Float[Array, "*batch places key_features"],
    kernel: Float[Array, "features key_features"],
) -> Float[Array, "*batch queries places"]:
    """`dot_scores` in between which stands a matrix that is learned: query W key."""
    return dot_scores(queries @ kernel, keys)


def soft_attention(
    scores: Float[Array, "*batch queries places"],
    values: Float[Array, "*batch places out_features"],
    mask: Bool[Array, "*batch places"] | None = None,
) -> tuple[Float[Array, "*batch queries out_features"], Float[Array, "*batch queries places"]]:
    """The contexts and the weights of the places: weights = softmax(scores), context = weights V.

    Args:
      scores: see `dot_scores` and `general_scores`.
      values: what is averaged.
      mask: True where there is a place; the others weigh 0, whatever stands there, and where there
        is none at all the context is zeros.

    >>> context, weights = soft_attention(jnp.zeros((1, 2)), jnp.array([[1.0], [3.0]]))
    >>> context.tolist(), weights.tolist()
    ([[2.0]], [[0.5, 0.5]])

    Reference: Bahdanau, Cho, Bengio (2014), "Neural machine translation by jointly learning to
    align and translate", arXiv:1409.0473; Luong, Pham, Manning (2015), "Effective approaches to
    attention-based neural machine translation", arXiv:1508.04025, section 3.1.
    """
    if mask is None:
        mask = jnp.ones(values.shape[:-1], bool)
    # a NaN times a weight of 0 is a NaN
    values = jnp.where(mask[..., None], values, 0)
    weights = masked_softmax(scores, jnp.broadcast_to(mask[..., None, :], scores.shape))
    return jnp.einsum("...qp,...pf->...qf", weights, values), weights


class GlobalAttention(nn.Module):
    """Hidden states that have seen the places: tanh(W [context; hidden]), with `general_scores`.

    Attributes:
      features: of what it returns.

    Parameters: `kernel` [features of a query, features of a place] of the scores; `combine`.

    Reference: Luong, Pham, Manning (2015), arXiv:1508.04025, section 3.1, equations 5, 7 and 8.
    """

    features: int

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "batch queries features"],
        places: Float[Array, "batch places key_features"],
        mask: Bool[Array, "batch places"] | None = None,
    ) -> Float[Array, "batch queries out_features"]:
        """Attention output over the unmasked places; masked places may hold any value."""
        if mask is not None:  # a NaN in the padding would reach the gradient of the queries
            places = jnp.where(mask[..., None], places, 0)
        shape = (queries.shape[-1], places.shape[-1])
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), shape)
        context, _ = soft_attention(general_scores(queries, places, kernel), places, mask)
        joined = jnp.concatenate([context, queries], axis=-1)
        return jnp.tanh(nn.Dense(self.features, use_bias=False, name="combine")(joined))
