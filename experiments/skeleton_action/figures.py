"""Pictures: learning curves, the accuracy of each action, and attention to joints."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.skeleton_action.data import ACTIONS, JOINTS, PARTS, prepare
from experiments.skeleton_action.model import make_model
from experiments.skeleton_action.presets import Config, system_of
from structdl.training.curves import draw_learning_curves
from structdl.training.loop import Fit
from structdl.training.task import Task

SETS = {"primitives": "motion primitives", "msraction3d": "MSR Action3D"}


def draw(config: Config, task: Task, result: Fit, rows: list[dict], folder: Path) -> None:
    """Writes learning_curves.png, actions.png and, where there is attention, attention.png."""
    title = f"{system_of(config.model)}, {SETS[config.dataset]}"
    if rows:
        draw_learning_curves(rows, title, folder / "learning_curves.png", loss_unit="nats")
    chosen = np.concatenate(task.eval_batches("test"))
    skeletons = jax.tree.map(lambda leaf: jnp.asarray(leaf[chosen[chosen >= 0]]), task.data)
    xs = prepare(skeletons.positions, skeletons.lengths, config.frames)
    model, labels = make_model(config), np.asarray(skeletons.labels)
    params = jax.tree.map(lambda leaf: leaf[0], result.selected[0])
    logits, attention = model.apply({"params": params}, xs, train=False)
    read = np.asarray(logits[:, -1]).argmax(axis=1)
    names = ACTIONS[config.dataset]
    draw_actions(labels, read, names, title, folder / "actions.png")
    if attention:
        # of what is read right, the sequence whose joints are attended to most unevenly
        spread = np.std(np.asarray(attention[-1]).mean(axis=1), axis=1) + (read == labels)
        place = int(np.argmax(spread))
        weights = [np.asarray(layer[place]) for layer in attention]
        title = f"{title}: {names[labels[place]]}, read as {names[read[place]]}"
        draw_attention(weights, title, folder / "attention.png")


def draw_actions(
    labels: np.ndarray, read: np.ndarray, names: tuple[str, ...], title: str, path: Path
) -> None:
    """Which action was read how often for which: rows are true, and add up to 1."""
    counts = np.zeros((len(names), len(names)))
    np.add.at(counts, (labels, read), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(3 + 0.32 * len(names), 2.4 + 0.3 * len(names)), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(len(names)), names, rotation=90)
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="read", ylabel="true")
    figure.colorbar(image, ax=axis, shrink=0.6, label="share of test sequences")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def draw_attention(weights: list[np.ndarray], title: str, path: Path) -> None:
    """Attention of each layer, [frames, joints]: joints downwards, frames to the right."""
    figure = Figure(figsize=(4 * len(weights), 5), layout="constrained")
    axes = figure.subplots(1, len(weights), squeeze=False, sharey=True)[0]
    order = [joint for part in PARTS.values() for joint in part]
    low, high = min(map(np.min, weights)), max(map(np.max, weights))
    for number, (axis, layer) in enumerate(zip(axes, weights, strict=True)):
        image = axis.imshow(
            layer.T[order],
            aspect="auto",
            cmap="viridis",
            vmin=low,
            vmax=high,
            interpolation="nearest",
        )
        axis.set(title=f"layer {number + 1}", xlabel="frame" if number == 0 else "pooled frame")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_yticks(range(len(order)), [JOINTS[joint] for joint in order])
    figure.colorbar(image, ax=axes, label="attention")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
