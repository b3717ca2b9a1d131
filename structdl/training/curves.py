"""Learning curves: what metrics.jsonl logged, against the step."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from structdl.errors import InputError
from structdl.training.logging import read_rows
from structdl.training.workdir import METRICS, Record, read_record


class Baseline(NamedTuple):
    """What is reached without learning, or at best; a dotted line."""

    label: str
    value: float


def draw_learning_curves(
    rows: Sequence[dict],
    title: str,
    path: Path,
    *,
    quantities: Sequence[str] = ("loss", "accuracy"),
    baselines: Mapping[str, Baseline] = {},
    log_loss: bool = False,
    loss_unit: str = "",
) -> None:
    """Writes a picture with one plot a quantity, training and validation in each.

    Lines are means over the seeds that are still training, bands their standard deviation, and no
    wider than the seeds lie. A point of a training curve is the mean since the point before it.

    Args:
      rows: those of metrics.jsonl, with names as train_loss.
      title: what was trained.
      path: of the picture.
      quantities: what is drawn, if it was logged.
      baselines: of some of the quantities.
      log_loss: whether the loss has a logarithmic axis.
      loss_unit: what the loss is counted in, say nats a step.
    """
    logged = {name for row in rows for name in row}
    curves = {
        quantity: logged & {f"train_{quantity}", f"validation_{quantity}"}
        for quantity in quantities
    }
    drawn = [quantity for quantity in quantities if curves[quantity]]
    figure = Figure(figsize=(5.5 * len(drawn), 4), layout="constrained")
    axes = figure.subplots(1, len(drawn), squeeze=False)
    for axis, quantity in zip(axes[0], drawn, strict=True):
        for name in sorted(curves[quantity]):
            _draw_curve(axis, rows, name)
        _draw_baseline(axis, baselines.get(quantity))
        if quantity == "loss" and log_loss:
            axis.set_yscale("log")
        axis.set_xlabel("step")
        axis.set_ylabel(_with_unit(quantity, loss_unit))
        axis.legend(frameon=False)
    num_seeds = len({row["seed"] for row in rows})
    seeds = f": mean and standard deviation over {num_seeds} seeds" if num_seeds > 1 else ""
    figure.suptitle(title + seeds)
    figure.savefig(path, dpi=120)


def runs_beside(workdir: Path, same: Sequence[str]) -> dict[str, list[dict]]:
    """The logged rows, by preset, of a run and of those in the same folder that compare with it.

    Of several runs of a preset the newest counts, but for this run's own. A run that has logged
    nothing yet is left out, and so is a folder whose config.json is not that of a run.

    Args:
      workdir: of a run.
      same: the fields of the config in which the others must be as this one.
    """
    wanted, found = read_record(workdir).fields, {}
    files = [file for file in workdir.parent.glob(f"*/{METRICS}") if file.is_file()]
    files = sorted(files, key=lambda file: file.stat().st_mtime)
    for path in [*(file.parent for file in files if file.parent != workdir), workdir]:
        record = _record_of(path)
        if record and all(record.fields.get(field) == wanted[field] for field in same):
            found[record.preset] = read_rows(path / METRICS)
    return {preset: rows for preset, rows in sorted(found.items()) if rows}


def carried_on(rows: Sequence[dict]) -> list[dict]:
    """Rows in which a seed that has stopped keeps its last values, as long as any other goes on.

    Where stopping means success, a mean over the seeds that are left would tell of the slow ones.

    >>> rows = [{"seed": 0, "step": 1, "loss": 5}, {"seed": 1, "step": 1, "loss": 3}]
    >>> carried_on([*rows, {"seed": 1, "step": 2, "loss": 1}])[-1]
    {'seed': 0, 'step': 2, 'loss': 5}
    """
    found = sorted(rows, key=lambda row: (row["step"], row["seed"]))
    steps = sorted({row["step"] for row in rows})
    last = {row["seed"]: row for row in found}
    for row in last.values():
        found += [row | {"step": step} for step in steps if step > row["step"]]
    return found


def _record_of(path: Path) -> Record | None:
    """The record of a sibling run; None if the folder has no readable one."""
    try:
        return read_record(path)
    except InputError:
        return None


def draw_runs(
    runs: Mapping[str, Sequence[dict]],
    title: str,
    path: Path,
    *,
    quantity: str = "loss",
    baseline: Baseline | None = None,
    log: bool = False,
    loss_unit: str = "",
) -> None:
    """Writes a picture of several runs' curves, a plot for training and one for validation.

    What lies above all curves after a twentieth of the longest is cut off, so that the later and
    smaller differences can be seen.

    Args:
      runs: the rows of metrics.jsonl by a name; see `runs_beside`.
      title: what they were trained on.
      path: of the picture.
      quantity: what is drawn, where it was logged.
      baseline: of the quantity.
      log: whether its axis is logarithmic; then nothing is cut off.
      loss_unit: what the loss is counted in, if that is what is drawn.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, split in zip(axes, ("train", "validation"), strict=True):
        for name, rows in runs.items():
            _draw_curve(axis, rows, f"{split}_{quantity}", label=name)
        _draw_baseline(axis, baseline)
        axis.set_title("training" if split == "train" else split)
        axis.set_xlabel("step")
        axis.legend(frameon=False)
    axes[0].set_ylabel(_with_unit(quantity, loss_unit))
    figure.suptitle(title)
    if log:
        axes[0].set_yscale("log")
    else:
        _cut_off(axes[0], runs, quantity)
    figure.savefig(path, dpi=120)


def _with_unit(quantity: str, loss_unit: str) -> str:
    unit = f", {loss_unit}" if quantity == "loss" and loss_unit else ""
    return quantity.replace("_", " ") + unit


def _cut_off(axis, runs: Mapping[str, Sequence[dict]], quantity: str) -> None:
    start = max(row["step"] for rows in runs.values() for row in rows) / 20
    names = [f"{split}_{quantity}" for split in ("train", "validation")]
    values = [
        row[name]
        for rows in runs.values()
        for row in rows
        for name in names
        if name in row and row["step"] >= start
    ]
    # of one value there is nothing to see more of
    if values and min(values) < max(values):
        margin = 0.05 * (max(values) - min(values))
        axis.set_ylim(min(values) - margin, max(values) + margin)


def _draw_baseline(axis, baseline: Baseline | None) -> None:
    if baseline:
        axis.axhline(baseline.value, color="k", linestyle=":", label=baseline.label)


def _draw_curve(axis, rows, name: str, label: str = "") -> None:
    by_step = defaultdict(list)
    for row in (row for row in rows if name in row):
        by_step[row["step"]].append(row[name])
    steps = sorted(by_step)
    mean, std, lowest, highest = (
        np.array([statistic(by_step[step]) for step in steps])
        for statistic in (np.mean, np.std, np.min, np.max)
    )
    (line,) = axis.plot(steps, mean, label=label or name.split("_")[0])
    # a band beyond all seeds would leave a logarithmic axis at its lower end
    band = np.maximum(mean - std, lowest), np.minimum(mean + std, highest)
    axis.fill_between(steps, *band, color=line.get_color(), alpha=0.2)
