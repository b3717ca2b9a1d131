"""Pictures: learning curves, and one video's scores with its true and its found intervals."""

from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.temporal_localization.data import load
from experiments.temporal_localization.presets import Config, system_of
from experiments.temporal_localization.scores import activations, locate
from structdl.datasets.untrimmed_streams import Streams
from structdl.training.curves import draw_learning_curves
from structdl.training.loop import Fit
from structdl.training.task import Task

NUM_DRAWN = 3  # videos


def draw(config: Config, task: Task, result: Fit, rows: list[dict], folder: Path) -> None:
    """Writes learning_curves.png and localization.png."""
    title = f"{system_of(config.model)}, {config.num_train} videos"
    if rows:
        draw_learning_curves(rows, title, folder / "learning_curves.png", loss_unit="nats")
    seed = result.seeds[0]
    params = jax.tree.map(lambda leaf: leaf[0], result.selected[0])
    test = load(config, seed).test
    # of the first videos those with most actions
    chosen = np.argsort(-test.labels[:40].sum(axis=1), kind="stable")[:NUM_DRAWN]
    few = Streams(*(leaf[chosen] for leaf in test[:3]), tuple(test.intervals[n] for n in chosen))
    scores, _ = activations(config, params, seed, few)
    found = locate(config, params, seed, few)
    draw_localization(scores, few, found, title, folder / "localization.png")


def draw_localization(scores, streams: Streams, found, title: str, path: Path) -> None:
    """Videos in columns: scores of the actions that are there or were found, above intervals.

    Args:
      scores: [num, time, classes].
      streams: the videos.
      found: for each video the intervals of each action.
      title: of the picture.
      path: of the picture.
    """
    figure = Figure(figsize=(4.6 * len(scores), 5), layout="constrained")
    axes = figure.subplots(2, len(scores), squeeze=False, sharex="col")
    for number, (above, below) in enumerate(axes.T):
        true = streams.intervals[number]
        actions = sorted({*true[:, 0].tolist(), *found[number]})
        length = streams.lengths[number]
        for row, action in enumerate(actions):
            color = f"C{row}"
            above.plot(scores[number, :length, action], color=color, label=f"action {action}")
            for _, start, end in true[true[:, 0] == action].tolist():
                below.barh(row - 0.2, end - start, 0.35, start, color=color)
            best = found[number].get(action, [])[: max(np.sum(true[:, 0] == action), 1)]
            for interval in best:
                width = interval.end - interval.start
                below.barh(row + 0.2, width, 0.35, interval.start, color=color, alpha=0.4)
        below.set_yticks(range(len(actions)), [f"action {action}" for action in actions])
        below.invert_yaxis()
        below.set_xlabel("frame")
        above.legend(frameon=False, fontsize=8)
    axes[0, 0].set_ylabel("score")
    axes[1, 0].set_ylabel("full: true, pale: the best found")
    figure.suptitle(f"{title}: test videos")
    figure.savefig(path, dpi=110)
