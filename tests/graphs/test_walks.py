"""Random walks, pairs and negatives: edges, frequencies, and the loss against a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.test_util import check_grads

from structdl.errors import InputError
from structdl.graphs.sampling import neighbour_lists
from structdl.graphs.walks import (
    negative_table,
    random_walks,
    sample_negatives,
    skip_gram_loss,
    skip_gram_pairs,
)

# a triangle with a tail, connected and not bipartite; node 5 is alone
EDGES = np.array([[0, 1], [1, 2], [2, 0], [2, 3], [3, 4]])
walk = jax.jit(random_walks, static_argnums=3)
draw_negatives = jax.jit(sample_negatives, static_argnums=2)


def example():
    senders, receivers = np.concatenate([EDGES, EDGES[:, ::-1]]).T
    return neighbour_lists(senders, receivers, 6)


def test_walks_follow_edges_and_stay_where_there_are_none():
    starts = jnp.array([0, 3, 5, 4])
    walks = np.asarray(walk(jax.random.key(0), example(), starts, 12))
    assert walks.shape == (4, 13)
    np.testing.assert_array_equal(walks[:, 0], starts)
    np.testing.assert_array_equal(walks[2], 5)
    edges = {tuple(edge) for edge in np.concatenate([EDGES, EDGES[:, ::-1]]).tolist()}
    for row in walks[[0, 1, 3]]:
        assert set(zip(row[:-1].tolist(), row[1:].tolist(), strict=True)) <= edges
    assert (walks != walk(jax.random.key(1), example(), starts, 12)).any()


def test_walks_go_against_directed_edges():
    lists = neighbour_lists([0, 1], [1, 2], 3)
    np.testing.assert_array_equal(walk(jax.random.key(0), lists, jnp.array([2]), 3), [[2, 1, 0, 0]])


def test_long_walks_visit_nodes_in_proportion_to_their_degrees():
    # the ends of independent walks are independent, as chi-square asks
    starts = jnp.zeros(2000, jnp.int32)
    ends = np.asarray(walk(jax.random.key(2), example(), starts, 60))[:, -1]
    counts, degrees = np.bincount(ends, minlength=6), np.array([2, 2, 3, 2, 1, 0])
    assert counts[5] == 0
    assert scipy.stats.chisquare(counts[:5], 200.0 * degrees[:5]).pvalue > 1e-3


def test_pairs_are_those_of_a_loop():
    walks = np.array([[0, 1, 0, 2, 3], [5, 5, 5, 5, 5]])
    for window in (1, 2, 6):
        for distinct in (False, True):
            expected = [
                (row[i], row[j])
                for row in walks
                for i in range(5)
                for j in range(5)
                if 0 < abs(i - j) <= window and not (distinct and row[i] == row[j])
            ]
            centres, contexts, mask = skip_gram_pairs(jnp.asarray(walks), window, distinct=distinct)
            assert mask.shape == (2, 5, 2 * window)
            actual = list(zip(centres[mask].tolist(), contexts[mask].tolist(), strict=True))
            assert actual == expected


def test_negatives_come_in_proportion_to_a_power_of_the_degree():
    degrees = np.array([0, 1, 16, 0, 81, 2, 0])
    drawn = np.asarray(draw_negatives(jax.random.key(0), negative_table(degrees), (20, 500)))
    counts = np.bincount(drawn.ravel(), minlength=7)
    expected = degrees**0.75
    used = degrees > 0
    assert (counts[~used] == 0).all()
    expected = 10_000 * expected[used] / expected.sum()
    assert scipy.stats.chisquare(counts[used], expected).pvalue > 1e-3


def test_every_word_of_a_large_table_has_its_node():
    degrees = np.random.default_rng(0).integers(0, 50, 200_000)
    table = negative_table(degrees)
    uppers = np.asarray(table.uppers).astype(np.int64)
    assert uppers[-1] == 2**32 - 1
    np.testing.assert_array_equal(table.nodes, np.flatnonzero(degrees))
    shares = np.diff(uppers, prepend=-1) / 2**32
    expected = degrees[degrees > 0] ** 0.75 / np.sum(degrees**0.75)
    np.testing.assert_allclose(shares, expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("degrees", "message"),
    [
        ([1, -2], r"degrees\[1\] = -2.0"),
        ([1, np.nan], r"degrees\[1\] = nan"),
        ([0, 0], "all 2 degrees are 0"),
        ([], "all 0 degrees are 0"),
        ([[1, 2]], r"shape \(1, 2\)"),
    ],
)
def test_bad_degrees_are_refused(degrees, message):
    with pytest.raises(InputError, match=message):
        negative_table(degrees)


def loss_by_hand(centres, contexts, negatives, mask, weight):
    def log_sigmoid(x):
        return -np.log1p(np.exp(-x))

    total = 0.0
    for place in np.flatnonzero(mask):
        own = negatives[place] if negatives.ndim == 3 else negatives
        repulsion = np.mean([log_sigmoid(-centres[place] @ other) for other in own])
        total -= log_sigmoid(centres[place] @ contexts[place]) + weight * repulsion
    return total, np.sum(mask)


@pytest.mark.parametrize("shared", [True, False])
def test_loss_equals_a_loop_and_what_is_masked_does_not_count(shared):
    rng = np.random.default_rng(0)
    centres, contexts = rng.normal(size=(2, 6, 3)).astype(np.float32)
    negatives = rng.normal(size=(4, 3) if shared else (6, 4, 3)).astype(np.float32)
    mask = np.array([True, True, False, True, False, True])
    with_nan = np.where(mask[:, None], contexts, np.nan)
    loss = jax.jit(skip_gram_loss, static_argnames="negative_weight")
    arrays = jnp.asarray(centres), jnp.asarray(with_nan), jnp.asarray(negatives), jnp.asarray(mask)
    for weight in (None, 1.5):
        expected = loss_by_hand(centres, contexts, negatives, mask, 4 if weight is None else weight)
        np.testing.assert_allclose(loss(*arrays, negative_weight=weight), expected, rtol=1e-5)
    gradients = jax.jit(jax.grad(lambda *a: skip_gram_loss(*a)[0], argnums=(0, 1, 2)))(*arrays)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    for gradient in gradients[:2]:
        np.testing.assert_array_equal(gradient[~mask], 0)
        assert np.abs(gradient[mask]).min() > 0


def test_loss_gradients_in_float64_and_far_from_zero():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        arrays = [jnp.asarray(rng.normal(size=shape)) for shape in ((5, 3), (5, 3), (5, 2, 3))]
        loss = jax.jit(lambda *arrays: skip_gram_loss(*arrays)[0])
        check_grads(loss, arrays, order=1, modes="rev")
    large = jnp.full((1, 3), 1e4)
    total, gradient = jax.value_and_grad(lambda z: skip_gram_loss(z, -large, large)[0])(large)
    np.testing.assert_allclose(total, 6e8, rtol=1e-6)
    np.testing.assert_allclose(gradient, [[2e4] * 3], rtol=1e-6)
    total, count = skip_gram_loss(jnp.ones((0, 3)), jnp.ones((0, 3)), jnp.ones((4, 3)))
    assert (float(total), float(count)) == (0, 0)


def test_two_cliques_are_told_apart_by_walks_alone():
    clique = np.array([(i, j) for i in range(5) for j in range(5) if i != j])
    edges = np.concatenate([clique, clique + 5, [[0, 5], [5, 0]]])
    lists, table = neighbour_lists(*edges.T, 10), negative_table(np.bincount(edges[:, 0]))

    @jax.jit
    def train(embeddings, lists, table):
        def step(tables, key):
            walk_key, negative_key = jax.random.split(key)
            walks = random_walks(walk_key, lists, jnp.arange(10), 4)
            centres, contexts, mask = (a.ravel() for a in skip_gram_pairs(walks, 2))
            negatives = sample_negatives(negative_key, table, (len(mask), 3))

            def loss(tables):
                sources, targets = tables
                return skip_gram_loss(
                    sources[centres], targets[contexts], targets[negatives], mask
                )[0]

            gradients = jax.grad(loss)(tables)
            return jax.tree.map(lambda leaf, g: leaf - 0.05 * g, tables, gradients), None

        return jax.lax.scan(step, embeddings, jax.random.split(jax.random.key(1), 100))[0]

    start = tuple(0.1 * jax.random.normal(jax.random.key(0), (2, 10, 4)))
    sources, _ = train(start, lists, table)
    rows = np.asarray(sources)
    alike = rows @ rows.T
    inside = np.concatenate([alike[:5, :5].ravel(), alike[5:, 5:].ravel()])
    assert inside.mean() > 1 + alike[:5, 5:].mean()
    assert (np.mean(alike[:5, 1:5], axis=1) > np.mean(alike[:5, 6:], axis=1)).all()
