"""What experiments on digits share: the two sets, and a picture of what was read."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from structdl.datasets import drawn_digits, mnist
from structdl.datasets.sequences import Splits
from structdl.training.run import DataConfig

NUM_CLASSES = 10
NAMES = {"drawn": "drawn digits", "mnist": "MNIST"}
GRID = (4, 10)


def load_digits(dataset: str, data: DataConfig) -> Splits:
    """The splits of one of NAMES, each (images, labels).

    Raises:
      InputError: a set that cannot be had.
    """
    if dataset == "drawn":
        return drawn_digits.load(data_dir=data.dir)
    return mnist.load(data_dir=data.dir, raw_dir=data.raw_dir)


def draw_digits(images, labels, read, title: str, path: Path) -> None:
    """A grid of digits and what was read: up to half of them mistakes, in red, the others right."""
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    axes = figure.subplots(*GRID).flat
    wrong, right = np.flatnonzero(read != labels), np.flatnonzero(read == labels)
    order = np.concatenate([wrong[: GRID[0] * GRID[1] // 2], right])
    for axis, number in zip(axes, order, strict=False):
        axis.imshow(images[number], cmap="Greys")
        told, colour = f"{read[number]}", "k"
        if number in wrong:
            told, colour = f"{told}, not {labels[number]}", "tab:red"
        axis.set_title(told, color=colour, fontsize=9)
    for axis in figure.axes:
        axis.set_axis_off()
    figure.suptitle(f"{title}; {len(wrong)} mistakes of {len(labels)}", fontsize=10)
    figure.savefig(path, dpi=120)
