"""A partitioned graph gives what the whole graph gives; in a process with eight devices."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structdl.core.edge_layout import edge_layout
from structdl.core.segment import gather_sum, segment_max, segment_sum
from structdl.core.stacked_layout import stack_layouts
from structdl.errors import InputError
from structdl.graphs.gcn import symmetric_normalization
from structdl.graphs.graph import add_self_loops, graph_from_edges
from structdl.graphs.on_parts import map_parts, parts_mesh
from structdl.graphs.partition import (
    balanced_parts,
    contiguous_parts,
    from_parts,
    make_partition,
    partition_graph,
    symmetric_weights,
    to_parts,
    traffic,
)

SCRIPT = Path(__file__).parent / "partitioned_runs.py"
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def script():
    spec = importlib.util.spec_from_file_location("partitioned_runs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shown():
    """What the script says in a process with eight devices."""
    # the second flag: half the time to compile, for code that runs slower
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        capture_output=True,
        text=True,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_parts_on_1_to_8_devices_give_the_whole_graphs_outputs_loss_and_gradients(shown):
    runs = script()
    graph = runs.example_graph()
    looped = add_self_loops(graph)
    layouts = {
        "gcn": edge_layout(looped.senders, looped.receivers, looped.num_nodes),
        "sage": edge_layout(graph.senders, graph.receivers, graph.num_nodes),
    }
    weights = symmetric_normalization(layouts["gcn"])
    expected = jax.tree.leaves(runs.whole(layouts, weights))
    assert shown["devices"] == 8
    assert len(shown["cases"]) == 11
    for name, case in shown["cases"].items():
        for actual, each in zip(case, expected, strict=True):
            np.testing.assert_allclose(actual, each, **CLOSE, err_msg=name)


@pytest.mark.slow
def test_the_backward_pass_is_a_reduce_scatter_or_an_all_to_all(shown):
    # two layers of two models, forwards and backwards
    for name, found in shown["collectives"].items():
        if name.startswith("all_gather") and not name.endswith(" 1"):
            assert found == {"all-gather": 4, "reduce-scatter": 4, "all-to-all": 0}, name
        elif name.startswith("all_to_all") and not name.endswith(" 1"):
            assert found == {"all-gather": 0, "reduce-scatter": 0, "all-to-all": 8}, name
    assert not any(shown["collectives"]["all_to_all, 1"].values())


@pytest.mark.slow
def test_softmax_over_edges_and_gradients_of_their_weights(shown):
    runs = script()
    graph, (features, *_) = runs.example_graph(), runs.example_nodes()
    layout = edge_layout(graph.senders, graph.receivers, graph.num_nodes)

    def attend(features):
        logits = jnp.sum(features, axis=1)[graph.senders]
        adjacency = jnp.zeros((graph.num_nodes, graph.num_nodes))
        adjacency = adjacency.at[graph.receivers, graph.senders].add(jnp.exp(logits))
        sums = jnp.sum(adjacency, axis=1, keepdims=True)
        return adjacency / jnp.where(sums == 0, 1, sums) @ features

    features = jnp.asarray(features)
    expected = [attend(features), jax.grad(lambda x: jnp.sum(jnp.sin(attend(x))))(features)]
    assert layout.in_degrees.max() >= 40
    for actual, each in zip(shown["attention"], expected, strict=True):
        np.testing.assert_allclose(actual, each, **CLOSE)


@pytest.mark.slow
def test_no_device_holds_the_edge_list_or_the_features_of_the_whole_graph(shown):
    num_edges, num_features = 400 * 10, 400 * 12
    on_one_device, on_eight = shown["largest"]
    assert on_one_device >= num_features, "the check finds what is there"
    assert on_eight < num_edges / 2


def random_parts(num_parts=3, num_senders=30, num_receivers=20):
    """Edge lists of several lengths, with hubs that overflow a table once and twice; one empty."""
    rng = np.random.default_rng(0)
    senders = [rng.integers(0, num_senders, 90 + 40 * part) for part in range(num_parts)]
    receivers = [rng.integers(0, num_receivers - 1, len(each)) for each in senders]
    receivers[0][:50] = 3
    receivers[1][:100] = 5
    receivers[1][100:110] = 4
    empty = np.zeros(0, np.int64)
    return [*senders, empty], [*receivers, empty], num_senders, num_receivers


def test_one_part_has_the_tables_of_edge_layout():
    senders, receivers, *sizes = random_parts()
    stacked = stack_layouts(senders[1:2], receivers[1:2], *sizes)
    expected = edge_layout(senders[1], receivers[1], *sizes)
    assert expected.by_receiver.rest is not None
    assert jax.tree.structure(stacked) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b), stacked, expected)


def test_reductions_over_stacked_layouts_are_those_of_each_part():
    senders, receivers, num_senders, num_receivers = random_parts()
    stacked = stack_layouts(senders, receivers, num_senders, num_receivers)
    rng = np.random.default_rng(1)
    nodes = jnp.asarray(rng.normal(size=(num_senders, 3)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=stacked.senders.shape), jnp.float32)

    @jax.jit
    def reduce(layout, weights, nodes):
        def loss(nodes):
            return jnp.sum(jnp.sin(gather_sum(nodes, layout, weights, method="tables")))

        on_edges = weights[:, None], layout.receivers, num_receivers, layout
        reduced = [each(*on_edges, method="tables") for each in (segment_sum, segment_max)]
        return gather_sum(nodes, layout, weights, method="tables"), jax.grad(loss)(nodes), *reduced

    for part, (starts, ends) in enumerate(zip(senders, receivers, strict=True)):
        layout = jax.tree.map(lambda leaf, part=part: jnp.asarray(leaf[part], jnp.int32), stacked)
        own = np.asarray(weights[part, : len(starts)], np.float64)
        adjacency = np.zeros((num_receivers, num_senders))
        np.add.at(adjacency, (ends, starts), own)
        out = adjacency @ np.asarray(nodes)
        largest = np.full(num_receivers, -np.inf)
        np.maximum.at(largest, ends, own)
        largest[np.isinf(largest)] = 0
        expected = [
            out,
            adjacency.T @ np.cos(out),
            adjacency.sum(axis=1)[:, None],
            largest[:, None],
        ]
        for actual, each in zip(reduce(layout, weights[part], nodes), expected, strict=True):
            np.testing.assert_allclose(actual, each, **CLOSE, err_msg=str(part))


def test_padding_edges_join_rows_that_pad():
    graph = graph_from_edges([0, 1, 2, 3, 4], [1, 1, 1, 1, 4], 5)
    partition = make_partition(contiguous_parts(5, 2), 2)
    parts = partition_graph(graph, partition, edge_weights=np.arange(1.0, 6.0))
    np.testing.assert_array_equal(
        parts.mask, [[True, True, True, False], [True, True, False, False]]
    )
    assert parts.layout.receivers.tolist() == [[1, 1, 1, 1], [1, 3, 3, 3]]
    assert parts.weights.tolist() == [[1, 2, 3, 4], [5, 0, 0, 0]]


def test_host_normalization_is_that_of_the_device():
    graph = add_self_loops(script().example_graph())
    layout = edge_layout(graph.senders, graph.receivers, graph.num_nodes)
    edge_weights = np.random.default_rng(0).uniform(0.5, 2, graph.num_edges).astype(np.float32)
    for given in (None, edge_weights):
        expected = symmetric_normalization(layout, None if given is None else jnp.asarray(given))
        np.testing.assert_allclose(symmetric_weights(graph, given), expected, rtol=1e-6)
    directed = graph_from_edges([0], [1], 2)  # node 0 has no incoming edge
    np.testing.assert_array_equal(symmetric_weights(directed), [0])


def test_traffic_counts_distinct_nodes_of_other_parts():
    graph = script().example_graph()
    assignment = np.random.default_rng(0).integers(0, 3, graph.num_nodes)
    found = traffic(graph, make_partition(assignment, 3))
    needed = {(one, other): set() for one in range(3) for other in range(3)}
    edges, cut = np.zeros(3, int), np.zeros(3, int)
    for sender, receiver in zip(graph.senders, graph.receivers, strict=True):
        one, other = assignment[receiver], assignment[sender]
        edges[one] += 1
        if one != other:
            cut[one] += 1
            needed[one, other].add(sender)
    np.testing.assert_array_equal(found.edges, edges)
    np.testing.assert_array_equal(found.cut, cut)
    for place, nodes in needed.items():
        assert found.halo[place] == len(nodes)


def test_balanced_parts_divide_nodes_and_edges():
    rng = np.random.default_rng(0)
    degrees = (100 / (1 + rng.permutation(203))).astype(int)  # one node has 100 of some 500 edges
    parts = balanced_parts(degrees, 4)
    assert set(np.bincount(parts)) == {50, 51}
    edges = np.bincount(parts, weights=degrees)
    assert edges.max() - edges.min() <= 1
    assert np.ptp(np.bincount(contiguous_parts(203, 4), weights=degrees)) > 20


def test_rows_come_back_in_order():
    assignment = np.random.default_rng(0).integers(0, 4, 11)
    partition = make_partition(assignment, 4)
    nodes = np.random.default_rng(1).normal(size=(11, 2)).astype(np.float32)
    stacked = to_parts(partition, nodes)
    for part in range(4):
        mine = nodes[assignment == part]
        np.testing.assert_array_equal(stacked[part, : len(mine)], mine)
        np.testing.assert_array_equal(stacked[part, len(mine) :], 0)
    np.testing.assert_array_equal(from_parts(partition, stacked), nodes)


def test_bad_input():
    graph = graph_from_edges([0], [1], 3)
    partition = make_partition([0, 1, 0], 2)
    with pytest.raises(InputError, match="num_parts = 4: 3 nodes divide into 1 to 3 parts"):
        contiguous_parts(3, 4)
    with pytest.raises(InputError, match="num_parts = 0"):
        make_partition([0, 0], 0)
    with pytest.raises(InputError, match=r"assignment\[1\] = 2 .*0 to 1"):
        make_partition([0, 2, 0], 2)
    with pytest.raises(InputError, match="assignment has shape"):
        make_partition([0.0, 1.0], 2)
    with pytest.raises(InputError, match=r"3 rows of nodes.*partition has 2"):
        partition_graph(graph, make_partition([0, 1], 2))
    with pytest.raises(InputError, match=r"receivers\[0\] = 3"):
        partition_graph(graph._replace(receivers=np.array([3])), partition)
    with pytest.raises(InputError, match="senders has 2 entries"):
        traffic(graph._replace(senders=np.array([0, 1])), partition)
    with pytest.raises(InputError, match="edge_weights has shape"):
        partition_graph(graph, partition, edge_weights=np.ones(2))
    with pytest.raises(InputError, match="features_at_once = 0"):
        partition_graph(graph, partition, features_at_once=0)
    with pytest.raises(InputError, match="nodes has shape"):
        to_parts(partition, np.ones((2, 1)))
    with pytest.raises(InputError, match="device"):
        parts_mesh(1000)
    parts = partition_graph(graph, partition)
    with pytest.raises(ValueError, match="2 parts on a mesh of 1"):
        map_parts(lambda params, part: params, parts_mesh(1))((), parts)
    with pytest.raises(ValueError, match="no transpose"):
        _ = parts.layout.transpose
    with pytest.raises(ValueError, match="a part of 3 rows"):
        gather_sum(jnp.ones((2, 1)), parts.layout)
