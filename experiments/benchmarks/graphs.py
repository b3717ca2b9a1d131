"""Graph layers: training steps and a whole run on Cora, and one aggregation of growing size."""

import dataclasses
import functools
import importlib
import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from experiments.benchmarks.case import OURS, Case

STEPS = 20  # of one compiled call, as the presets have it
FEATURES = 64
MEAN_DEGREE = 15
# by the name of a peer: what cora_peers calls it
CORA_PEERS = {
    "PyTorch Geometric, dense features": "pyg",
    "torch, sparse features": "torch",
    "torch, sparse features, transposes kept": "torch-transposed",
}
WITH_DROPOUT = {"PyTorch Geometric, dense features dropped out as in the paper": "pyg-dropout"}


def peer(module: str, function: str, *args):
    """A side of a module that imports torch: imported where the side is prepared."""
    name = f"experiments.benchmarks.{module}"
    return lambda: getattr(importlib.import_module(name), function)(*args)


def training_steps(preset: str, **model):
    """The compiled call that `fit` makes, without validations: STEPS steps of one seed.

    Args:
      preset: of node_classification.
      model: fields of the preset's model to replace.
    """
    import jax

    from experiments.node_classification.train import EXPERIMENT
    from structdl.training.optimizers import make_optimizer
    from structdl.training.parallel import on_devices
    from structdl.training.programs import Call, make_programs, stack_batches
    from structdl.training.seeds import stack

    config = EXPERIMENT.presets[preset].config
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, **model))
    task, seeds = EXPERIMENT.make_task(config), (0,)
    optimizer = make_optimizer(config.optimizer)
    programs = make_programs(task, optimizer, config.run, on_devices(config.run))
    data = jax.device_put(task.data)
    seed_data = stack([task.seed_data(seed) for seed in seeds])
    batch = stack([task.batch(0, seed) for seed in seeds])
    hyperparams = stack([optimizer.hyperparams])
    state = programs.init(np.asarray(seeds, np.uint32), data, seed_data, batch, hyperparams)
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


def step_case(name: str, layer: str, ours, goals: tuple[float, float], peers) -> Case:
    """A training step on Cora; goals are those against PyTorch Geometric and against torch."""
    sides = {OURS: ours} | {
        each: peer("cora_peers", "training_step", layer, short) for each, short in peers.items()
    }
    wanted = {
        each: goals[short.startswith("torch")]
        for each, short in peers.items()
        if short != "torch-transposed"
    }
    return Case(f"{name} training step, Cora", sides, wanted, {OURS: STEPS})


def run_case(name: str, keep_programs: bool) -> Case:
    """200 epochs of the GCN on Cora as a whole process."""
    sides = {OURS: functools.partial(whole_run, "gcn-cora", keep_programs)}
    for each in ("PyTorch Geometric, dense features", "torch, sparse features"):
        sides[each] = peer("cora_peers", "whole_run", "gcn", CORA_PEERS[each])
    return Case(f"GCN, 200 epochs on Cora from the shell, {name}", sides, whole_process=True)


def aggregation_case(power_law: bool, backward: bool) -> Case:
    """One sum over 2.5 million edges, as each of the peers does it."""
    edges = functools.partial(edges_and_nodes, power_law, 169_000, 2_500_000)
    prepare = {"torch CSR": "csr_product", "torch index_add": "index_add"}
    if backward:
        prepare["torch CSR, transpose kept"] = "csr_product_with_transpose"
    sides = {OURS: functools.partial(aggregation, edges, backward)}
    sides |= {each: peer("csr_peers", name, edges, backward) for each, name in prepare.items()}
    direction = "forward and backward" if backward else "forward"
    name = f"169k nodes, 2.5M edges, 64 features, {_degrees(power_law)}, {direction}"
    return Case(f"aggregation, {name}", sides, dict.fromkeys(prepare, 1.0))


def scaling_case(power_law: bool, num_edges: int) -> Case:
    """The same forward and backward, against the best of the peers, for a number of edges."""
    edges = functools.partial(edges_and_nodes, power_law, num_edges // MEAN_DEGREE, num_edges)
    peers = {"torch CSR, transpose kept": "csr_product_with_transpose"}
    sides = {OURS: functools.partial(aggregation, edges, True)}
    sides |= {each: peer("csr_peers", name, edges, True) for each, name in peers.items()}
    return Case(f"scaling, {num_edges} edges, {_degrees(power_law)}", sides)


def _degrees(power_law: bool) -> str:
    return "power-law" if power_law else "regular"


def _ours(preset: str, **model):
    return functools.partial(training_steps, preset, **model)


CASES = [
    step_case("GCN", "gcn", _ours("gcn-cora"), (10.0, 2.0), CORA_PEERS | WITH_DROPOUT),
    step_case(
        "Chebyshev, K = 2,", "chebyshev", _ours("cheb-cora"), (10.0, 2.0), CORA_PEERS | WITH_DROPOUT
    ),
    step_case("GAT", "gat", _ours("gat-cora"), (5.0, 1.5), CORA_PEERS),
    step_case(
        "GraphSAGE mean",
        "sage",
        _ours("sage-mean-cora", combine="sum"),
        (3.0, 1.5),
        CORA_PEERS | WITH_DROPOUT,
    ),
    run_case("nothing compiled before", keep_programs=False),
    run_case("programs in the cache", keep_programs=True),
    *(aggregation_case(*kind) for kind in itertools.product((False, True), repeat=2)),
    *(
        scaling_case(power_law, num_edges)
        for power_law in (False, True)
        for num_edges in (100_000, 316_000, 1_000_000, 3_160_000, 10_000_000)
    ),
]
