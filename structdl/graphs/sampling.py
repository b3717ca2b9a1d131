"""Neighbour sampling on the device: fixed numbers of neighbours from lists of any length.

A graph too large for a full-batch step is kept as its edges sorted by receiver, and a step draws
the neighbourhood of a few nodes, under jit, at sizes that do not depend on the draw.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Array, Bool, Int, Key

from structdl.errors import InputError
from structdl.graphs.graph import graph_from_edges

_LARGEST_INDEX = np.iinfo(np.int32).max


class NeighbourLists(NamedTuple):
    """The neighbours of node n are neighbours[offsets[n] : offsets[n + 1]]."""

    offsets: jax.Array  # [num_nodes + 1], int32
    neighbours: jax.Array  # [num_edges], int32

    @property
    def num_nodes(self) -> int:
        return self.offsets.shape[0] - 1


class Blocks(NamedTuple):
    """The sampled neighbourhood of some seeds, hop by hop, as a tree.

    nodes[0] are the seeds [batch]; nodes[k + 1] [..., fan_out] are drawn around nodes[k] [...],
    and masks[k], of the same shape, is False where a node had no neighbour left to draw.
    """

    nodes: tuple[jax.Array, ...]
    masks: tuple[jax.Array, ...]


def neighbour_lists(senders, receivers, num_nodes: int) -> NeighbourLists:
    """Lists the senders of the edges into each node, in edge order, on the host.

    Repeated edges and self-loops are kept as given: a neighbour listed twice is drawn twice as
    often.

    Args:
      senders: the node each edge starts from, an index per edge.
      receivers: the node whose neighbour it is; give an undirected edge in both directions.
      num_nodes: how many nodes there are, isolated ones included.

    Raises:
      InputError: an index out of range, arrays that are not integers of one length, or more edges
        than 32-bit offsets can number.

    >>> neighbour_lists([2, 0, 1], [1, 1, 0], num_nodes=3)
    NeighbourLists(offsets=Array([0, 1, 3, 3], dtype=int32),
                   neighbours=Array([1, 2, 0], dtype=int32))
    """
    if len(senders) > _LARGEST_INDEX:
        raise InputError(
            f"{len(senders)} edges: 32-bit offsets number at most {_LARGEST_INDEX}; sample from "
            "parts of the graph, or leave edges out"
        )
    graph = graph_from_edges(senders, receivers, num_nodes)
    edges = np.arange(graph.num_edges, dtype=np.int32)
    # a counting sort; as a matrix of one column an edge, so that none are merged
    shape = (num_nodes, max(graph.num_edges, 1))
    by_receiver = scipy.sparse.coo_array((edges, (graph.receivers, edges)), shape=shape).tocsr()
    neighbours = graph.senders[by_receiver.indices]
    return NeighbourLists(
        jnp.asarray(by_receiver.indptr, jnp.int32), jnp.asarray(neighbours, jnp.int32)
    )


def sample_neighbours(
    key: Key[Array, ""],
    graph: NeighbourLists,
    nodes: Int[Array, "*batch"],
    fan_out: int,
    *,
    replace: bool,
) -> tuple[Int[Array, "*batch {fan_out}"], Bool[Array, "*batch {fan_out}"]]:
    """Draws `fan_out` neighbours of each node, uniformly; returns them and their mask.

    With replacement the draws are independent. Without, a node of at most `fan_out` neighbours
    gives all of them, in the order of its list, then padding; any other gives each subset of
    `fan_out` entries of its list with the same probability, by Floyd's algorithm. The order within
    a subset is not uniform: permute it where order matters, as `lstm_aggregate` does under a key.

    Where the mask is False (padding, or a node without neighbours) the node itself is returned. A
    node that the graph does not have has no neighbours.

    Args:
      key: consumed.
      graph: the lists to draw from.
      nodes: around which to draw; any shape.
      fan_out: how many neighbours to draw of each; static.
      replace: whether a list entry may be drawn more than once.

    Reference: Hamilton, Ying, Leskovec (2017), "Inductive representation learning on large
    graphs", arXiv:1706.02216, section 3.1; Bentley, Floyd (1987), "Programming pearls: a sample of
    brilliance", Communications of the ACM 30.
    Differs from the paper: its code draws from a table of at most 128 neighbours a node, itself
    drawn once; here every neighbour can come at any time.
    """
    starts = graph.offsets.at[nodes].get(mode="clip")
    degrees = graph.offsets.at[nodes + 1].get(mode="clip") - starts
    if graph.neighbours.shape[0] == 0:  # nothing to gather from
        shape = (*nodes.shape, fan_out)
        return jnp.broadcast_to(nodes[..., None], shape), jnp.zeros(shape, bool)
    if replace:
        places = _uniform_below(key, jnp.repeat(degrees[..., None], fan_out, axis=-1))
        mask = jnp.repeat(degrees[..., None] > 0, fan_out, axis=-1)
    else:
        slots = jnp.arange(fan_out).reshape((1,) * nodes.ndim + (fan_out,))
        mask = slots < degrees[..., None]
        is_short = degrees[..., None] <= fan_out
        places = jnp.where(is_short, slots, _distinct_places(key, degrees, fan_out))
    # a masked place may lie behind the last list
    neighbours = graph.neighbours.at[starts[..., None] + places].get(mode="clip")
    return jnp.where(mask, neighbours, nodes[..., None]), mask


def _uniform_below(key, bounds):
    """An integer 0 <= i < bound for each bound; 0 where the bound is not positive."""
    return jax.random.randint(key, bounds.shape, 0, jnp.maximum(bounds, 1), jnp.int32)


def _distinct_places(key, degrees, count: int):
    """A uniform subset of 0..degree - 1 of the given size, for each degree not below it.

    Floyd: for j = degree - count .. degree - 1 take a uniform one of 0..j, or j if that is taken.
    """
    newest = degrees[None] - count + jnp.arange(count).reshape((count,) + (1,) * degrees.ndim)
    draws = _uniform_below(key, newest + 1)  # [count, ...]

    def step(index, chosen):
        is_taken = jnp.any(chosen == draws[index][None], axis=0)
        return chosen.at[index].set(jnp.where(is_taken, newest[index], draws[index]))

    chosen = jax.lax.fori_loop(0, count, step, jnp.full(draws.shape, -1, jnp.int32))
    return jnp.moveaxis(chosen, 0, -1)


def sample_blocks(
    key: Key[Array, ""],
    graph: NeighbourLists,
    seeds: Int[Array, " batch"],
    fan_outs: Sequence[int],
    *,
    replace: bool,
) -> Blocks:
    """Draws what a model of len(fan_outs) layers needs to embed the seeds (Algorithm 2).

    fan_outs[k] is the paper's S_{k+1}, the neighbours that layer k + 1 aggregates. The last one is
    therefore drawn around the seeds, and the first one farthest out: the paper's (25, 10) gives
    arrays of shapes [batch], [batch, 10] and [batch, 10, 25]. (PyTorch Geometric's loaders number
    hops the other way.)

    Args:
      key: consumed.
      graph: the lists to draw from.
      seeds: the nodes to embed.
      fan_outs: neighbours per layer, first layer first.
      replace: see `sample_neighbours`.

    Reference: Hamilton, Ying, Leskovec (2017), arXiv:1706.02216, Algorithm 2 of appendix A.
    Differs from the paper: a node met twice in a batch is drawn around twice, as in the authors'
    code, so that the shapes are fixed.
    """
    nodes, masks = [seeds], []
    for hop_key, fan_out in zip(
        jax.random.split(key, len(fan_outs)), reversed(fan_outs), strict=True
    ):
        neighbours, mask = sample_neighbours(hop_key, graph, nodes[-1], fan_out, replace=replace)
        nodes.append(neighbours)
        masks.append(mask)
    return Blocks(tuple(nodes), tuple(masks))
