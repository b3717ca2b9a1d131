"""What a trained model writes, symbol by symbol."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.language_modeling.model import LanguageModel
from structdl.errors import InputError


def sample(
    model: LanguageModel, params: Any, prompt: np.ndarray, num: int, *, temperature: float, key
) -> np.ndarray:
    """The `num` symbols that follow a prompt [time], each drawn from softmax(logits / temperature).

    Args:
      temperature: 1 draws as the model predicts, less is more careful, 0 takes the likeliest.

    Raises:
      InputError: an empty prompt, or a temperature that is negative or no number.
    """
    if not len(prompt):
        raise InputError("a model writes after something: give a prompt of one symbol or more")
    check_temperature(temperature)
    return np.asarray(_sample(model, params, jnp.asarray(prompt), num, temperature, key))


def check_temperature(temperature: float) -> None:
    """Raises InputError unless one can be drawn from at it."""
    if not 0 <= temperature < np.inf:
        raise InputError(f"--temperature is {temperature}: give 0 or more.")


@partial(jax.jit, static_argnums=(0, 3))
def _sample(model, params, prompt, num, temperature, key):
    def read(state, symbol):
        variables = {"params": params}
        state, logits = model.apply(variables, state, symbol[None], method="step")
        return state, logits[0]

    def write(carry, key):
        state, logits = carry
        # the largest of logits / temperature + Gumbel noise is a draw from their softmax
        noise = jax.random.gumbel(key, logits.shape)
        symbol = jnp.argmax(logits + temperature * noise)
        return read(state, symbol), symbol

    state = model.apply({"params": params}, 1, method="initial_state")
    state, logits = jax.lax.scan(read, state, prompt)
    _, symbols = jax.lax.scan(write, (state, logits[-1]), jax.random.split(key, num))
    return symbols
