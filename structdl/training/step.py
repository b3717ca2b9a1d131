"""The one step that every experiment shares: pure, not jitted; the loop compiles it."""

from collections.abc import Callable

import jax
import optax

from structdl.training.optimizers import Optimizer
from structdl.training.state import TrainState
from structdl.training.task import Inputs, Task


def make_train_step(task: Task, optimizer: Optimizer) -> Callable:
    """Returns `train_step(state, inputs) -> (state, diagnostics)`.

    It minimises total / count + penalty(params). Diagnostics are the scalars "loss" (without the
    penalty) and "grad_norm", and the loss function's metrics as (total, count).
    """

    def train_step(state: TrainState, inputs: Inputs):
        key = jax.random.fold_in(state.key, state.step)

        def objective_and_parts(params):
            # a line search compares values of one objective: its draws are the same each time
            same_key = jax.random.clone(key)
            (total, count), aux = task.loss_fn(params, state.model_state, inputs, same_key)
            loss = total / count
            return loss + task.penalty(params), (loss, aux)

        def objective(params, obj_fn=None):
            """The step's objective at other parameters; line searches hand obj_fn on, unused."""
            return objective_and_parts(params)[0]

        (value, (loss, (model_state, metrics))), grads = jax.value_and_grad(
            objective_and_parts, has_aux=True
        )(state.params)
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
        return new_state, {"loss": loss, "grad_norm": optax.tree.norm(grads), **metrics}

    return train_step
