"""The command line that every experiment shares, from the preset's name to summary.json."""

import dataclasses
import hashlib
import json
import os
import platform
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tyro

from structdl.errors import InputError, nearest_names
from structdl.training import ledger
from structdl.training import workdir as folder
from structdl.training.checkpoints import Checkpoints
from structdl.training.evaluate import make_evaluate
from structdl.training.logging import MetricsLog, Stopwatch
from structdl.training.loop import Fit, fit
from structdl.training.metrics import summarize
from structdl.training.optimizers import make_optimizer
from structdl.training.seeds import group_name
from structdl.training.task import Task

SPLITS = ("validation", "test")


class Published(NamedTuple):
    """A figure that a preset reproduces, in the unit of its metric."""

    metric: str  # as in summary.json, say test_accuracy
    value: float
    source: str  # paper and table; "recalled" where it was not read again
    where: Mapping[str, Any] = {}  # options by which it differs from the preset, say split: random


class Preset(NamedTuple):
    """A named config, and what its paper reports.

    Fields:
      config: the experiment's Config.
      system: what the ledger calls the model.
      dataset: what the ledger calls the data.
      about: one line for lists of presets.
      published: the figures that it reproduces.
      varied: options that make a row of their own in the ledger, say a split.
      metrics: which of the summary's metrics a ledger row is kept of.
      proxy: whether the data stands in for a paper's that cannot be had.
      picture: which of the run's pictures `--record` copies beside the README, as PRESET.png.
    """

    config: Any
    system: str
    dataset: str
    about: str
    published: Sequence[Published] = ()
    varied: Sequence[str] = ()
    metrics: Sequence[str] = ("test_accuracy",)
    proxy: bool = False
    picture: str = ""


class Experiment(NamedTuple):
    """What the command line must know of an experiment.

    Fields:
      name: that of its directory.
      directory: where its results.json lies.
      presets: by name; the first is the default.
      make_task: `config -> Task`.
      draw: `(config, task, fit, rows, folder)`: writes pictures there; rows are those of
        metrics.jsonl.
    """

    name: str
    directory: Path
    presets: Mapping[str, Preset]
    make_task: Callable[[Any], Task]
    draw: Callable[[Any, Task, Fit, list[dict], Path], None]


def main(experiment: Experiment, argv: Sequence[str] | None = None) -> None:
    """Runs an experiment; what the user can mend ends in one paragraph and exit code 2."""
    try:
        run_experiment(experiment, sys.argv[1:] if argv is None else list(argv))
    except InputError as error:
        paragraph = textwrap.fill(
            f"error: {error}", 100, break_long_words=False, break_on_hyphens=False
        )
        versions = ", ".join(f"{name} {version}" for name, version in _versions().items())
        print(f"{paragraph}\n({versions})", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from the last checkpoint.", file=sys.stderr)
        sys.exit(130)


def run_experiment(experiment: Experiment, argv: Sequence[str]) -> dict[str, Any] | None:
    """Trains, or goes on, or finds the run finished; returns and prints its summary."""
    if "--list-presets" in argv:
        print(list_presets(experiment))
        return None
    _keep_compiled_programs()
    preset, config = parse(experiment, argv)
    optimizer = make_optimizer(config.optimizer)  # before any data is touched
    config.run.validate()
    path = config.run.workdir or folder.default_workdir(experiment.name, preset, config)
    if config.run.evaluate_only:
        folder.read_json(path / folder.CONFIG)
    if config.run.record:
        ledger.require_clean_tree(experiment.directory)
    summary = _run_in_workdir(experiment, preset, config, optimizer, path)
    print(f"{path}\n{describe(experiment, preset, config, summary)}")
    if config.run.record:
        ledger.record(experiment.directory, ledger_rows(experiment, preset, config, summary, argv))
        if picture := experiment.presets[preset].picture:
            shutil.copy(path / folder.FIGURES / picture, experiment.directory / f"{preset}.png")
    return summary


def _run_in_workdir(experiment, preset, config, optimizer, path: Path) -> dict[str, Any]:
    with folder.open_workdir(path, experiment.name, preset, config):
        finished = path / folder.SUMMARY
        if finished.exists() and not config.run.evaluate_only:
            summary = folder.read_json(finished)
            if summary["config"]["run"]["num_steps"] == config.run.num_steps:
                print("finished before:", end=" ")
                return summary
        task = experiment.make_task(config)
        with folder.naming_workdir(path):
            return _train_and_test(experiment, preset, config, task, optimizer, path)


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
    config = experiment.presets[preset].config
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
        lines.append(f"  {name:22} {values['mean']:.4f} ± {values['std']:.4f} {seeds}{beside}")
    if summary["diverged"]:
        lines.append(f"  {summary['diverged']} of the seeds diverged and are not in the means")
    seconds = ", ".join(f"{kind} {value:.1f} s" for kind, value in summary["seconds"].items())
    lines.append(f"  {summary['parameters']} parameters; {seconds}")
    return "\n".join(lines)


def published_figures(experiment: Experiment, preset: str, config) -> dict[str, Published]:
    """The published figures that hold for this config, by metric.

    A figure holds where the options that its preset varies are those that it names.
    """
    its = experiment.presets[preset]
    return {
        figure.metric: figure
        for figure in its.published
        if all(
            getattr(config, name) == figure.where.get(name, getattr(its.config, name))
            for name in its.varied
        )
    }


def ledger_rows(experiment: Experiment, preset: str, config, summary, argv) -> list[dict]:
    """The ledger's rows of a finished run, one for each metric that its preset keeps."""
    its = experiment.presets[preset]
    published = published_figures(experiment, preset, config)
    varied = [f"{getattr(config, name)} {name}" for name in its.varied]
    words = [word for word in argv if word != "--record"]
    shared = {
        "system": its.system,
        "preset": preset,
        "dataset": ", ".join([its.dataset, *varied]),
        "steps": summary["steps"]["mean"],
        "seconds": round(sum(summary["seconds"].values()), 1),
        "device": summary["device"],
        "command": shlex.join(["python", "-m", f"experiments.{experiment.name}", *words]),
        "commit": ledger.commit(experiment.directory),
        "versions": summary["versions"],
        "date": ledger.today(),
        "proxy": its.proxy,
        "note": f"{summary['diverged']} seeds diverged" if summary["diverged"] else "",
    }
    rows = []
    for metric in its.metrics:
        values = summary["metrics"][metric]
        figure = published.get(metric)
        row = {
            "metric": metric,
            "published": figure.value if figure else None,
            "published_source": figure.source if figure else "",
            "mean": values["mean"],
            "std": values["std"],
            "seeds": values["count"],
        }
        rows.append(shared | row)
    return rows


def restore_run(path: Path, experiment: Experiment) -> tuple[Any, Task, Fit]:
    """Reads a run back: (config, task, fit), where fit has a first axis of seeds.

    Raises:
      InputError: no run there, or one without a checkpoint.
    """
    kind = type(next(iter(experiment.presets.values())).config)
    config = folder.from_dict(kind, folder.read_json(path / folder.CONFIG)["config"])
    task = experiment.make_task(config)
    return config, task, _restore(config, task, make_optimizer(config.optimizer), path)


def _train_and_test(experiment, preset, config, task, optimizer, path: Path) -> dict[str, Any]:
    stopwatch = Stopwatch()
    if config.run.evaluate_only:
        result = _restore(config, task, optimizer, path)
    else:
        result = _train(config, task, optimizer, path, stopwatch)
    if np.all(result.state.diverged):
        steps = np.asarray(result.state.train.step)
        raise InputError(
            f"the loss or its gradient was not finite after {np.max(steps)} steps with learning "
            f"rate {config.optimizer.learning_rate}: the last finite state is saved in "
            f"{path / folder.CHECKPOINTS}. Lower --optimizer.learning-rate, or give "
            "--optimizer.clip-norm, with --overwrite or another --workdir."
        )
    metrics = _test(config, task, result, stopwatch)
    summary = _summary(experiment, preset, config, result, metrics, stopwatch)
    if not config.run.evaluate_only:
        figures = path / folder.FIGURES
        figures.mkdir(exist_ok=True)
        experiment.draw(config, task, result, _rows(path), figures)
        folder.write_json(path / folder.SUMMARY, summary)
    return summary


def _train(config, task: Task, optimizer, path: Path, stopwatch: Stopwatch) -> Fit:
    total_steps = config.run.num_steps * config.run.num_seeds
    log = MetricsLog(path, total_steps=total_steps, every=config.run.log_every)
    try:
        return fit(
            task,
            optimizer,
            config.run,
            checkpoints=lambda group: Checkpoints(path / folder.CHECKPOINTS / group),
            log=log,
            stopwatch=stopwatch,
        )
    finally:
        log.close()


def _restore(config, task: Task, optimizer, path: Path) -> Fit:
    """The run as its checkpoints have it: a fit that takes no further step."""
    stores = [path / folder.CHECKPOINTS / group_name(group) for group in config.run.seed_groups()]
    missing = [store for store in stores if not store.is_dir()]
    if missing:
        raise InputError(f"there is no checkpoint in {missing[0]} yet: train first.")
    run = dataclasses.replace(config.run, num_steps=0)
    checkpoints = {store.name: Checkpoints(store) for store in stores}
    return fit(task, optimizer, run, checkpoints=checkpoints.__getitem__)


def _test(config, task: Task, result: Fit, stopwatch: Stopwatch) -> dict[str, dict]:
    """Validation and test metrics over the seeds; a diverged seed has none."""
    evaluate = make_evaluate(task)
    groups, start = [], 0
    for seeds in config.run.seed_groups():
        at = slice(start, start + len(seeds))
        start = at.stop
        selected, keys, diverged = jax.tree.map(
            lambda leaf, at=at: leaf[at],
            (result.selected, result.state.train.key, np.asarray(result.state.diverged)),
        )
        values = {}
        for split in SPLITS:
            with stopwatch.measure("evaluate"):
                found = evaluate(selected, keys, seeds, split)
            for name, value in found.items():
                values[f"{split}_{name}"] = np.where(diverged, np.nan, value)
        groups.append(values)
    return {
        name: summarize(np.concatenate([group[name] for group in groups])) for name in groups[0]
    }


def _summary(experiment, preset, config, result: Fit, metrics, stopwatch: Stopwatch) -> dict:
    steps = np.asarray(result.state.train.step).tolist()
    params = jax.tree.leaves(result.selected[0])
    return {
        "experiment": experiment.name,
        "preset": preset,
        "config": folder.to_dict(config),
        "metrics": metrics,
        "steps": {"mean": float(np.mean(steps)), "values": steps},
        "parameters": sum(leaf.size for leaf in params) // config.run.num_seeds,
        "resumed": result.resumed,
        "diverged": int(np.sum(result.state.diverged)),
        "seconds": stopwatch.total(),
        "device": device(),
        "versions": _versions(),
    }


def _keep_compiled_programs() -> None:
    """Turns on JAX's cache of compiled programs, where the user has not placed it himself.

    A folder for each kind of processor: a program compiled for another one might not run.
    """
    if jax.config.jax_compilation_cache_dir is None:
        cpu = Path("/proc/cpuinfo")
        features = cpu.read_text().split("\n\n")[0] if cpu.exists() else platform.processor()
        flags = [line for line in features.splitlines() if line.startswith(("flags", "Features"))]
        kind = hashlib.sha256(f"{platform.machine()} {flags}".encode()).hexdigest()[:8]
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "structdl" / f"jax-{kind}"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def device() -> str:
    """What the run was computed on, in words."""
    first = jax.devices()[0]
    if first.platform == "cpu":
        return f"{platform.machine()} CPU, {os.cpu_count()} cores"
    return f"{jax.device_count()} x {first.device_kind}"


def _rows(path: Path) -> list[dict[str, Any]]:
    file = path / folder.METRICS
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _versions() -> dict[str, str]:
    packages = ("structdl", "jax", "jaxlib", "flax", "optax", "numpy")
    return {"python": platform.python_version()} | {
        name: metadata.version(name) for name in packages
    }
