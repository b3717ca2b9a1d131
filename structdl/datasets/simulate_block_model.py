"""A random graph with overlapping communities, power-law degrees, and several labels a node.

Reference: Karrer, Newman (2011), "Stochastic blockmodels and community structure in networks",
arXiv:1008.3926, for degrees within blocks; Ball, Karrer, Newman (2011), "An efficient and
principled method for detecting communities in networks", arXiv:1104.3590, for nodes of several
communities.

Differs from the papers: the graph is simple and has a given number of edges, where theirs has a
Poisson number of parallel edges for each pair, since one size is wanted for every seed.
"""

from typing import NamedTuple

import numpy as np

from structdl.errors import InputError

MAX_ROUNDS = 20  # of drawing edges anew for those drawn twice
MEMBERSHIPS = (0.5, 0.3, 0.2)  # how often a node is in 1, 2, 3 communities
EXTRA_HOLDERS = 0.1  # how often a community holds a label that is another's


class BlockModel(NamedTuple):
    """A graph as NumPy arrays; indices are int32."""

    edges: np.ndarray  # [num_edges, 2], each undirected edge once, the smaller node first, sorted
    features: np.ndarray  # [num_nodes, features], float32
    labels: np.ndarray  # [num_nodes, labels], uint8, 0 or 1
    train: np.ndarray  # 60 % of the nodes, ascending
    validation: np.ndarray  # 20 %
    test: np.ndarray  # 20 %


def simulate_block_model(
    seed: int,
    *,
    num_nodes: int,
    num_edges: int,
    num_communities: int,
    num_labels: int,
    num_features: int,
    exponent: float,
    mixing: float,
    feature_noise: float,
) -> BlockModel:
    """Draws a degree-corrected block model whose labels show in the neighbours' features.

    Node i is in one to three of the communities and has a propensity p_i, with density ~
    p^-exponent. An edge takes its first end i with a probability ~ p_i, and one of i's communities;
    its second end j is drawn ~ p_j from that community, or with probability `mixing` from all
    nodes. Self-loops and duplicates are drawn anew, so that degrees are ~ p except those of hubs
    that already know most of their community.

    Every label belongs to some of the communities, and a node has it where it is in one of these.
    Features are the mean of the centres of a node's communities, which are standard normal, plus
    normal noise of standard deviation `feature_noise`: averaged over neighbours, the noise shrinks.

    Args:
      seed: the same seed gives the same arrays.
      num_nodes: at least 100.
      num_edges: how many undirected edges there are, exactly.
      num_communities: at least 3.
      num_labels: how many labels there are.
      num_features: how many features a node has.
      exponent: of the degrees' power law, above 2.
      mixing: the share of edges that know no communities, 0 to 1.
      feature_noise: in units of the centres' standard deviation.

    Raises:
      InputError: a value out of its range, or more edges than there is room for.
    """
    most_edges = num_nodes * (num_nodes - 1) // 2
    _require("num_nodes", num_nodes, num_nodes >= 100, "at least 100")
    _require("num_edges", num_edges, 1 <= num_edges <= most_edges, f"1 to {most_edges}")
    _require("num_communities", num_communities, num_communities >= 3, "at least 3")
    _require("num_labels", num_labels, num_labels >= 1, "at least 1")
    _require("num_features", num_features, num_features >= 1, "at least 1")
    _require("exponent", exponent, 2 < exponent < np.inf, "above 2, for a finite mean degree")
    _require("mixing", mixing, 0 <= mixing <= 1, "0 to 1")
    _require("feature_noise", feature_noise, 0 <= feature_noise < np.inf, "0 or more")
    names = ("nodes", "edges", "labels", "features", "split")
    rng = dict(zip(names, np.random.default_rng(seed).spawn(len(names)), strict=True))
    members = _draw_members(rng["nodes"], num_nodes, num_communities)
    propensities = _draw_propensities(rng["nodes"], num_nodes, exponent)
    holders = _draw_holders(rng["labels"], num_labels, num_communities)
    centres = rng["features"].standard_normal((num_communities, num_features), np.float32)
    noise = rng["features"].standard_normal((num_nodes, num_features), np.float32)
    shares = members / members.sum(axis=1, keepdims=True, dtype=np.float32)
    order = rng["split"].permutation(num_nodes).astype(np.int32)
    parts = np.split(order, [num_nodes * 6 // 10, num_nodes * 8 // 10])
    return BlockModel(
        _draw_edges(rng["edges"], members, propensities, num_edges, mixing),
        shares @ centres + np.float32(feature_noise) * noise,
        (members.astype(np.float32) @ holders.T.astype(np.float32) > 0).astype(np.uint8),
        *(np.sort(part) for part in parts),
    )


def edges_among(edges: np.ndarray, nodes: np.ndarray, num_nodes: int) -> np.ndarray:
    """The edges between some of the nodes, which get the numbers of their places in `nodes`.

    >>> edges_among(np.array([[0, 1], [1, 3], [0, 3]]), np.array([3, 1]), 4)
    array([[1, 0]], dtype=int32)
    """
    places = np.full(num_nodes, -1, np.int32)
    places[nodes] = np.arange(len(nodes), dtype=np.int32)
    ends = places[edges]
    return ends[(ends >= 0).all(axis=1)]


def _require(name: str, value: float | int, is_good: bool, words: str) -> None:
    if not is_good:
        raise InputError(f"{name} is {value}: it must be {words}")


def _draw_members(rng: np.random.Generator, num_nodes: int, num_communities: int) -> np.ndarray:
    """Puts each node into one to three communities: [num_nodes, num_communities] bool."""
    counts = 1 + rng.choice(len(MEMBERSHIPS), num_nodes, p=MEMBERSHIPS)
    ranks = rng.random((num_nodes, num_communities), np.float32).argsort(axis=1).argsort(axis=1)
    return ranks < counts[:, None]


def _draw_holders(rng: np.random.Generator, num_labels: int, num_communities: int) -> np.ndarray:
    """Gives each label to one community, and to others by chance: [num_labels, num_communities]."""
    holders = rng.random((num_labels, num_communities)) < EXTRA_HOLDERS
    holders[np.arange(num_labels), rng.integers(num_communities, size=num_labels)] = True
    return holders


def _draw_propensities(rng: np.random.Generator, num_nodes: int, exponent: float) -> np.ndarray:
    """The quantiles of a power law in random order: independent draws would differ in their sum."""
    quantiles = (np.arange(num_nodes) + 0.5) / num_nodes
    return rng.permutation(quantiles ** (-1 / (exponent - 1)))


def _draw_edges(
    rng: np.random.Generator,
    members: np.ndarray,
    propensities: np.ndarray,
    num_edges: int,
    mixing: float,
) -> np.ndarray:
    """Draws edges until there are enough different ones, and leaves out what is too much."""
    num_nodes = len(members)
    # A slot is a node in one of its communities; those of a community lie together.
    community, node = np.nonzero(members.T)
    bounds = np.cumsum((propensities / members.sum(axis=1))[node])
    sizes = np.bincount(community, minlength=members.shape[1])
    ends = np.concatenate([[0.0], bounds])[np.cumsum([0, *sizes])]
    keys = np.zeros(0, np.int64)
    for _ in range(MAX_ROUNDS):
        size = int(1.1 * (num_edges - len(keys))) + 100
        # Sorted, since a search among neighbours is several times faster than one anywhere.
        first = np.searchsorted(bounds[:-1], np.sort(rng.random(size)) * bounds[-1], side="right")
        is_mixed = rng.random(size) < mixing
        low = np.where(is_mixed, 0, ends[community[first]])
        high = np.where(is_mixed, bounds[-1], ends[community[first] + 1])
        second = np.searchsorted(bounds[:-1], low + rng.random(size) * (high - low), side="right")
        one, other = node[first], node[second]
        new = np.minimum(one, other) * num_nodes + np.maximum(one, other)
        keys = np.sort(np.concatenate([keys, new[one != other]]))
        keys = keys[np.diff(keys, prepend=-1) > 0]
        if len(keys) >= num_edges:
            surplus = rng.choice(len(keys), len(keys) - num_edges, replace=False)
            return np.stack(np.divmod(np.delete(keys, surplus), num_nodes), 1).astype(np.int32)
    raise InputError(
        f"num_edges is {num_edges}: after {MAX_ROUNDS} rounds only {len(keys)} different edges are"
        " drawn; ask for fewer, for more nodes, or for fewer communities"
    )
