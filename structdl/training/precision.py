"""Half precision: models compute in bfloat16, their parameters and their sums stay in float32.

What is cast is what enters a model and what leaves it, so that no model knows of precisions:
`in_precision` casts a task's parameters, and `apply` the arguments beside them. Losses are float32
from the model's answer on; sums over edges are float32 inside (`structdl.core.edge_layout`).

Reference: Micikevicius et al. (2018), "Mixed precision training", arXiv:1710.03740, section 3.1;
bfloat16 has the range of float32 and needs no scaling of the loss (section 3.2).
"""

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from structdl.training.task import Inputs, Task

Precision = Literal["float32", "bfloat16"]


def in_precision(task: Task, precision: Precision) -> Task:
    """The task with its loss and metrics computed from parameters of that precision.

    The gradient passes through the cast: what the optimizer sees and keeps is float32, and so are
    a penalty on the parameters and the model's own state.
    """
    if precision == "float32":
        return task

    def loss_fn(params, model_state, inputs: Inputs, key):
        loss, (state, metrics) = task.loss_fn(_half(params), model_state, inputs, key)
        return _full(loss), (_full(state), _full(metrics))

    def metrics(params, model_state, inputs: Inputs, key):
        return _full(task.metrics(_half(params), model_state, inputs, key))

    return task._replace(loss_fn=loss_fn, metrics=metrics)


def apply(module, variables: Mapping[str, Any], *args: Any, **options: Any) -> Any:
    """`module.apply` with its arguments in the dtype of the parameters, and a float32 answer.

    With float32 parameters it is `module.apply` itself.

    Args:
      module: a flax module.
      variables: its parameters, under "params", and what else it keeps, which is not cast.
      args: arrays, and trees of them, of which those of floats are cast.
      options: keywords of `module.apply`.
    """
    leaves = jax.tree.leaves(variables["params"])
    if leaves and all(leaf.dtype == jnp.bfloat16 for leaf in leaves):
        args = _half(args)
    return _full(module.apply(variables, *args, **options))


def _half(tree):
    return _cast(tree, jnp.float32, jnp.bfloat16)


def _full(tree):
    return _cast(tree, jnp.bfloat16, jnp.float32)


def _cast(tree, old, new):
    def cast(leaf):
        return leaf.astype(new) if getattr(leaf, "dtype", None) == old else leaf

    return jax.tree.map(cast, tree)
