"""Pictures: learning curves, the models side by side, answers, and accuracy against T."""

from collections import defaultdict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.sequence_presets import system_of
from experiments.synthetic_sequences.data import Sequences, baseline
from experiments.synthetic_sequences.model import features, make_model
from experiments.synthetic_sequences.presets import Config
from structdl.datasets.simulate_sequences import BLANK, DELIMITER, NUM_SYMBOLS, SYMBOL_VALUES
from structdl.training.curves import draw_learning_curves, draw_runs, runs_beside
from structdl.training.ledger import read_rows
from structdl.training.loop import Fit
from structdl.training.task import Task

ENDS = 18  # steps that are drawn of a longer sequence's beginning, and of its end
COLOURS = ("white", *(f"C{number}" for number in (0, 1, 2, 3, 4, 5, 6, 9)), "0.8")  # by class


def draw(config: Config, task: Task, result: Fit, rows: list[dict], folder: Path) -> None:
    """Writes learning_curves.png, models.png and answers.png."""
    title = {"adding": "adding problem", "copy": "copy memory"}[config.problem]
    title += f", T = {config.length}"
    if rows:
        dotted = baseline(config)
        unit = {"adding": "squared error", "copy": "nats a step"}[config.problem]
        draw_learning_curves(
            rows,
            title,
            folder / "learning_curves.png",
            baselines={"loss": dotted},
            log_loss=True,
            loss_unit=unit,
        )
        runs = runs_beside(folder.parent, ("problem", "length", "parameters"))
        path = folder / "models.png"
        draw_runs(runs, title, path, baseline=dotted, log=True, loss_unit=unit)
    params = jax.tree.map(lambda leaf: leaf[0], result.selected[0])
    batch = task.eval_batches("test")[0]
    test = jax.tree.map(lambda leaf: np.asarray(leaf)[batch], task.data)
    inputs = features(config, jnp.asarray(test.inputs))
    answers = np.asarray(make_model(config).apply({"params": params}, inputs, train=False))
    title += f", answers of {system_of(config.model)}"
    if config.problem == "adding":
        draw_sums(test.targets, answers[:, 0], title, folder / "answers.png")
    else:
        draw_copies(test, answers.argmax(axis=2), title, folder / "answers.png")


def draw_sums(targets, answers, title: str, path: Path) -> None:
    """The answers against the sums."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 2], [0, 2], color="0.7", linewidth=1)
    axis.plot([0, 2], [1, 1], "k:", label="always 1, the mean")
    axis.plot(targets, answers, ".")
    axis.set_xlabel("sum of the marked numbers")
    axis.set_ylabel("answer")
    axis.legend(frameon=False)
    axis.set_title(title, fontsize=9)
    figure.savefig(path, dpi=120)


def draw_copies(test: Sequences, answers, title: str, path: Path) -> None:
    """The first sequence's beginning and end: what was shown, what was to be said, what was."""
    lines = {"shown": test.inputs[0], "to be said": test.targets[0], "said": answers[0]}
    time = len(answers[0])
    drawn = [np.arange(time)]
    if time > 2 * ENDS:
        drawn = [np.arange(ENDS), np.arange(time - ENDS, time)]
    figure = Figure(figsize=(0.32 * sum(map(len, drawn)) + 1, 2), layout="constrained")
    for axis, steps in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        for height, line in enumerate(reversed(lines.values())):
            for step in steps:
                _draw_symbol(axis, step, height, int(line[step]))
        axis.set_xlim(steps[0] - 0.5, steps[-1] + 0.5)
        axis.set_ylim(-0.5, len(lines) - 0.5)
        first = steps is drawn[0]
        axis.set_yticks(range(len(lines)), reversed(lines) if first else [""] * len(lines))
        axis.tick_params(length=0)
        axis.set_xlabel("step")
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=120)


def _draw_symbol(axis, step: int, height: int, symbol: int) -> None:
    axis.bar(step, 0.8, 0.9, height - 0.4, color=COLOURS[symbol], edgecolor="0.8", linewidth=0.5)
    if symbol not in (BLANK, DELIMITER):
        axis.text(step, height, symbol, ha="center", va="center", color="white", fontsize=8)


def draw_lengths(rows: list[dict], path: Path) -> None:
    """Accuracy of the copied symbols against T, of the ledger's rows; no row, no picture."""
    points = defaultdict(dict)
    for row in rows:
        if row["preset"].endswith("-copy") and row["metric"] == "test_accuracy":
            length = int(row["dataset"].split(", ")[1].split()[0])
            points[row["system"]][length] = (row["mean"], row["std"])
    if not points:
        return
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for system, of_lengths in sorted(points.items()):
        lengths = sorted(of_lengths)
        mean, std = np.transpose([of_lengths[length] for length in lengths]) * 100
        axis.errorbar(lengths, mean, std, marker="o", capsize=3, label=system)
    axis.axhline(100 / SYMBOL_VALUES, color="k", linestyle=":", label="without memory")
    axis.set_xscale("log")
    ticks = sorted({length for of_lengths in points.values() for length in of_lengths})
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.set_xticks([], minor=True)
    axis.set_xlabel("T, steps between a symbol and its copy")
    axis.set_ylabel(f"test accuracy of the {NUM_SYMBOLS} copied symbols, %")
    axis.legend(frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    here = Path(__file__).parent
    draw_lengths(read_rows(here), here / "lengths.png")
