"""Sequence layers: a training step of each recurrent one on arrays of four sizes, and of TCNs.

A recurrent step is the forward and backward pass of the sum of squares of all outputs, by the
parameters and by the inputs.
"""

import functools
import importlib
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
TORCH, LINEN = "torch", "flax.linen"


def inputs(size: Size) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(size.batch, size.time, size.in_features)).astype(np.float32)


def training_step(init, apply, xs: np.ndarray):
    """A compiled step of a module in JAX.

    Args:
      init: `(key, xs) -> variables`.
      apply: `(variables, xs) -> outputs`.
    """
    import jax
    import jax.numpy as jnp

    xs = jnp.asarray(xs)
    variables = jax.jit(init)(jax.random.key(0), xs)

    def loss(variables, xs):
        return jnp.sum(apply(variables, xs) ** 2)

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    return lambda: jax.block_until_ready(step(variables, xs))


def our_step(layer: str, size: Size):
    """The layer as structdl has it."""
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


def recurrent_case(layer: str, size: Size) -> Case:
    """One layer in one direction, on whole sequences."""
    sides = {
        OURS: functools.partial(our_step, layer, size),
        TORCH: functools.partial(peer_step, "sequence_peers", layer, size),
        LINEN: functools.partial(peer_step, "linen_peers", layer, size),
    }
    shape = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in size._asdict().items())
    return Case(f"{layer} training step, {shape}", sides, {TORCH: 1.0, LINEN: 1.0})


CASES = [
    *(recurrent_case(layer, size) for layer in ("RNN", "GRU", "LSTM") for size in SIZES),
    *tcn_cases.CASES,
]
