"""Going down a landscape by the step that trains networks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from structdl.training.optimizers import Optimizer
from structdl.training.state import init_train_state
from structdl.training.step import make_train_step
from structdl.training.task import Inputs, Task


class Descent(NamedTuple):
    """A path from the start on; what ended keeps its last point.

    Fields:
      points: [steps + 1, 2].
      heights: [steps + 1], without noise.
      taken: (), int32: steps that were taken.
      diverged: (), bool: a point or a gradient was not finite; the one before it is kept.
    """

    points: jax.Array
    heights: jax.Array
    taken: jax.Array
    diverged: jax.Array


def descend(
    function: Callable[[Float[Array, "2"]], Float[Array, ""]],
    optimizer: Optimizer,
    start: Float[Array, "2"],
    key: jax.Array,
    *,
    num_steps: int,
    hyperparams: dict[str, Any] | None = None,
    noise: float | Float[Array, ""] = 0.0,
    lowest: float | Float[Array, ""] = -jnp.inf,
) -> Descent:
    """A pure function, to be jitted and vmapped over anything but the optimizer and the steps.

    Args:
      function: `point -> height`.
      hyperparams: in place of the optimizer's own; arrays, so that no value is compiled for.
      noise: standard deviation of normal noise on the gradient, drawn anew in each step.
      lowest: the descent ends below it.
    """

    def loss_fn(point, model_state, inputs, key):
        # its value is the height, its gradient that of the height and a push
        bump = jnp.dot(inputs.batch, point - jax.lax.stop_gradient(point))
        return (function(point) + bump, 1.0), (model_state, {})

    task = Task((), lambda key, inputs: (start, ()), loss_fn, lambda *args: {})
    optimizer = optimizer._replace(hyperparams=optimizer.hyperparams | (hyperparams or {}))
    train_step = make_train_step(task, optimizer)

    def step(carry, _):
        state, diverged = carry
        push = noise * jax.random.normal(jax.random.fold_in(noise_key, state.step), (2,))
        new, diagnostics = train_step(state, Inputs((), (), push))
        height = diagnostics["loss"]
        finite = jnp.isfinite(diagnostics["grad_norm"]) & jnp.all(jnp.isfinite(new.params))
        ended = diverged | (height < lowest)
        state = jax.tree.map(
            lambda old, new: jnp.where(ended | ~finite, old, new),
            state._replace(key=()),
            new._replace(key=()),
        )._replace(key=state.key)
        diverged |= ~ended & ~finite
        return (state, diverged), (height, state.params)

    train_key, noise_key = jax.random.split(key)
    state = init_train_state(start, (), optimizer, train_key)
    no = jnp.zeros((), bool)
    (state, diverged), (heights, points) = jax.lax.scan(step, (state, no), length=num_steps)
    return Descent(
        points=jnp.concatenate([start[None], points]),
        heights=jnp.append(heights, function(state.params)),
        taken=state.step,
        diverged=diverged,
    )
