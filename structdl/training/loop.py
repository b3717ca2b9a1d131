"""The loop: one compiled function over a LoopState, called until the steps are done."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from structdl.errors import InputError, require_known
from structdl.training.checkpoints import Checkpoints
from structdl.training.evaluate import number_batches
from structdl.training.logging import MetricsLog, Stopwatch
from structdl.training.memory import require_memory
from structdl.training.optimizers import Optimizer
from structdl.training.parallel import devices_of, on_devices
from structdl.training.placement import Placement, Share
from structdl.training.precision import in_precision
from structdl.training.preemption import Preempted
from structdl.training.processes import local
from structdl.training.profiling import Profile
from structdl.training.programs import (
    Programs,
    fetch,
    make_programs,
    next_call,
    stack_batches,
)
from structdl.training.run import Run
from structdl.training.seeds import group_name, over_seeds, stack
from structdl.training.state import LoopState
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
    hyperparams: Sequence[Mapping[str, float]] | None = None,
    checkpoints: Callable[[str], Checkpoints] | None = None,
    log: MetricsLog | None = None,
    stopwatch: Stopwatch | None = None,
    profile: Profile | None = None,
    preempted: Callable[[], bool] = lambda: False,
) -> Fit:
    """Trains seeds run.seed to run.seed + run.num_seeds - 1, in groups that are vmapped.

    Args:
      hyperparams: of each seed, those of the optimizer's that it has its own values for; one
        program serves all values.
      checkpoints: opens the store of a group of seeds by its name; training continues from what
        it holds. Without it nothing is saved.
      log: where losses and validation metrics go.
      stopwatch: adds up seconds of compiling and training.
      profile: watches the calls.
      preempted: whether the run is asked to leave; it then saves itself after the call that is
        running.

    Raises:
      InputError: a Run that cannot be carried out; hyperparameters that the optimizer does not
        have, or not as many as seeds.
      Preempted: the run was asked to leave, and has saved itself.
    """
    run.validate()
    watch = _Watch(
        log or MetricsLog(None), stopwatch or Stopwatch(), profile or Profile(), preempted
    )
    placement = on_devices(run)
    programs = make_programs(task, optimizer, run, placement)
    task = task._replace(data=placement.put_data(task.data))
    fits = []
    values = _hyperparams_of_seeds(optimizer, run, hyperparams)
    for seeds in run.seed_groups():
        store = checkpoints(group_name(seeds)) if checkpoints else None
        try:
            group = _make_group(task, seeds, [values[seed] for seed in seeds])
            placement.check(group.first_batch)
            fits.append(_fit_group(task, programs, placement, run, group, store, watch))
        finally:
            if store:
                store.close()
    return _join(fits)


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
    first_batch: Any
    init_args: tuple


def _hyperparams_of_seeds(
    optimizer: Optimizer, run: Run, own: Sequence[Mapping[str, float]] | None
) -> dict[int, dict[str, float]]:
    """The hyperparameters of every seed: the optimizer's, with its own values in their place."""
    own = [{}] * run.num_seeds if own is None else own
    if len(own) != run.num_seeds:
        raise InputError(f"there are hyperparameters for {len(own)} of {run.num_seeds} seeds.")
    for name in set().union(*own):
        require_known("hyperparameter", name, optimizer.hyperparams)
    return {
        seed: optimizer.hyperparams | dict(its) for seed, its in zip(run.seeds, own, strict=True)
    }


def _make_group(task: Task, seeds: tuple[int, ...], hyperparams: Sequence[Mapping]) -> _Group:
    seed_data = stack([task.seed_data(seed) for seed in seeds])
    first_batch = stack([fetch(task, 0, seed) for seed in seeds])
    init_args = (np.asarray(seeds, np.uint32), task.data, seed_data, first_batch)
    init_args += (stack(hyperparams),)
    eval_batches = number_batches(task.eval_batches("validation"))
    return _Group(seeds, seed_data, eval_batches, first_batch, init_args)


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
    rows = placement.own_rows(group.first_batch)
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
                batches = stack_batches(task, group.seeds, step, call, rows)
            inputs = {
                "seed_data": group.seed_data,
                "batches": batches if rows is None else Share(batches),
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
                raise Preempted(step, saved=store is not None)
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
        group = _make_group(task, seeds, [optimizer.hyperparams] * len(seeds))
        saved = store.restore(_template(programs, placement, group))
        store.close()
        if saved is None:
            raise InputError(f"there is no checkpoint in {store.directory} yet: train first.")
        selected = programs.final(saved.state)
        fits.append(Fit(seeds, local(saved.state), local(selected), saved.progress["resumed"]))
    return _join(fits)


def check_start(task: Task, optimizer: Optimizer, run: Run) -> None:
    """Traces a run's first state and loss, so that a mistake in its config shows at no cost.

    Raises:
      InputError: whatever the task's functions refuse, devices that the seeds do not fit, or a
        state that is larger than their memory.
    """
    placement = on_devices(run)
    programs = make_programs(task, optimizer, run, placement)
    task = in_precision(task, run.precision)
    for seeds in run.seed_groups():
        group = _make_group(task, seeds, [optimizer.hyperparams] * len(seeds))
        placement.check(group.first_batch)
    state = jax.eval_shape(programs.init, *group.init_args)
    require_memory(state, len(devices_of(run)))

    def loss(state, seed_data, batch):
        inputs = Inputs(task.data, seed_data, batch)
        return task.loss_fn(state.train.params, state.train.model_state, inputs, state.train.key)

    jax.eval_shape(over_seeds(loss, (0, 0, 0)), state, group.seed_data, group.first_batch)


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


def _concatenate(trees: Sequence[Any]):
    if len(trees) == 1:
        return trees[0]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *trees)
