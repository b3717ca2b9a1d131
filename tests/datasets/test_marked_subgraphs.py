"""The marked sub-graphs: labels counted again, sizes, and what is refused."""

import itertools

import numpy as np
import pytest

from structdl.datasets.marked_subgraphs import (
    NUM_GRAPHS,
    PARAMETERS,
    SEED,
    load,
    simulate_marked_graphs,
)
from structdl.errors import InputError


def test_prepared_graphs_are_the_simulated_ones_and_their_labels_count_pairs(tmp_path):
    graphs = load(data_dir=tmp_path)
    simulated = simulate_marked_graphs(SEED, NUM_GRAPHS, **PARAMETERS)
    for graph, other in zip(graphs, simulated, strict=True):
        np.testing.assert_array_equal(graph.edges, other.edges)
        np.testing.assert_array_equal(graph.is_marked, other.is_marked)
        edges = {tuple(edge) for edge in graph.edges.tolist()}
        assert len(edges) == len(graph.edges)
        marked = np.flatnonzero(graph.is_marked).tolist()
        assert len(marked) == 10
        count = sum(pair in edges for pair in itertools.combinations(marked, 2))
        assert graph.label == (count > 45 / 6)
    assert 0.45 < np.mean([graph.label for graph in graphs]) < 0.55
    assert {len(graph.is_marked) for graph in graphs} == set(range(20, 31))


def test_the_same_seed_gives_the_same_graphs_and_another_does_not():
    def edges(seed):
        return [graph.edges.tolist() for graph in simulate_marked_graphs(seed, 3, **PARAMETERS)]

    assert edges(1) == edges(1)
    assert edges(1) != edges(2)


@pytest.mark.parametrize(
    "change", [{"num_marked": 1}, {"num_marked": 21}, {"max_nodes": 19}, {"edge_probability": 1.0}]
)
def test_a_value_out_of_range_is_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        simulate_marked_graphs(0, 1, **PARAMETERS | change)
