"""The command line that every experiment shares, from the preset's name to summary.json."""

import contextlib
import dataclasses
import itertools
import os
import platform
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from structdl.errors import InputError, nearest_names
from structdl.files import fill_whole, remove, write_json, write_whole
from structdl.training import ledger, workdir as folder
from structdl.training.checkpoints import Checkpoints
from structdl.training.configs import to_dict
from structdl.training.experiment import (
    Experiment,
    ledger_rows,
    published_figures,
    require_recordable,
)
from structdl.training.interrupts import exit_interrupted, interruptible
from structdl.training.logging import MetricsLog, Stopwatch, read_rows
from structdl.training.loop import Fit, check_start, fit, restore
from structdl.training.measure import measure
from structdl.training.memory import naming_memory
from structdl.training.metrics import summarize
from structdl.training.optimizers import Optimizer, make_optimizer
from structdl.training.parallel import devices_of, with_counted_devices
from structdl.training.preemption import Preempted, preemption
from structdl.training.processes import any_of_them, is_first, join, together
from structdl.training.profiling import Profile
from structdl.training.ranges import check_ranges
from structdl.training.runtime import (
    keep_compiled_programs,
    keep_freed_memory,
    while_somebody_reads,
)
from structdl.training.task import Task

_COSTS = (
    ("examples_per_second", "examples a second in training"),
    ("peak_memory_gb", "GB of memory at most"),
)


def main(experiment: Experiment, argv: Sequence[str] | None = None) -> None:
    """Runs an experiment; what the user can mend ends in one paragraph and exit code 2."""
    with mendable():
        run_experiment(experiment, sys.argv[1:] if argv is None else list(argv))


@contextlib.contextmanager
def mendable() -> Iterator[None]:
    """Ends the process with a few words where the user, and not a bug, has to be spoken to."""
    try:
        with interruptible(), while_somebody_reads(), naming_memory():
            yield
    except InputError as error:
        paragraph = textwrap.fill(
            f"error: {error}", 100, break_long_words=False, break_on_hyphens=False
        )
        named = ", ".join(f"{name} {version}" for name, version in versions().items())
        print(f"{paragraph}\n({named})", file=sys.stderr)
        sys.exit(2)
    except Preempted as leave:
        print(f"asked to leave: {leave}; the same command goes on from there.", file=sys.stderr)
    except KeyboardInterrupt:
        print(
            "interrupted: the same command, without --overwrite, goes on from the last checkpoint.",
            file=sys.stderr,
        )
        exit_interrupted()


def run_experiment(experiment: Experiment, argv: Sequence[str]) -> dict[str, Any] | None:
    """Trains, or goes on, or finds the run finished; returns and prints its summary."""
    if "--list-presets" in argv:
        print(list_presets(experiment))
        return None
    keep_compiled_programs()
    keep_freed_memory()
    preset, config = parse(experiment, argv)
    check_ranges(config)
    optimizer = make_optimizer(config.optimizer)  # before any data is touched
    config.run.validate()
    join(config.run)
    config = dataclasses.replace(config, run=with_counted_devices(config.run))
    path = config.run.workdir or folder.default_workdir(experiment.name, preset, config)
    if config.run.evaluate_only:
        folder.read_record(path)
    if config.run.record:
        require_recordable(experiment, preset, config)
    summary = _run_in_workdir(experiment, preset, config, optimizer, path)
    if not is_first():
        return summary
    try:
        if config.run.record:
            _record(experiment, preset, config, summary, argv, path)
    finally:  # after it: the reader of what is printed may have left
        print(f"{path}\n{describe(experiment, preset, config, summary)}")
    return summary


def _record(experiment: Experiment, preset: str, config, summary, argv, path: Path) -> None:
    """Keeps the figures of a run, and its picture, beside the experiment."""
    ledger.record(experiment.directory, ledger_rows(experiment, preset, config, summary, argv))
    if picture := experiment.presets[preset].picture:
        content = (path / folder.FIGURES / picture).read_bytes()
        write_whole(experiment.directory / f"{preset}.png", content)


def _run_in_workdir(experiment, preset, config, optimizer, path: Path) -> dict[str, Any]:
    trains = not config.run.evaluate_only
    with contextlib.ExitStack() as stack:
        with together():
            if is_first():  # of several processes the first one holds the folder
                stack.enter_context(folder.open_workdir(path, experiment.name, config))
            if summary := _finished_before(path, config):
                print("finished before:", end=" ")
                return summary
            task = experiment.make_task(config)
            if trains:
                check_start(task, optimizer, config.run)
        commits = []
        with together():
            if trains and is_first():
                commit = ledger.provenance(experiment.directory)
                commits = folder.claim(path, experiment.name, preset, config, commit)
        asked = stack.enter_context(preemption())
        preempted = lambda: any_of_them(asked())  # noqa: E731
        return _train_and_test(
            experiment, preset, config, task, optimizer, path, commits, preempted
        )


def _finished_before(path: Path, config) -> dict[str, Any] | None:
    """The summary of a finished run, unless it is to be tested again or overwritten."""
    if config.run.evaluate_only or config.run.overwrite:
        return None
    summary = folder.finished_summary(path, config)
    if summary and config.run.profile:
        raise InputError(
            f"{path} is finished, and --profile watches a training: give --overwrite or another "
            "--workdir."
        )
    return summary


def parse(experiment: Experiment, argv: Sequence[str]) -> tuple[str, Any]:
    """(preset, config): a leading word names the preset, options replace its fields.

    Raises:
      InputError: an unknown preset. A misspelt option ends in tyro's own message, exit code 2.
    """
    preset, options = next(iter(experiment.presets)), list(argv)
    if options and not options[0].startswith("-"):
        preset = options.pop(0)
    if preset not in experiment.presets:
        raise InputError(
            f"{experiment.name} has no preset {preset!r}: "
            f"{nearest_names(preset, experiment.presets)} --list-presets describes them."
        )
    config = _less_replaced_kwargs(experiment.presets[preset].config, options)
    config = tyro.cli(
        type(config),
        prog=f"python -m experiments.{experiment.name} [PRESET]",
        # tyro folds single line ends
        description=f"The defaults below are those of the preset {preset}. --list-presets:\n\n"
        + list_presets(experiment).replace("\n", "\n\n"),
        default=config,
        args=options,
        config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff),
    )
    return preset, config


def _less_replaced_kwargs(config, options: Sequence[str]):
    """A preset's config without the optimizer's kwargs, where options name others or another one.

    tyro would take names of the preset's kwargs alone, and the other optimizer might have none of
    them.
    """
    optimizer = getattr(config, "optimizer", None)
    if not getattr(optimizer, "kwargs", None):
        return config
    words = [word for option in options for word in option.split("=", 1)]
    chosen = dict(itertools.pairwise(words)).get("--optimizer.name", optimizer.name)
    if chosen == optimizer.name and "--optimizer.kwargs" not in words:
        return config
    return dataclasses.replace(config, optimizer=dataclasses.replace(optimizer, kwargs={}))


def list_presets(experiment: Experiment) -> str:
    """One line a preset."""
    width = max(map(len, experiment.presets))
    return "\n".join(f"{name:{width}}  {it.about}" for name, it in experiment.presets.items())


def describe(experiment: Experiment, preset: str, config, summary: dict[str, Any]) -> str:
    """The summary for a reader: a line a metric, with the published figure beside it."""
    published = published_figures(experiment, preset, config)
    lines = []
    for name, values in summary["metrics"].items():
        if values["mean"] is None:
            lines.append(f"  {name:22} no value: every seed diverged")
            continue
        beside = f"   published {published[name].value:.4g}" if name in published else ""
        seeds = f"({values['count']} seed{'s' if values['count'] > 1 else ''})"
        form = ".2e" if 0 < abs(values["mean"]) < 0.001 else ".4f"
        measured = f"{values['mean']:{form}} ± {values['std']:{form}}"
        lines.append(f"  {name:22} {measured} {seeds}{beside}")
    if summary["diverged"]:
        lines.append(f"  {summary['diverged']} of the seeds diverged and are not in the means")
    seconds = ", ".join(f"{kind} {value:.1f} s" for kind, value in summary["seconds"].items())
    steps = f"{summary['steps']['mean']:.4g} of {config.run.num_steps} steps"
    lines.append(f"  {summary['parameters']} parameters; {steps}; {seconds}")
    if costs := summary.get("costs"):
        words = (f"{costs[name]['mean']:.4g} {unit}" for name, unit in _COSTS if name in costs)
        lines.append(f"  {', '.join(words)}")
    return "\n".join(lines)


def config_of_run(path: Path, experiment: Experiment):
    """The config of the run of this experiment in a workdir.

    Raises:
      InputError: no run there, or config.json is damaged.
    """
    return folder.read_config(path, type(next(iter(experiment.presets.values())).config))


def restore_run(path: Path, experiment: Experiment, config=None) -> tuple[Any, Task, Fit]:
    """Reads a run back: (config, task, fit), where fit has a first axis of seeds.

    Args:
      config: that of `config_of_run`, the default, but for where its data is.

    Raises:
      InputError: no run there, or one without a checkpoint; config.json is damaged.
    """
    config = config or config_of_run(path, experiment)
    task = experiment.make_task(config)
    here = dataclasses.replace(config, run=config.run.on_this_process())
    return config, task, _restore(here, task, make_optimizer(config.optimizer), path)


def _train_and_test(
    experiment,
    preset,
    config,
    task: Task,
    optimizer: Optimizer,
    path: Path,
    commits: list[str],
    preempted: Callable[[], bool],
) -> dict[str, Any]:
    stopwatch = Stopwatch()
    if config.run.evaluate_only:
        result, costs = _restore(config, task, optimizer, path), {}
    else:
        result, profile = _train(config, task, optimizer, path, stopwatch, preempted)
        costs = {name: summarize(values) for name, values in profile.costs().items()}
    if np.all(result.state.diverged):
        steps = np.asarray(result.state.train.step)
        raise InputError(
            f"the loss or its gradient was not finite after {np.max(steps)} steps with learning "
            f"rate {config.optimizer.learning_rate}: the last finite state is saved in "
            f"{path / folder.CHECKPOINTS}. Lower --optimizer.learning-rate, or give "
            "--optimizer.clip-norm, with --overwrite or another --workdir."
        )
    values = measure(task, config.run, result, stopwatch, preempted)
    values |= _more_metrics(experiment, config, task, result, stopwatch, preempted)
    metrics = {name: summarize(of_seeds) for name, of_seeds in values.items()}
    summary = _summary(experiment, preset, config, result, metrics, stopwatch)
    summary |= {"costs": costs, "commits": commits}
    if is_first() and not config.run.evaluate_only:
        with folder.naming_workdir(path):
            rows = read_rows(path / folder.METRICS)
            if (path / folder.FIGURES).is_symlink():  # it would lead pictures out of the folder
                remove(path / folder.FIGURES)
            with fill_whole(path / folder.FIGURES) as figures:
                experiment.draw(config, task, result, rows, figures)
                summary["figures"] = sorted(file.name for file in figures.iterdir())
            # last, since a run with a summary is finished
            write_json(path / folder.SUMMARY, summary)
    return summary


def _more_metrics(
    experiment, config, task: Task, result: Fit, stopwatch: Stopwatch, preempted
) -> dict[str, np.ndarray]:
    """What the experiment itself measures; NaN of a seed that diverged."""
    if experiment.more_metrics is None:
        return {}
    if preempted():
        raise Preempted(int(np.max(result.state.train.step)))
    with stopwatch.measure("evaluate"):
        found = experiment.more_metrics(config, task, result)
    diverged = np.asarray(result.state.diverged)
    return {name: np.where(diverged, np.nan, value) for name, value in found.items()}


def _train(
    config, task: Task, optimizer, path: Path, stopwatch: Stopwatch, preempted: Callable[[], bool]
) -> tuple[Fit, Profile]:
    total_steps = config.run.num_steps * config.run.num_seeds if is_first() else None
    log = MetricsLog(
        path if is_first() else None, total_steps=total_steps, every=config.run.log_every
    )
    profile = Profile(path / folder.PROFILE if config.run.profile else None)
    try:
        result = fit(
            task,
            optimizer,
            config.run,
            checkpoints=lambda group: Checkpoints(path / folder.CHECKPOINTS / group, config=config),
            log=log,
            stopwatch=stopwatch,
            profile=profile,
            preempted=preempted,
        )
    except TypeError as error:
        if "forward-mode autodiff" not in str(error):
            raise
        raise InputError(
            f"optimizer {config.optimizer.name!r} takes forward-mode derivatives, which this "
            "model's custom derivatives do not have: choose another --optimizer.name."
        ) from error
    finally:
        log.close()
    if config.run.profile:
        print(f"profile\n{profile.table()}")
    return result, profile


def _restore(config, task: Task, optimizer, path: Path) -> Fit:
    """The run as its checkpoints have it: a fit that takes no further step."""
    checkpoints = path / folder.CHECKPOINTS
    return restore(
        task,
        optimizer,
        config.run,
        checkpoints=lambda group: Checkpoints(checkpoints / group, config=config, read_only=True),
    )


def _summary(experiment, preset, config, result: Fit, metrics, stopwatch: Stopwatch) -> dict:
    steps = np.asarray(result.state.train.step).tolist()
    params = jax.tree.leaves(result.selected[0])
    return {
        "experiment": experiment.name,
        "preset": preset,
        "config": to_dict(config),
        "metrics": metrics,
        "steps": {"mean": float(np.mean(steps)), "values": steps},
        "parameters": sum(leaf.size for leaf in params) // config.run.num_seeds,
        "resumed": result.resumed,
        "diverged": int(np.sum(result.state.diverged)),
        "seconds": stopwatch.total(),
        "device": device(len(devices_of(config.run))),
        "versions": versions(),
    }


def device(count: int = 1) -> str:
    """So many devices that a run was computed on, in words."""
    first = jax.devices()[0]
    if first.platform == "cpu":
        return f"{platform.machine()} CPU, {os.cpu_count()} cores"
    return f"{count} x {first.device_kind}"


def versions() -> dict[str, str]:
    """Of what decides the figures of a run."""
    packages = ("structdl", "jax", "jaxlib", "flax", "optax", "numpy")
    return {"python": platform.python_version()} | {
        name: metadata.version(name) for name in packages
    }
