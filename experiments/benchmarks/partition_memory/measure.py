"""Memory of each device for a training step of a GCN, on a graph divided over 1 to 8 devices.

What the compiler says that the compiled step takes: its arguments, results and temporaries. The
devices are virtual ones of this machine's CPU; nothing is run.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks.graphs import edges_and_nodes
from structdl.errors import InputError
from structdl.graphs.gcn import GCN
from structdl.graphs.graph import Graph, add_self_loops, graph_from_edges
from structdl.graphs.on_parts import parts_mesh, sum_over_parts
from structdl.graphs.partition import (
    AXIS,
    balanced_parts,
    contiguous_parts,
    make_partition,
    partition_graph,
    symmetric_weights,
    traffic,
)
from structdl.training import ledger

DIRECTORY = Path(__file__).parent
NUM_PARTS = (1, 2, 4, 8)
FEATURES, HIDDEN, CLASSES = 128, 64, 40
KEY = ("graph", "assignment", "exchange", "features_at_once", "parts")


class Case(NamedTuple):
    """A kind of graph, how its nodes are assigned to parts, and how halos are fetched."""

    graph: str
    assignment: str
    exchange: str
    features_at_once: int | None


CASES = [
    *(
        Case("regular", "contiguous", exchange, features)
        for features in (None, 8)
        for exchange in ("all_gather", "all_to_all")
    ),
    Case("power-law", "balanced", "all_to_all", None),
    *(Case("power-law", assignment, "all_to_all", 8) for assignment in ("contiguous", "balanced")),
]


def main(argv: list[str] | None = None) -> None:
    """Prints a table, and keeps its rows where asked."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.partition_memory", description=__doc__
    )
    parser.add_argument("--record", action="store_true", help="keep the rows in results.json")
    parser.add_argument("--num-nodes", type=int, default=169_000)
    parser.add_argument("--num-edges", type=int, default=2_500_000, help="without self-loops")
    options = parser.parse_args(argv)
    try:
        if options.record:
            ledger.require_clean_tree(DIRECTORY)
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", max(NUM_PARTS))
        rows = measure(options.num_nodes, options.num_edges)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if options.record:
        ledger.record(DIRECTORY, rows, KEY)


def measure(num_nodes: int, num_edges: int) -> list[dict[str, Any]]:
    """The rows of all cases, printed as they come."""
    setting = {
        "command": "python -m experiments.benchmarks.partition_memory "
        f"--num-nodes {num_nodes} --num-edges {num_edges} --record",
        "commit": ledger.provenance(DIRECTORY),
        "date": ledger.today(),
        "jax": jax.__version__,
        "nodes": num_nodes,
        "edges": num_edges,
        "layers": [FEATURES, HIDDEN, CLASSES],
    }
    print(HEADER, flush=True)
    graphs, alone, rows = {}, {}, []
    for case in CASES:
        if case.graph not in graphs:
            graphs[case.graph] = make_graph(case.graph == "power-law", num_nodes, num_edges)
        for num_parts in NUM_PARTS:
            row = (
                case._asdict()
                | {"features_at_once": at_once(case), "parts": num_parts}
                | measured(case, graphs[case.graph], num_parts)
            )
            if num_parts == 1:  # against the least that one device takes
                alone[case.graph] = min(row["bytes"], alone.get(case.graph, row["bytes"]))
            row["fall"] = round(alone[case.graph] / row["bytes"], 3)
            rows.append(setting | row)
            print(format_row(row), flush=True)
    return rows


def make_graph(power_law: bool, num_nodes: int, num_edges: int) -> Graph:
    """Random edges, that is with the largest halos, and the self-loops of a GCN."""
    senders, receivers, _, _ = edges_and_nodes(power_law, num_nodes, num_edges)
    return add_self_loops(graph_from_edges(senders, receivers, num_nodes))


def measured(case: Case, graph: Graph, num_parts: int) -> dict[str, Any]:
    """The bytes of a step on each device, and how even the parts are."""
    if case.assignment == "balanced":
        degrees = np.bincount(graph.receivers, minlength=graph.num_nodes)
        assignment = balanced_parts(degrees, num_parts)
    else:
        assignment = contiguous_parts(graph.num_nodes, num_parts)
    partition = make_partition(assignment, num_parts)
    parts = partition_graph(
        graph,
        partition,
        edge_weights=symmetric_weights(graph),
        exchange=case.exchange,
        features_at_once=case.features_at_once,
    )
    memory = compiled_step(parts).memory_analysis()
    sizes = {
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
    }
    found = traffic(graph, partition)
    table_slots = parts.layout.by_receiver.sources.size
    return {
        "bytes": sum(sizes.values()),
        **sizes,
        "largest_part_edges": int(found.edges.max()),
        "edges_over_mean": round(float(found.edges.max() / found.edges.mean()), 4),
        "cut_share": round(float(found.cut.sum() / graph.num_edges), 4),
        "halo_rows": int(found.halo.sum(axis=1).max()),
        "halo_rows_padded": int((num_parts - 1) * found.halo.max()),
        "first_table_slots": int(table_slots),
    }


def compiled_step(parts):
    """A step of Adam on the cross-entropy, with every argument kept, used or not."""
    num_parts, num_rows = parts.mask.shape
    mesh = parts_mesh(num_parts)
    split = jax.NamedSharding(mesh, jax.P(AXIS))
    whole = jax.NamedSharding(mesh, jax.P())
    model, optimizer = GCN((HIDDEN,), CLASSES), optax.adam(0.01)

    def shape(leaf, sharding):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    def rows(dtype, *features):
        return jax.ShapeDtypeStruct((num_parts, num_rows, *features), dtype, sharding=split)

    def loss_of_part(params, part, features, labels, is_train):
        logits = model.apply(params, features, part.layout, part.weights, train=True)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.sum(jnp.where(is_train, losses, 0)), jnp.sum(is_train)

    sums = sum_over_parts(loss_of_part, mesh, clean=False)

    def step(params, state, parts, *nodes):
        def loss(params):
            total, count = sums(params, parts, *nodes)
            return total / count

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, value

    kernels = {"layers_0": (FEATURES, HIDDEN), "head": (HIDDEN, CLASSES)}
    params = {"params": {name: {"kernel": jnp.zeros(size)} for name, size in kernels.items()}}
    state = optimizer.init(params)
    params, state = jax.tree.map(lambda leaf: shape(leaf, whole), (params, state))
    parts = jax.tree.map(lambda leaf: shape(leaf, split), parts)
    nodes = rows(jnp.float32, FEATURES), rows(jnp.int32), rows(bool)
    compiled = jax.jit(step, donate_argnums=(0, 1), keep_unused=True)
    return compiled.lower(params, state, parts, *nodes).compile()


def at_once(case: Case) -> str:
    """How many features are exchanged at once, in words."""
    return str(case.features_at_once or "all")


HEADER = (
    "| graph | assignment | exchange | features at once | devices | MB a device | arguments | "
    "temporaries | fall | largest part's edges / mean | halo rows, padded |\n" + "|---" * 11 + "|"
)


def format_table(rows: list[dict[str, Any]]) -> str:
    """The rows as markdown, in the order of the cases."""
    order = [(*case[:-1], at_once(case)) for case in CASES]

    def place(row):
        return order.index(tuple(row[name] for name in Case._fields)), row["parts"]

    return "\n".join([HEADER, *map(format_row, sorted(rows, key=place))])


def format_row(row: dict[str, Any]) -> str:
    """A row of the table."""
    megabytes = [
        f"{row[name] / 1e6:.1f}" for name in ("bytes", "argument_bytes", "temporary_bytes")
    ]
    cells = [
        row["graph"],
        row["assignment"],
        row["exchange"],
        row["features_at_once"],
        row["parts"],
        *megabytes,
        f"{row['fall']:.2f}",
        f"{row['edges_over_mean']:.3f}",
        row["halo_rows_padded"],
    ]
    return f"| {' | '.join(map(str, cells))} |"
