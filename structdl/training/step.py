"""The one step that every experiment shares: pure, not jitted; the loop compiles it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from structdl.training.optimizers import Optimizer
from structdl.training.state import TrainState
from structdl.training.task import Inputs, Task


def make_train_step(task: Task, optimizer: Optimizer, axis_name: str | None = None) -> Callable:
    """Returns `train_step(state, inputs) -> (state, diagnostics)`.

    Diagnostics are the scalars "loss" (penalty included) and "grad_norm", and the loss function's
    metrics as (total, count). With `axis_name` the step runs inside `jax.pmap` over that axis:
    totals, counts and gradients are summed over its devices, each of which has a share of the
    batch.
    """
    total_over_devices, num_devices = _reduction(axis_name)

    def train_step(state: TrainState, inputs: Inputs):
        key = jax.random.fold_in(state.key, state.step)

        def share_of_objective(params):
            """This device's summand of total / count + penalty."""
            (total, count), aux = task.loss_fn(params, state.model_state, inputs, key)
            count = total_over_devices(jnp.asarray(count, jnp.float32))
            share = total / count + task.penalty(params) / num_devices()
            return share, aux

        def objective(params, obj_fn=None):
            """The step's loss at other parameters; line searches hand obj_fn on, unused."""
            return total_over_devices(share_of_objective(params)[0])

        (share, (model_state, metrics)), grads = jax.value_and_grad(
            share_of_objective, has_aux=True
        )(state.params)
        loss, grads, metrics = total_over_devices((share, grads, metrics))
        transform = optax.with_extra_args_support(optimizer.make(state.hyperparams, state.step))
        updates, opt_state = transform.update(
            grads,
            state.opt_state,
            state.params,
            value=loss,
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
        return new_state, {"loss": loss, "grad_norm": optax.tree.norm(grads), **metrics}

    return train_step


def _reduction(axis_name: str | None):
    if axis_name is None:
        return (lambda tree: tree), (lambda: 1)
    return (
        lambda tree: jax.lax.psum(tree, axis_name),
        lambda: jax.lax.axis_size(axis_name),
    )
