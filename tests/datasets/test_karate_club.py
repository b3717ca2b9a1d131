"""Zachary's club against the copies that others carry."""

import doctest

import numpy as np
import pytest

from structdl.datasets import karate_club


@pytest.fixture(scope="module")
def club(tmp_path_factory):
    # Nothing raw is read: a raw folder that does not exist does no harm.
    folder = tmp_path_factory.mktemp("data")
    return karate_club.load(data_dir=folder, raw_dir=folder / "nowhere")


def test_counts(club):
    assert club.edges.shape == (78, 2)
    assert len({frozenset(edge) for edge in club.edges.tolist()}) == 78
    # The officer and the instructor have 17 and 16 friends (Zachary's table).
    degrees = np.bincount(club.edges.ravel(), minlength=34)
    assert (degrees[33], degrees[0], degrees.min()) == (17, 16, 1)
    assert np.bincount(club.faction).tolist() == [17, 17]
    assert np.bincount(club.modularity_class).tolist() == [13, 12, 4, 5]
    assert {array.dtype for array in club} == {np.dtype(np.int32)}


def test_docstring(monkeypatch, tmp_path):
    monkeypatch.setenv("STRUCTDL_DATA_DIR", str(tmp_path))
    result = doctest.testmod(karate_club)
    assert (result.failed, result.attempted) == (0, 1)


@pytest.mark.peers
def test_edges_and_factions_equal_networkx(club):
    networkx = pytest.importorskip("networkx")
    graph = networkx.karate_club_graph()
    assert sorted(map(sorted, graph.edges)) == club.edges.tolist()
    officers = [graph.nodes[member]["club"] == "Officer" for member in range(34)]
    np.testing.assert_array_equal(club.faction, officers)


@pytest.mark.peers
def test_classes_and_edges_equal_torch_geometric(club):
    geometric = pytest.importorskip("torch_geometric.datasets")
    data = geometric.KarateClub()[0]
    np.testing.assert_array_equal(club.modularity_class, data.y.numpy())
    both_ways = np.concatenate([club.edges, club.edges[:, ::-1]])
    assert set(map(tuple, both_ways.tolist())) == set(map(tuple, data.edge_index.T.tolist()))
