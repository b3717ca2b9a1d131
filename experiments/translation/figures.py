"""Pictures: learning curves, the models side by side, translations and how length hurts them."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.translation.data import load
from experiments.translation.presets import Config, system_of
from experiments.translation.scores import accuracy, bleu
from experiments.translation.translate import translate
from structdl.datasets.sentence_pairs import Pair, Sentence
from structdl.training.curves import draw_learning_curves, draw_runs, runs_beside
from structdl.training.loop import Fit
from structdl.training.task import Task

WRITTEN = 20  # test pairs in translations.txt
GROUPS = 5  # of test sentences by length, of about one size
WAYS = ("greedy", "beam")


def draw(config: Config, task: Task, result: Fit, rows: list[dict], folder: Path) -> None:
    """Writes learning_curves.png, models.png, lengths.png and translations.txt."""
    if rows:
        draw_learning_curves(
            rows, config.dataset, folder / "learning_curves.png", loss_unit="nats a word"
        )
        runs = runs_beside(folder.parent, ("dataset", "parameters"))
        draw_runs(runs, config.dataset, folder / "models.png", loss_unit="nats a word")
    corpus = load(config)
    params = jax.tree.map(lambda leaf: leaf[0], result.selected[0])
    sources = [pair.source for pair in corpus.test]
    written = {
        way: translate(config, corpus, params, sources, beams=beams)
        for way, beams in zip(WAYS, (1, config.beams), strict=True)
    }
    (folder / "translations.txt").write_text(listed(corpus.test[:WRITTEN], written))
    draw_lengths(config, corpus.test, written, folder / "lengths.png")


def listed(pairs: Sequence[Pair], written: dict[str, list[Sentence]]) -> str:
    """Sources, references and translations, one under another."""
    lines = []
    for number, pair in enumerate(pairs):
        lines += [f"source     {''.join(pair.source)}", f"reference  {' '.join(pair.target)}"]
        lines += [f"{way:10} {' '.join(written[way][number])}" for way in written]
        lines.append("")
    return "\n".join(lines)


def by_length(pairs: Sequence[Pair]) -> list[np.ndarray]:
    """The numbers of the pairs in GROUPS from short sources to long ones; one length, one group."""
    lengths = np.array([len(pair.source) for pair in pairs])
    bounds = np.unique(np.quantile(lengths, np.linspace(0, 1, GROUPS + 1)[1:], method="lower"))
    group = np.searchsorted(bounds, lengths)
    return [np.flatnonzero(group == number) for number in range(len(bounds))]


def draw_lengths(
    config: Config, pairs: Sequence[Pair], written: dict[str, list[Sentence]], path: Path
) -> None:
    """How good the translations of one seed are, by the length of their sources."""
    measure, unit = (accuracy, "share right") if config.dataset == "numbers" else (bleu, "BLEU")
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    groups = by_length(pairs)
    lengths = [np.mean([len(pairs[i].source) for i in group]) for group in groups]
    for way, translations in written.items():
        values = [
            measure([translations[i] for i in group], [pairs[i].target for i in group])
            for group in groups
        ]
        axis.plot(lengths, values, marker="o", label=way)
    axis.set_xlabel("symbols of the source, mean of a group")
    axis.set_ylabel(unit)
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False)
    figure.suptitle(f"{config.dataset}: {system_of(config.model)}")
    figure.savefig(path, dpi=120)
