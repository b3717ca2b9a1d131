"""What one seed of a run is at a step, and what a checkpoint holds."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from structdl.training.optimizers import Optimizer
from structdl.training.stopping import StoppingRule
from structdl.training.task import Inputs, Task


class TrainState(NamedTuple):
    """What one seed needs to take its next step."""

    step: jax.Array  # (), int32: steps taken
    key: jax.Array  # (), typed; never changes: each step folds its number in
    params: Any
    model_state: Any  # what the model updates by itself: batch statistics, say
    opt_state: Any
    hyperparams: dict[str, jax.Array]  # what a study varies: traced, so no recompilation


class LoopState(NamedTuple):
    """A TrainState and what the loop decides by. In `fit` every leaf has a first axis of seeds."""

    train: TrainState
    rule: Any  # the stopping rule's window, counters or best parameters
    stopped: jax.Array  # (), bool: the rule has ended this seed
    diverged: jax.Array  # (), bool: a loss or gradient was not finite; the state before is kept


def init_train_state(params, model_state, optimizer: Optimizer, key) -> TrainState:
    """A state at step 0.

    The optimizer's state is copied, since a buffer that it shares with the parameters cannot be
    donated twice, and its dtypes made strong, since a weak one would compile the step twice.
    """
    step = jnp.zeros((), jnp.int32)
    hyperparams = {name: jnp.asarray(value) for name, value in optimizer.hyperparams.items()}
    opt_state = jax.tree.map(
        lambda leaf: jnp.array(leaf, dtype=jnp.asarray(leaf).dtype),
        optimizer.make(hyperparams, step).init(params),
    )
    return TrainState(step, key, params, model_state, opt_state, hyperparams)


def init_loop_state(
    task: Task, optimizer: Optimizer, rule: StoppingRule, key, inputs: Inputs
) -> LoopState:
    """The state of one seed before its first step, from that seed's key."""
    init_key, train_key = jax.random.split(key)
    params, model_state = task.init(init_key, inputs)
    train = init_train_state(params, model_state, optimizer, train_key)
    no = jnp.zeros((), bool)
    return LoopState(train, rule.init(selected(optimizer, train)), stopped=no, diverged=no)


def selected(optimizer: Optimizer, train: TrainState) -> tuple[Any, Any]:
    """(params, model_state) to evaluate: an averaging optimizer evaluates its average."""
    return optimizer.eval_params(train.opt_state, train.params), train.model_state
