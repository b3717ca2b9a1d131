"""Sequence layers: a training step of each recurrent one on arrays of four sizes, and of TCNs.

A recurrent step is the forward and backward pass of the sum of squares of all outputs, by the
parameters and by the inputs. XLA runs the small operations of a loop on one core; a step over the
cores divides the batch between as many devices of the CPU, as `--parallel jit` does.
"""

import functools
import importlib
import os
from typing import NamedTuple

import numpy as np

from experiments.benchmarks import tcn_cases
from experiments.benchmarks.case import OURS, Case


class Size(NamedTuple):
    """What a layer reads and how wide it is."""

    batch: int
    time: int
    in_features: int
    hidden: int


SIZES = (
    Size(32, 100, 88, 150),
    Size(64, 784, 1, 128),
    Size(20, 50, 200, 500),
    Size(128, 600, 2, 100),
)
LAYERS = ("RNN", "GRU", "LSTM")
TORCH, LINEN = "torch", "flax.linen"


def inputs(size: Size) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(size.batch, size.time, size.in_features)).astype(np.float32)


def training_step(init, apply, xs: np.ndarray):
    """A compiled step of a module in JAX, the batch divided over all devices.

    Args:
      init: `(key, xs) -> variables`.
      apply: `(variables, xs) -> outputs`.
    """
    import jax
    import jax.numpy as jnp
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    mesh = jax.make_mesh((jax.device_count(),), ("devices",), axis_types=(AxisType.Auto,))
    variables = jax.jit(init)(jax.random.key(0), xs)
    variables = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    xs = jax.device_put(xs, NamedSharding(mesh, PartitionSpec("devices")))

    def loss(variables, xs):
        return jnp.sum(apply(variables, xs) ** 2)

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    return lambda: jax.block_until_ready(step(variables, xs))


def our_step(layer: str, size: Size, over_cores: bool):
    """The layer as structdl has it."""
    if over_cores:  # which jax reads when it is imported
        os.environ["JAX_NUM_CPU_DEVICES"] = os.environ["OMP_NUM_THREADS"]
    from structdl.recurrent import stacked

    module = getattr(stacked, layer)(size.hidden)
    return training_step(
        functools.partial(module.init, train=True),
        lambda variables, xs: module.apply(variables, xs, train=True)[0],
        inputs(size),
    )


def peer_step(module: str, layer: str, size: Size):
    """The layer of a module beside this one, imported where the side is prepared."""
    peer = importlib.import_module(f"experiments.benchmarks.{module}")
    return peer.recurrent_step(layer, size)


def recurrent_case(layer: str, size: Size, over_cores: bool = False) -> Case:
    """One layer in one direction, on whole sequences."""
    sides = {
        OURS: functools.partial(our_step, layer, size, over_cores),
        TORCH: functools.partial(peer_step, "sequence_peers", layer, size),
    }
    if not over_cores:
        sides[LINEN] = functools.partial(peer_step, "linen_peers", layer, size)
    shape = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in size._asdict().items())
    name = f"{layer} training step{' over the cores' * over_cores}, {shape}"
    return Case(name, sides, dict.fromkeys(list(sides)[1:], 1.0))


CASES = [
    *(recurrent_case(layer, size) for layer in LAYERS for size in SIZES),
    *(recurrent_case(layer, size, over_cores=True) for layer in LAYERS for size in SIZES),
    *tcn_cases.CASES,
]
