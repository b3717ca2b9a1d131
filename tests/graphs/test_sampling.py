"""Neighbour sampling: real neighbours, the right frequencies, every neighbour where all fit."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, strategies as st

from structdl.errors import InputError
from structdl.graphs.sampling import Blocks, neighbour_lists, sample_blocks, sample_neighbours

# node 0 has 6 neighbours, one of them twice; node 1 has 2; node 2 none; node 3 itself alone
SENDERS = [5, 6, 1, 7, 2, 8, 9, 9, 3]
RECEIVERS = [0, 0, 1, 0, 1, 0, 0, 0, 3]
NUM_NODES = 10


def example():
    return neighbour_lists(SENDERS, RECEIVERS, NUM_NODES)


def listed(node):
    return [s for s, r in zip(SENDERS, RECEIVERS, strict=True) if r == node]


sample = jax.jit(sample_neighbours, static_argnums=3, static_argnames="replace")


def draws(node, fan_out, count, *, replace):
    """`count` independent samples around one node, and their masks: two arrays [count, fan_out]."""
    nodes = jnp.full((count,), node)
    neighbours, mask = sample(jax.random.key(0), example(), nodes, fan_out, replace=replace)
    return np.asarray(neighbours), np.asarray(mask)


def test_lists_hold_the_senders_of_each_node_in_edge_order():
    lists = example()
    assert lists.num_nodes == NUM_NODES
    for node in range(NUM_NODES):
        first, last = lists.offsets[node : node + 2]
        np.testing.assert_array_equal(lists.neighbours[first:last], listed(node))


EDGES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=14, max_size=14)


@given(EDGES, st.booleans())
def test_samples_are_neighbours_and_short_lists_come_whole(edges, replace):
    senders, receivers = [s for s, _ in edges], [r for _, r in edges]
    lists = neighbour_lists(senders, receivers, 6)
    neighbours, mask = sample(jax.random.key(0), lists, jnp.arange(6), 3, replace=replace)
    for node in range(6):
        own = [s for s, r in edges if r == node]
        count = (3 if own else 0) if replace else min(3, len(own))
        np.testing.assert_array_equal(mask[node], np.arange(3) < count)
        np.testing.assert_array_equal(neighbours[node, count:], node)
        drawn = neighbours[node, :count].tolist()
        assert set(drawn) <= set(own)
        if not replace:
            assert all(drawn.count(value) <= own.count(value) for value in drawn)
            assert len(own) > 3 or drawn == own


def test_draws_with_replacement_are_uniform_and_independent():
    neighbours, mask = draws(0, 2, 3000, replace=True)
    assert mask.all()
    expected = np.array([listed(0).count(node) for node in range(NUM_NODES)]) / 6
    support = np.flatnonzero(expected)
    pairs = np.zeros((NUM_NODES, NUM_NODES))
    np.add.at(pairs, tuple(neighbours.T), 1)
    assert pairs[np.ix_(support, support)].sum() == 3000
    expected_pairs = 3000 * np.outer(expected, expected)[np.ix_(support, support)]
    test = scipy.stats.chisquare(pairs[np.ix_(support, support)].ravel(), expected_pairs.ravel())
    assert test.pvalue > 1e-3


@pytest.mark.parametrize("fan_out", [1, 2, 3, 5])
def test_every_subset_is_equally_likely_without_replacement(fan_out):
    # by list entry: with distinct neighbours, so that a subset of entries is a set of nodes
    lists = neighbour_lists(np.arange(1, 7), np.zeros(6, int), 7)
    neighbours, mask = sample(
        jax.random.key(1), lists, jnp.zeros(3000, jnp.int32), fan_out, replace=False
    )
    assert np.asarray(mask).all()
    subsets = {subset: 0 for subset in itertools.combinations(range(1, 7), fan_out)}
    for row in np.sort(neighbours, axis=1):
        subsets[tuple(row.tolist())] += 1  # a KeyError for a repeat or a stranger
    assert scipy.stats.chisquare(list(subsets.values())).pvalue > 1e-3


def test_all_neighbours_come_where_the_fan_out_holds_them():
    for fan_out in (6, 8):
        neighbours, mask = draws(0, fan_out, 5, replace=False)
        for row, row_mask in zip(neighbours, mask, strict=True):
            assert row[row_mask].tolist() == listed(0)
            assert (row[~row_mask] == 0).all()


@pytest.mark.parametrize("replace", [True, False])
def test_nodes_without_neighbours_and_absent_nodes_are_masked(replace):
    nodes = jnp.array([[2, 9], [10, -1]])
    for lists in (example(), neighbour_lists([], [], NUM_NODES)):
        neighbours, mask = sample(jax.random.key(0), lists, nodes, 4, replace=replace)
        assert not np.asarray(mask).any()
        np.testing.assert_array_equal(neighbours, np.repeat(np.asarray(nodes)[..., None], 4, -1))


@pytest.mark.parametrize("replace", [True, False])
def test_the_last_node_draws_from_the_end_of_the_lists(replace):
    lists = neighbour_lists([0, 1, 2], [3, 3, 3], 4)
    neighbours, mask = sample(jax.random.key(0), lists, jnp.full(50, 3), 2, replace=replace)
    assert np.asarray(mask).all()
    assert set(np.asarray(neighbours).ravel().tolist()) == {0, 1, 2}


@pytest.mark.parametrize("replace", [True, False])
def test_blocks_are_drawn_hop_by_hop_with_the_first_layer_outermost(replace):
    lists = example()
    seeds = jnp.array([0, 1, 2, 3])
    traces = []

    def traced(key):
        traces.append(key)
        return sample_blocks(key, lists, seeds, (4, 3), replace=replace)

    blocks_of = jax.jit(traced)
    blocks = blocks_of(jax.random.key(0))
    assert isinstance(blocks, Blocks)
    assert [mask.shape for mask in blocks.masks] == [(4, 3), (4, 3, 4)]
    np.testing.assert_array_equal(blocks.nodes[0], seeds)
    for inner, outer, mask in zip(blocks.nodes, blocks.nodes[1:], blocks.masks, strict=False):
        for place in np.ndindex(inner.shape):
            own = listed(int(inner[place]))
            drawn = np.asarray(outer[place])[np.asarray(mask[place])].tolist()
            assert set(drawn) <= set(own)
            assert bool(drawn) == bool(own)
    others = [blocks_of(jax.random.key(seed)) for seed in range(1, 5)]
    assert any((np.asarray(other.nodes[2]) != blocks.nodes[2]).any() for other in others)
    assert len(traces) == 1


def test_bad_edges_are_refused():
    with pytest.raises(InputError, match=r"senders\[1\] = 4 .*0 to 3"):
        neighbour_lists([0, 4], [1, 1], 4)
    with pytest.raises(InputError, match=r"receivers\[0\] = -1 .*0 to 3"):
        neighbour_lists([0, 3], [-1, 1], 4)
    with pytest.raises(InputError, match="equal length"):
        neighbour_lists([0, 3], [1], 4)
    many = np.broadcast_to(np.int32(0), 2**31)  # without its memory
    with pytest.raises(InputError, match="at most 2147483647"):
        neighbour_lists(many, many, 1)
