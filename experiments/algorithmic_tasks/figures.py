"""Pictures: learning curves, models side by side, answers, and samples until a task is solved."""

import re
from collections import defaultdict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.algorithmic_tasks.data import features, num_classes
from experiments.algorithmic_tasks.model import make_model
from experiments.algorithmic_tasks.presets import PRESETS, Config, system_of
from structdl.training.curves import (
    Baseline,
    carried_on,
    draw_learning_curves,
    draw_runs,
    runs_beside,
)
from structdl.training.ledger import read_rows
from structdl.training.loop import Fit
from structdl.training.task import Task

SHOWN = 8  # strings
MARGIN = 0.02  # by which test strings may be worse than those that ended a run
LETTERS = "-ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+*"
TITLES = {
    "parity": "parity of {} bits",
    "addition": "addition of integers of {} digits",
    "memorization": "memorization of {} symbols",
}


def draw(config: Config, task: Task, result: Fit, rows: list[dict], folder: Path) -> None:
    """Writes learning_curves.png, models.png and answers.png.

    In curves a seed that has solved its task, and stopped, keeps its last values.
    """
    title = TITLES[config.problem].format(config.length)
    if rows:
        by_chance = {"accuracy": Baseline("chance", 0.5)} if config.problem == "parity" else {}
        path = folder / "learning_curves.png"
        draw_learning_curves(carried_on(rows), title, path, baselines=by_chance, loss_unit="nats")
        runs = runs_beside(folder.parent, ("problem", "length", "num_symbols"))
        draw_runs(
            {name: carried_on(each) for name, each in runs.items()},
            title,
            folder / "models.png",
            quantity="accuracy",
            baseline=by_chance.get("accuracy"),
        )
    params = jax.tree.map(lambda leaf: leaf[0], result.selected[0])
    batch = np.concatenate(task.eval_batches("test"))
    test = jax.tree.map(lambda leaf: np.asarray(leaf)[batch[batch >= 0]], task.data)
    model = make_model(config, num_classes(config))
    scores = model.apply({"params": params}, features(config, jnp.asarray(test.inputs)))
    answers = np.asarray(scores).argmax(axis=-1)
    title += f", answers of {system_of(config.model, config.problem)}"
    if config.problem == "parity":
        draw_by_ones(test, answers, title, folder / "answers.png")
    else:
        draw_strings(test, answers, config.problem, title, folder / "answers.png")


def draw_by_ones(test, answers, title: str, path: Path) -> None:
    """The share of right answers by the number of ones, and how many strings there are of each."""
    ones = test.inputs.sum(axis=1)
    right = answers == test.targets
    numbers = np.unique(ones)
    figure = Figure(figsize=(6, 4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    upper.plot(numbers, [100 * right[ones == number].mean() for number in numbers], "o-")
    upper.axhline(50, color="k", linestyle=":", label="chance")
    upper.set_ylim(-5, 105)
    upper.set_ylabel("right answers, %")
    upper.legend(frameon=False)
    lower.bar(numbers, [np.sum(ones == number) for number in numbers], color="0.7")
    lower.set_xlabel("bits that are 1")
    lower.set_ylabel("test strings")
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=120)


def draw_strings(test, answers, problem: str, title: str, path: Path) -> None:
    """The first strings: what was read, and below it what was said, mistakes in red."""
    letters = "-0123456789" if problem == "addition" else LETTERS
    time = test.inputs.shape[1]
    figure = Figure(figsize=(0.22 * time + 1.5, 0.55 * SHOWN + 0.8), layout="constrained")
    axis = figure.subplots()
    for row in range(min(SHOWN, len(answers))):
        for step in range(time):
            read, said = (int(line[row, step]) for line in (test.inputs, answers))
            right = said == test.targets[row, step]
            _write(axis, step, -3 * row, letters[read % len(letters)], "0.5")
            colour = "tab:blue" if right else "tab:red"
            _write(axis, step, -3 * row - 1, letters[said % len(letters)], colour)
    wrong = np.sum(np.any(answers != test.targets, axis=1))
    axis.set_xlim(-1, time)
    axis.set_ylim(-3 * SHOWN + 1, 1)
    axis.set_axis_off()
    figure.suptitle(
        f"{title}\nread in grey, said in blue; {wrong} of {len(answers)} are wrong", fontsize=8
    )
    figure.savefig(path, dpi=120)


def _write(axis, step: int, height: float, letter: str, colour: str) -> None:
    axis.text(step, height, letter, color=colour, ha="center", va="center", family="monospace")


def draw_samples(rows: list[dict], folder: Path) -> None:
    """Samples until a task is solved, of the ledger's rows: one bar a model and task.

    Words beside a bar say where no seed was done before its last step, or where some were not, as
    the accuracy tells. A seed that was not done counts with all its steps.
    """
    bars = defaultdict(list)
    for row in rows:
        config = PRESETS[row["preset"]].config
        samples = row["steps"] * config.batch_size
        bar = (row["dataset"], row["system"], samples, _unsolved(row, config))
        bars[config.problem].append(bar)
    for problem, found in bars.items():
        figure = Figure(figsize=(9, 0.35 * len(found) + 1), layout="constrained")
        axis = figure.subplots()
        found = sorted(found, key=_natural, reverse=True)
        for height, (_, system, samples, unsolved) in enumerate(found):
            colour = "tab:blue" if "LSTM" in system and "stacked" not in system else "0.6"
            axis.barh(height, samples / 1000, color=colour)
            axis.text(samples / 1000, height, f" {unsolved}", va="center", fontsize=8)
        labels = [f"{system}; {dataset}" for dataset, system, *_ in found]
        axis.set_yticks(range(len(found)), labels, fontsize=8)
        axis.set_xlabel("thousands of samples until the validation strings are solved")
        axis.margins(x=0.2)
        figure.savefig(folder / f"samples-{problem}.png", dpi=120)


def _unsolved(row: dict, config: Config) -> str:
    if row["steps"] >= config.run.num_steps:
        return "not solved"
    return "" if row["mean"] > config.run.stopping_score - MARGIN else "not by all seeds"


def _natural(bar: tuple) -> list:
    """Words, and numbers by their size."""
    words = re.split(r"(\d+)", f"{bar[0]} {bar[1]}")
    return [(int(word), "") if word.isdigit() else (-1, word) for word in words]


if __name__ == "__main__":
    here = Path(__file__).parent
    draw_samples(read_rows(here), here)
