"""Pictures of a run: a plane of the nodes before and after training, learning curves."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.node_classification.model import GCNConfig, embed
from experiments.node_classification.presets import Config
from structdl.training.curves import draw_learning_curves
from structdl.training.loop import Fit, fit
from structdl.training.optimizers import make_optimizer
from structdl.training.task import Task


def draw(config: Config, task: Task, result: Fit, rows: list[dict], folder: Path) -> None:
    """Writes learning_curves.png and, where the embedding is a plane, embedding.png."""
    if rows:
        title = f"{config.dataset}, {config.split} split"
        draw_learning_curves(rows, title, folder / "learning_curves.png")
    if isinstance(config.model, GCNConfig) and config.model.hidden[-1:] == (2,):
        draw_embedding(config, task, result, folder / "embedding.png")


def draw_embedding(config: Config, task: Task, result: Fit, path: Path) -> None:
    """The first seed's node embeddings with random weights and after training.

    The picture of Kipf's slides: colours are classes, lines friendships, rings the nodes whose
    label the training has seen.
    """
    run = dataclasses.replace(config.run, num_steps=0, num_seeds=1, stopping="none")
    untrained = fit(task, make_optimizer(config.optimizer), run)
    labelled = task.seed_data(config.run.seed)[0]
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    axes = figure.subplots(1, 2)
    titles = ("random weights", f"after {int(result.state.train.step[0])} steps")
    for axis, title, selected in zip(
        axes, titles, (untrained.selected, result.selected), strict=True
    ):
        params = jax.tree.map(lambda leaf: leaf[0], selected[0])
        data = task.data
        places = np.asarray(embed(config.model, params, data.features, data.structure))
        _draw_plane(axis, places, task, labelled)
        axis.set_title(title)
    figure.suptitle("colours: classes; rings: the labelled nodes; lines: edges", fontsize=10)
    figure.savefig(path, dpi=120)


def _draw_plane(axis, places: np.ndarray, task: Task, labelled: np.ndarray) -> None:
    (layout, _), labels = task.data.structure, np.asarray(task.data.labels)
    edges = np.stack([layout.senders, layout.receivers], axis=1)
    for sender, receiver in edges[edges[:, 0] < edges[:, 1]]:
        axis.plot(*places[[sender, receiver]].T, color="0.85", linewidth=0.6, zorder=1)
    axis.scatter(*places.T, c=labels, cmap="tab10", vmax=9, s=130, zorder=2, edgecolors="white")
    axis.scatter(
        *places[labelled].T, s=220, facecolors="none", edgecolors="black", linewidths=1.6, zorder=3
    )
    for node, place in enumerate(places):
        axis.annotate(
            str(node + 1), place, fontsize=6.5, color="white", ha="center", va="center", zorder=4
        )
    axis.set_xlabel("first hidden unit")
    axis.set_ylabel("second hidden unit")
