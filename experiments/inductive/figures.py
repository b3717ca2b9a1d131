"""Pictures of a run: the degrees beside what is learned from the nodes seen, learning curves."""

from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiments.inductive.data import LabelledGraph
from experiments.inductive.presets import Config
from structdl.training.curves import draw_learning_curves
from structdl.training.loop import Fit
from structdl.training.task import Task

_EXPONENT = 2.5  # of the block model's degrees


def draw(config: Config, task: Task, result: Fit, rows: list[dict], folder: Path) -> None:
    """Writes learning_curves.png and degrees.png."""
    if not rows:
        return
    title = f"GraphSAGE {config.model.aggregator} on {config.dataset}"
    path = folder / "learning_curves.png"
    draw_learning_curves(rows, title, path, quantities=("loss", task.score))
    draw_degrees(config, task, rows, title, folder / "degrees.png")


def draw_degrees(config: Config, task: Task, rows: list[dict], title: str, path: Path) -> None:
    """The degrees of the whole graph and of the seen one; F1 or accuracy against nodes seen."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for graph, name in ((task.data.whole, "whole graph"), (task.data.seen, "seen in training")):
        degrees, density = degree_density(graph)
        left.plot(degrees, density, "o", markersize=4, label=name)
    if config.dataset.startswith("block-model"):
        start = np.argmax(density)  # of the graph drawn last
        law = density[start] * (degrees[start:] / degrees[start]) ** -_EXPONENT
        left.plot(degrees[start:], law, color="0.6", label=f"degree^-{_EXPONENT}")
    left.set(xscale="log", yscale="log", xlabel="degree", ylabel="share of the nodes, per degree")
    left.legend(frameon=False)
    for name in (f"train_{task.score}", f"validation_{task.score}"):
        by_step = defaultdict(list)
        for row in (row for row in rows if name in row):
            by_step[row["step"]].append(row[name])
        if by_step:
            steps = sorted(by_step)
            mean = [np.mean(by_step[step]) for step in steps]
            seen = np.multiply(steps, config.batch_size / 1000)
            right.plot(seen, mean, label=name.split("_")[0])
    right.set(
        xlabel="nodes seen, in thousands", ylabel="micro-F1" if task.score == "f1" else "accuracy"
    )
    right.legend(frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def degree_density(graph: LabelledGraph) -> tuple[np.ndarray, np.ndarray]:
    """(degree, share of the nodes per unit of degree) in bins that grow by a quarter."""
    degrees = np.diff(np.asarray(graph.lists.offsets))
    edges = np.unique(np.floor(1.25 ** np.arange(np.log(degrees.max() + 1) / np.log(1.25) + 2)))
    counts, _ = np.histogram(degrees, edges)
    centres, widths = np.sqrt(edges[:-1] * (edges[1:] - 1)), np.diff(edges)
    found = counts > 0
    return centres[found], (counts / widths / len(degrees))[found]
