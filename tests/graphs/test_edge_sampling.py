"""Negative samples and edge splits against sets of pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structdl.core.segment import edge_layout
from structdl.errors import InputError
from structdl.graphs.edge_sampling import is_edge, negative_sampling, sort_edges, split_edges


def example_edges(num_nodes=9, num_edges=30, seed=0):
    """Directed edges with self-loops and repetitions; the last node has none."""
    senders, receivers = np.random.default_rng(seed).integers(0, num_nodes - 1, (2, num_edges))
    senders[0] = receivers[0]
    senders[1], receivers[1] = senders[2], receivers[2]
    return senders, receivers


def as_set(pairs):
    return {(int(one), int(other)) for one, other in pairs}


def as_pairs(pairs):
    return [(int(one), int(other)) for one, other in pairs.T]


def test_every_pair_is_found_exactly_where_it_is_an_edge():
    for num_edges in (0, 3, 30):
        senders, receivers = example_edges(num_edges=max(num_edges, 3))
        senders, receivers = senders[:num_edges], receivers[:num_edges]
        edges = sort_edges(edge_layout(senders, receivers, 9))
        pairs = np.indices((9, 9)).reshape(2, -1)
        linked = as_set(zip(senders, receivers, strict=True))
        expected = [pair in linked for pair in as_pairs(pairs)]
        np.testing.assert_array_equal(jax.jit(is_edge)(edges, *jnp.asarray(pairs)), expected)


def test_search_does_not_overflow_in_large_graphs():
    num_nodes = 100_000  # the square is beyond 32 bits
    senders = np.array([99_999, 99_999, 5, 0])
    receivers = np.array([99_998, 0, 99_999, 99_999])
    edges = sort_edges(edge_layout(senders, receivers, num_nodes))
    assert is_edge(edges, jnp.asarray(senders), jnp.asarray(receivers)).all()
    assert not is_edge(edges, jnp.asarray(receivers), jnp.asarray(senders) - 1).any()


def test_samples_are_uniform_over_the_pairs_without_an_edge():
    senders, receivers = example_edges()
    edges = sort_edges(edge_layout(senders, receivers, 9))
    sample = jax.jit(negative_sampling, static_argnums=2)
    drawn = as_pairs(np.array(sample(jax.random.key(0), edges, 20_000)))
    linked = as_set(zip(senders, receivers, strict=True))
    free = {(one, other) for one in range(9) for other in range(9) if one != other} - linked
    assert set(drawn) == free
    counts = np.array([drawn.count(pair) for pair in free])
    expected = 20_000 / len(free)
    chi_square = np.sum((counts - expected) ** 2 / expected)
    assert chi_square < len(free) + 4 * np.sqrt(2 * len(free))


def test_samples_differ_by_key_and_not_under_vmap():
    edges = sort_edges(edge_layout(*example_edges(), 9))
    keys = jax.random.split(jax.random.key(0), 2)
    sample = jax.vmap(lambda key, edges: negative_sampling(key, edges, 40), in_axes=(0, None))
    together = np.array(jax.jit(sample)(keys, edges))
    alone = jax.jit(negative_sampling, static_argnums=2)
    for seed in range(2):
        expected = alone(jax.random.split(jax.random.key(0), 2)[seed], edges, 40)
        np.testing.assert_array_equal(together[:, seed], np.array(expected))
    assert np.any(together[:, 0] != together[:, 1])


def test_sampling_ends_in_a_complete_graph_and_refuses_a_single_node():
    complete = sort_edges(edge_layout(*np.nonzero(1 - np.eye(4)), 4))
    senders, receivers = negative_sampling(jax.random.key(0), complete, 5)
    assert np.all(senders != receivers)
    single = sort_edges(edge_layout(np.array([], int), np.array([], int), 1))
    with pytest.raises(InputError, match="at least 2"):
        negative_sampling(jax.random.key(0), single, 5)


def test_split_parts_are_disjoint_and_of_the_right_sizes():
    senders, receivers = example_edges(num_nodes=60, num_edges=300)
    given = np.stack([senders, receivers], axis=1)
    split = split_edges(np.concatenate([given, given[:, ::-1]]), 60, 0)
    linked = as_set(np.sort(given, axis=1)[senders != receivers])
    num_validation, num_test = len(linked) // 20, len(linked) // 10
    positive = [as_set(part) for part in (split.train, split.validation, split.test)]
    negative = [as_set(part) for part in (split.validation_negatives, split.test_negatives)]
    assert set.union(*positive) == linked
    assert [len(part) for part in split] == [
        len(linked) - num_validation - num_test,
        *[num_validation, num_test] * 2,
    ]
    sizes = [len(part) for part in (*positive, *negative)]
    assert len(set.union(*positive, *negative)) == sum(sizes) == sum(map(len, split))
    assert all(np.all(part[:, 0] < part[:, 1]) for part in split)
    assert {part.dtype for part in split} == {np.dtype(np.int32)}
    assert max(map(np.max, split)) < 60


def test_split_depends_on_the_seed_alone():
    edges = np.stack(example_edges(60, 300), axis=1)
    first, again, other = (split_edges(edges, 60, seed) for seed in (0, 0, 1))
    for one, same, different in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one, same)
        assert np.any(one != different)
    # the order and direction of the edges do not matter
    shuffled = np.random.default_rng(0).permutation(edges)[:, ::-1]
    np.testing.assert_array_equal(split_edges(shuffled, 60, 0).test, first.test)


def test_non_edges_of_a_dense_graph_are_all_of_the_rest():
    every = np.stack(np.triu_indices(12, 1), axis=1)
    free = np.random.default_rng(0).permutation(len(every)) < 20
    split = split_edges(every[~free], 12, 0, validation=0.0, test=20.5 / 46)
    assert as_set(split.test_negatives) == as_set(every[free])
    assert len(split.validation) == len(split.validation_negatives) == 0


def test_non_edges_of_a_large_graph():
    path = np.arange(29_999)
    split = split_edges(np.stack([path, path + 1], axis=1), 30_000, 0)
    for part in (split.validation_negatives, split.test_negatives):
        assert np.all(part[:, 1] - part[:, 0] > 1)
        # uniform over the triangle of pairs: the ends are at 1/3 and 2/3 on average
        np.testing.assert_allclose(part.mean(axis=0) / 30_000, [1 / 3, 2 / 3], atol=0.03)


def test_bad_input_is_refused_with_the_fix():
    path = np.stack([np.arange(29), np.arange(1, 30)], axis=1)
    complete = np.stack(np.triu_indices(20, 1), axis=1)
    for arguments, options, message in (
        ((path[:9], 30), {}, r"validation = 0.05 of 9 edges.*too small"),
        ((complete, 20), {}, r"0 pairs of nodes have no edge, and 28 are needed.*too dense"),
        ((path, 29), {}, r"edges\[28, 1\] = 29.*0 to 28"),
        ((path - 1, 30), {}, r"edges\[0, 0\] = -1"),
        ((path.T, 30), {}, r"\[num_edges, 2\]"),
        ((path / 1.0, 30), {}, r"\[num_edges, 2\]"),
        ((path, 30), {"validation": -0.1}, "validation = -0.1"),
        ((path, 30), {"validation": 0.5, "test": 0.5}, "leave some for training"),
        ((path[:0], 30), {}, "too small"),
    ):
        with pytest.raises(InputError, match=message):
            split_edges(*arguments, 0, **options)
