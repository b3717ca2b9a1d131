"""Pictures: learning curves, the models side by side, a piece and what was expected of it."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.polyphonic_music.presets import Config
from experiments.sequence_model import SequenceModel
from experiments.sequence_presets import system_of
from structdl.datasets.poly_music import NUM_KEYS
from structdl.training.curves import draw_learning_curves, draw_runs, runs_beside
from structdl.training.loop import Fit
from structdl.training.task import Task

DRAWN_STEPS = 100
LOSS_UNIT = "nats a step"


def draw(config: Config, task: Task, result: Fit, rows: list[dict], folder: Path) -> None:
    """Writes learning_curves.png, models.png and piano_roll.png."""
    if rows:
        path = folder / "learning_curves.png"
        draw_learning_curves(rows, config.dataset, path, loss_unit=LOSS_UNIT)
        runs = runs_beside(folder.parent, ("dataset", "parameters"))
        draw_runs(runs, config.dataset, folder / "models.png", loss_unit=LOSS_UNIT)
    draw_piano_roll(config, task, result, folder / "piano_roll.png")


def draw_piano_roll(config: Config, task: Task, result: Fit, path: Path) -> None:
    """The beginning of the first test piece over the probabilities that were given to its keys."""
    piece = int(task.eval_batches("test")[0].examples[0])
    length = min(int(task.data.lengths[piece]), DRAWN_STEPS)
    keys = np.asarray(task.data.keys)[piece, :length]
    params = jax.tree.map(lambda leaf: leaf[0], result.selected[0])
    # no step is expected before the first
    model = SequenceModel(config.model, NUM_KEYS)
    logits = model.apply({"params": params}, jnp.asarray(keys[None], float), train=False)[0]
    expected = np.asarray(jax.nn.sigmoid(logits))[:-1]
    figure = Figure(figsize=(11, 6), layout="constrained")
    axes = figure.subplots(2, 1, sharex=True, sharey=True)
    extent = (0.5, length - 0.5, -0.5, NUM_KEYS - 0.5)
    panels = {
        "the piece": keys[1:],
        f"probabilities by {system_of(config.model)}": expected,
    }
    for axis, (title, image) in zip(axes, panels.items(), strict=True):
        shown = axis.imshow(
            image.T, cmap="Greys", vmin=0, vmax=1, origin="lower", aspect="auto", extent=extent
        )
        axis.set_title(title)
        axis.set_ylabel("key, from 0 (A0) to 87 (C8)")
    figure.colorbar(shown, ax=axes, label="probability that a key sounds", pad=0.01)
    sounding = np.flatnonzero(keys.any(axis=0) | (expected > 0.1).any(axis=0))
    axes[0].set_ylim(sounding.min() - 2, sounding.max() + 2)
    axes[-1].set_xlabel("step")
    figure.suptitle(f"{config.dataset}, the first test piece")
    figure.savefig(path, dpi=120)
