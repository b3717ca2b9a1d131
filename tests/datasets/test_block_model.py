"""The generated graph: its counts, its power law, and neighbours that tell more than the node."""

import numpy as np
import pytest
import scipy.sparse

from structdl.datasets import block_model, simulate_block_model
from structdl.datasets.simulate_block_model import edges_among
from structdl.errors import InputError

SMALL = block_model.PARAMETERS["small"]


def simulate(seed=0, **changes):
    return simulate_block_model.simulate_block_model(seed, **SMALL | changes)


def hill(degrees, share):
    """Hill's estimate of a power law's exponent, from the largest values."""
    largest = np.sort(degrees)[::-1][: int(share * len(degrees)) + 1]
    return 1 + 1 / np.log(largest[:-1] / largest[-1]).mean()


def test_counts():
    graph = simulate()
    assert graph.edges.shape == (20_000, 2)
    assert (graph.edges[:, 0] < graph.edges[:, 1]).all()
    assert (graph.edges.min(), graph.edges.max()) == (0, 1999)
    keys = graph.edges[:, 0].astype(np.int64) * 2000 + graph.edges[:, 1]
    assert (np.diff(keys) > 0).all()  # sorted, and all different
    assert graph.features.shape == (2000, 50)
    assert graph.labels.shape == (2000, 121)
    assert set(np.unique(graph.labels)) == {0, 1}
    assert 0.1 < graph.labels.mean() < 0.4
    assert (graph.labels.mean(axis=0) > 0).all()
    assert [len(part) for part in graph[3:]] == [1200, 400, 400]
    assert sorted(np.concatenate(graph[3:]).tolist()) == list(range(2000))
    assert [array.dtype for array in graph] == [
        *(np.int32, np.float32, np.uint8, np.int32, np.int32, np.int32)
    ]


def test_the_seed_decides_everything():
    one, again, other = simulate(3), simulate(3), simulate(4)
    for name in one._fields:
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
        assert not np.array_equal(getattr(one, name), getattr(other, name))
    # Each part has its own stream: other edges leave the features as they are.
    fewer = simulate(3, num_edges=5_000)
    np.testing.assert_array_equal(fewer.features, one.features)
    np.testing.assert_array_equal(fewer.labels, one.labels)


@pytest.mark.parametrize("exponent", [2.2, 2.5, 3.0])
def test_degrees_follow_the_power_law(exponent):
    graph = simulate(num_nodes=20_000, num_edges=200_000, exponent=exponent)
    degrees = np.bincount(graph.edges.ravel(), minlength=20_000)
    # 0.1 to 0.15 too high: Poisson noise, and hubs that already know their community.
    assert hill(degrees, 0.05) == pytest.approx(exponent + 0.1, abs=0.15)
    assert degrees.max() > 50 * degrees.mean()


def test_ends_of_an_edge_share_a_community(monkeypatch):
    # Each label is now of one community: who has a label in common has a community in common.
    monkeypatch.setattr(simulate_block_model, "EXTRA_HOLDERS", 0)
    shares = {}
    for mixing in (0.0, 0.5, 1.0):
        graph = simulate(mixing=mixing, num_edges=5_000)
        one, other = (graph.labels[ends] for ends in graph.edges.T)
        shares[mixing] = (one & other).any(axis=1).mean()
    assert shares[0.0] == 1
    assert shares[0.5] == pytest.approx((shares[0.0] + shares[1.0]) / 2, abs=0.05)
    pairs = np.random.default_rng(0).integers(0, 2000, (20_000, 2))
    one, other = (graph.labels[ends] for ends in pairs.T)
    assert shares[1.0] == pytest.approx((one & other).any(axis=1).mean(), abs=0.05)
    assert shares[1.0] < 0.3


def test_features_are_means_of_centres_and_noise():
    clean, noisy = simulate(feature_noise=0.0), simulate(feature_noise=2.0)
    assert (noisy.features - clean.features).std() == pytest.approx(2.0, rel=0.02)
    # Features without noise are those of the node's communities, which decide its labels.
    centres, kind = np.unique(clean.features, axis=0, return_inverse=True)
    assert 20 < len(centres) <= 20 + 190 + 1140
    for number in range(20):
        assert len(np.unique(clean.labels[kind == number], axis=0)) == 1


@pytest.mark.peers
def test_neighbours_tell_more_than_the_node_itself():
    linear_model = pytest.importorskip("sklearn.linear_model")
    metrics = pytest.importorskip("sklearn.metrics")
    graph = simulate()
    labels = graph.labels[:, :10]
    senders, receivers = np.concatenate([graph.edges, graph.edges[:, ::-1]]).T
    ones = np.ones(len(senders), np.float32)
    adjacency = scipy.sparse.csr_matrix((ones, (receivers, senders)), (2000, 2000))
    degrees = np.maximum(adjacency.sum(axis=1).A1, 1)[:, None]
    once = adjacency @ graph.features / degrees
    twice = adjacency @ once / degrees

    def micro_f1(*features):
        rows = np.hstack(features)
        predictions = [
            linear_model.LogisticRegression(max_iter=200)
            .fit(rows[graph.train], label[graph.train])
            .predict(rows[graph.test])
            for label in labels.T
        ]
        return metrics.f1_score(labels[graph.test], np.stack(predictions, 1), average="micro")

    alone = micro_f1(graph.features)
    with_neighbours = micro_f1(graph.features, once)
    two_hops = micro_f1(graph.features, once, twice)
    assert 0.4 < alone < 0.6
    assert with_neighbours > alone + 0.12
    assert two_hops > with_neighbours + 0.03


def test_edges_among_equals_a_loop():
    graph = simulate(num_edges=3_000)
    nodes = np.random.default_rng(0).permutation(graph.train)
    places = {node: place for place, node in enumerate(nodes.tolist())}
    expected = [
        [places[one], places[other]]
        for one, other in graph.edges.tolist()
        if one in places and other in places
    ]
    found = edges_among(graph.edges, nodes, 2000)
    assert 0 < len(expected) < 3_000
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.int32
    assert edges_among(graph.edges, nodes[:0], 2000).shape == (0, 2)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_nodes", 99, "num_nodes is 99: it must be at least 100"),
        ("num_edges", 0, "num_edges is 0: it must be 1 to 1999000"),
        ("num_edges", 1_999_001, "num_edges is 1999001: it must be 1 to 1999000"),
        ("num_communities", 2, "num_communities is 2: it must be at least 3"),
        ("num_labels", 0, "num_labels is 0"),
        ("num_features", 0, "num_features is 0"),
        ("exponent", 2.0, "exponent is 2.0: it must be above 2"),
        ("exponent", float("nan"), "exponent is nan"),
        ("mixing", 1.01, "mixing is 1.01: it must be 0 to 1"),
        ("feature_noise", -0.1, "feature_noise is -0.1: it must be 0 or more"),
    ],
)
def test_values_out_of_range(name, value, message):
    with pytest.raises(InputError, match=message):
        simulate(**{name: value})


def test_no_room_for_the_edges():
    with pytest.raises(InputError, match=r"after 20 rounds only .* different edges are drawn"):
        simulate(num_nodes=100, num_edges=4950, mixing=0.0)


def test_prepared_graph_is_the_simulated_one(tmp_path, monkeypatch):
    monkeypatch.setattr(block_model, "EDGES_PER_EXAMPLE", 3_000)
    expected = simulate(block_model.SEED)
    for _ in range(2):
        graph = block_model.load("small", data_dir=tmp_path)
        for name in graph._fields:
            np.testing.assert_array_equal(getattr(graph, name), getattr(expected, name))
            assert getattr(graph, name).dtype == getattr(expected, name).dtype
    builder = block_model.BlockModelBuilder(data_dir=tmp_path, config="small")
    assert builder.info.splits["full"].num_examples == 7


def test_names():
    large = block_model.PARAMETERS["large"]
    assert (large["num_nodes"], large["num_edges"]) == (200_000, 10_000_000)
    with pytest.raises(InputError, match="unknown block model 'larg': did you mean 'large'"):
        block_model.load("larg")
