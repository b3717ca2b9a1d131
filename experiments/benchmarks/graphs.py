"""Graph layers: a GCN's training step and whole run on Cora, and one large aggregation."""

import functools
import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from experiments.benchmarks import graphs_peers as peers
from experiments.benchmarks.case import OURS, Case

STEPS = 20  # of one compiled call, as the preset has it
NUM_NODES, NUM_EDGES, FEATURES = 169_000, 2_500_000, 64


def training_steps(experiment: str, preset: str):
    """The compiled call that `fit` makes, without validations: STEPS steps of one seed."""
    import jax

    from experiments import get
    from structdl.training.loop import Call, make_programs, stack_batches
    from structdl.training.optimizers import make_optimizer
    from structdl.training.parallel import on_devices
    from structdl.training.seeds import stack

    chosen = get(experiment)
    config = chosen.presets[preset].config
    task, seeds = chosen.make_task(config), (0,)
    programs = make_programs(
        task, make_optimizer(config.optimizer), config.run, on_devices(config.run)
    )
    data = jax.device_put(task.data)
    seed_data = stack([task.seed_data(seed) for seed in seeds])
    batch = stack([task.batch(0, seed) for seed in seeds])
    state = programs.init(np.asarray(seeds, np.uint32), data, seed_data, batch)
    batches = stack_batches(task, seeds, 0, Call(rounds=1, steps=STEPS, evaluate=False))

    def run():
        nonlocal state
        state, _ = programs.call(state, data, seed_data, batches, None)
        return jax.block_until_ready(state.train.params)

    return run


def whole_run(preset: str, keep_programs: bool):
    """200 epochs from the command line, a validation after each, with pictures and checkpoint."""
    folder = tempfile.TemporaryDirectory()
    numbers = itertools.count()

    def run():
        path, number = Path(folder.name), next(numbers)  # `folder` is removed when `run` is
        cache = path / ("cache" if keep_programs else f"cache-{number}")
        words = ["--stopping", "none", "--workdir", str(path / f"run-{number}")]
        words += ["--data.dir", str(path / "data")]
        subprocess.run(
            [sys.executable, "-m", "experiments.node_classification", preset, *words],
            env=os.environ | {"XDG_CACHE_HOME": str(cache)},
            stdout=subprocess.DEVNULL,
            check=True,
        )

    run()  # prepares the data, and keeps the programs
    return run


def aggregation(edges, backward: bool):
    """`gather_sum` over weighted edges; backward adds the gradient of half its square.

    Args:
      edges: returns what `edges_and_nodes` does.
    """
    import jax

    from structdl.core.segment import edge_layout, gather_sum

    senders, receivers, weights, nodes = edges()
    layout = edge_layout(senders, receivers, len(nodes))
    weights, nodes = jax.numpy.asarray(weights), jax.numpy.asarray(nodes)

    def output(nodes, layout, weights):
        return gather_sum(nodes, layout, weights)

    def output_and_gradient(nodes, layout, weights):
        out, pullback = jax.vjp(lambda nodes: gather_sum(nodes, layout, weights), nodes)
        return out, *pullback(out)

    compiled = jax.jit(output_and_gradient if backward else output)
    return lambda: jax.block_until_ready(compiled(nodes, layout, weights))


def edges_and_nodes(power_law: bool, num_nodes: int, num_edges: int):
    """Random directed edges with weights, and node values: (senders, receivers, weights, nodes).

    Regular: both ends uniform. Power law: node i is drawn in proportion to i^-0.9, so that the
    degrees fall off with exponent 2.1 and the largest holds four edges in a hundred.
    """
    rng = np.random.default_rng(0)
    chances = np.arange(1, num_nodes + 1) ** (-0.9 if power_law else 0.0)
    ends = [
        rng.permutation(num_nodes)[rng.choice(num_nodes, num_edges, p=chances / chances.sum())]
        for _ in range(2)
    ]
    weights = rng.uniform(0.5, 1.5, num_edges).astype(np.float32)
    return *ends, weights, rng.normal(size=(num_nodes, FEATURES)).astype(np.float32)


def _aggregation_case(power_law: bool, backward: bool) -> Case:
    edges = functools.partial(edges_and_nodes, power_law, NUM_NODES, NUM_EDGES)
    degrees = "power-law" if power_law else "regular"
    direction = "forward and backward" if backward else "forward"
    prepare = {
        OURS: aggregation,
        "torch CSR": peers.csr_product,
        "torch index_add": peers.index_add,
    }
    if backward:
        prepare["torch CSR, transpose kept"] = peers.csr_product_with_transpose
    sides = {name: functools.partial(each, edges, backward) for name, each in prepare.items()}
    name = f"aggregation, 169k nodes, 2.5M edges, 64 features, {degrees}, {direction}"
    return Case(name, sides, dict.fromkeys(sides, 1.0))


def _step_case() -> Case:
    sides = {
        peer: functools.partial(peers.training_step, model) for peer, model in peers.GCN.items()
    }
    sides[OURS] = functools.partial(training_steps, "node_classification", "gcn-cora")
    goals = {peers.PYG: 10.0, peers.PYG_DROPOUT: 10.0, peers.TORCH: 2.0}
    return Case("GCN training step, Cora", sides, goals, {OURS: STEPS})


def _run_case(name: str, keep_programs: bool) -> Case:
    sides = {
        peer: functools.partial(peers.whole_run, peers.GCN[peer])
        for peer in (peers.PYG, peers.TORCH)
    }
    sides[OURS] = functools.partial(whole_run, "gcn-cora", keep_programs)
    return Case(f"GCN, 200 epochs on Cora from the shell, {name}", sides, whole_process=True)


CASES = [
    _step_case(),
    _run_case("nothing compiled before", keep_programs=False),
    _run_case("programs in the cache", keep_programs=True),
    *(_aggregation_case(*kind) for kind in itertools.product((False, True), repeat=2)),
]
