"""Going down a landscape with optax, one descent at a time, in a loop of Python or a compiled one.

A program is compiled once for each optimizer and function; the learning rate, the noise and the
seed are its arguments.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks.one_by_one import Descend
from experiments.optimizer_comparison.landscapes import LANDSCAPES
from structdl.training.update_rules import UPDATE_RULES

OPTIMIZERS = {
    name: functools.partial(getattr(optax, rule.name), **rule.kwargs)
    for name, rule in UPDATE_RULES.items()
}
LOOK_EVERY = 50  # steps: to look at each height would make the loop wait for it


def make_step(optimizer: str, function):
    """`(state, rate, noise, key) -> (state, height)`."""

    def step(state, rate, noise, key):
        point, opt_state, number = state
        height, slope = jax.value_and_grad(function)(point)
        slope += noise * jax.random.normal(jax.random.fold_in(key, number), (2,))
        updates, opt_state = OPTIMIZERS[optimizer](rate).update(slope, opt_state, point)
        return (optax.apply_updates(point, updates), opt_state, number + 1), height

    return step


def begin(optimizer: str, start, rate):
    """The state before the first step."""
    point = jnp.asarray(start, jnp.float32)
    return point, OPTIMIZERS[optimizer](rate).init(point), jnp.int32(0)


@functools.cache
def _compiled_step(optimizer: str, function):
    step, one = jax.jit(make_step(optimizer, function)), jnp.float32(1)
    jax.block_until_ready(step(begin(optimizer, (1, 1), one), one, one, jax.random.key(0)))
    return step


def python_loop(optimizer: str, landscape: str, num_steps: int) -> Descend:
    """A compiled step, called again and again."""
    its = LANDSCAPES[landscape]
    step, noise = _compiled_step(optimizer, its.function), jnp.float32(its.noise)

    def descend(rate: float, seed: int) -> np.ndarray:
        rate, key = jnp.float32(rate), jax.random.key(seed)
        state, heights = begin(optimizer, its.start, rate), []
        for number in range(num_steps + 1):  # the last one for the height at the last point
            state, height = step(state, rate, noise, key)
            heights.append(height)
            if number % LOOK_EVERY == 0 and not its.lowest <= float(height) < math.inf:
                break
        return np.array(jax.device_get(heights))

    return descend


@functools.cache
def _compiled_descent(optimizer: str, function, num_steps: int):
    step = make_step(optimizer, function)

    def descend(start, rate, noise, seed):
        key = jax.random.key(seed)
        state = begin(optimizer, start, rate)
        _, heights = jax.lax.scan(
            lambda state, _: step(state, rate, noise, key), state, length=num_steps + 1
        )
        return heights

    compiled = jax.jit(descend)
    ones = np.ones(4, np.float32)
    jax.block_until_ready(compiled(ones[:2], ones[2], ones[3], np.uint32(0)))
    return compiled


def compiled_loop(optimizer: str, landscape: str, num_steps: int) -> Descend:
    """All steps in one call."""
    its = LANDSCAPES[landscape]
    compiled = _compiled_descent(optimizer, its.function, num_steps)
    start, noise = np.array(its.start, np.float32), np.float32(its.noise)
    return lambda rate, seed: np.asarray(compiled(start, np.float32(rate), noise, np.uint32(seed)))
