"""The five update rules against their equations, written in NumPy and stepped side by side."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from structdl.training.optimizers import make_optimizer
from structdl.training.update_rules import EPSILON, UPDATE_RULES

RATE, STEPS = 0.05, 100


def textbook(name: str):
    """`(w, g, memory, t) -> (w, memory)`: a step of a rule, memory starting at zeros."""

    def sgd(w, g, memory, t):
        return w - RATE * g, memory

    def momentum(w, g, memory, t):
        v = 0.9 * memory[0] + g
        return w - RATE * v, (v, memory[1])

    def adagrad(w, g, memory, t):
        s = memory[1] + g * g
        return w - RATE / np.sqrt(s + EPSILON) * g, (memory[0], s)

    def rmsprop(w, g, memory, t):
        s = 0.9 * memory[1] + 0.1 * g * g
        return w - RATE / np.sqrt(s + EPSILON) * g, (memory[0], s)

    def adam(w, g, memory, t):
        v = 0.9 * memory[0] + 0.1 * g
        s = 0.999 * memory[1] + 0.001 * g * g
        v_t, s_t = v / (1 - 0.9**t), s / (1 - 0.999**t)
        return w - RATE / np.sqrt(s_t + EPSILON) * v_t, (v, s)

    return locals()[name]


def gradient(w, step):
    """Of a stretched bowl, with a disturbance of each step; zero in the last place."""
    stretch = np.array([1.0, 3.0, 0.1, 0.0])
    return stretch * (w - 0.5) + 0.1 * np.sin(7 * step + np.arange(4)) * (stretch > 0)


@pytest.mark.parametrize("name", UPDATE_RULES)
def test_a_rule_is_its_equation(name):
    config = dataclasses.replace(UPDATE_RULES[name], learning_rate=RATE)
    with jax.enable_x64(True):
        optimizer = make_optimizer(config)
        transform = optimizer.make(optimizer.hyperparams, 0)
        w = params = np.array([1.0, -2.0, 0.3, 1.0])
        memory = (np.zeros(4), np.zeros(4))
        state = transform.init(jnp.asarray(params))
        step = textbook(name)
        for t in range(1, STEPS + 1):
            updates, state = transform.update(jnp.asarray(gradient(params, t)), state)
            params = np.asarray(optax.apply_updates(jnp.asarray(params), updates))
            w, memory = step(w, gradient(w, t), memory, t)
            np.testing.assert_allclose(params, w, rtol=1e-6)
    assert np.abs(w[:3] - [1.0, -2.0, 0.3]).min() > 0.01, "it moved"
    assert w[3] == 1.0, "without a gradient it rests"
