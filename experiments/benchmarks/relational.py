"""Neural relational inference: a training step, and the simulation of its systems.

A step is the negative evidence lower bound of springs' trajectories and its gradients by all
parameters, with the noise of the edges' samples given. On a GPU both structdl and torch run there,
with products in float32; a side whose loss is not structdl's is refused.
"""

import functools
import importlib
import time
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmarks.case import OURS, Case
from structdl.errors import InputError

OBJECTS, TIME, TYPES = 5, 49, 2
PREDICTION_STEPS, TEMPERATURE, VARIANCE = 10, 0.5, 5e-5
DENSE = "torch, one-hot relation matrices"
GATHERS = "torch, gathers"
SECONDS_TO_SIMULATE = 120.0
ALLOWED = f"(the {SECONDS_TO_SIMULATE:g} s that it may take)"


class Size(NamedTuple):
    """What a step's cost depends on."""

    batch: int
    encoder: int  # units of the encoder
    decoder: int  # units of the decoder
    objects: int = OBJECTS


SIZES = {
    "as published": Size(128, 256, 256),
    "reduced": Size(64, 128, 64),
    "many objects": Size(1, 64, 64, objects=50),
}


class Arrays(NamedTuple):
    """What a step is computed of, all NumPy's."""

    states: np.ndarray  # [batch, time, objects, 4]
    noise: np.ndarray  # Gumbel's, of each edge and type: [batch, senders, receivers, types]
    encoder: dict[str, Any]  # the parameters of an `MLPEncoder`
    decoder: dict[str, Any]  # those of a `MarkovDecoder`


def modules(size: Size):
    """Both networks."""
    from structdl.graphs.nri_decoders import MarkovDecoder
    from structdl.graphs.nri_encoders import MLPEncoder

    return MLPEncoder(size.encoder, TYPES), MarkovDecoder(size.decoder, TYPES)


def inputs(size: Size) -> Arrays:
    """Simulated states, and parameters as they start."""
    import jax
    import jax.numpy as jnp

    from structdl.datasets.simulate_particles import simulate_springs

    keys = jax.random.split(jax.random.key(0), 4)
    encoder, decoder = modules(size)
    states, _ = simulate_springs(keys[0], num=size.batch, objects=size.objects, num_frames=TIME)
    pairs = (size.batch, size.objects, size.objects, TYPES)
    encoder_params = encoder.init(keys[1], states, train=False)["params"]
    decoder_params = decoder.init(keys[2], states, jnp.zeros(pairs), prediction_steps=1)["params"]
    noise = jax.random.gumbel(keys[3], pairs)
    return jax.device_get(Arrays(states, noise, encoder_params, decoder_params))


def loss_of(size: Size):
    """`(parameters of both, states, noise) -> ` the mean of the bound over trajectories."""
    import jax
    import jax.numpy as jnp

    from structdl.graphs.nri import negative_elbo

    encoder, decoder = modules(size)

    def loss(params, states, noise):
        # torch's own default on a GPU
        with jax.default_matmul_precision("float32"):
            variables = {"params": params[0]}
            logits, _ = encoder.apply(variables, states, train=True, mutable=["batch_stats"])
            edges = jax.nn.softmax((logits + noise) / TEMPERATURE)
            predictions = decoder.apply(
                {"params": params[1]}, states, edges, prediction_steps=PREDICTION_STEPS
            )
        terms = negative_elbo(predictions, states[:, 1:], logits, variance=VARIANCE)
        return jnp.mean(sum(terms))

    return loss


def our_step(size: Size, arrays: Arrays):
    """A compiled step: the loss, and its gradients by the parameters of both networks."""
    import jax

    step = jax.jit(jax.value_and_grad(loss_of(size)))
    states, noise, *params = jax.device_put(tuple(arrays))
    return lambda: jax.block_until_ready(step(params, states, noise))


def torch_step(kind: str, size: Size, arrays: Arrays):
    """The same by torch, imported where it is prepared."""
    peers = importlib.import_module("experiments.benchmarks.relational_peers")
    return peers.training_step(kind, arrays)


def prepare(step, size: Size):
    """A side's step, once its loss is seen to be structdl's."""
    arrays = inputs(size)
    run = step(size, arrays)
    found, expected = float(run()[0]), float(our_step(size, arrays)()[0])
    if not abs(found - expected) <= 1e-4 * abs(expected):
        raise InputError(f"the loss is {found} and must be {expected}: this is another network")
    return run


def step_case(name: str, size: Size) -> Case:
    """A size, against torch in both ways."""
    steps = {
        OURS: our_step,
        DENSE: functools.partial(torch_step, "dense"),
        GATHERS: functools.partial(torch_step, "gathers"),
    }
    sides = {side: functools.partial(prepare, step, size) for side, step in steps.items()}
    units = f"encoder {size.encoder}, decoder {size.decoder}"
    words = f"{name}: {size.objects} objects, batch {size.batch}, {units}"
    return Case(f"NRI training step, springs, {words}", sides, {DENSE: 3.0, GATHERS: 1.2})


def simulate(num: int):
    """Seconds in which the trajectories are there, without the program's compilation."""
    import jax

    from structdl.datasets.simulate_particles import simulate_springs

    def generate(seed: int):
        key = jax.random.key(seed)
        return jax.block_until_ready(simulate_springs(key, num=num, num_frames=TIME))

    generate(0)

    def run() -> float:
        start = time.perf_counter()
        generate(1)
        return time.perf_counter() - start

    return run


def simulation_case(num: int) -> Case:
    """Springs, against the time that they may take."""
    sides = {
        OURS: functools.partial(simulate, num),
        ALLOWED: lambda: lambda: SECONDS_TO_SIMULATE,
    }
    name = f"{num} springs simulations of {TIME} frames"
    return Case(name, sides, {ALLOWED: 1.0}, own_clock=True)


CASES = [
    *(step_case(name, size) for name, size in SIZES.items()),
    simulation_case(50_000),
]
