"""Pictures: learning curves, the models side by side, what one writes and what surprises it."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from experiments.language_modeling.data import (
    WORDS,
    Corpus,
    in_unit,
    load,
    prompt_ids,
    unit_of,
    written,
)
from experiments.language_modeling.model import make_model
from experiments.language_modeling.presets import Config
from experiments.language_modeling.sample import sample
from experiments.sequence_presets import system_of
from structdl.datasets.vocabulary import END_OF_LINE, decode
from structdl.training.curves import draw_learning_curves, draw_runs, runs_beside
from structdl.training.loop import Fit
from structdl.training.task import Task

SAMPLED = {False: 1000, True: 200}  # symbols that are written: characters, words
DRAWN = {False: 640, True: 110}  # symbols of the test part that are drawn
COLUMNS = 80


def draw(config: Config, task: Task, result: Fit, rows: list[dict], folder: Path) -> None:
    """Writes learning_curves.png, models.png, sample.txt and surprise.png."""
    unit = unit_of(config.dataset)
    if rows:
        draw_learning_curves(
            with_unit(rows, config.dataset),
            config.dataset,
            folder / "learning_curves.png",
            quantities=(unit,),
        )
        runs = {
            name: with_unit(rows, config.dataset)
            for name, rows in runs_beside(folder.parent, ("dataset", "parameters")).items()
        }
        draw_runs(runs, config.dataset, folder / "models.png", quantity=unit)
    corpus = load(config)
    params = jax.tree.map(lambda leaf: leaf[0], result.selected[0])
    text = sampled_text(config, corpus, params, int(result.seeds[0]))
    (folder / "sample.txt").write_text(text)
    draw_surprise(config, corpus, params, folder / "surprise.png")


def with_unit(rows: list[dict], dataset: str) -> list[dict]:
    """Logged rows with the unit of the text beside the loss, in training as in validation."""
    unit = unit_of(dataset)
    return [
        row
        | {
            f"{split}_{unit}": float(in_unit(row[f"{split}_loss"], dataset))
            for split in ("train", "validation")
            if f"{split}_loss" in row
        }
        for row in rows
    ]


def sampled_text(config: Config, corpus: Corpus, params, seed: int) -> str:
    """The prompt and what the model writes after it."""
    prompt = prompt_ids(config, corpus)
    symbols = sample(
        make_model(config, len(corpus.vocabulary)),
        params,
        prompt,
        SAMPLED[config.dataset == WORDS],
        temperature=config.temperature,
        key=jax.random.key(seed),
    )
    ids = np.concatenate([prompt, symbols])
    return written(config.dataset, decode(ids, corpus.vocabulary)) + "\n"


def surprises(config: Config, corpus: Corpus, params) -> tuple[list[str], np.ndarray]:
    """Symbols of the test part, and how many bits each would take to be told to the model."""
    low, high = corpus.bounds.test
    end = min(high, low + config.context + DRAWN[config.dataset == WORDS])
    ids = jnp.asarray(corpus.ids[low:end])
    logits = make_model(config, len(corpus.vocabulary)).apply(
        {"params": params}, ids[None, :-1], train=False
    )[0]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, ids[1:])
    bits = np.asarray(losses)[config.context :] / np.log(2)
    return decode(np.asarray(ids[config.context + 1 :]), corpus.vocabulary), bits


def draw_surprise(config: Config, corpus: Corpus, params, path: Path) -> None:
    """A piece of the test part; the darker a symbol, the less the model expected it."""
    symbols, bits = surprises(config, corpus, params)
    lines = arranged(symbols, bits, words=config.dataset == WORDS)
    width, most = max(map(len, lines)), 12 if config.dataset == WORDS else 6
    image = np.full((len(lines), width), np.nan)
    figure = Figure(figsize=(2 + 0.13 * width, 1 + 0.25 * len(lines)), layout="constrained")
    axis = figure.subplots()
    for row, line in enumerate(lines):
        for column, (character, value) in enumerate(line):
            image[row, column] = value
            color = "white" if value > 0.7 * most else "black"
            style = {"family": "monospace", "size": 9, "color": color}
            axis.text(column, row, character, ha="center", va="center", **style)
    shown = axis.imshow(image, cmap="Oranges", vmin=0, vmax=most, aspect="auto")
    figure.colorbar(shown, ax=axis, extend="max", label="bits", pad=0.01)
    axis.set_axis_off()
    mean = f"{np.mean(bits):.2f} bits on average"
    figure.suptitle(f"{config.dataset}: what surprises {system_of(config.model)}; {mean}")
    figure.savefig(path, dpi=120)


def arranged(symbols: list[str], bits: np.ndarray, *, words: bool) -> list[list[tuple[str, float]]]:
    """Symbols in lines of COLUMNS: characters, each with its value or that of its word."""
    lines: list[list[tuple[str, float]]] = [[]]
    for symbol, value in zip(symbols, bits, strict=True):
        ends = symbol in ("\n", END_OF_LINE)
        shown = "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}" if ends else symbol
        cells = [(character, float(value)) for character in shown]
        if len(lines[-1]) + len(cells) > COLUMNS:
            lines.append([])
        lines[-1] += cells
        if words and len(lines[-1]) < COLUMNS:
            lines[-1].append((" ", np.nan))
        if ends:
            lines.append([])
    return [line for line in lines if line]
