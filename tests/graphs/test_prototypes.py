"""Prototypes against loops, by hand, and under permutations of the actions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structdl.errors import InputError
from structdl.graphs.prototypes import (
    CoOccurrenceGCN,
    PrototypeMatcher,
    best_frames_mean,
    co_occurrence_graph,
    matching_scores,
    video_loss,
)

VIDEOS, TIME, CLASSES, FEATURES, DESCRIPTION = 6, 9, 5, 4, 3


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def some_labels(seed=0):
    return jnp.asarray(np.random.default_rng(seed).random((VIDEOS, CLASSES)) < 0.5)


@pytest.mark.parametrize("seed", range(4))
def test_graph_equals_a_loop(seed):
    labels, threshold, share = np.asarray(some_labels(seed)), 0.6, 0.4
    found = np.asarray(
        co_occurrence_graph(jnp.asarray(labels), threshold=threshold, neighbour_share=share)
    )
    for i in range(CLASSES):
        videos = labels[labels[:, i]]
        neighbours = [
            j for j in range(CLASSES) if j != i and len(videos) and videos[:, j].mean() >= threshold
        ]
        expected = np.zeros(CLASSES)
        for j in neighbours:
            expected[j] = share / len(neighbours)
        expected[i] = 1 - share if neighbours else 1
        np.testing.assert_allclose(found[i], expected, atol=1e-6)


def test_an_action_that_no_video_has_keeps_its_own():
    labels = some_labels().at[:, 2].set(False)
    found = np.asarray(co_occurrence_graph(labels))
    np.testing.assert_array_equal(found[2], np.eye(CLASSES)[2])
    assert (found[np.arange(CLASSES) != 2, 2] == 0).all()


@pytest.mark.parametrize("options", [{"threshold": 0.0}, {"neighbour_share": 1.5}])
def test_shares_out_of_range(options):
    with pytest.raises(InputError, match=f"{next(iter(options))} is"):
        co_occurrence_graph(some_labels(), **options)


def test_scores_are_negative_squared_distances():
    frames, prototypes = normal(1, 2, TIME, FEATURES), normal(2, CLASSES, FEATURES)
    found = matching_scores(frames, prototypes)
    distances = np.asarray(frames)[:, :, None] - np.asarray(prototypes)
    np.testing.assert_allclose(found, -(distances**2).sum(axis=-1), rtol=1e-4, atol=1e-5)
    same = 100 + normal(3, CLASSES, FEATURES)
    assert (np.diagonal(matching_scores(same, same)) <= 0).all()


def test_the_best_frames_are_averaged_and_padding_is_none():
    scores, lengths = normal(4, 3, TIME, CLASSES), jnp.array([9, 5, 1])
    padded = jnp.where(jnp.arange(TIME)[None, :, None] < lengths[:, None, None], scores, jnp.nan)
    found = np.asarray(best_frames_mean(padded, lengths, share=0.4))
    for row, its, length in zip(found, np.asarray(scores), lengths.tolist(), strict=True):
        count = max(int(0.4 * length), 1)
        expected = np.sort(its[:length], axis=0)[-count:].mean(axis=0)
        np.testing.assert_allclose(row, expected, rtol=1e-5)

    def total(scores):
        return jnp.sum(best_frames_mean(scores, lengths, share=0.4))

    gradient = np.asarray(jax.grad(total)(padded))
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient.sum(axis=1), 1, rtol=1e-5)
    assert (gradient[1, 5:] == 0).all()


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan")])
def test_a_share_of_frames_out_of_its_range_is_named(share):
    with pytest.raises(InputError, match=f"share is {share}"):
        best_frames_mean(jnp.zeros((1, 2, 3)), jnp.array([2]), share=share)


def test_loss_by_hand():
    scores = jnp.log(jnp.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]))
    labels = jnp.array([[True, False, False], [True, True, False], [False, False, False]])
    expected = [-np.log(0.5), -(np.log(0.5) + np.log(0.3)) / 2, 0]
    np.testing.assert_allclose(video_loss(scores, labels), expected, rtol=1e-5)


def test_gcn_equals_a_loop_over_actions():
    descriptions, graph = normal(5, CLASSES, DESCRIPTION), co_occurrence_graph(some_labels())
    model = CoOccurrenceGCN((6, FEATURES))
    found, variables = model.init_with_output(jax.random.key(0), descriptions, graph)
    hidden = np.asarray(descriptions)
    for number in range(2):
        its = variables["params"][f"layer_{number}"]
        if number:
            hidden = np.where(hidden > 0, hidden, 0.2 * hidden)
        projected = [row @ np.asarray(its["kernel"]) + np.asarray(its["bias"]) for row in hidden]
        hidden = np.array(
            [sum(float(graph[i, j]) * projected[j] for j in range(CLASSES)) for i in range(CLASSES)]
        )
    np.testing.assert_allclose(found, hidden, rtol=1e-4, atol=1e-5)


def test_scores_of_renamed_actions_are_renamed():
    model, order = PrototypeMatcher(FEATURES, 6), np.array([3, 1, 4, 0, 2])
    frames, descriptions = normal(1, 2, TIME, 7), normal(5, CLASSES, DESCRIPTION)
    labels = some_labels()
    given = frames, descriptions, co_occurrence_graph(labels)
    scores, variables = model.init_with_output(jax.random.key(0), *given, train=False)
    renamed = frames, descriptions[order], co_occurrence_graph(labels[:, order])
    moved = model.apply(variables, *renamed, train=False)
    for one, other in ((scores[0][..., order], moved[0]), (scores[1][order], moved[1])):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("relational", [True, False])
def test_who_learns_from_whom(relational):
    """The gradient of one action's score reaches what describes its neighbours, or nobody else."""
    model = PrototypeMatcher(FEATURES, 6, relational=relational)
    frames, descriptions = normal(1, 2, TIME, 7), normal(5, CLASSES, DESCRIPTION)
    labels = jnp.zeros((2, CLASSES), bool).at[0, :2].set(True).at[1, 2:].set(True)
    graph = co_occurrence_graph(labels)
    variables = model.init(jax.random.key(0), frames, descriptions, graph, train=False)

    def score(descriptions, variables):
        return jnp.sum(model.apply(variables, frames, descriptions, graph, train=False)[0][..., 0])

    of_descriptions, of_variables = jax.grad(score, argnums=(0, 1))(descriptions, variables)
    reached = np.abs(np.asarray(of_descriptions)).sum(axis=1) > 0
    assert reached.tolist() == ([True, True, False, False, False] if relational else [False] * 5)
    if not relational:
        own = np.abs(np.asarray(of_variables["params"]["prototypes"])).sum(axis=1) > 0
        assert own.tolist() == [True, False, False, False, False]
