"""What an experiment tells of itself: presets, the figures they reproduce, rows of the ledger."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from structdl.errors import InputError
from structdl.training import ledger
from structdl.training.configs import identity
from structdl.training.loop import Fit
from structdl.training.task import Task

# how many seeds there are and how they are grouped does not change what a seed computes
SEED_OPTIONS = ("seed", "num-seeds", "seed-mode", "seeds-per-call")


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
      metrics: which of the summary's metrics, and of its costs, a ledger row is kept of.
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
      make_task: `config -> Task`, of a config that `check_ranges` lets through.
      draw: `(config, task, fit, rows, folder)`: writes pictures there; rows are those of
        metrics.jsonl.
      more_metrics: `(config, task, fit) -> {name: [num_seeds]}`: what of the selected parameters is
        no mean over batches, say BLEU; it is measured once, after the metrics of the splits.
    """

    name: str
    directory: Path
    presets: Mapping[str, Preset]
    make_task: Callable[[Any], Task]
    draw: Callable[[Any, Task, Fit, list[dict], Path], None]
    more_metrics: Callable[[Any, Task, Fit], dict[str, np.ndarray]] | None = None


def departures(experiment: Experiment, preset: str, config) -> list[str]:
    """The options by which a config is not its preset's, but for seeds and what presets vary."""
    its = experiment.presets[preset]
    free = {*SEED_OPTIONS, *its.varied}
    old, new = identity(its.config), identity(config)
    names = (old.keys() | new.keys()) - free
    changed = sorted(name for name in names if old.get(name) != new.get(name))
    return changed + (["num-steps"] if config.run.num_steps != its.config.run.num_steps else [])


def published_figures(experiment: Experiment, preset: str, config) -> dict[str, Published]:
    """The published figures that hold for this config, by metric; none where it departs."""
    its = experiment.presets[preset]
    if departures(experiment, preset, config):
        return {}
    default, chosen = identity(its.config), identity(config)
    return {
        figure.metric: figure
        for figure in its.published
        if all(chosen[name] == figure.where.get(name, default[name]) for name in its.varied)
    }


def require_recordable(experiment: Experiment, preset: str, config) -> None:
    """Raises InputError where `--record` would not keep a preset's figures of committed code."""
    if changed := departures(experiment, preset, config):
        raise InputError(
            f"--record keeps the figures of presets, and --{changed[0]} is not that of {preset}: "
            "leave it out, or add a preset."
        )
    ledger.require_clean_tree(experiment.directory)


def _words_that_matter(argv) -> list[str]:
    """Without what only says where files lie, or that a result is to be kept."""
    words, kept = iter(argv), []
    for word in words:
        name = word.split("=")[0]
        if name in ("--workdir", "--data.dir", "--data.raw-dir"):
            if "=" not in word:
                next(words, None)
        elif name not in ("--record", "--overwrite"):
            kept.append(word)
    return kept


def ledger_rows(experiment: Experiment, preset: str, config, summary, argv) -> list[dict]:
    """The ledger's rows of a finished run, one for each metric that its preset keeps.

    Raises:
      InputError: the run was trained by code that is not committed, or by several commits, or it
        was too short for its costs to be known.
    """
    its = experiment.presets[preset]
    (commit, *others) = summary["commits"]
    if others or not commit or commit.endswith(ledger.CHANGED):
        raise InputError(
            f"--record keeps figures of one commit, and this run was trained by "
            f"{', '.join(summary['commits']) or 'unknown code'}: train it again with --overwrite."
        )
    published, chosen = published_figures(experiment, preset, config), identity(config)
    words = _words_that_matter(argv)
    shared = {
        "system": its.system,
        "preset": preset,
        "dataset": _dataset(its, chosen),
        "steps": summary["steps"]["mean"],
        "seconds": round(sum(summary["seconds"].values()), 1),
        "device": summary["device"],
        "command": shlex.join(["python", "-m", f"experiments.{experiment.name}", *words]),
        "commit": commit,
        "versions": summary["versions"],
        "date": ledger.today(),
        "proxy": its.proxy,
        "note": f"{summary['diverged']} seeds diverged" if summary["diverged"] else "",
    }
    measured, rows = summary["metrics"] | summary.get("costs", {}), []
    for metric in its.metrics:
        if metric not in measured:
            raise InputError(
                f"{metric} was not measured: what ran last had no second call. Train the whole run "
                "again with --overwrite."
            )
        values, figure = measured[metric], published.get(metric)
        rows.append(
            shared
            | {
                "metric": metric,
                "published": figure.value if figure else None,
                "published_source": figure.source if figure else "",
                "mean": values["mean"],
                "std": values["std"],
                "seeds": values["count"],
            }
        )
    return rows


def unmeasured_rows(experiment: Experiment, rows: Sequence[dict]) -> list[dict]:
    """A row without a measurement for each published figure that the ledger has none of."""
    measured = {(row["preset"], row["dataset"], row["metric"]) for row in rows}
    found = []
    for name, its in experiment.presets.items():
        default = identity(its.config)
        for figure in its.published:
            dataset = _dataset(its, {**default, **figure.where})
            if (name, dataset, figure.metric) not in measured:
                found.append(
                    {
                        "system": its.system,
                        "preset": name,
                        "dataset": dataset,
                        "metric": figure.metric,
                        "published": figure.value,
                        "mean": None,
                        "proxy": its.proxy,
                    }
                )
    return found


def _dataset(preset: Preset, chosen: Mapping[str, Any]) -> str:
    """What the ledger calls the data of a config: the set and the options that vary."""
    return ", ".join([preset.dataset, *(f"{chosen[name]} {name}" for name in preset.varied)])
