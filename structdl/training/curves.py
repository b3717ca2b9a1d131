"""Learning curves: what metrics.jsonl logged, against the step."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


def draw_learning_curves(
    rows: Sequence[dict],
    title: str,
    path: Path,
    *,
    quantities: Sequence[str] = ("loss", "accuracy"),
) -> None:
    """Writes a picture with one plot a quantity, training and validation in each.

    Lines are means over the seeds that are still training, bands their standard deviation. A point
    of a training curve is the mean since the point before it.

    Args:
      rows: those of metrics.jsonl, with names as train_loss.
      title: what was trained.
      path: of the picture.
      quantities: what is drawn, if it was logged.
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
        axis.set_xlabel("step")
        axis.set_ylabel(quantity.replace("_", " "))
        axis.legend(frameon=False)
    num_seeds = len({row["seed"] for row in rows})
    seeds = f": mean and standard deviation over {num_seeds} seeds" if num_seeds > 1 else ""
    figure.suptitle(title + seeds)
    figure.savefig(path, dpi=120)


def _draw_curve(axis, rows, name: str) -> None:
    by_step = defaultdict(list)
    for row in (row for row in rows if name in row):
        by_step[row["step"]].append(row[name])
    steps = sorted(by_step)
    mean = np.array([np.mean(by_step[step]) for step in steps])
    std = np.array([np.std(by_step[step]) for step in steps])
    (line,) = axis.plot(steps, mean, label=name.split("_")[0])
    axis.fill_between(steps, mean - std, mean + std, color=line.get_color(), alpha=0.2)
