"""Temporal convolution networks of the sizes of Bai et al. (2018): a training step each."""

import functools
import importlib
from typing import NamedTuple

import numpy as np

from experiments.benchmarks.case import OURS, Case

LEARNING_RATE = 1e-3


class Size(NamedTuple):
    """A network and its batch; the loss is a cross entropy, or with one output a squared error."""

    name: str
    batch: int
    time: int
    in_features: int
    kernel_size: int
    levels: int
    width: int
    num_outputs: int
    every_step: bool  # whether every step has a loss, or the last one
    dropout_rate: float


SIZES = (
    Size("sequential digits", 64, 784, 1, 7, 8, 25, 10, False, 0.05),
    Size("adding, T = 600", 32, 600, 2, 7, 8, 30, 1, False, 0.0),
    Size("copy, T = 1000", 32, 1020, 1, 8, 8, 10, 10, True, 0.0),
    Size("chorales", 1, 160, 88, 5, 4, 150, 88, True, 0.25),
    Size("chorales, 16 at a time", 16, 160, 88, 5, 4, 150, 88, True, 0.25),
    Size("characters", 32, 400, 100, 3, 3, 450, 50, True, 0.1),
)


def make_batch(size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Random inputs [batch, time, in_features], and what the outputs are compared with."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(size.batch, size.time, size.in_features)).astype(np.float32)
    if size.num_outputs == 1:
        return x, rng.normal(size=(size.batch, 1)).astype(np.float32)
    shape = (size.batch, size.time) if size.every_step else (size.batch,)
    return x, rng.integers(0, size.num_outputs, shape, dtype=np.int32)


def training_step(size: Size):
    """The loss, its gradients, and Adam, in one compiled call whose state is given over."""
    import jax
    import jax.numpy as jnp
    import optax

    from structdl.temporal.tcn import TCN

    network = TCN(
        (size.width,) * size.levels,
        size.kernel_size,
        dropout_rate=size.dropout_rate,
        warn_beyond=False,
    )
    optimizer = optax.adam(LEARNING_RATE)
    x, labels = jax.device_put(make_batch(size))

    def loss(params, key):
        hidden = network.apply(params["tcn"], x, train=True, rngs={"dropout": key})
        hidden = hidden if size.every_step else hidden[:, -1]
        outputs = hidden @ params["kernel"]
        outputs += jnp.broadcast_to(params["bias"], outputs.shape)
        if size.num_outputs == 1:
            return ((outputs - labels) ** 2).mean()
        return optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean()

    def step(state):
        params, opt_state, key = state
        key, dropout_key = jax.random.split(key)
        value, gradients = jax.value_and_grad(loss)(params, dropout_key)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, key), value

    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        "tcn": network.init(keys[0], x, train=False),
        "kernel": jax.random.normal(keys[1], (size.width, size.num_outputs)) / size.width**0.5,
        "bias": np.zeros(size.num_outputs, np.float32),
    }
    state = (params, optimizer.init(params), keys[2])
    compiled = jax.jit(step, donate_argnums=0)

    def run():
        nonlocal state
        state, value = compiled(state)
        return jax.block_until_ready(value)

    return run


def _peer(size: Size, pad_left: bool):
    module = importlib.import_module("experiments.benchmarks.tcn_peers")
    return module.training_step(size, pad_left)


def step_case(size: Size) -> Case:
    """A size, against torch as the authors wrote it and at its best."""
    peers = {"torch, as the authors pad": False, "torch, padded on the left": True}
    sides = {OURS: functools.partial(training_step, size)}
    sides |= {name: functools.partial(_peer, size, left) for name, left in peers.items()}
    return Case(f"TCN training step, {size.name}", sides, dict.fromkeys(peers, 1.0))


CASES = [step_case(size) for size in SIZES]
