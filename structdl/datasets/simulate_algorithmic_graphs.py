"""Graphs with a question whose answer an algorithm computes: paths, circuits and deductions.

Each function draws one example of a task: `size` says how large it is, `rng` decides the rest, the
numbering of the nodes and the order of the edges included.

A relation r between a and b is two directed edges, a -> b of type r and b -> a of type r plus the
number of relations, as in Li, Tarlow, Brockschmidt, Zemel (2016), "Gated graph sequence neural
networks", arXiv:1511.05493, section 3.1. In an undirected graph both have type 0.

The deductions follow tasks of Weston, Bordes, Chopra, Rush, van Merrienboer, Joulin, Mikolov
(2016), "Towards AI-complete question answering", arXiv:1502.05698, in their symbolic form, in
which a story is a list of facts (a, relation, b). Stories are larger than theirs, which are so
small that up to the names in them there are only some dozens: a network that does not see names
would be tested on what it was trained on.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_FAR = 2**30  # the distance between nodes that no path joins


class AlgorithmicGraph(NamedTuple):
    """One example as NumPy arrays."""

    num_nodes: int
    senders: np.ndarray  # [num_edges], int32
    receivers: np.ndarray  # [num_edges], int32
    edge_types: np.ndarray  # [num_edges], int32
    annotations: np.ndarray  # [num_nodes, annotation], float32: what the question is about
    targets: np.ndarray  # int32: see AlgorithmicTask.output


class AlgorithmicTask(NamedTuple):
    """What a network for a task has to know, and how its examples are drawn.

    The output is "nodes" where targets are 0 or 1 for each node, "node" where they are the number
    of the node that is the answer, [1], and "graph" where they are the class of the graph, [1].
    """

    generate: Callable[[np.random.Generator, int], AlgorithmicGraph]  # of an rng and a size
    output: str
    num_edge_types: int
    num_annotations: int
    min_size: int  # the smallest that the task has
    sizes: tuple[int, int]  # the smallest and the largest, unless others are asked for
    num_train: int  # unless another number is asked for


def shortest_path(rng: np.random.Generator, size: int) -> AlgorithmicGraph:
    """Which nodes lie on the shortest path between two nodes, where there is just one such path.

    A connected undirected graph of `size` nodes: a random tree and size // 3 further edges.
    Annotations: column 0 is 1 at one end of the path, column 1 at the other. The path has two
    edges or more; each length that the graph offers is as likely. Targets: 1 on the path, its ends
    included, else 0.

    Differs from the paper: it writes the path as a sequence; the set of its nodes is the same
    information.
    """
    while True:
        adjacency = _random_connected(rng, size)
        distances, num_paths = _distances(adjacency)
        pair = _pair_of_random_distance(rng, np.where(num_paths == 1, distances, 0), smallest=2)
        if pair is not None:
            break
    start, end = pair
    on_path = distances[start] + distances[:, end] == distances[start, end]
    annotations = np.zeros((size, 2), np.float32)
    annotations[start, 0] = annotations[end, 1] = 1
    return _example(rng, _undirected_facts(adjacency), 0, annotations, node_targets=on_path)


def euler_circuit(rng: np.random.Generator, size: int) -> AlgorithmicGraph:
    """Which nodes lie on the Euler circuit that begins with a given edge.

    A circle of 3 to `size` nodes, which is a connected graph all of whose degrees are 2 and hence
    one Euler circuit; and, not joined with it, two distractors of 3 to `size` nodes each: another
    circle, and a random connected graph as in `shortest_path`. Annotations: column 0 is 1 at the
    node where the circuit begins, column 1 at the second. Targets: 1 on the circuit, else 0.

    Differs from the paper: it writes the circuit as a sequence; the sizes and distractors are ours.
    """
    lengths = rng.integers(3, size + 1, 3)
    blocks = [_circle(lengths[0]), _circle(lengths[1]), _random_connected(rng, lengths[2])]
    starts = np.cumsum([0, *lengths])
    adjacency = np.zeros((starts[-1], starts[-1]), bool)
    for block, start, stop in zip(blocks, starts[:-1], starts[1:], strict=True):
        adjacency[start:stop, start:stop] = block
    annotations = np.zeros((starts[-1], 2), np.float32)
    annotations[0, 0] = annotations[1, 1] = 1
    on_circuit = np.arange(starts[-1]) < lengths[0]
    return _example(rng, _undirected_facts(adjacency), 0, annotations, node_targets=on_circuit)


def far_colour(rng: np.random.Generator, size: int) -> AlgorithmicGraph:
    """The colour of the node at one end of a path, to be known at every node.

    An undirected path of `size` nodes, each white or black at random. Annotations: at one end
    column 0 is 1 if it is white, column 1 if it is black; column 2 is 1 at the other black nodes,
    which are there to distract. Targets: at every node 1 if that end is black, else 0.

    A network of k layers has seen the end at k + 1 nodes and can only guess at the others: its
    accuracy over nodes can be expected to be at most (1 + (k + 1) / size) / 2.
    """
    black = rng.integers(0, 2, size)
    adjacency = _circle(size)
    adjacency[0, -1] = adjacency[-1, 0] = False
    annotations = np.zeros((size, 3), np.float32)
    annotations[0, black[0]] = 1
    annotations[1:, 2] = black[1:]
    targets = np.full(size, black[0])
    return _example(rng, _undirected_facts(adjacency), 0, annotations, node_targets=targets)


def babi04(rng: np.random.Generator, size: int) -> AlgorithmicGraph:
    """Which place lies in a given direction of another: two-argument relations.

    `size` places at points of a grid, and size - 1 facts that join them all. Relations: 0 north,
    1 south, 2 east, 3 west; the fact (a, r, b) reads: b lies r of a. Each is stated one way or the
    other, at random. The question is which place lies q of p, for neighbours p and b of a fact;
    to answer it is to know that south is the reverse of north. Annotations: row p is 1 in column
    q. Target: the one place that is a neighbour of p in that direction.

    Differs from the paper: one network learns all four directions, told by the annotation, where
    the authors' code trains one for each kind of question.
    """
    steps = np.array([(0, 1), (0, -1), (1, 0), (-1, 0)])
    points, facts = [(0, 0)], []
    while len(points) < size:
        place, direction = int(rng.integers(len(points))), int(rng.integers(4))
        point = tuple((points[place] + steps[direction]).tolist())
        if point not in points:
            facts.append((place, direction, len(points)))
            points.append(point)
    facts = [_reversed(fact) if rng.integers(2) else fact for fact in facts]
    asked = facts[rng.integers(len(facts))]
    place, direction, answer = _reversed(asked) if rng.integers(2) else asked
    annotations = np.zeros((size, 4), np.float32)
    annotations[place, direction] = 1
    return _example(rng, facts, 4, annotations, answer=answer)


def babi15(rng: np.random.Generator, size: int) -> AlgorithmicGraph:
    """What an animal is afraid of, which its species decides: basic deduction.

    `size` species and as many animals. Relations: 0 is, from an animal to its species; 1 fears,
    from each species to another. Annotations: 1 at the animal in question. Target: the species
    that its species fears.
    """
    fears = (np.arange(size) + rng.integers(1, size, size)) % size
    species = rng.integers(0, size, size)
    facts = [(kind, 1, int(fears[kind])) for kind in range(size)]
    facts += [(size + animal, 0, int(species[animal])) for animal in range(size)]
    asked = int(rng.integers(size))
    annotations = np.zeros((2 * size, 1), np.float32)
    annotations[size + asked] = 1
    return _example(rng, facts, 2, annotations, answer=int(fears[species[asked]]))


def babi16(rng: np.random.Generator, size: int) -> AlgorithmicGraph:
    """What colour an animal has, by the others of its species: basic induction.

    `size` animals of 2 to size // 2 species, and 2 to 4 colours. Relations: 0 is, from an animal
    to its species; 1 has colour, from an animal to a colour. Animals of one species have one
    colour, and so may several species. The colour of one animal is not told: it is the one in
    question, and another of its species is there. Annotations: 1 at that animal. Target: its
    colour.
    """
    num_species = int(rng.integers(2, size // 2 + 1))
    num_colours = int(rng.integers(2, 5))
    # the first two animals share a species
    species = np.concatenate([[0], rng.integers(0, num_species, size - 1)])
    species[1] = 0
    colours = rng.integers(0, num_colours, num_species)
    first_colour = size + num_species
    facts = [(animal, 0, size + int(species[animal])) for animal in range(size)]
    facts += [(a, 1, first_colour + int(colours[species[a]])) for a in range(1, size)]
    annotations = np.zeros((first_colour + num_colours, 1), np.float32)
    annotations[0] = 1
    return _example(rng, facts, 2, annotations, answer=first_colour + int(colours[0]))


def babi18(rng: np.random.Generator, size: int) -> AlgorithmicGraph:
    """Whether one box is greater than another, by a chain of comparisons: size reasoning.

    `size` boxes of different sizes: each but the greatest is compared with a greater one, and
    there are size // 2 further comparisons. Relation: 0 is greater than. Annotations: column 0 is 1
    at box a, column 1 at box b. Target: 1 if a > b, 0 if a < b, one of which follows from a chain
    of comparisons; each length of chain that the story offers is as likely.
    """
    pairs = {(int(rng.integers(box)), box) for box in range(1, size)}  # box 0 is the greatest
    num_pairs = min(len(pairs) + size // 2, size * (size - 1) // 2)
    while len(pairs) < num_pairs:
        pairs.add(tuple(sorted(rng.choice(size, 2, replace=False).tolist())))
    is_greater = np.zeros((size, size), bool)
    is_greater[tuple(np.transpose(sorted(pairs)))] = True
    greater, less = _pair_of_random_distance(rng, _distances(is_greater)[0], smallest=1)
    facts = [(a, 0, b) for a, b in sorted(pairs)]
    answer = int(rng.integers(2))
    annotations = np.zeros((size, 2), np.float32)
    annotations[greater, 1 - answer] = annotations[less, answer] = 1
    return _example(rng, facts, 1, annotations, graph_class=answer)


TASKS = {
    "shortest_path": AlgorithmicTask(shortest_path, "nodes", 1, 2, 4, (5, 10), 1000),
    "euler_circuit": AlgorithmicTask(euler_circuit, "nodes", 1, 2, 3, (6, 12), 50),
    "far_colour": AlgorithmicTask(far_colour, "nodes", 1, 3, 3, (33, 33), 1000),
    "babi04": AlgorithmicTask(babi04, "node", 8, 4, 2, (4, 8), 50),
    "babi15": AlgorithmicTask(babi15, "node", 4, 1, 2, (4, 8), 50),
    "babi16": AlgorithmicTask(babi16, "node", 4, 1, 4, (6, 12), 50),
    "babi18": AlgorithmicTask(babi18, "graph", 2, 2, 2, (5, 8), 1000),
}


def fingerprint(graph: AlgorithmicGraph) -> bytes:
    """Bytes that two examples share if one is the other with its nodes renumbered.

    They are the colours of the nodes after as many rounds of refinement as there are nodes, each
    a hash of a node's colour and of the types and colours of its in-edges: what a network that
    sums messages can tell apart at all (Weisfeiler-Lehman).
    """
    bits = np.arange(1, 1 + graph.annotations.shape[1], dtype=np.uint64)
    colours = _mix(graph.annotations.astype(np.uint64) @ (np.uint64(1) << bits))
    kinds = _mix(graph.edge_types.astype(np.uint64))
    for _ in range(graph.num_nodes):
        messages = _mix(colours[graph.senders] ^ kinds)
        received = np.zeros_like(colours)
        np.add.at(received, graph.receivers, messages)
        colours = _mix(_mix(colours) + received)
    return np.sort(colours).tobytes()


def _mix(values: np.ndarray) -> np.ndarray:
    """Scrambles 64-bit integers, so that sums of them keep apart what they sum (splitmix64)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _example(
    rng, facts, num_relations, annotations, *, node_targets=None, answer=None, graph_class=None
) -> AlgorithmicGraph:
    """Numbers the nodes and orders the edges at random; num_relations 0: facts are edges."""
    senders, types, receivers = np.array(facts, np.int32).T
    if num_relations:
        ends = senders, receivers
        senders, receivers = np.concatenate(ends), np.concatenate(ends[::-1])
        types = np.concatenate([types, types + num_relations])
    num_nodes = len(annotations)
    order, edge_order = rng.permutation(num_nodes), rng.permutation(len(senders))
    place = np.argsort(order).astype(np.int32)
    if node_targets is not None:
        targets = node_targets[order]
    else:
        targets = [graph_class if answer is None else place[answer]]
    return AlgorithmicGraph(
        num_nodes=num_nodes,
        senders=place[senders[edge_order]],
        receivers=place[receivers[edge_order]],
        edge_types=types[edge_order],
        annotations=annotations[order],
        targets=np.array(targets, np.int32),
    )


def _reversed(fact):
    """The same fact told from the other end; relations come in pairs, 0 and 1, 2 and 3."""
    first, relation, second = fact
    return second, relation ^ 1, first


def _undirected_facts(adjacency):
    return [(a, 0, b) for a, b in np.argwhere(adjacency).tolist()]


def _circle(size):
    adjacency = np.zeros((size, size), bool)
    nodes = np.arange(size)
    adjacency[nodes, (nodes + 1) % size] = True
    return adjacency | adjacency.T


def _random_connected(rng, size):
    """A random tree and size // 3 further edges, as a symmetric adjacency without loops."""
    adjacency = np.zeros((size, size), bool)
    for node in range(1, size):
        adjacency[node, rng.integers(node)] = True
    free = np.argwhere(np.tril(~adjacency, -1))
    further = free[rng.permutation(len(free))[: size // 3]]
    adjacency[tuple(further.T)] = True
    return adjacency | adjacency.T


def _distances(adjacency):
    """The length of the shortest paths between nodes, and how many there are; 0 on the diagonal."""
    size = len(adjacency)
    distances = np.where(np.eye(size, dtype=bool), 0, _FAR)
    num_paths = np.eye(size, dtype=np.int64)
    walks = num_paths
    for length in range(1, size):
        walks = np.minimum(walks @ adjacency, 2)  # one or several
        new = (walks > 0) & (distances == _FAR)
        distances[new], num_paths[new] = length, walks[new]
    return distances, num_paths


def _pair_of_random_distance(rng, distances, *, smallest):
    """A pair of nodes: first one of the distances that there are, then one of its pairs."""
    lengths = np.unique(distances[(distances >= smallest) & (distances < _FAR)])
    if not lengths.size:
        return None
    pairs = np.argwhere(distances == rng.choice(lengths))
    return rng.choice(pairs).tolist()
