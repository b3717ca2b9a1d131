"""Random walks, the pairs that they put together, and the loss that pulls such pairs together.

Reference: Perozzi, Al-Rfou, Skiena (2014), "DeepWalk: online learning of social representations",
arXiv:1403.6652; Mikolov, Sutskever, Chen, Corrado, Dean (2013), "Distributed representations of
words and phrases and their compositionality", arXiv:1310.4546; Hamilton, Ying, Leskovec (2017),
"Inductive representation learning on large graphs", arXiv:1706.02216.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from structdl.core.masks import select
from structdl.errors import InputError
from structdl.graphs.sampling import NeighbourLists, sample_neighbours


class NegativeTable(NamedTuple):
    """A distribution over nodes; see `negative_table`."""

    nodes: jax.Array  # [num_drawn], int32: those of positive probability
    uppers: jax.Array  # [num_drawn], uint32: the last random word that gives each


def random_walks(
    key: Key[Array, ""], graph: NeighbourLists, starts: Int[Array, " num_walks"], length: int
) -> Int[Array, "num_walks nodes_of_walk"]:
    """Walks `length` uniform steps from each start; returns the length + 1 nodes of each walk.

    A walk at a node without neighbours stays there. The lists of `neighbour_lists` hold senders: a
    walk goes against the edges unless they are given in both directions.

    Args:
      key: consumed.
      graph: the lists to walk on.
      starts: where the walks begin; repeat a node for several walks from it.
      length: the number of steps; static.

    Reference: Perozzi, Al-Rfou, Skiena (2014), arXiv:1403.6652, section 4.2.
    """

    def step(nodes, step_key):
        neighbours, _ = sample_neighbours(step_key, graph, nodes, 1, replace=True)
        return neighbours[:, 0], neighbours[:, 0]

    _, visited = jax.lax.scan(step, starts, jax.random.split(key, length))
    return jnp.concatenate([starts[None], visited]).T


def skip_gram_pairs(
    walks: Int[Array, "num_walks nodes_of_walk"], window: int, *, distinct: bool = False
) -> tuple[
    Int[Array, "num_walks nodes_of_walk 2*{window}"],
    Int[Array, "num_walks nodes_of_walk 2*{window}"],
    Bool[Array, "num_walks nodes_of_walk 2*{window}"],
]:
    """Pairs every node of a walk with those at most `window` steps before and after it.

    Returns the centres, their contexts and a mask, False where a walk has no such step; the
    contexts stand in the order of the walk. The code of GraphSAGE pairs only the start with what
    follows, itself left out: that is `[:, 0]` of the result with window = length and distinct=True.

    Args:
      walks: nodes, one walk a row.
      window: the farthest distance in steps; static.
      distinct: whether pairs of a node with itself are masked out.

    >>> centres, contexts, mask = skip_gram_pairs(jnp.array([[4, 5, 6]]), 1)
    >>> contexts[mask], centres[mask]
    (Array([5, 4, 6, 5], dtype=int32), Array([4, 5, 5, 6], dtype=int32))
    """
    num_nodes = walks.shape[1]
    steps = jnp.concatenate([jnp.arange(-window, 0), jnp.arange(1, window + 1)])
    places = jnp.arange(num_nodes)[:, None] + steps[None, :]
    is_inside = (places >= 0) & (places < num_nodes)
    contexts = walks[:, jnp.clip(places, 0, num_nodes - 1)]
    centres = jnp.broadcast_to(walks[:, :, None], contexts.shape)
    mask = jnp.broadcast_to(is_inside[None], contexts.shape)
    return centres, contexts, mask & (centres != contexts) if distinct else mask


def negative_table(degrees, *, power: float = 0.75) -> NegativeTable:
    """The distribution of negative samples, proportional to degree^power, on the host.

    Args:
      degrees: a number per node, 0 or more; a node of 0 is never drawn.
      power: 0.75 in word2vec and in the code of GraphSAGE.

    Raises:
      InputError: degrees are not one row of finite numbers, 0 or more, one of them positive.

    >>> negative_table([3, 0, 1], power=1.0)
    NegativeTable(nodes=Array([0, 2], dtype=int32),
                  uppers=Array([3221225471, 4294967295], dtype=uint32))
    """
    degrees = np.asarray(degrees, dtype=float)
    if degrees.ndim != 1:
        raise InputError(f"degrees has shape {degrees.shape}: give one row, a number per node")
    bad = np.flatnonzero(~((degrees >= 0) & np.isfinite(degrees)))
    if bad.size:
        raise InputError(
            f"degrees[{bad[0]}] = {degrees[bad[0]]} (one of {bad.size} such values): degrees are "
            "finite and 0 or more; mend them"
        )
    nodes = np.flatnonzero(degrees)
    if not nodes.size:
        raise InputError(
            f"all {degrees.size} degrees are 0: at least one must be positive; negatives are "
            "drawn from the nodes that have edges"
        )
    cumulative = np.cumsum(degrees[nodes] ** power)
    # words of 32 bits: a float32 has too few steps for a graph of 10^5 nodes
    words = np.maximum(np.rint(cumulative / cumulative[-1] * 2.0**32), 1).astype(np.int64)
    return NegativeTable(jnp.asarray(nodes, jnp.int32), jnp.asarray((words - 1).astype(np.uint32)))


def sample_negatives(
    key: Key[Array, ""], table: NegativeTable, shape: tuple[int, ...]
) -> Int[Array, "*shape"]:
    """Draws independent nodes from a `negative_table`.

    A draw may be a node's own neighbour, or itself, as in word2vec.
    """
    words = jax.random.bits(key, shape, jnp.uint32)
    return table.nodes[jnp.searchsorted(table.uppers, words, side="left")]


def skip_gram_loss(
    centres: Float[Array, "num_pairs features"],
    contexts: Float[Array, "num_pairs features"],
    negatives: Float[Array, "num_pairs num_negatives features"]
    | Float[Array, "num_negatives features"],
    mask: Bool[Array, " num_pairs"] | None = None,
    *,
    negative_weight: float | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(total, count) over the pairs of the loss by negative sampling, eq. 1 of GraphSAGE.

    -log sigmoid(z_u . z_v) - Q E[log sigmoid(-z_u . z_n)], n ~ degree^0.75

    The expectation is the mean over the negatives given. DeepWalk trained as word2vec has the same
    loss, where the centres come from one table of embeddings, and contexts and negatives from
    another.

    Args:
      centres: z_u.
      contexts: z_v, of nodes met on a walk near u.
      negatives: z_n, each pair's own, or shared by all as in the code of GraphSAGE.
      mask: False at pairs that do not count.
      negative_weight: Q; None is the number of negatives, so that their terms are summed.

    Reference: Hamilton, Ying, Leskovec (2017), arXiv:1706.02216, eq. 1; Mikolov et al. (2013),
    arXiv:1310.4546, eq. 4.
    """
    if mask is not None:  # what counts not may be anything
        centres, contexts = select(mask, centres, 0), select(mask, contexts, 0)
        negatives = select(mask, negatives, 0) if negatives.ndim == 3 else negatives
    num_negatives = negatives.shape[-2]
    weight = num_negatives if negative_weight is None else negative_weight
    equation = "pf,pnf->pn" if negatives.ndim == 3 else "pf,nf->pn"
    attraction = jax.nn.softplus(-jnp.sum(centres * contexts, axis=-1))
    repulsion = jax.nn.softplus(jnp.einsum(equation, centres, negatives))
    losses = attraction + weight * jnp.sum(repulsion, axis=-1) / max(num_negatives, 1)
    counted = jnp.ones_like(losses) if mask is None else mask.astype(losses.dtype)
    return jnp.sum(losses * counted), jnp.sum(counted)
