"""Pictures: learning curves, one graph with its answer, and accuracy against depth."""

from collections import defaultdict
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.algorithmic_graphs.data import PaddedGraphs
from experiments.algorithmic_graphs.model import make_model
from structdl.datasets.simulate_algorithmic_graphs import TASKS
from structdl.training.curves import draw_learning_curves
from structdl.training.ledger import read_rows
from structdl.training.loop import Fit
from structdl.training.task import Task


def draw(config, task: Task, result: Fit, rows: list[dict], folder: Path) -> None:
    """Writes learning_curves.png and answer.png."""
    if rows:
        title = f"{config.graphs}, {config.layers} layers"
        quantities = ("loss", "accuracy", "node_accuracy")
        draw_learning_curves(rows, title, folder / "learning_curves.png", quantities=quantities)
    draw_answer(config, task, result, folder / "answer.png")


def draw_answer(config, task: Task, result: Fit, path: Path) -> None:
    """The largest of the first test graphs: its question, its answer, and the first seed's."""
    question = TASKS[config.graphs]
    batch = task.eval_batches("test")[0]
    graphs = jax.tree.map(lambda leaf: np.asarray(leaf)[batch], task.data)
    largest = np.argmax(graphs.node_mask.sum(axis=1) * (batch >= 0))
    graph = jax.tree.map(lambda leaf: leaf[largest : largest + 1], graphs)
    params = jax.tree.map(lambda leaf: leaf[0], result.selected[0])
    scores = make_model(config, question).apply({"params": params}, graph, train=False)
    nodes = graph.node_mask[0]
    num_nodes = int(nodes.sum())
    edges = np.stack([graph.senders[0], graph.receivers[0], graph.edge_types[0]], axis=1)
    # the reverse of an edge has a type of its own, unless there is but one type
    told = edges[:, 2] < (question.num_edge_types + 1) // 2
    edges = edges[told & (edges[:, :2] < num_nodes).all(axis=1)]
    places = layout_of(edges, num_nodes)
    marks = graph.annotations[0, :num_nodes]
    asked = {"the question": np.where(marks.any(axis=1), 1 + marks.argmax(axis=1), 0)}
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    axes = figure.subplots(1, 3)
    panels = asked | _answers(question.output, graph, np.asarray(scores), nodes)
    for axis, (title, colours) in zip(axes, panels.items(), strict=True):
        _draw_graph(axis, places, edges, colours)
        axis.set_title(title)
    note = "colours on the left: annotations; in the middle and on the right: blue is the answer"
    figure.suptitle(f"{config.graphs}, a test graph ({note})", fontsize=10)
    figure.savefig(path, dpi=120)


def _answers(output: str, graph: PaddedGraphs, scores, nodes) -> dict[str, np.ndarray]:
    """0 or 1 for each node, the right answer and the network's; a graph's class at every node."""
    num_nodes, target = int(nodes.sum()), graph.targets[0]
    if output == "graph":
        right, given = [np.full(num_nodes, value) for value in (target, scores[0] > 0)]
    elif output == "node":
        chosen = np.argmax(scores[0, :num_nodes])
        right, given = [np.arange(num_nodes) == node for node in (target, chosen)]
    else:
        right, given = target[:num_nodes], scores[0, :num_nodes] > 0
    return {"the answer": right.astype(int), "the network's answer": given.astype(int)}


def layout_of(edges: np.ndarray, num_nodes: int) -> np.ndarray:
    """Places [num_nodes, 2] whose distances are near those in the graph, by stress majorisation.

    Reference: Gansner, Koren, North (2004), "Graph drawing by stress majorization", eq. 10.
    """
    distances = np.where(np.eye(num_nodes, dtype=bool), 0.0, np.inf)
    distances[edges[:, 0], edges[:, 1]] = distances[edges[:, 1], edges[:, 0]] = 1
    for node in range(num_nodes):
        distances = np.minimum(distances, distances[:, [node]] + distances[node])
    # parts that nothing joins stand apart
    finite = np.isfinite(distances)
    distances[~finite] = distances[finite].max() + 1
    weights = np.where(distances > 0, np.maximum(distances, 1e-9) ** -2, 0)
    inverse = np.linalg.pinv(np.diag(weights.sum(axis=1)) - weights)
    places = np.random.default_rng(0).normal(size=(num_nodes, 2)) * distances.max() / 2
    for _ in range(300):
        apart = np.linalg.norm(places[:, None] - places, axis=-1)
        pull = weights * distances / np.maximum(apart, 1e-9)
        places = inverse @ (pull.sum(axis=1)[:, None] * places - pull @ places)
    return places


def _draw_graph(axis, places: np.ndarray, edges: np.ndarray, colours: np.ndarray) -> None:
    shades = np.array(["0.8", "tab:blue", "tab:orange", "tab:green", "tab:red"])
    for sender, receiver, kind in edges:
        axis.plot(
            *places[[sender, receiver]].T, color="0.4", linestyle=("-", "--", ":", "-.")[kind % 4]
        )
    axis.scatter(*places.T, c=shades[colours], s=150, zorder=2, edgecolors="black", linewidths=0.6)
    axis.set_aspect("equal", adjustable="datalim")
    axis.set_axis_off()


def draw_depth(rows: list[dict], path: Path) -> None:
    """Accuracy over nodes against depth, of the ledger's rows; no row, no picture."""
    points = defaultdict(dict)
    for row in rows:
        if row["preset"].startswith("depth-"):
            layers = int(row["dataset"].split(", ")[1].split()[0])
            points[row["system"]][layers] = (row["mean"], row["std"])
    if not points:
        return
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for system, of_layers in sorted(points.items(), reverse=True):
        layers = sorted(of_layers)
        mean, std = np.transpose([of_layers[number] for number in layers]) * 100
        axis.errorbar(layers, mean, std, marker="o", capsize=3, label=system)
    depths = np.arange(1, 33)
    axis.plot(depths, 50 * (1 + (depths + 1) / 33), "k:", label="all that k layers can see")
    axis.set_xscale("log", base=2)
    ticks = sorted({number for of_layers in points.values() for number in of_layers})
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.set_xlabel("layers")
    axis.set_ylabel("test accuracy over nodes, %")
    axis.legend(frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    here = Path(__file__).parent
    draw_depth(read_rows(here), here / "depth.png")
