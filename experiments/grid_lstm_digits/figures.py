"""Pictures: learning curves, the runs side by side, digits and what was read."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.digits import NAMES, draw_digits
from experiments.grid_lstm_digits.model import make_model
from experiments.grid_lstm_digits.presets import Config, system_of
from structdl.training.curves import draw_learning_curves, draw_runs, runs_beside
from structdl.training.loop import Fit
from structdl.training.task import Task

DRAWN_BATCHES = 4  # of test digits


def draw(config: Config, task: Task, result: Fit, rows: list[dict], folder: Path) -> None:
    """Writes learning_curves.png, models.png and digits.png."""
    title = f"{NAMES[config.dataset]}, {config.size} x {config.size}"
    if rows:
        draw_learning_curves(rows, title, folder / "learning_curves.png", loss_unit="nats")
        runs = runs_beside(folder.parent, ("dataset", "size"))
        draw_runs(runs, title, folder / "models.png", quantity="accuracy")
    chosen = np.concatenate(task.eval_batches("test")[:DRAWN_BATCHES])
    pixels, labels = (np.asarray(leaf)[chosen] for leaf in task.data)
    params = jax.tree.map(lambda leaf: leaf[0], result.selected[0])
    logits = make_model(config).apply({"params": params}, jnp.asarray(pixels), train=False)
    title += f", as read by a {system_of(config.model)}"
    read = np.asarray(logits).argmax(axis=1)
    draw_digits(pixels, labels, read, title, folder / "digits.png")
