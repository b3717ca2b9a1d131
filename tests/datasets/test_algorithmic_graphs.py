"""Generated graph tasks: every answer against networkx or a search of its own."""

import itertools

import numpy as np
import pytest

from structdl.datasets import algorithmic_graphs
from structdl.datasets.simulate_algorithmic_graphs import TASKS, AlgorithmicGraph, fingerprint
from structdl.errors import InputError

EXAMPLES = 30
# with two boxes there are two stories, and there are three splits
FEW_KINDS = {"task": "babi18", "sizes": (2, 2), "num_train": 9, "num_validation": 9, "num_test": 9}


def examples(name, number=EXAMPLES):
    rng = np.random.default_rng(7)
    smallest, largest = TASKS[name].sizes
    # the smallest size that the task has is among them
    sizes = [TASKS[name].min_size] * 5 + rng.integers(smallest, largest + 1, number).tolist()
    return [TASKS[name].generate(rng, size) for size in sizes]


def facts_of(graph, num_relations):
    """The facts (a, relation, b), after a check that each has its reverse edge."""
    edges = zip(graph.senders, graph.edge_types, graph.receivers, strict=True)
    edges = [tuple(map(int, edge)) for edge in edges]
    facts = sorted(edge for edge in edges if edge[1] < num_relations)
    reverse = sorted((b, r - num_relations, a) for a, r, b in edges if r >= num_relations)
    assert facts == reverse
    return facts


def networkx_of(graph):
    networkx = pytest.importorskip("networkx")
    edges = list(zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True))
    assert sorted(edges) == sorted((b, a) for a, b in edges)
    assert len(set(edges)) == len(edges)
    assert not graph.edge_types.any()
    undirected = networkx.Graph(edges)
    undirected.add_nodes_from(range(graph.num_nodes))
    return networkx, undirected


def asked_node(graph, column):
    (node,) = np.flatnonzero(graph.annotations[:, column])
    return int(node)


def test_fields_are_those_of_the_task():
    for name, task in TASKS.items():
        for graph in examples(name):
            assert graph.annotations.shape == (graph.num_nodes, task.num_annotations)
            assert set(np.unique(graph.annotations)) <= {0, 1}
            assert graph.senders.shape == graph.receivers.shape == graph.edge_types.shape
            for ends in (graph.senders, graph.receivers):
                assert 0 <= ends.min() <= ends.max() < graph.num_nodes
            assert 0 <= graph.edge_types.min() <= graph.edge_types.max() < task.num_edge_types
            assert {array.dtype for array in graph[1:4]} == {np.dtype(np.int32)}
            assert (graph.annotations.dtype, graph.targets.dtype) == (np.float32, np.int32)
            number = {"nodes": graph.num_nodes, "node": 1, "graph": 1}[task.output]
            largest = {"nodes": 1, "node": graph.num_nodes - 1, "graph": 1}[task.output]
            assert graph.targets.shape == (number,)
            assert 0 <= graph.targets.min() <= graph.targets.max() <= largest


def test_far_colour_is_that_of_an_end_of_a_path():
    seen = set()
    for graph in examples("far_colour"):
        degrees = np.bincount(graph.receivers, minlength=graph.num_nodes)
        assert sorted(degrees.tolist()) == [1, 1] + [2] * (graph.num_nodes - 2)
        ((end, black),) = np.argwhere(graph.annotations[:, :2])
        assert degrees[end] == 1
        reached = {end}
        for _ in range(graph.num_nodes):
            near = np.isin(graph.senders, list(reached))
            reached |= set(graph.receivers[near].tolist())
        assert len(reached) == graph.num_nodes
        assert (graph.targets == black).all()
        seen.add(int(graph.targets[0]))
    assert seen == {0, 1}


@pytest.mark.peers
def test_shortest_path_is_the_only_one_of_networkx():
    lengths = set()
    for graph in examples("shortest_path"):
        networkx, undirected = networkx_of(graph)
        assert networkx.is_connected(undirected)
        (path,) = networkx.all_shortest_paths(undirected, *(asked_node(graph, c) for c in (0, 1)))
        assert sorted(path) == np.flatnonzero(graph.targets).tolist()
        lengths.add(len(path) - 1)
    assert min(lengths) == 2
    assert max(lengths) >= 4


@pytest.mark.peers
def test_euler_circuit_is_that_of_networkx():
    for graph in examples("euler_circuit"):
        networkx, undirected = networkx_of(graph)
        start, second = asked_node(graph, 0), asked_node(graph, 1)
        assert undirected.has_edge(start, second)
        parts = list(networkx.connected_components(undirected))
        assert len(parts) == 3
        (part,) = (part for part in parts if start in part)
        circuit = undirected.subgraph(part)
        assert {degree for _, degree in circuit.degree} == {2}
        visited = {node for edge in networkx.eulerian_circuit(circuit, start) for node in edge}
        assert sorted(visited) == np.flatnonzero(graph.targets).tolist()
        # a distractor is a circle too: degrees alone do not give the answer away
        others = [undirected.subgraph(other) for other in parts if start not in other]
        assert any({degree for _, degree in other.degree} == {2} for other in others)


def test_babi04_answer_is_where_the_facts_put_it():
    steps = {0: (0, 1), 1: (0, -1), 2: (1, 0), 3: (-1, 0)}
    stated = set()
    for graph in examples("babi04"):
        facts = facts_of(graph, 4)
        assert len(facts) == graph.num_nodes - 1
        points = {0: (0, 0)}
        while len(points) < graph.num_nodes:  # the facts join all places
            for a, relation, b in facts:
                x, y = steps[relation]
                if a in points:
                    points[b] = (points[a][0] + x, points[a][1] + y)
                elif b in points:
                    points[a] = (points[b][0] - x, points[b][1] - y)
        assert len(set(points.values())) == graph.num_nodes
        ((place, direction),) = np.argwhere(graph.annotations).tolist()
        x, y = points[place]
        target = (x + steps[direction][0], y + steps[direction][1])
        assert [node for node, point in points.items() if point == target] == [graph.targets[0]]
        # and a fact says so, in one of the two ways
        ways = [(place, direction, graph.targets[0]), (graph.targets[0], direction ^ 1, place)]
        (way,) = (way for way in ways if way in facts)
        stated.add((direction, ways.index(way)))
    assert len(stated) == 8


def test_babi15_answer_follows_from_the_facts():
    for graph in examples("babi15"):
        facts = facts_of(graph, 2)
        kinds, fears = ({a: b for a, r, b in facts if r == kind} for kind in (0, 1))
        assert len(kinds) + len(fears) == len(facts) == graph.num_nodes
        assert set(kinds.values()) <= set(fears)
        assert not set(kinds) & set(fears)
        assert all(species != feared for species, feared in fears.items())
        assert graph.targets[0] == fears[kinds[asked_node(graph, 0)]]


def test_babi16_answer_follows_from_all_others_of_the_species():
    for graph in examples("babi16"):
        facts = facts_of(graph, 2)
        kinds, colours = ({a: b for a, r, b in facts if r == kind} for kind in (0, 1))
        asked = asked_node(graph, 0)
        assert set(colours) == set(kinds) - {asked}
        seen = {colours[a] for a, kind in kinds.items() if kind == kinds[asked] and a != asked}
        assert seen == {graph.targets[0]}
        for kind in set(kinds.values()):
            assert len({colours[a] for a in colours if kinds[a] == kind}) <= 1


def test_babi18_answer_holds_in_every_order_that_fits_the_facts():
    answers = set()
    for graph in examples("babi18"):
        facts = facts_of(graph, 1)
        a, b = asked_node(graph, 0), asked_node(graph, 1)
        if graph.num_nodes < 7:  # a search over all orders, greatest first
            orders = map(np.argsort, itertools.permutations(range(graph.num_nodes)))
            fitting = [
                rank for rank in orders if all(rank[more] < rank[less] for more, _, less in facts)
            ]
            found = {bool(rank[a] < rank[b]) for rank in fitting}
        else:
            found = {True} if chain(facts, a, b) else set()
            found |= {False} if chain(facts, b, a) else set()
        assert found == {bool(graph.targets[0])}
        answers |= found
    assert answers == {True, False}


def chain(facts, greater, less):
    """Whether a chain of facts leads from one box to the other."""
    if greater == less:
        return True
    return any(chain(facts, next_, less) for box, _, next_ in facts if box == greater)


def renumbered(graph, seed):
    rng = np.random.default_rng(seed)
    place, order = rng.permutation(graph.num_nodes), rng.permutation(len(graph.senders))
    return graph._replace(
        senders=place[graph.senders][order],
        receivers=place[graph.receivers][order],
        edge_types=graph.edge_types[order],
        annotations=graph.annotations[np.argsort(place)],
    )


@pytest.mark.parametrize("name", TASKS)
def test_fingerprint_sees_all_but_the_numbers(name):
    for graph in examples(name, 5):
        print_ = fingerprint(graph)
        assert fingerprint(renumbered(graph, 0)) == print_
        if TASKS[name].num_edge_types > 1:
            other_types = graph.edge_types.copy()
            other_types[0] = (other_types[0] + 1) % TASKS[name].num_edge_types
            assert fingerprint(graph._replace(edge_types=other_types)) != print_
        fewer = {field: getattr(graph, field)[1:] for field in ("senders", "receivers")}
        assert fingerprint(graph._replace(edge_types=graph.edge_types[1:], **fewer)) != print_
        no_question = np.zeros_like(graph.annotations)
        assert fingerprint(graph._replace(annotations=no_question)) != print_


def assert_same(actual, expected):
    for one, other in zip(actual, expected, strict=True):
        assert one.num_nodes == other.num_nodes
        for field, array in zip(AlgorithmicGraph._fields[1:], one[1:], strict=True):
            np.testing.assert_array_equal(array, getattr(other, field))
            assert array.dtype == getattr(other, field).dtype


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.mark.parametrize("name", TASKS)
def test_load_gives_what_was_drawn_and_no_split_has_a_graph_of_another(name, folder):
    numbers = {"num_train": 20, "num_validation": 10, "num_test": 40}
    splits = algorithmic_graphs.load(name, **numbers, data_dir=folder)
    assert splits.task == TASKS[name]
    assert [len(split) for split in splits[1:]] == [20, 10, 40]
    prints = [{fingerprint(graph) for graph in split} for split in splits[1:]]
    for one, other in itertools.combinations(prints, 2):
        assert not one & other
    config = algorithmic_graphs.config_of(name, **numbers)
    for split, graphs in zip(("train", "validation", "test"), splits[1:], strict=True):
        assert_same(graphs, algorithmic_graphs.draw_split(config, split))


def test_seed_decides_the_graphs_and_the_number_does_not(folder):
    def load(num_train, seed):
        return algorithmic_graphs.load(
            "babi15", num_train=num_train, num_validation=0, num_test=5, seed=seed, data_dir=folder
        )

    few, more, others = load(4, 0), load(8, 0), load(4, 1)
    assert_same(more.train[:4], few.train)
    assert_same(more.test, few.test)
    assert few.validation == []
    prints = [[fingerprint(graph) for graph in split] for split in (few.test, others.test)]
    assert prints[0] != prints[1]


def test_sizes_are_kept(folder):
    splits = algorithmic_graphs.load(
        "shortest_path", num_train=12, num_validation=0, num_test=0, sizes=(5, 6), data_dir=folder
    )
    assert {graph.num_nodes for graph in splits.train} == {5, 6}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "babi14"}, r"'babi14'.*did you mean"),
        ({"task": "babi16", "sizes": (3, 5)}, r"sizes = \(3, 5\): babi16 has sizes from 4"),
        ({"task": "babi16", "sizes": (6, 5)}, r"first must not be above"),
        ({"task": "babi16", "num_train": 0}, r"num_train = 0: it must be 1 or more"),
        ({"task": "babi16", "num_test": -1}, r"num_test = -1"),
        (FEW_KINDS, r"raise the largest size"),
    ],
)
def test_bad_arguments_are_named(arguments, message, folder):
    with pytest.raises(InputError, match=message):
        algorithmic_graphs.load(**arguments, data_dir=folder)
