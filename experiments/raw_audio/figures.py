"""Pictures: learning curves, the models side by side, a recording and what was expected of it."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.raw_audio.mixture import mixture_of, moments
from experiments.raw_audio.model import make_model
from experiments.raw_audio.presets import INPUTS, TARGETS, Config
from experiments.sequence_presets import system_of
from structdl.datasets.spoken_digits import frames
from structdl.training.curves import draw_learning_curves, draw_runs, runs_beside
from structdl.training.loop import Fit
from structdl.training.task import Task

CLOSE = 30  # steps that are drawn close up
LOSS_UNIT = f"nats a step of {TARGETS} samples"


def draw(config: Config, task: Task, result: Fit, rows: list[dict], folder: Path) -> None:
    """Writes learning_curves.png, models.png and wave.png."""
    if rows:
        path = folder / "learning_curves.png"
        draw_learning_curves(rows, config.dataset, path, loss_unit=LOSS_UNIT)
        runs = runs_beside(folder.parent, ("dataset", "parameters"))
        draw_runs(runs, config.dataset, folder / "models.png", loss_unit=LOSS_UNIT)
    params = jax.tree.map(lambda leaf: leaf[0], result.selected[0])
    draw_wave(config, task, params, folder / "wave.png")


def predictions(config: Config, params, wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of all samples of a recording but the first INPUTS, each from before."""
    x, _ = frames(wave)
    outputs = make_model(config).apply({"params": params}, jnp.asarray(x[None]), train=False)[0]
    mean, deviation = moments(mixture_of(outputs, config.components, TARGETS))
    return np.asarray(mean).reshape(-1), np.asarray(deviation).reshape(-1)


def draw_wave(config: Config, task: Task, params, path: Path) -> None:
    """The first test recording, and close up where it is loudest, over what was expected."""
    recording = int(task.eval_batches("test")[0].examples[0])
    steps = int(task.data.steps[recording])
    wave = np.asarray(task.data.waves)[recording, : INPUTS + TARGETS * steps]
    mean, deviation = predictions(config, params, wave)
    samples = np.arange(INPUTS, len(wave))
    power = np.convolve(wave[INPUTS:] ** 2, np.ones(CLOSE * TARGETS), mode="valid")
    start = INPUTS + int(np.argmax(power)) // TARGETS * TARGETS
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    axes = figure.subplots(2, 1)
    for axis in axes:
        axis.fill_between(
            samples,
            mean - 2 * deviation,
            mean + 2 * deviation,
            color="tab:orange",
            alpha=0.3,
            linewidth=0,
            label="expected, within two standard deviations",
        )
        axis.plot(samples, mean, color="tab:orange", linewidth=1, label="expected")
        axis.plot(wave, color="black", linewidth=0.7, label="the recording")
        axis.set_ylabel("amplitude")
    axes[0].set_ylim(1.3 * wave.min(), 1.3 * wave.max())
    axes[0].legend(frameon=False, ncols=3, loc="upper right")
    axes[1].set_xlim(start, min(start + CLOSE * TARGETS, len(wave)))
    piece = wave[start : start + CLOSE * TARGETS]
    axes[1].set_ylim(1.3 * piece.min(), 1.3 * piece.max())
    for begin in range(start, start + CLOSE * TARGETS, TARGETS):
        axes[1].axvline(begin, color="grey", linewidth=0.3)
    axes[1].set_xlabel("sample; between two lines are ten that were predicted at once")
    name = system_of(config.model)
    figure.suptitle(f"{config.dataset}, the first test recording, by {name}")
    figure.savefig(path, dpi=120)
