"""A picture that experiments on digits share: what was read, mistakes first."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

GRID = (4, 10)


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
