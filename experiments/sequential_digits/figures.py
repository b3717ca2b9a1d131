"""Pictures: learning curves, the models side by side, digits as they were read and seen."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.digits import GRID, NAMES, NUM_CLASSES, draw_digits
from experiments.sequence_model import SequenceModel
from experiments.sequence_presets import system_of
from experiments.sequential_digits.data import in_place
from experiments.sequential_digits.presets import Config
from structdl.training.curves import draw_learning_curves, draw_runs, runs_beside
from structdl.training.loop import Fit
from structdl.training.task import Task

DRAWN_BATCHES = 4  # of test digits


def draw(config: Config, task: Task, result: Fit, rows: list[dict], folder: Path) -> None:
    """Writes learning_curves.png, models.png, digits.png and, where it is so, permuted.png."""
    title = f"{NAMES[config.dataset]}, {config.size} x {config.size}"
    title += ", permuted" if config.permuted else ""
    if rows:
        draw_learning_curves(rows, title, folder / "learning_curves.png", loss_unit="nats")
        runs = runs_beside(folder.parent, ("dataset", "size", "permuted", "parameters"))
        draw_runs(runs, title, folder / "models.png", quantity="accuracy")
    batches = task.eval_batches("test")[:DRAWN_BATCHES]
    chosen = np.concatenate(batches)
    pixels, labels = (np.asarray(leaf)[chosen] for leaf in task.data)
    params = jax.tree.map(lambda leaf: leaf[0], result.selected[0])
    model = SequenceModel(config.model, NUM_CLASSES, last=True)
    read = np.asarray(model.apply({"params": params}, jnp.asarray(pixels), train=False))
    read = read.argmax(axis=1)
    title += f", as read by {system_of(config.model)}"
    draw_digits(in_place(pixels, config), labels, read, title, folder / "digits.png")
    if config.permuted:
        draw_permuted(pixels, config, folder / "permuted.png")


def draw_permuted(pixels, config: Config, path: Path) -> None:
    """Digits above what the network sees of them: the pixels in the order in which they come."""
    figure = Figure(figsize=(9, 2.2), layout="constrained")
    axes = figure.subplots(2, GRID[1])
    rows = in_place(pixels, config), pixels.reshape(-1, config.size, config.size)
    for row, images in zip(axes, rows, strict=True):
        for axis, image in zip(row, images, strict=False):
            axis.imshow(image, cmap="Greys")
            axis.set_xticks([])
            axis.set_yticks([])
    figure.suptitle("digits, and their pixels in the order in which they are read", fontsize=10)
    figure.savefig(path, dpi=120)
