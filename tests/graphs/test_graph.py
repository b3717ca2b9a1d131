"""Graphs: what construction refuses, self-loops, symmetry, batching, padding and masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

from structdl.core.segment import edge_layout, edge_list
from structdl.errors import InputError
from structdl.graphs.edge_sampling import split_edges
from structdl.graphs.ggnn import typed_edge_layout
from structdl.graphs.graph import (
    add_self_loops,
    batch,
    edge_mask,
    graph_from_edges,
    graph_mask,
    node_graph_ids,
    node_mask,
    pad,
    symmetrize,
    take_graphs,
    unbatch,
)
from structdl.graphs.sampling import neighbour_lists


@st.composite
def graphs(draw, min_nodes=1):
    """Random directed graphs with features, isolated nodes, self-loops and repeated edges."""
    num_nodes = draw(st.integers(min_nodes, 5))
    node = st.integers(0, max(num_nodes - 1, 0))
    edges = draw(st.lists(st.tuples(node, node), max_size=9 if num_nodes else 0))
    senders, receivers = np.array(edges, int).reshape(-1, 2).T
    rng = np.random.default_rng(len(edges))
    return graph_from_edges(
        senders,
        receivers,
        num_nodes,
        nodes=rng.normal(size=(num_nodes, 2)),
        edges=rng.normal(size=(len(edges), 3)),
        globals=rng.normal(size=4),
    )


def edge_set(graph):
    """The edges with their features, in an order that does not depend on theirs."""
    return sorted(zip(graph.senders, graph.receivers, map(tuple, graph.edges), strict=True))


def assert_graphs_equal(actual, expected):
    for name, field in expected._asdict().items():
        np.testing.assert_array_equal(getattr(actual, name), field, err_msg=name, strict=True)


def test_construction_by_hand():
    graph = graph_from_edges([0, 2], [1, 1], 3, nodes=[[1], [2], [3]], globals=[0.5, 0.25])
    jraph_fields = ("nodes", "edges", "receivers", "senders", "globals", "n_node", "n_edge")
    assert graph._fields == jraph_fields
    np.testing.assert_array_equal(graph.nodes, np.array([[1], [2], [3]], np.int32), strict=True)
    np.testing.assert_array_equal(graph.globals, np.array([[0.5, 0.25]], np.float32), strict=True)
    np.testing.assert_array_equal(graph.senders, np.array([0, 2], np.int32), strict=True)
    np.testing.assert_array_equal(graph.n_node, [3])
    np.testing.assert_array_equal(graph.n_edge, [2])
    assert graph.edges is None
    assert (graph.num_nodes, graph.num_edges, graph.num_graphs) == (3, 2, 1)


def test_a_graph_of_arrays_on_the_device_is_accepted():
    expected = graph_from_edges([0, 2], [1, 1], 3, nodes=np.ones((3, 2)))
    ends = jnp.array([0, 2]), jnp.array([1, 1])
    assert_graphs_equal(graph_from_edges(*ends, 3, nodes=jnp.ones((3, 2))), expected)
    on_device = jax.device_put(expected)
    for function in (add_self_loops, symmetrize, lambda graph: batch([graph, graph])):
        assert_graphs_equal(function(on_device), function(expected))
    sizes = {"num_nodes": 5, "num_edges": 4, "num_graphs": 3}
    assert_graphs_equal(pad(on_device, **sizes), pad(expected, **sizes))
    assert_graphs_equal(unbatch(on_device)[0], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"senders": [0, 3]}, r"senders\[1\] = 3 .*num_nodes = 3.*0 to 2"),
        ({"receivers": [-1, 0]}, r"receivers\[0\] = -1 .*0 to 2"),
        ({"senders": [0, 1, 2]}, r"senders has 3 entries and receivers has 2"),
        ({"senders": [0.0, 1.0]}, r"senders .*float64.*integers"),
        ({"receivers": [[0, 1]]}, r"receivers has shape \(1, 2\).*one-dimensional"),
        ({"nodes": np.ones((2, 1))}, r"nodes has shape \(2, 1\).*length 3.*per node"),
        ({"edges": np.ones((3, 1))}, r"edges has shape \(3, 1\).*length 2.*per edge"),
        ({"nodes": 1.0}, r"nodes has shape \(\).*length 3"),
        ({"nodes": [[1], [2, 3], [4]]}, r"nodes is ragged: nodes\[1\] has length 2.*pad or cut"),
        ({"edges": np.array([[1], [2, 3]], object)}, r"edges is ragged: edges\[1\] has length 2"),
        ({"nodes": [[1.0, 2.0], [3.0, np.nan], [4.0, 5.0]]}, r"nodes\[1, 1\] = nan.*finite"),
        ({"edges": [np.inf, 1.0]}, r"edges\[0\] = inf.*finite"),
        ({"globals": [0.0, np.nan]}, r"globals\[0, 1\] = nan"),
    ],
)
def test_construction_names_what_is_wrong(change, message):
    fields = {"senders": [0, 1], "receivers": [1, 2], "num_nodes": 3} | change
    with pytest.raises(InputError, match=message):
        graph_from_edges(**fields)


@given(graphs())
def test_self_loops_are_added_to_the_adjacency(graph):
    looped = add_self_loops(graph, fill=2.0)
    loops = [(node, node, (2.0, 2.0, 2.0)) for node in range(graph.num_nodes)]
    assert edge_set(looped) == sorted(edge_set(graph) + loops)
    np.testing.assert_array_equal(looped.n_edge, [looped.num_edges])


@given(graphs())
def test_only_missing_leaves_one_self_loop_per_node(graph):
    loops = {node: (node, node, (1.0, 1.0, 1.0)) for node in range(graph.num_nodes)}
    others = []
    for sender, receiver, features in zip(
        graph.senders, graph.receivers, map(tuple, graph.edges), strict=True
    ):
        if sender == receiver:
            loops[int(sender)] = (sender, receiver, features)
        else:
            others.append((sender, receiver, features))
    actual = edge_set(add_self_loops(graph, only_missing=True))
    assert actual == sorted(others + list(loops.values()))


@pytest.mark.peers
@given(graphs())
def test_only_missing_equals_torch_geometric(graph):
    torch = pytest.importorskip("torch")
    utils = pytest.importorskip("torch_geometric.utils")
    edge_index = torch.tensor(np.stack([graph.senders, graph.receivers]), dtype=torch.int64)
    peer_index, peer_edges = utils.add_remaining_self_loops(
        edge_index, torch.tensor(graph.edges), fill_value=1.0, num_nodes=graph.num_nodes
    )
    actual = add_self_loops(graph, only_missing=True)
    np.testing.assert_array_equal(np.stack([actual.senders, actual.receivers]), peer_index)
    np.testing.assert_array_equal(actual.edges, peer_edges)


@given(graphs())
def test_symmetrize_makes_a_symmetric_zero_one_adjacency(graph):
    symmetric = symmetrize(graph)
    pairs = list(zip(symmetric.senders.tolist(), symmetric.receivers.tolist(), strict=True))
    given_pairs = set(zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    assert set(pairs) == given_pairs | {(receiver, sender) for sender, receiver in given_pairs}
    rows = list(zip(graph.senders, graph.receivers, graph.edges, strict=True))
    for (sender, receiver), features in zip(pairs, symmetric.edges, strict=True):
        same = [row[2] for row in rows if row[:2] == (sender, receiver)]
        reverse = [row[2] for row in rows if row[:2] == (receiver, sender)]
        np.testing.assert_array_equal(features, (same + reverse)[0])


def test_edges_of_a_batch_stay_with_their_graphs():
    parts = [
        graph_from_edges([0], [1], 2),
        graph_from_edges([], [], 1),
        graph_from_edges([0, 1], [0, 1], 2),
    ]
    for function in (add_self_loops, symmetrize):
        assert_graphs_equal(function(batch(parts)), batch([function(part) for part in parts]))


@given(st.lists(graphs(min_nodes=0), min_size=1, max_size=4))
def test_unbatch_undoes_batch_and_pad(parts):
    padded = pad(batch(parts), num_nodes=30, num_edges=40, num_graphs=6)
    pieces = unbatch(padded)
    assert len(pieces) == 6
    for piece, part in zip(pieces, parts, strict=False):
        assert_graphs_equal(piece, part)
    first_padding, *empty = pieces[len(parts) :]
    assert first_padding.num_nodes == 30 - sum(part.num_nodes for part in parts)
    assert first_padding.num_edges == 40 - sum(part.num_edges for part in parts)
    assert all(piece.num_nodes == piece.num_edges == 0 for piece in empty)
    assert not any(field.any() for field in (first_padding.nodes, first_padding.edges))
    if first_padding.num_edges:
        assert first_padding.senders.min() >= 0, "a padding edge joins a real node"
        assert first_padding.receivers.max() < first_padding.num_nodes


masks_of = jax.jit(lambda graph: (node_mask(graph), edge_mask(graph), graph_mask(graph)))
ids_of = jax.jit(node_graph_ids)


@given(st.lists(graphs(min_nodes=0), min_size=1, max_size=4))
def test_masks_and_ids_under_jit(parts):
    padded = pad(batch(parts), num_nodes=30, num_edges=40, num_graphs=6)
    sizes = [sum(p.num_nodes for p in parts), sum(p.num_edges for p in parts), len(parts)]
    for mask, size, total in zip(masks_of(padded), sizes, (30, 40, 6), strict=True):
        np.testing.assert_array_equal(mask, np.arange(total) < size)
    expected = np.repeat(np.arange(len(parts)), [part.num_nodes for part in parts])
    ids = np.array(ids_of(padded))
    np.testing.assert_array_equal(ids[: sizes[0]], expected)
    np.testing.assert_array_equal(ids[sizes[0] :], len(parts))


def test_padding_edges_are_spread_over_the_padding_nodes():
    padded = pad(graph_from_edges([0], [1], 2), num_nodes=5, num_edges=7, num_graphs=2)
    np.testing.assert_array_equal(np.bincount(padded.receivers), [0, 1, 2, 2, 2])
    np.testing.assert_array_equal(padded.senders[1:], padded.receivers[1:])


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        ((3, 9, 9), "3 nodes.*room for 2.*raise it by 1"),
        ((9, 1, 9), "2 edges.*room for 1.*raise it by 1"),
        ((9, 9, 1), "1 graphs.*room for 0.*raise it by 1"),
    ],
)
def test_pad_names_the_budget_that_is_too_small(budgets, message):
    num_nodes, num_edges, num_graphs = budgets
    graph = graph_from_edges([0, 1], [1, 2], 3)
    with pytest.raises(InputError, match=message):
        pad(graph, num_nodes=num_nodes, num_edges=num_edges, num_graphs=num_graphs)
    pad(graph, num_nodes=4, num_edges=2, num_graphs=2)


def test_batch_names_the_graph_that_differs():
    first = graph_from_edges([0], [1], 2, nodes=np.ones((2, 3)))
    wider = graph_from_edges([0], [1], 2, nodes=np.ones((2, 4)))
    with_edges = graph_from_edges([0], [1], 2, nodes=np.ones((2, 3)), edges=[1.0])
    with pytest.raises(InputError, match=r"graphs\[1\]\.nodes is float32\[:, 4\].*float32\[:, 3\]"):
        batch([first, wider])
    with pytest.raises(InputError, match=r"graphs\[2\]\.edges is float32.* is None"):
        batch([first, first, with_edges])
    with pytest.raises(InputError, match="empty"):
        batch([])


@given(st.lists(graphs(min_nodes=0), min_size=1, max_size=4), st.data())
def test_taking_graphs_equals_batching_them(parts, data):
    places = st.integers(0, len(parts) - 1)
    indices = data.draw(st.lists(places, min_size=1, max_size=6))
    taken, expected = take_graphs(batch(parts), indices), batch([parts[i] for i in indices])
    for actual, wanted in zip(taken, expected, strict=True):
        np.testing.assert_array_equal(actual, wanted, strict=True)


@pytest.mark.parametrize("indices", [[], [2], [0, -1]])
def test_taking_graphs_that_are_not_there_is_refused(indices):
    two = batch([graph_from_edges([0], [1], 2), graph_from_edges([], [], 1)])
    with pytest.raises(InputError, match="at least one graph" if not indices else "0 to 1"):
        take_graphs(two, indices)


@pytest.mark.parametrize(
    "build",
    [
        lambda num_nodes: graph_from_edges([], [], num_nodes),
        lambda num_nodes: edge_layout([], [], num_nodes),
        lambda num_nodes: edge_layout([], [], 1, num_nodes),
        lambda num_nodes: typed_edge_layout([], [], [], num_nodes, 2),
        lambda num_nodes: neighbour_lists([], [], num_nodes),
        lambda num_nodes: split_edges(np.zeros((0, 2), int), num_nodes, 0),
    ],
)
@pytest.mark.parametrize("num_nodes", [-1, 2**31])
def test_numbers_of_nodes_out_of_range_are_named(build, num_nodes):
    with pytest.raises(InputError, match=rf"= {num_nodes}: the allowed range is 0 to 2147483647"):
        build(num_nodes)


@pytest.mark.parametrize("build", [graph_from_edges, edge_layout])
def test_indices_beyond_32_bits_are_named(build):
    with pytest.raises(InputError, match=str(2**32 + 1)):
        build(np.array([2**32 + 1]), np.array([0]), 3)


def test_indices_beyond_32_bits_are_dropped_from_an_edge_list():
    layout = edge_list(np.array([2**32 + 1, 0]), np.array([0, 2**33 + 1]), 3)
    np.testing.assert_array_equal(layout.in_degrees, np.zeros(3))
    np.testing.assert_array_equal(layout.out_degrees, np.zeros(3))
