"""DeepWalk: embeddings of nodes that meet on random walks, as word2vec's of words in sentences.

Reference: Perozzi, Al-Rfou, Skiena (2014), "DeepWalk: online learning of social representations",
arXiv:1403.6652; Mikolov, Sutskever, Chen, Corrado, Dean (2013), "Distributed representations of
words and phrases and their compositionality", arXiv:1310.4546.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from structdl.core.arrays import sum_dtype


def walk_loss(
    centres: Float[Array, "num_walks nodes_of_walk features"],
    contexts: Float[Array, "num_walks nodes_of_walk features"],
    negatives: Float[Array, "num_negatives features"],
    window: int,
    *,
    negative_weight: float = 5.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(total, count) over the pairs of a window of the skip-gram loss by negative sampling.

    -log sigmoid(z_u . c_v) - Q E[log sigmoid(-z_u . c_n)]

    The pairs (u, v) are the nodes at most `window` steps apart on a walk; the expectation is the
    mean over the negatives. It equals `structdl.graphs.walks.skip_gram_loss` of the pairs of
    `skip_gram_pairs`, without an array of pairs x features: all products of a walk at once, of
    which a band counts, and one repulsion a centre instead of one a pair.

    Args:
      centres: z of each node of each walk, from the table that is kept.
      contexts: c of the same nodes, from the other table.
      negatives: c of nodes drawn by chance, shared by all pairs.
      window: the farthest distance in steps.
      negative_weight: Q; how many negatives each pair has in word2vec.

    Reference: Perozzi et al. (2014), algorithm 2; Mikolov et al. (2013), eq. 4.
    Differs from the paper: negative sampling in place of the hierarchical softmax, with negatives
    that a step's pairs share.
    """
    steps = jnp.arange(centres.shape[1])
    distance = jnp.abs(steps[:, None] - steps[None, :])
    dtype = sum_dtype(centres.dtype)
    is_pair = ((distance > 0) & (distance <= window)).astype(dtype)
    product = functools.partial(jnp.einsum, preferred_element_type=dtype)
    scores = product("wuf,wvf->wuv", centres, contexts)
    attraction = jnp.sum(jax.nn.softplus(-scores) * is_pair[None])
    against = jax.nn.softplus(product("wuf,nf->wun", centres, negatives))
    pairs_of_centre = jnp.sum(is_pair, axis=1)
    repulsion = jnp.sum(jnp.mean(against, axis=2) * pairs_of_centre[None])
    count = centres.shape[0] * jnp.sum(is_pair)
    return attraction + negative_weight * repulsion, count
