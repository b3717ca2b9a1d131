"""Grid LSTM: a training step of three grids in both orders, and what compiling one takes.

A step is the forward and backward pass of the sum of squares of all that leaves the grid, by all
weights and by all that enters it. Every dimension is an LSTM with weights of its own, shared by all
blocks. On a GPU both structdl and torch run there, with products in float32; a side whose loss is
not that of a loop in NumPy is refused.

Run as a module it compiles a step in a process of its own, `python -m
experiments.benchmarks.grid_lstm ORDER EXTENT EXTENT...`, and prints the seconds.
"""

import functools
import importlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.benchmarks.case import OURS, Case
from structdl.errors import InputError

BATCH, HIDDEN = 16, 100
GRIDS = ((50, 6), (36, 18), (8, 8, 3))
LARGEST = max(GRIDS, key=np.prod)
NESTED, WAVEFRONT, TORCH = "structdl, nested", "structdl, wavefront", "torch, a loop over blocks"
ORDERS = {OURS: "auto", NESTED: "nested", WAVEFRONT: "wavefront"}
SECONDS_TO_COMPILE = 20.0
ALLOWED = f"(the {SECONDS_TO_COMPILE:g} s that it may take)"
NOTHING_COMPILED = {"JAX_ENABLE_COMPILATION_CACHE": "false"}


class Weights(NamedTuple):
    """Of one dimension; gates lie side by side: input, forget, candidate, output."""

    kernel: np.ndarray  # [sum of all hiddens, gates]
    bias: np.ndarray  # [gates]


class Edge(NamedTuple):
    """What enters the grid along one dimension."""

    hidden: np.ndarray  # [batch, *extents of the other dimensions, hidden]
    memory: np.ndarray


def inputs(extents: Sequence[int], batch: int = BATCH, hidden: int = HIDDEN):
    """The weights and the edge of each dimension."""
    rng = np.random.default_rng(0)

    def draw(*shape, scale=1.0):
        return (scale * rng.normal(size=shape)).astype(np.float32)

    joined = len(extents) * hidden
    weights = [
        Weights(draw(joined, 4 * hidden, scale=joined**-0.5), draw(4 * hidden, scale=0.1))
        for _ in extents
    ]
    shapes = [(batch, *extents[:d], *extents[d + 1 :], hidden) for d in range(len(extents))]
    return weights, [Edge(draw(*shape), draw(*shape)) for shape in shapes]


def loss_by_hand(extents: Sequence[int], arrays) -> float:
    """The loss by a loop over blocks in NumPy."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    weights, edges = arrays
    far = [Edge(*(leaf.astype(float) for leaf in edge)) for edge in edges]  # overwritten
    for place in itertools.product(*map(range, extents)):
        keys = [(slice(None), *place[:d], *place[d + 1 :]) for d in range(len(place))]
        joined = np.concatenate([far[d].hidden[key] for d, key in enumerate(keys)], axis=-1)
        for d, key in enumerate(keys):
            gates = joined @ weights[d].kernel + weights[d].bias
            enter, forget, candidate, leave = np.split(gates, 4, axis=-1)
            memory = sigmoid(forget) * far[d].memory[key] + sigmoid(enter) * np.tanh(candidate)
            far[d].memory[key] = memory
            far[d].hidden[key] = np.tanh(sigmoid(leave) * memory)
    return sum(float(np.sum(leaf**2)) for edge in far for leaf in edge)


def loss_of(extents: Sequence[int], order: str):
    """`(weights, edges) -> ` the sum of squares of all that leaves, by structdl."""
    import jax
    import jax.numpy as jnp

    from structdl.recurrent.grid_lstm import grid_lstm
    from structdl.recurrent.grid_orders import State, Transform

    def loss(weights, edges):
        transforms, states = [Transform(*each) for each in weights], [State(*e) for e in edges]
        # torch's own default on a GPU
        with jax.default_matmul_precision("float32"):
            far = grid_lstm(transforms, states, extents, order=order)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(far))

    return loss


def our_step(order: str, extents: Sequence[int], arrays):
    """A compiled step: the loss, and its gradients by weights and edges."""
    import jax

    step = jax.jit(jax.value_and_grad(loss_of(extents, order), argnums=(0, 1)))
    weights, edges = jax.device_put(arrays)
    return lambda: jax.block_until_ready(step(weights, edges))


def torch_step(extents: Sequence[int], arrays):
    """The same by torch, imported where it is prepared."""
    peers = importlib.import_module("experiments.benchmarks.grid_lstm_peers")
    return peers.training_step(extents, arrays)


def prepare(step, extents: Sequence[int], batch: int, hidden: int):
    """A side's step on the case's arrays, once its loss is seen to be right."""
    arrays = inputs(extents, batch, hidden)
    run = step(extents, arrays)
    found, expected = float(run()[0]), loss_by_hand(extents, arrays)
    if not abs(found - expected) <= 1e-5 * expected:
        raise InputError(f"the loss is {found} and must be {expected}: this is another grid")
    return run


def step_case(extents: Sequence[int], batch: int = BATCH, hidden: int = HIDDEN) -> Case:
    """A grid in either order, against torch."""
    steps = {side: functools.partial(our_step, order) for side, order in ORDERS.items()}
    sides = {
        side: functools.partial(prepare, step, extents, batch, hidden)
        for side, step in (steps | {TORCH: torch_step}).items()
    }
    name = f"Grid LSTM training step, {_words(extents)}, batch {batch}, hidden {hidden}"
    return Case(name, sides, {TORCH: 1.0}, gpu_goals={NESTED: 5.0})


def compile_alone(order: str, extents: Sequence[int]):
    """Seconds from the functions to a program, in a process that has compiled nothing before."""
    words = [sys.executable, "-m", "experiments.benchmarks.grid_lstm", order, *map(str, extents)]

    def run() -> float:
        environment = os.environ | NOTHING_COMPILED
        return float(subprocess.check_output(words, env=environment))

    return run


def compilation_case(order: str, extents: Sequence[int]) -> Case:
    """A step's program in one order, against the time that it may take."""
    sides = {
        OURS: functools.partial(compile_alone, order, extents),
        ALLOWED: lambda: lambda: SECONDS_TO_COMPILE,
    }
    name = f"Grid LSTM training step, {_words(extents)}, compilation, {order}"
    return Case(name, sides, {ALLOWED: 1.0}, whole_process=True, own_clock=True)


def _words(extents: Sequence[int]) -> str:
    return f"{' x '.join(map(str, extents))} blocks"


CASES = [
    *map(step_case, GRIDS),
    *(compilation_case(order, LARGEST) for order in ("nested", "wavefront")),
]


def main() -> None:
    import jax

    order, *extents = sys.argv[1:]
    extents = tuple(map(int, extents))
    weights, edges = jax.block_until_ready(jax.device_put(inputs(extents)))
    start = time.perf_counter()
    step = jax.jit(jax.value_and_grad(loss_of(extents, order), argnums=(0, 1)))
    step.lower(weights, edges).compile()
    print(time.perf_counter() - start)


if __name__ == "__main__":
    main()
