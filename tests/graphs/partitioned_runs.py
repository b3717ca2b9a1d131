"""Prints, as JSON, what a GCN and a GraphSAGE give on the parts of a graph on 1 to 8 devices."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np

from structdl.core.segment import gather_senders, gather_sum, segment_softmax
from structdl.graphs.gcn import graph_convolution
from structdl.graphs.graph import add_self_loops, graph_from_edges
from structdl.graphs.on_parts import map_parts, parts_mesh, put_on_mesh, sum_over_parts
from structdl.graphs.partition import (
    balanced_parts,
    contiguous_parts,
    from_parts,
    make_partition,
    partition_graph,
    symmetric_weights,
    to_parts,
)
from structdl.graphs.sage import SageParams, l2_normalize, sage_convolution

NUM_NODES, FEATURES, HIDDEN, CLASSES = 45, 5, 4, 3
COLLECTIVES = ("all-gather", "reduce-scatter", "all-to-all")


def example_graph():
    """Directed, with a hub of 40 edges, self-loops, repeated edges and two isolated nodes."""
    rng = np.random.default_rng(0)
    senders, receivers = rng.integers(0, NUM_NODES - 2, (2, 120))
    receivers[:40] = 7
    senders[40] = receivers[40]
    senders[41], receivers[41] = senders[42], receivers[42]
    return graph_from_edges(senders, receivers, NUM_NODES)


def example_nodes():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(NUM_NODES, FEATURES)).astype(np.float32)
    labels = rng.integers(0, CLASSES, NUM_NODES).astype(np.int32)
    return features, labels, rng.random(NUM_NODES) < 0.4


def example_params():
    keys = iter(jax.random.split(jax.random.key(0), 8))

    def kernel(*shape):
        return jax.random.normal(next(keys), shape)

    gcn = [(kernel(FEATURES, HIDDEN), kernel(HIDDEN)), (kernel(HIDDEN, CLASSES), kernel(CLASSES))]
    sage = [
        SageParams(kernel(FEATURES, HIDDEN), kernel(FEATURES, HIDDEN)),
        SageParams(kernel(2 * HIDDEN, CLASSES), kernel(2 * HIDDEN, CLASSES)),
    ]
    return {"gcn": gcn, "sage": sage}


def logits(params, layouts, weights, nodes):
    """Of both models: {name: [num_nodes, classes]}; the features are the first of `nodes`."""
    features = nodes[0]
    (first, first_bias), (last, last_bias) = params["gcn"]
    hidden = graph_convolution(features, first, layouts["gcn"], weights, first_bias)
    gcn = graph_convolution(jnp.tanh(hidden), last, layouts["gcn"], weights, last_bias)
    first, last = params["sage"]
    hidden = sage_convolution(first, features, layouts["sage"], aggregator="mean")
    hidden = l2_normalize(jnp.tanh(hidden))
    sage = sage_convolution(last, hidden, layouts["sage"], aggregator="mean", combine="sum")
    return {"gcn": gcn, "sage": sage}


def totals(logits, labels, is_train):
    """The cross-entropy's (total, count) of each model, over the nodes to train on."""

    def one(logits):
        losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]
        return jnp.sum(jnp.where(is_train, losses, 0)), jnp.sum(is_train)

    return {name: one(each) for name, each in logits.items()}


def whole(layouts, weights):
    """Logits, losses and gradients on one device, without parts."""
    nodes = [jnp.asarray(each) for each in example_nodes()]

    def loss(params):
        out = logits(params, layouts, weights, nodes)
        losses = {name: total / count for name, (total, count) in totals(out, *nodes[1:]).items()}
        return sum(losses.values()), (losses, out)

    gradients, (losses, out) = jax.jit(jax.grad(loss, has_aux=True))(example_params())
    return {"logits": out, "losses": losses, "gradients": gradients}


def on_parts(num_parts, assignment=None, padding=0.0, **options):
    """The same on a mesh, and how many collectives of each kind the compiled step has."""
    graph, mesh = example_graph(), parts_mesh(num_parts)
    looped = add_self_loops(graph)
    if assignment is None:
        assignment = contiguous_parts(NUM_NODES, num_parts)
    partition = make_partition(assignment, num_parts)
    gcn = partition_graph(looped, partition, edge_weights=symmetric_weights(looped), **options)
    gcn, sage = put_on_mesh((gcn, partition_graph(graph, partition, **options)), mesh)
    nodes = [to_parts(partition, each) for each in example_nodes()]
    nodes[0][~np.asarray(gcn.mask)] = padding
    nodes = put_on_mesh(nodes, mesh)

    # the other graph's part goes with the nodes
    def logits_of_part(params, gcn, sage, *nodes):
        layouts = {"gcn": gcn.layout, "sage": sage.layout}
        return logits(params, layouts, gcn.weights, nodes)

    def totals_of_part(params, gcn, sage, *nodes):
        return totals(logits_of_part(params, gcn, sage, *nodes), *nodes[1:])

    def loss(params, *stacked):
        sums = sum_over_parts(totals_of_part, mesh)(params, *stacked)
        losses = {name: total / count for name, (total, count) in sums.items()}
        return sum(losses.values()), losses

    compiled = jax.jit(jax.grad(loss, has_aux=True)).lower(example_params(), gcn, sage, *nodes)
    compiled = compiled.compile()
    gradients, losses = compiled(example_params(), gcn, sage, *nodes)
    out = jax.jit(map_parts(logits_of_part, mesh))(example_params(), gcn, sage, *nodes)
    text = compiled.as_text()
    return {
        "logits": {name: from_parts(partition, each) for name, each in out.items()},
        "losses": losses,
        "gradients": gradients,
        "collectives": {kind: len(re.findall(rf" {kind}\(", text)) for kind in COLLECTIVES},
    }


def attention(num_parts, **options):
    """A softmax over each node's edges and the sum that it weights, and the gradient by nodes."""
    graph, mesh = example_graph(), parts_mesh(num_parts)
    partition = make_partition(contiguous_parts(NUM_NODES, num_parts), num_parts)
    parts = put_on_mesh(partition_graph(graph, partition, **options), mesh)
    features = put_on_mesh(to_parts(partition, example_nodes()[0]), mesh)

    def attend(params, part, features):
        layout = part.layout
        on_edges = jnp.sum(gather_senders(features, layout), axis=1)
        shares = segment_softmax(on_edges, layout.receivers, layout.num_receivers, layout)
        return gather_sum(features, layout, shares)

    def loss(features):
        def total(params, part, features):
            return jnp.sum(jnp.sin(attend(params, part, features)))

        return sum_over_parts(total, mesh)((), parts, features)

    out = jax.jit(map_parts(attend, mesh))((), parts, features)
    gradient = jax.jit(jax.grad(loss))(features)
    return [from_parts(partition, each) for each in (out, gradient)]


def largest_arrays(num_parts):
    """How many values the largest array of a compiled GCN step has; neighbours lie near."""
    num_nodes, num_neighbours = 400, 10
    receivers = np.repeat(np.arange(num_nodes), num_neighbours)
    senders = (receivers + np.tile(1 + np.arange(num_neighbours), num_nodes)) % num_nodes
    graph = graph_from_edges(senders, receivers, num_nodes)
    partition = make_partition(contiguous_parts(num_nodes, num_parts), num_parts)
    mesh = parts_mesh(num_parts)
    parts = partition_graph(graph, partition, edge_weights=symmetric_weights(graph))
    parts = put_on_mesh(parts, mesh)
    features = put_on_mesh(to_parts(partition, np.ones((num_nodes, 12), np.float32)), mesh)

    def total(kernel, part, features):
        return jnp.sum(graph_convolution(features, kernel, part.layout, part.weights) ** 2)

    step = jax.jit(jax.grad(sum_over_parts(total, mesh)), keep_unused=True)
    text = step.lower(jnp.ones((12, 8)), parts, features).compile().as_text()
    shapes = re.findall(r"\b(?:s32|f32|pred|s64|u32)\[([\d,]+)\]", text)
    return max(np.prod([int(size) for size in shape.split(",")]) for shape in shapes)


def to_lists(tree):
    return [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(tree)]


def main():
    degrees = np.bincount(example_graph().receivers, minlength=NUM_NODES)
    uneven = np.where(np.arange(NUM_NODES) < 20, 3, np.arange(NUM_NODES) % 2)  # part 2 is empty
    cases = {
        f"{exchange}, {num_parts}": on_parts(num_parts, exchange=exchange)
        for exchange in ("all_to_all", "all_gather")
        for num_parts in (1, 2, 4, 8)
    }
    options = {"features_at_once": 3}
    cases["balanced, in blocks"] = on_parts(4, balanced_parts(degrees, 4), **options)
    cases["gathered in blocks"] = on_parts(4, exchange="all_gather", **options)
    cases["uneven, with NaN in the padding"] = on_parts(4, uneven, padding=np.nan)
    kinds = {name: case.pop("collectives") for name, case in cases.items()}
    shown = {
        "devices": jax.device_count(),
        "cases": {name: to_lists(case) for name, case in cases.items()},
        "collectives": kinds,
        "attention": to_lists(attention(4)),
        "largest": [int(largest_arrays(1)), int(largest_arrays(8))],
    }
    print(json.dumps(shown))


if __name__ == "__main__":
    main()
