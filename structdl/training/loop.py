"""The loop: one compiled function over a LoopState, called until the steps are done.

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

from structdl.errors import InputError
from structdl.training.checkpoints import Checkpoints
from structdl.training.evaluate import evaluation_key, metric_totals, number_batches
from structdl.training.logging import MetricsLog, Stopwatch
from structdl.training.optimizers import Optimizer
from structdl.training.parallel import Placement, on_devices
from structdl.training.preemption import Preempted
from structdl.training.processes import local
from structdl.training.profiling import Profile
from structdl.training.run import Run
from structdl.training.seeds import group_name, over_seeds, stack
from structdl.training.state import LoopState, init_loop_state, selected
from structdl.training.step import make_train_step
from structdl.training.stopping import StoppingRule, Validation, stopping_rule
from structdl.training.task import Inputs, Task


class Fit(NamedTuple):
    """What a run leaves; every leaf and array has a first axis of seeds.

    Fields:
      seeds: the seeds, in the order of that axis.
      state: the last LoopState.
      selected: (params, model_state) to be tested, by the stopping rule and the optimizer.
      resumed: how often the run was started from a checkpoint.
    """

    seeds: tuple[int, ...]
    state: LoopState
    selected: tuple[Any, Any]
    resumed: int


def fit(
    task: Task,
    optimizer: Optimizer,
    run: Run,
    *,
    checkpoints: Callable[[str], Checkpoints] | None = None,
    log: MetricsLog | None = None,
    stopwatch: Stopwatch | None = None,
    profile: Profile | None = None,
    preempted: Callable[[], bool] = lambda: False,
) -> Fit:
    """Trains seeds run.seed to run.seed + run.num_seeds - 1, in groups that are vmapped.

    Args:
      checkpoints: opens the store of a group of seeds by its name; training continues from what
        it holds. Without it nothing is saved.
      log: where losses and validation metrics go.
      stopwatch: adds up seconds of compiling and training.
      profile: watches the calls.
      preempted: whether the run is asked to leave; it then saves itself after the call that is
        running.

    Raises:
      InputError: a Run that cannot be carried out.
      Preempted: the run was asked to leave, and has saved itself.
    """
    run.validate()
    watch = _Watch(
        log or MetricsLog(None), stopwatch or Stopwatch(), profile or Profile(), preempted
    )
    placement = on_devices(run)
    programs = make_programs(task, optimizer, run, placement)
    task = task._replace(data=placement.replicate(task.data))
    fits = []
    for seeds in run.seed_groups():
        store = checkpoints(group_name(seeds)) if checkpoints else None
        try:
            group = _make_group(task, seeds)
            fits.append(_fit_group(task, programs, placement, run, group, store, watch))
        finally:
            if store:
                store.close()
    return _join(fits)


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
    rule = stopping_rule(run.stopping, run.stopping_size)
    run_call = make_run_call(task, optimizer, rule, placement.axis)

    def init(seed, data, seed_data, batch):
        inputs = Inputs(data, seed_data, batch)
        return init_loop_state(task, optimizer, rule, jax.random.key(seed), inputs)

    def final(state: LoopState):
        return rule.final(state.rule, selected(optimizer, state.train))

    return Programs(
        init=_jit_into(over_seeds(init, (0, None, 0, 0)), placement.of_state),
        call=placement.compile(over_seeds(run_call, (0, None, 0, 0, None))),
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


def stack_batches(task: Task, seeds: Sequence[int], step: int, call: Call):
    """(step numbers, batches) of one call, leaves [num_seeds, rounds, steps, ...].

    The numbers are there for the scan's length where batches are empty.
    """

    def batches_of(seed):
        numbers = range(step, step + call.rounds * call.steps)
        stacked = stack([(np.int32(number), task.batch(number, seed)) for number in numbers])
        return jax.tree.map(
            lambda leaf: leaf.reshape(call.rounds, call.steps, *leaf.shape[1:]), stacked
        )

    return stack([batches_of(seed) for seed in seeds])


class _Watch(NamedTuple):
    """Who is told how a run goes, and who may end it."""

    log: MetricsLog
    stopwatch: Stopwatch
    profile: Profile
    preempted: Callable[[], bool]


class _Group(NamedTuple):
    """One group of seeds and what does not change while it trains."""

    seeds: tuple[int, ...]
    seed_data: Any
    eval_batches: Any
    init_args: tuple


def _make_group(task: Task, seeds: tuple[int, ...]) -> _Group:
    seed_data = stack([task.seed_data(seed) for seed in seeds])
    first_batch = stack([task.batch(0, seed) for seed in seeds])
    init_args = (np.asarray(seeds, np.uint32), task.data, seed_data, first_batch)
    return _Group(seeds, seed_data, number_batches(task.eval_batches("validation")), init_args)


def _fit_group(
    task: Task,
    programs: Programs,
    placement: Placement,
    run: Run,
    group: _Group,
    store: Checkpoints | None,
    watch: _Watch,
) -> Fit:
    """Trains one group of seeds from where its checkpoints end."""
    log, stopwatch, profile, preempted = watch
    if run.stopping != "none" and group.eval_batches is None:
        raise InputError(f"--stopping {run.stopping} needs validations: this task has none.")
    saved = store.restore(_template(programs, placement, group)) if store else None
    if saved:
        step, state, resumed = saved.step, saved.state, saved.progress["resumed"] + 1
        stopwatch.resume(saved.progress["seconds"])
    else:
        step, resumed = 0, 0
        with stopwatch.measure("train"):
            state = programs.init(*group.init_args)
    log.start_group(group.seeds, step)
    active = ~local(state.stopped | state.diverged)
    going_on = bool(np.any(active))

    def save():
        log.flush()
        if store:
            store.save(step, state, {"resumed": resumed, "seconds": stopwatch.total()})

    while step < run.num_steps and going_on:
        call = next_call(step, run, validates=group.eval_batches is not None)
        with stopwatch.measure("train"):
            with profile.input(active):
                batches = stack_batches(task, group.seeds, step, call)
            inputs = {
                "seed_data": group.seed_data,
                "batches": batches,
                "eval_batches": group.eval_batches if call.evaluate else None,
            }
            with profile.call(call.rounds * call.steps, inputs):
                state, trace = programs.call(state, task.data, *inputs.values())
                # asks the call before this one, so that the device has work while the host waits
                going_on, active = bool(np.any(active)), trace["active"][:, -1]
            log.add(step, call, trace)
        before, step = step, step + call.rounds * call.steps
        every = run.checkpoint_every
        leaves = preempted()
        if going_on and step < run.num_steps:
            if leaves or (every and step // every > before // every):
                save()
            if leaves:
                raise Preempted(step)
    with stopwatch.measure("train"):
        jax.block_until_ready(state)
        profile.finish(active)
    if not saved or step > saved.step:
        save()
    return Fit(group.seeds, local(state), local(programs.final(state)), resumed)


def restore(
    task: Task, optimizer: Optimizer, run: Run, checkpoints: Callable[[str], Checkpoints]
) -> Fit:
    """A run as its last checkpoints have it; nothing is trained or written.

    Raises:
      InputError: a group of seeds has no checkpoint, or one of another model.
    """
    placement = on_devices(run)
    programs = make_programs(task, optimizer, run, placement)
    fits = []
    for seeds in run.seed_groups():
        store = checkpoints(group_name(seeds))
        saved = store.restore(_template(programs, placement, _make_group(task, seeds)))
        store.close()
        if saved is None:
            raise InputError(f"there is no checkpoint in {store.directory} yet: train first.")
        selected = programs.final(saved.state)
        fits.append(Fit(seeds, saved.state, selected, saved.progress["resumed"]))
    return _join(fits)


def check_start(task: Task, optimizer: Optimizer, run: Run) -> None:
    """Traces a run's first state and loss, so that a mistake in its config shows at no cost.

    Raises:
      InputError: whatever the task's functions refuse, or devices that the seeds do not fit.
    """
    programs = make_programs(task, optimizer, run, on_devices(run))
    group = _make_group(task, run.seed_groups()[0])
    state = jax.eval_shape(programs.init, *group.init_args)
    _, _, seed_data, batch = group.init_args

    def loss(state, seed_data, batch):
        inputs = Inputs(task.data, seed_data, batch)
        return task.loss_fn(state.train.params, state.train.model_state, inputs, state.train.key)

    jax.eval_shape(over_seeds(loss, (0, 0, 0)), state, seed_data, batch)


def _template(programs: Programs, placement: Placement, group: _Group) -> LoopState:
    """The shapes of a group's state, and where it shall lie: not where it lay when it was saved."""
    shapes = jax.eval_shape(programs.init, *group.init_args)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        placement.of_state(shapes),
    )


def _join(fits: Sequence[Fit]) -> Fit:
    return Fit(
        seeds=tuple(seed for fit in fits for seed in fit.seeds),
        state=_concatenate([fit.state for fit in fits]),
        selected=_concatenate([fit.selected for fit in fits]),
        resumed=max(fit.resumed for fit in fits),
    )


def _freeze(frozen: jax.Array, old, new):
    """`old` where frozen, else `new`. Keys never change; a select would count as using them."""

    def choose(old, new):
        if jax.dtypes.issubdtype(jnp.asarray(old).dtype, jax.dtypes.prng_key):
            return new
        return jnp.where(frozen, old, new)

    return jax.tree.map(choose, old, new)


def _concatenate(trees: Sequence[Any]):
    if len(trees) == 1:
        return trees[0]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *trees)
