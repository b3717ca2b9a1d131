"""Pictures of a run: the embeddings in a plane, the ROC curve, learning curves."""

from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.link_prediction.data import SPLITS, EdgeSplit
from experiments.link_prediction.model import embed, encode
from experiments.link_prediction.presets import Config, SageConfig
from structdl.training.curves import draw_learning_curves
from structdl.training.loop import Fit
from structdl.training.task import Task

_FEW_NODES = 100  # of a graph whose edges are drawn too


def draw(config: Config, task: Task, result: Fit, rows: list[dict], folder: Path) -> None:
    """Writes learning_curves.png and embedding.png."""
    is_sage = isinstance(config.model, SageConfig)
    title = f"{'GraphSAGE' if is_sage else 'auto-encoder'}, {config.dataset}"
    if rows:
        quantities = ("loss", "accuracy", "auc", "average_precision")
        draw_learning_curves(rows, title, folder / "learning_curves.png", quantities=quantities)
    figure = Figure(figsize=(5.8 if is_sage else 11, 5.2), layout="constrained")
    params = jax.tree.map(lambda leaf: leaf[0], result.selected[0])
    if is_sage:
        embeddings = np.asarray(embed(config.model, params, task.data))
        _draw_plane(figure.subplots(), embeddings, task, None)
    else:
        plane, curve = figure.subplots(1, 2)
        split = task.seed_data(result.seeds[0])
        embeddings = np.asarray(encode(config.model, params, task.data, split.weights)[0])
        _draw_plane(plane, embeddings, task, split)
        _draw_roc_curves(curve, config, task, result)
    figure.savefig(folder / "embedding.png", dpi=120)


def _draw_plane(axis, embeddings: np.ndarray, task: Task, split: EdgeSplit | None) -> None:
    """The first seed's embeddings, coloured by class: as they are, or their two main directions."""
    places, names = embeddings, ("first unit", "second unit")
    if embeddings.shape[1] > 2:
        centred = embeddings - embeddings.mean(axis=0)
        _, _, directions = np.linalg.svd(centred, full_matrices=False)
        places = centred @ directions[:2].T
        names = ("first principal component", "second principal component")
    labels, is_small = np.asarray(task.data.labels), len(embeddings) < _FEW_NODES
    if split is not None and is_small:
        test = SPLITS.index("test")
        asked = split.pairs[test][split.is_edge[test] & split.mask[test]]
        shown = np.stack([split.senders, split.receivers], axis=1)
        for pair in shown[shown[:, 0] < shown[:, 1]]:
            axis.plot(*places[pair].T, color="0.85", linewidth=0.6, zorder=1)
        for pair in asked:
            axis.plot(*places[pair].T, color="black", linewidth=0.9, linestyle=":", zorder=1)
    known = labels >= 0
    style = {"s": 90, "edgecolors": "white"} if is_small else {"s": 5, "linewidths": 0}
    axis.scatter(*places[known].T, c=labels[known], cmap="tab10", vmax=9, zorder=2, **style)
    lines = "; lines: edges, dotted those of the test" if split is not None and is_small else ""
    axis.set_title(f"embeddings; colours: classes, never seen{lines}", fontsize=10)
    axis.set_xlabel(names[0])
    axis.set_ylabel(names[1])


def _draw_roc_curves(axis, config: Config, task: Task, result: Fit) -> None:
    """How many of the test's edges are found at what share of false ones; a line a seed."""
    test = SPLITS.index("test")
    for place, seed in enumerate(result.seeds):
        params = jax.tree.map(lambda leaf, place=place: leaf[place], result.selected[0])
        split = task.seed_data(seed)
        mean = np.asarray(encode(config.model, params, task.data, split.weights)[0])
        pairs, is_edge = split.pairs[test][split.mask[test]], split.is_edge[test][split.mask[test]]
        scores = np.sum(mean[pairs[:, 0]] * mean[pairs[:, 1]], axis=1)
        ranked = is_edge[np.argsort(-scores, kind="stable")]
        found, false = (np.append(0, np.cumsum(each)) for each in (ranked, ~ranked))
        axis.plot(false / false[-1], found / found[-1], color="C0", alpha=0.5, linewidth=1)
    axis.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1)
    axis.set_title(f"ROC curve of the test pairs, {len(result.seeds)} seeds", fontsize=10)
    axis.set_xlabel("share of the non-edges above the threshold")
    axis.set_ylabel("share of the edges above the threshold")
