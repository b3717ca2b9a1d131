"""Pairs of nodes with and without an edge: samples on the device, splits on the host."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int, Key

from structdl.core.edge_layout import check_size
from structdl.core.segment import EdgeLayout
from structdl.errors import InputError

_ROUNDS = 32  # of drawing pairs anew that turned out to be edges


class SortedEdges(NamedTuple):
    """The edges by sender, then by receiver: what `is_edge` searches."""

    offsets: jax.Array  # [num_nodes + 1], int32: the edges of sender s start at offsets[s]
    receivers: jax.Array  # [num_edges], int32


def sort_edges(layout: EdgeLayout) -> SortedEdges:
    """Sorts the edges of a layout for `is_edge` and `negative_sampling`; once for a graph."""
    order = jnp.lexsort((layout.receivers, layout.senders))
    offsets = jnp.pad(jnp.cumsum(layout.out_degrees), (1, 0))
    return SortedEdges(offsets.astype(jnp.int32), layout.receivers[order])


def is_edge(
    edges: SortedEdges, senders: Int[Array, " num_pairs"], receivers: Int[Array, " num_pairs"]
) -> Bool[Array, " num_pairs"]:
    """Whether each pair is an edge, by bisection among the receivers of its sender.

    A search by sender and receiver has no key s * num_nodes + r, which would overflow an int32.
    """
    num_edges = len(edges.receivers)
    if num_edges == 0:
        return jnp.zeros(senders.shape, bool)
    last = edges.offsets[senders + 1]

    def halve(_, bounds):
        low, high = bounds
        middle = low + (high - low) // 2
        is_below = (low < high) & (edges.receivers[middle] < receivers)
        return jnp.where(is_below, middle + 1, low), jnp.where(is_below, high, middle)

    bounds = (edges.offsets[senders], last)
    place, _ = lax.fori_loop(0, num_edges.bit_length(), halve, bounds)
    return (place < last) & (edges.receivers[jnp.minimum(place, num_edges - 1)] == receivers)


def negative_sampling(
    key: Key[Array, ""], edges: SortedEdges, num_samples: int
) -> tuple[Int[Array, " num_samples"], Int[Array, " num_samples"]]:
    """Draws (senders, receivers) uniformly from the ordered pairs that are no edge and no loop.

    With repetition, on the device, also under jit. A pair that is an edge is drawn again, 32
    times at most, so that one is left over with probability p^32, where p is the share of ordered
    pairs that are edges: 10^-32 at 10 percent, 2 * 10^-10 at 50, and surely in a complete graph.

    Raises:
      InputError: a graph of fewer than 2 nodes has no pairs.
    """
    num_nodes = len(edges.offsets) - 1
    if num_nodes < 2:
        raise InputError(f"a graph of {num_nodes} nodes has no pairs: at least 2 are needed")

    def draw(state):
        key, senders, receivers, is_taken, num_rounds = state
        key, sender_key, receiver_key = jax.random.split(key, 3)
        new_senders = jax.random.randint(sender_key, (num_samples,), 0, num_nodes)
        others = jax.random.randint(receiver_key, (num_samples,), 0, num_nodes - 1)
        new_receivers = others + (others >= new_senders)  # any node but the sender
        senders = jnp.where(is_taken, new_senders, senders)
        receivers = jnp.where(is_taken, new_receivers, receivers)
        return key, senders, receivers, is_edge(edges, senders, receivers), num_rounds + 1

    nothing = jnp.zeros(num_samples, jax.dtypes.canonicalize_dtype(int))
    start = (key, nothing, nothing, jnp.ones(num_samples, bool), 0)
    _, senders, receivers, _, _ = lax.while_loop(
        lambda state: jnp.any(state[3]) & (state[4] < _ROUNDS), draw, start
    )
    return senders, receivers


class EdgeSplit(NamedTuple):
    """Pairs of nodes [num_pairs, 2], int32, each undirected pair once, the smaller node first.

    The layout to train on is that of `symmetrize(graph_from_edges(*split.train.T, num_nodes))`.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    validation_negatives: np.ndarray  # as many as in validation; no edge of the whole graph
    test_negatives: np.ndarray  # as many as in test; none of them in validation_negatives


def split_edges(
    edges: np.ndarray,
    num_nodes: int,
    seed: int,
    *,
    validation: float = 0.05,
    test: float = 0.10,
) -> EdgeSplit:
    """Takes edges out of a graph for validation and test, with as many non-edges; on the host.

    Args:
      edges: [num_edges, 2], in any direction; repetitions and self-loops are left out.
      num_nodes: how many nodes there are.
      seed: of the choice, which is uniform, of the non-edges too.
      validation: the share of the edges for it, rounded down.
      test: likewise.

    Raises:
      InputError: a node out of range, a share outside 0 to 1, too few edges for a share, or too
        few pairs of nodes without an edge.

    Reference: the protocol of Kipf, Welling (2016), section 3: 85, 5 and 10 percent.
    Differs from the paper: its code draws the non-edges of the test first, with rejection.
    """
    check_size("num_nodes", num_nodes)
    pairs = _undirected_pairs(edges, num_nodes)
    counts = _held_out_counts(len(pairs), validation, test)
    num_held_out = sum(counts)
    num_free = num_nodes * (num_nodes - 1) // 2 - len(pairs)
    if num_free < num_held_out:
        raise InputError(
            f"{num_free} pairs of nodes have no edge, and {num_held_out} are needed, one for each "
            "edge held out: the graph is too dense; lower validation and test"
        )
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(pairs)
    ranks = rng.choice(num_free, num_held_out, replace=False)
    negatives = _non_edges(ranks, pairs, num_nodes)
    first, second = counts[0], num_held_out
    return EdgeSplit(
        train=shuffled[second:],
        validation=shuffled[:first],
        test=shuffled[first:second],
        validation_negatives=negatives[:first],
        test_negatives=negatives[first:],
    )


def _undirected_pairs(edges, num_nodes: int) -> np.ndarray:
    edges = np.asarray(edges)
    if edges.ndim != 2 or edges.shape[1] != 2 or edges.dtype.kind not in "iu":
        raise InputError(
            f"edges has shape {edges.shape} and dtype {edges.dtype}: give integers [num_edges, 2]"
        )
    outside = np.argwhere((edges < 0) | (edges >= num_nodes))
    if outside.size:
        row, end = outside[0]
        raise InputError(
            f"edges[{row}, {end}] = {edges[row, end]}: a graph of num_nodes = {num_nodes} has the "
            f"indices 0 to {num_nodes - 1}; number the nodes from 0, or raise num_nodes"
        )
    pairs = np.sort(edges[edges[:, 0] != edges[:, 1]], axis=1)
    return np.unique(pairs, axis=0).astype(np.int32)


def _held_out_counts(num_edges: int, validation: float, test: float) -> tuple[int, int]:
    counts = []
    for name, share in (("validation", validation), ("test", test)):
        if not (0 <= share < 1 and validation + test < 1):
            raise InputError(
                f"{name} = {share} (validation + test = {validation + test}): shares are "
                "fractions of the edges, 0 or more, and leave some for training"
            )
        count = int(share * num_edges + 1e-9)  # 0.29 * 100 is 28.999...
        if share > 0 and count == 0:
            raise InputError(
                f"{name} = {share} of {num_edges} edges is less than one: the graph is too small; "
                f"give {name} at least 1 / {num_edges}, or 0"
            )
        counts.append(count)
    return counts[0], counts[1]


def _non_edges(ranks, pairs, num_nodes: int) -> np.ndarray:
    """The non-edges of these ranks, where all pairs are in the order of the upper triangle."""
    nodes = np.arange(num_nodes, dtype=np.int64)
    starts = nodes * (2 * num_nodes - nodes - 1) // 2  # the place of the pair (row, row + 1)
    row, column = pairs.T.astype(np.int64)
    free_before = starts[row] + column - row - 1 - np.arange(len(pairs))
    places = ranks + np.searchsorted(free_before, ranks, side="right")
    row = np.searchsorted(starts, places, side="right") - 1
    # the last node starts no pair, and its place is one past the end
    return np.stack([row, places - starts[row] + row + 1], axis=1).astype(np.int32)
