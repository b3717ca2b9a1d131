"""Pictures of a run: learning curves, scores of the first seed's test graphs, and some of these."""

from pathlib import Path

import jax
import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from scipy.sparse.csgraph import shortest_path

from experiments.graph_classification.data import SPLITS, GraphSet, load
from experiments.graph_classification.model import make_model
from experiments.graph_classification.presets import Config
from structdl.graphs.graph import Graph, graph_mask, unbatch
from structdl.training.curves import draw_learning_curves
from structdl.training.loop import Fit
from structdl.training.task import Task

DRAWN_GRAPHS = 6


def draw(config: Config, task: Task, result: Fit, rows: list[dict], folder: Path) -> None:
    """Writes learning_curves.png, scores.png and graphs.png."""
    if rows:
        quantities = ("loss", "accuracy", "roc_auc")
        path = folder / "learning_curves.png"
        draw_learning_curves(rows, config.dataset, path, quantities=quantities)
    data, seed = load(config), result.seeds[0]
    of_test = SPLITS.index("test")
    graph = jax.tree.map(lambda leaf: leaf[of_test], task.seed_data(seed))
    params, model_state = jax.tree.map(lambda leaf: leaf[0], result.selected)
    model = make_model(config, data)
    logits = jax.jit(lambda variables, graph: model.apply(variables, graph, train=False))(
        {"params": params, **model_state}, graph
    )
    real = np.asarray(graph_mask(graph))
    logits, labels = np.asarray(logits)[real], graph.globals[real]
    title = f"{config.dataset}, readout {config.readout}, test graphs of seed {seed}"
    draw_scores(data, logits, labels, title, folder / "scores.png")
    draw_graphs(config, data, graph, logits, labels, folder / "graphs.png")


def draw_scores(data: GraphSet, logits, labels, title: str, path: Path) -> None:
    """ROC curves of binary tasks, or how probable each graph's own class seems to be."""
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axis = figure.subplots()
    if data.tasks:
        axis.set_prop_cycle(color=colormaps["tab20"].colors)
        for name, scores, label in zip(data.tasks, logits.T, labels.T, strict=True):
            axis.plot(*_roc_curve(scores[label >= 0], label[label >= 0]), label=name)
        axis.plot([0, 1], [0, 1], color="0.8", zorder=0)
        axis.set_xlabel("false positive rate")
        axis.set_ylabel("true positive rate")
    else:
        own = jax.nn.softmax(logits)[np.arange(len(logits)), labels[:, 0]]
        classes = range(data.num_classes)
        of_class = [np.asarray(own)[labels[:, 0] == each] for each in classes]
        names = [f"class {each}" for each in classes]
        axis.hist(of_class, bins=np.linspace(0, 1, 21), stacked=True, label=names)
        axis.set_xlabel("probability given to the graph's own class")
        axis.set_ylabel("graphs")
    axis.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=120)


def _roc_curve(scores, labels):
    """False and true positive rates as the threshold falls."""
    positive = labels[np.argsort(-scores)] == 1
    true, false = np.cumsum(positive), np.cumsum(~positive)
    return false / max(false[-1], 1), true / max(true[-1], 1)


def draw_graphs(config: Config, data: GraphSet, graph: Graph, logits, labels, path: Path) -> None:
    """The first test graphs; colours are nodes' first features, or the sub-graph."""
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    axes = figure.subplots(2, DRAWN_GRAPHS // 2).ravel()
    for axis, each, logit, label in zip(axes, unbatch(graph), logits, labels, strict=False):
        marked = each.nodes[:, 0] == 1
        features = each.nodes[:, 1:]
        if config.readout == "virtual":  # each graph's last node, joined to what it stands for
            marked = np.zeros(each.num_nodes, bool)
            marked[each.receivers[each.senders == each.num_nodes - 1]] = True
            marked, features = marked[:-1], features[:-1, :-1]
        num_nodes = len(features)
        inside = (each.senders < num_nodes) & (each.receivers < num_nodes)
        ends = np.stack([each.senders, each.receivers], axis=1)[inside]
        places = _places(ends, num_nodes)
        axis.plot(*places[ends].transpose(2, 1, 0), color="0.8", linewidth=0.8, zorder=1)
        colours = features.argmax(axis=1)
        if config.dataset == "marked_subgraphs":
            colours, ends = marked, ends[marked[ends].all(axis=1)]
            axis.plot(*places[ends].transpose(2, 1, 0), color="tab:orange", zorder=1)
        axis.scatter(*places.T, c=colours, cmap="tab10", vmin=0, vmax=9, s=45, zorder=2)
        axis.set_title(_words(data, logit, label), fontsize=9)
        axis.set_aspect("equal")
        axis.axis("off")
    for axis in axes[len(logits) :]:
        axis.axis("off")
    figure.savefig(path, dpi=120)


def _places(ends: np.ndarray, num_nodes: int) -> np.ndarray:
    """A plane in which distances are those along the edges, as nearly as can be."""
    adjacency = np.zeros((num_nodes, num_nodes))
    adjacency[tuple(ends.T)] = 1
    distances = shortest_path(adjacency, directed=False, unweighted=True)
    apart = 0.6 * distances[np.isfinite(distances)].max(initial=0) + 1  # between components
    squares = np.where(np.isfinite(distances), distances, apart) ** 2
    centred = squares - squares.mean(axis=0) - squares.mean(axis=1)[:, None] + squares.mean()
    values, vectors = np.linalg.eigh(-centred / 2)
    plane = vectors[:, ::-1][:, :2] * np.sqrt(np.maximum(values[::-1][:2], 0))
    return np.pad(plane, ((0, 0), (0, 2 - plane.shape[1])))


def _words(data: GraphSet, logit, label) -> str:
    if not data.tasks:
        probability = float(jax.nn.softmax(logit)[label[0]])
        return f"class {label[0]}, found with probability {probability:.2f}"
    task = int(np.argmax(np.where(label >= 0, logit, -np.inf)))
    probability = float(jax.nn.sigmoid(logit[task]))
    return f"{data.tasks[task]}: {label[task]}, probability {probability:.2f}"
