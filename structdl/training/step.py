"""The one step that every experiment shares: pure, not jitted; the loop compiles it."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from structdl.training.by_pmap import shared, summed
from structdl.training.optimizers import Optimizer
from structdl.training.state import TrainState
from structdl.training.task import Inputs, Task


def make_train_step(task: Task, optimizer: Optimizer, axis: str | None = None) -> Callable:
    """Returns `train_step(state, inputs) -> (state, diagnostics)`.

    It minimises total / count + penalty(params). Diagnostics are the scalars "loss" (without the
    penalty) and "grad_norm", and the loss function's metrics as (total, count).

    Args:
      axis: of devices that each see some of the examples, where the step is mapped over one:
        totals, counts and gradients are then sums over it, so that the loss divides by the global
        count, and a floating-point model state is the mean. Each device draws for itself: noise
        per example, such as dropout, keeps its distribution, while noise drawn once per batch,
        such as weight noise or sampled edges, is averaged over the devices' independent draws.
    """

    def over_devices(tree):
        return tree if axis is None else summed(axis, tree)

    def train_step(state: TrainState, inputs: Inputs):
        key = jax.random.fold_in(state.key, state.step)
        if axis is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis))

        bits, kind = jax.random.key_data(key), jax.random.key_impl(key)

        def objective_and_parts(params):
            # a line search compares values of one objective: its draws are the same each time.
            # Over seeds its loops choose between values, which keys themselves do not allow.
            same_key = jax.random.wrap_key_data(bits, impl=kind)
            its = params if axis is None else shared(axis, params)
            (total, count), aux = task.loss_fn(its, state.model_state, inputs, same_key)
            loss = over_devices(total) / over_devices(count)
            return loss + task.penalty(params), (loss, aux)

        def objective(params, obj_fn=None):
            """The step's objective at other parameters; line searches hand obj_fn on, unused."""
            return objective_and_parts(params)[0]

        (value, (loss, (model_state, metrics))), grads = jax.value_and_grad(
            objective_and_parts, has_aux=True
        )(state.params)
        if axis is not None:
            model_state = jax.tree.map(partial(_mean, axis), model_state)
        transform = optax.with_extra_args_support(optimizer.make(state.hyperparams, state.step))
        updates, opt_state = transform.update(
            grads,
            state.opt_state,
            state.params,
            value=value,
            grad=grads,
            value_fn=objective,
            obj_fn=objective,
        )
        new_state = state._replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            model_state=model_state,
            opt_state=opt_state,
        )
        diagnostics = {"loss": loss, "grad_norm": optax.tree.norm(grads)}
        return new_state, diagnostics | over_devices(metrics)

    return train_step


def _mean(axis: str, leaf):
    is_float = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
    return jax.lax.pmean(leaf, axis) if is_float else leaf
