"""The programs of a run: how a state starts, the compiled call of many steps, what is tested.

A call is some rounds; a round is some steps and, at its end, a validation. Seeds, stopping,
chunks of steps and kinds of data are not branches here: seeds are an axis of the state, a stopped
seed is frozen inside the scan, and batches are stacked on the host.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from structdl.training.evaluate import evaluation_key, metric_totals
from structdl.training.optimizers import Optimizer
from structdl.training.placement import Placement
from structdl.training.precision import in_precision
from structdl.training.run import Run
from structdl.training.seeds import over_seeds, stack
from structdl.training.state import LoopState, init_loop_state, selected
from structdl.training.step import make_train_step
from structdl.training.stopping import StoppingRule, Validation, stopping_rule
from structdl.training.task import Inputs, Task


class Call(NamedTuple):
    """The shape of one compiled call."""

    rounds: int
    steps: int  # in a round
    evaluate: bool  # whether each round ends with a validation


def next_call(step: int, run: Run, validates: bool) -> Call:
    """The call that begins at `step`: it ends at the next multiple of run.steps_per_call.

    Boundaries are absolute, so that a resumed run executes the same programs as an uninterrupted
    one. Validations sit at multiples of run.eval_every, inside a call or at its end.

    >>> run = Run(num_steps=25, eval_every=5, steps_per_call=10)
    >>> [next_call(step, run, True) for step in (0, 10, 20, 3)]
    [Call(rounds=2, steps=5, evaluate=True), Call(rounds=2, steps=5, evaluate=True),
     Call(rounds=1, steps=5, evaluate=True), Call(rounds=1, steps=2, evaluate=True)]
    """
    boundary = (step // run.steps_per_call + 1) * run.steps_per_call
    length = min(boundary, run.num_steps) - step
    if not validates or run.eval_every == 0:
        return Call(1, length, False)
    to_validation = run.eval_every - step % run.eval_every
    if to_validation > length:
        return Call(1, length, False)
    if to_validation < run.eval_every:
        return Call(1, to_validation, True)
    return Call(length // run.eval_every, run.eval_every, True)


class Programs(NamedTuple):
    """The compiled functions of a run; states, seed data and batches have a first axis of seeds."""

    init: Callable[..., LoopState]
    call: Callable[..., tuple[LoopState, dict]]
    final: Callable[[LoopState], tuple[Any, Any]]


def make_programs(task: Task, optimizer: Optimizer, run: Run, placement: Placement) -> Programs:
    """Compiles, on first use, what `fit` calls."""
    task = in_precision(task, run.precision)
    rule = stopping_rule(run.stopping, run.stopping_size, run.stopping_score)

    def run_call_over(axis: str | None):
        call = make_run_call(task, optimizer, rule, axis)
        return over_seeds(call, (0, None, 0, 0, None))

    def init(seed, data, seed_data, batch, hyperparams):
        inputs, its = Inputs(data, seed_data, batch), optimizer._replace(hyperparams=hyperparams)
        return init_loop_state(task, its, rule, jax.random.key(seed), inputs)

    def final(state: LoopState):
        return rule.final(state.rule, selected(optimizer, state.train))

    return Programs(
        init=_jit_into(over_seeds(init, (0, None, 0, 0, 0)), placement.of_state),
        call=placement.compile(run_call_over),
        final=jax.jit(over_seeds(final, (0,))),
    )


def _jit_into(function: Callable, where: Callable[[Any], Any]) -> Callable:
    """Compiles a function whose result goes where `where(its shapes)` says."""
    traced, compiled = jax.jit(function), {}

    def call(*args):
        shapes = jax.eval_shape(traced, *args)
        size = jax.tree.leaves(shapes)[0].shape  # that of a group of seeds
        if size not in compiled:
            compiled[size] = jax.jit(function, out_shardings=where(shapes))
        return compiled[size](*args)

    return call


def make_run_call(
    task: Task, optimizer: Optimizer, rule: StoppingRule, axis: str | None = None
) -> Callable:
    """Returns the pure function of one seed that `fit` compiles.

    `run_call(state, data, seed_data, batches, eval_batches) -> (state, trace)`: batches are those
    of `stack_batches` for one seed, eval_batches those of `number_batches`, or None for rounds
    without a validation. The trace holds, for every round, the state's step and flags at its
    end, the summed diagnostics of its steps and the validation's means. The axis is that of
    `make_train_step`.
    """
    train_step = make_train_step(task, optimizer, axis)

    def guarded_step(state: LoopState, inputs: Inputs):
        """One step; a stopped seed, or one that just diverged, keeps its state bit for bit."""
        train, diagnostics = train_step(state.train, inputs)
        norms = (diagnostics["loss"], diagnostics["grad_norm"], optax.tree.norm(train.params))
        finite = jnp.all(jnp.isfinite(jnp.stack(norms)))
        diverged = state.diverged | (~state.stopped & ~finite)
        train = _freeze(state.stopped | diverged, state.train, train)
        return state._replace(train=train, diverged=diverged), diagnostics

    def validate(state: LoopState, data, seed_data, eval_batches):
        chosen = selected(optimizer, state.train)
        key = evaluation_key(state.train.key)
        totals = metric_totals(task, chosen, data, seed_data, eval_batches, key)
        values = {name: total / count for name, (total, count) in totals.items()}
        loss = values["loss"]
        score = values[task.score] if task.score else -loss
        validation = Validation(loss, loss + task.penalty(chosen[0]), score)
        new_rule, stop = rule.update(state.rule, chosen, validation)
        frozen = state.stopped | state.diverged
        new_rule = _freeze(frozen, state.rule, new_rule)
        return state._replace(rule=new_rule, stopped=state.stopped | (stop & ~frozen)), values

    def run_call(state: LoopState, data, seed_data, batches, eval_batches):
        def one_step(state, number_and_batch):
            _, batch = number_and_batch
            return guarded_step(state, Inputs(data, seed_data, batch))

        def one_round(state, batches):
            state, diagnostics = scan(one_step, state, batches)
            values = {}
            if eval_batches is not None:
                state, values = validate(state, data, seed_data, eval_batches)
            trace = {
                "step": state.train.step,
                "active": ~(state.stopped | state.diverged),
                "train": jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), diagnostics),
                "validation": values,
            }
            return state, trace

        return scan(one_round, state, batches)

    return run_call


def scan(function: Callable, carry, xs):
    """lax.scan, or one plain call where there is one step: on CPU a loop slows convolutions."""
    if jax.tree.leaves(xs)[0].shape[0] > 1:
        return jax.lax.scan(function, carry, xs)
    carry, y = function(carry, jax.tree.map(lambda leaf: leaf[0], xs))
    return carry, jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], y)


def stack_batches(
    task: Task, seeds: Sequence[int], step: int, call: Call, rows: slice | None = None
):
    """(step numbers, batches) of one call, leaves [num_seeds, rounds, steps, ...].

    The numbers are there for the scan's length where batches are empty.

    Args:
      rows: of each step's examples, those to be read; None means all.
    """

    def batches_of(seed):
        numbers = range(step, step + call.rounds * call.steps)
        stacked = stack([(np.int32(number), fetch(task, number, seed, rows)) for number in numbers])
        return jax.tree.map(
            lambda leaf: leaf.reshape(call.rounds, call.steps, *leaf.shape[1:]), stacked
        )

    return stack([batches_of(seed) for seed in seeds])


def fetch(task: Task, step: int, seed: int, rows: slice | None = None):
    """A step's batch with its arrays, or some rows of it."""
    batch = task.batch(step, seed)
    if rows is not None:
        batch = jax.tree.map(lambda leaf: leaf[rows] if np.ndim(leaf) else leaf, batch)
    return task.fetch(batch)


def _freeze(frozen: jax.Array, old, new):
    """`old` where frozen, else `new`. Keys never change; a select would count as using them."""

    def choose(old, new):
        if jax.dtypes.issubdtype(jnp.asarray(old).dtype, jax.dtypes.prng_key):
            return new
        return jnp.where(frozen, old, new)

    return jax.tree.map(choose, old, new)
