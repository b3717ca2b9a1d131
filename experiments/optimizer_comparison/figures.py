"""Pictures of a study: curves, sensitivity to the learning rate, budgets, profiles, ranks."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.optimizer_comparison.scores import (
    LARGEST_RATIO,
    bootstrap_ranks,
    expected_best,
    performance_profile,
)
from experiments.optimizer_comparison.search import RATE
from experiments.optimizer_comparison.summary import Cell, Summary

COLUMNS = 3
DECADES = 8  # that a logarithmic axis shows at most


def colour(summary: Summary, optimizer: str) -> str:
    """The same in all pictures."""
    return f"C{summary.optimizers.index(optimizer)}"


def draw_study(summary: Summary, folder: Path) -> None:
    """Writes curves.png, sensitivity.png, budget.png, profile.png and ranks.png."""
    titles = {
        "curves": (_draw_curves, "step", "validation loss at the chosen setting"),
        "sensitivity": (_draw_sensitivity, "learning rate", "validation loss of a trial"),
        "budget": (_draw_budget, "trials", "expected least validation loss"),
    }
    for name, (draw_cell, x, y) in titles.items():
        _draw_grid(summary, draw_cell, x, y, folder / f"{name}.png")
    draw_profile(summary, folder / "profile.png")
    draw_ranks(summary, folder / "ranks.png")


def _draw_grid(summary: Summary, draw_cell: Callable, x: str, y: str, path: Path) -> None:
    """A plot a problem, a line an optimizer."""
    problems = summary.problems
    columns = min(COLUMNS, len(problems))
    rows = -(-len(problems) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.9 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis, problem in zip(axes, problems, strict=False):
        cells = summary.of(problem)
        lowest = _set_losses(axis, [loss for cell in cells for loss in _losses(cell)])
        for cell in cells:
            draw_cell(axis, cell, lowest, colour(summary, cell.optimizer))
        axis.axhline(summary.targets[problem], color="0.5", linestyle=":", linewidth=1)
        axis.set_title(problem, fontsize=10)
    for axis in list(figure.axes)[len(problems) :]:
        axis.remove()
    figure.supxlabel(f"{x}; dotted: the target", fontsize=10)
    figure.supylabel(y, fontsize=10)
    add_legend(figure, "outside upper center")
    figure.savefig(path, dpi=100)


def add_legend(figure: Figure, loc: str) -> None:
    """One legend for all axes, in as many columns as fit; the figure grows by its further rows.

    Args:
      loc: outside the axes, as in `Figure.legend`.
    """
    handles: dict[str, Artist] = {}  # by label
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    heights = []
    for columns in range(max(len(handles), 1), 0, -1):
        legend = figure.legend(
            handles.values(), handles.keys(), loc=loc, ncols=columns, frameon=False
        )
        box = legend.get_window_extent()
        heights.append(box.height / figure.dpi)
        if box.width <= figure.bbox.width or columns == 1:
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + heights[-1] - heights[0])


def _losses(cell: Cell) -> list[float]:
    """Those that an axis should show: of trials at most where a run begins."""
    curves = [loss for record in cell.seeds for loss in record.outcome.validation]
    firsts = (record.outcome.validation[:1] for record in cell.seeds)  # none of an early divergence
    top = max((loss for first in firsts for loss in first), default=np.inf)
    ends = [record.outcome.selected for record in cell.trials]
    return [loss for loss in [*curves, *ends] if np.isfinite(loss) and loss <= top]


def _set_losses(axis: Axes, losses: Sequence[float]) -> float:
    """Sets the axis, a logarithmic one where losses are distances over decades; its lower end."""
    low, high = min(losses, default=0.0), max(losses, default=1.0)
    if low >= 0 and high > 100 * low:
        lowest = max(low, high / 10**DECADES)
        axis.set_yscale("log")
        axis.set_ylim(lowest / 2, high * 2)
        return lowest
    margin = 0.05 * (high - low) or 1.0
    axis.set_ylim(low - margin, high + margin)
    return low


def _draw_curves(axis: Axes, cell: Cell, lowest: float, color: str) -> None:
    runs = [record.outcome for record in cell.seeds]
    steps = sorted({step for run in runs for step in run.steps})
    curves = np.full((len(runs), len(steps)), np.nan)
    for run, curve in zip(runs, curves, strict=True):
        curve[np.searchsorted(steps, run.steps)] = np.maximum(run.validation, lowest)
    bands = np.nanquantile(curves, [0.1, 0.5, 0.9], axis=0) if steps else np.zeros((3, 0))
    axis.plot(steps, bands[1], color=color, label=cell.optimizer)
    axis.fill_between(steps, bands[0], bands[2], color=color, alpha=0.2, linewidth=0)
    if steps and steps[0] == 0:  # the later, the further apart
        axis.set_xscale("log")


def _draw_sensitivity(axis: Axes, cell: Cell, lowest: float, color: str) -> None:
    trials = sorted(cell.trials, key=lambda record: record.job.hyperparams[RATE])
    rates = np.array([record.job.hyperparams[RATE] for record in trials])
    losses = np.maximum([record.outcome.selected for record in trials], lowest)
    axis.plot(rates, losses, marker=".", color=color, label=cell.optimizer)
    gone = ~np.isfinite(losses)
    at_top = axis.get_xaxis_transform()
    axis.plot(rates[gone], np.full(gone.sum(), 0.97), "x", color=color, transform=at_top)
    if cell.chosen:
        chosen = cell.chosen.job.hyperparams[RATE], max(cell.chosen.outcome.selected, lowest)
        axis.plot(*chosen, "o", color=color, fillstyle="none", markersize=9)
    axis.set_xscale("log")


def _draw_budget(axis: Axes, cell: Cell, lowest: float, color: str) -> None:
    means = np.maximum(expected_best([each.outcome.selected for each in cell.trials]), lowest)
    axis.plot(np.arange(1, len(means) + 1), means, color=color, label=cell.optimizer)


def draw_profile(summary: Summary, path: Path) -> None:
    """On which share of problems an optimizer is at most so many times slower than the fastest."""
    ratios = np.linspace(1, LARGEST_RATIO, 301)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    profiles = performance_profile(summary.times(), ratios)
    for name, profile in zip(summary.optimizers, profiles, strict=True):
        axis.step(ratios, profile, where="post", color=colour(summary, name), label=name)
    axis.set_ylim(-0.02, 1.02)
    axis.set_xlabel("steps to the target / those of the fastest optimizer")
    axis.set_ylabel("share of the problems")
    axis.legend(frameon=False)
    figure.savefig(path, dpi=100)


def draw_ranks(summary: Summary, path: Path) -> None:
    """Mean ranks with their intervals."""
    mean, low, high = bootstrap_ranks(summary.ends())
    figure = Figure(figsize=(6, 0.5 * len(mean) + 1), layout="constrained")
    axis = figure.subplots()
    for at, name in enumerate(summary.optimizers):
        axis.plot(
            [low[at], high[at]], [at, at], color=colour(summary, name), linewidth=4, alpha=0.4
        )
        axis.plot(mean[at], at, "o", color=colour(summary, name))
    axis.set_yticks(range(len(mean)), summary.optimizers)
    axis.invert_yaxis()
    axis.set_xlabel("mean rank over the problems; bar: 95 % of resampled seeds")
    figure.savefig(path, dpi=100)
