"""Pictures: learning curves, and systems with their true and their found edges."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment

from experiments.relational_inference.accuracy import approach_of, edges_are_known
from experiments.relational_inference.presets import Config, system_of
from structdl.graphs.nri import edge_confusion
from structdl.training.curves import draw_learning_curves
from structdl.training.loop import Fit
from structdl.training.task import Task

NUM_DRAWN = 4  # systems


def draw(config: Config, task: Task, result: Fit, rows: list[dict], folder: Path) -> None:
    """Writes learning_curves.png and, where types of edges are found, systems.png.

    Where none are known it is edges.png: how often two objects interact.
    """
    title = f"{system_of(config.model)}, {config.dataset}, {config.objects} objects"
    if rows:
        path = folder / "learning_curves.png"
        second = "edge_accuracy" if edges_are_known(config) else "squared_error"
        draw_learning_curves(rows, title, path, quantities=("loss", second))
    approach = approach_of(config)
    selected = jax.tree.map(lambda leaf: leaf[0], result.selected)
    test = slice(len(task.data.edges) - config.num_test, None)
    states, edges = (np.asarray(leaf[test]) for leaf in task.data)
    if not edges_are_known(config):
        types = np.asarray(approach.find(*selected, jnp.asarray(states))).argmax(axis=-1)
        draw_shares(types, title, folder / "edges.png")
        return
    few = jnp.asarray(states[:NUM_DRAWN])
    logits = approach.find(*selected, few)
    if logits.ndim < 4:
        return
    naming = best_naming(np.asarray(edge_confusion(logits, jnp.asarray(edges[:NUM_DRAWN]))))
    found = naming[np.asarray(logits).argmax(axis=-1)]
    predictions = None
    if approach.predict:
        predictions = np.asarray(approach.predict(*selected, few, num_steps=few.shape[1]))
    draw_systems(np.asarray(few), edges, found, predictions, title, folder / "systems.png")


def draw_shares(types: np.ndarray, title: str, path: Path) -> None:
    """In which share of the systems an edge has another type than 0.

    Args:
      types: [num, senders, receivers].
      title: of the picture.
      path: of the picture.
    """
    shares = np.mean(types != 0, axis=0)
    np.fill_diagonal(shares, np.nan)
    figure = Figure(figsize=(6, 5), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares.T, cmap="Blues", vmin=0, vmax=1)
    axis.set(xlabel="sender", ylabel="receiver")
    figure.colorbar(image, ax=axis, label="share of systems with an edge")
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=110)


def best_naming(confusion: np.ndarray) -> np.ndarray:
    """What each found type is called, [types], so that most edges of a confusion are right.

    >>> best_naming(np.array([[1, 8], [6, 0]])).tolist()
    [1, 0]
    """
    true, found = linear_sum_assignment(confusion, maximize=True)
    naming = np.empty(len(confusion), np.int32)
    naming[found] = true
    return naming


def draw_systems(
    states: np.ndarray,
    edges: np.ndarray,
    found: np.ndarray,
    predictions: np.ndarray | None,
    title: str,
    path: Path,
) -> None:
    """Systems in columns: above what is true, below what was found, with wrong edges in red.

    Args:
      states: [num, time, objects, features].
      edges: their types, [num, objects, objects]; those of type 0 are left out.
      found: likewise.
      predictions: of states 1 to time - 1 from state 0.
      title: of the picture.
      path: of the picture.
    """
    figure = Figure(figsize=(3 * len(states), 6), layout="constrained")
    axes = figure.subplots(2, len(states), squeeze=False)
    for number in range(len(states)):
        above, below = axes[:, number]
        places = _places(states[number])
        _draw_edges(above, places, edges[number], edges[number])
        _draw_edges(below, places, found[number], edges[number])
        for axis in (above, below):
            axis.scatter(*places.T, c=[f"C{i}" for i in range(len(places))], s=50, zorder=3)
            axis.set(xticks=[], yticks=[])
            axis.set_aspect("equal", adjustable="datalim")
        if states.shape[-1] == 4:  # in a plane
            _draw_paths(above, states[number], "-")
            if predictions is not None:
                _draw_paths(below, predictions[number], ":")
            below.set(xlim=above.get_xlim(), ylim=above.get_ylim())
    axes[0, 0].set_ylabel("true edges")
    axes[1, 0].set_ylabel("found edges" + (", predicted paths" if predictions is not None else ""))
    figure.suptitle(f"{title}: test systems; wrong or missing edges in red")
    figure.savefig(path, dpi=110)


def _places(states: np.ndarray) -> np.ndarray:
    """Where objects are at the end; on a circle those that are not in a plane."""
    if states.shape[-1] == 4:
        return states[-1, :, :2]
    angles = 2 * np.pi * np.arange(states.shape[1]) / states.shape[1]
    return np.stack([np.sin(angles), np.cos(angles)], axis=1)


def _draw_edges(axis, places, types, true) -> None:
    """Every edge from the middle to its receiver: two that belong together are a whole line."""
    for i, j in np.argwhere(~np.eye(len(places), dtype=bool)):
        is_right = types[i, j] == true[i, j]
        if types[i, j] == 0 and is_right:
            continue
        line = np.stack([(places[i] + places[j]) / 2, places[j]])
        style = "--" if types[i, j] == 0 else "-"
        axis.plot(*line.T, style, color="0.6" if is_right else "tab:red", linewidth=1.2)


def _draw_paths(axis, states, style: str) -> None:
    for i, path in enumerate(np.swapaxes(states[..., :2], 0, 1)):
        axis.plot(*path.T, style, color=f"C{i}", linewidth=1.6)
