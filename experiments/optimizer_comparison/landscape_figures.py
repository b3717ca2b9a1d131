"""Pictures of landscapes: paths on contours and on surfaces, a film of them, and the saddle."""

from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.optimizer_comparison.descent import Descent
from experiments.optimizer_comparison.figures import add_legend
from experiments.optimizer_comparison.landscape_runs import go_down, lane_of
from experiments.optimizer_comparison.landscapes import LANDSCAPES
from experiments.optimizer_comparison.lecture import LEARNING_RATE, NOISES, RIDGE, Lecture
from experiments.optimizer_comparison.summary import Summary

Paths = Mapping[str, Descent]  # by optimizer
Colours = Mapping[str, str]  # of optimizers

GRID = 120  # heights along each side of a picture
ON_SURFACES = 200  # steps of a path; more would hide the surface
FRAMES, FRAMES_A_SECOND = 48, 8


def draw_landscapes(
    summary: Summary, lecture: Lecture, colours: Colours, num_steps: int, folder: Path
) -> None:
    """Writes trajectories.png, surfaces.png, saddle.png and descent.gif."""
    draw_trajectories(chosen_paths(summary, num_steps), colours, folder / "trajectories.png")
    draw_surfaces(lecture, colours, folder / "surfaces.png")
    draw_saddle(lecture, colours, folder / "saddle.png")
    animate(lecture, colours, folder / "descent.gif")


def chosen_paths(summary: Summary, num_steps: int) -> dict[str, Paths]:
    """By landscape, the first seed's path at the setting that was chosen for each optimizer."""
    paths: dict[str, dict[str, Descent]] = {name: {} for name in LANDSCAPES}
    for optimizer in summary.optimizers:
        cells = [summary.cells[name, optimizer] for name in LANDSCAPES]
        cells = [cell for cell in cells if cell.seeds]
        if not cells:
            continue
        descents = go_down(optimizer, [lane_of(cell.seeds[0].job) for cell in cells], num_steps)
        for at, cell in enumerate(cells):
            paths[cell.problem][optimizer] = Descent(*(leaf[at] for leaf in descents))
    return paths


def heights_on_grid(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x, y, height) over a landscape's box, each [GRID, GRID]."""
    its = LANDSCAPES[name]
    (left, below), (right, above) = its.box
    x, y = np.meshgrid(np.linspace(left, right, GRID), np.linspace(below, above, GRID))
    points = jnp.asarray(np.stack([x, y], axis=-1).reshape(-1, 2))
    return x, y, np.asarray(jax.vmap(its.function)(points)).reshape(x.shape)


def _drawn_height(name: str, height: np.ndarray) -> np.ndarray:
    """The logarithm above the lowest where heights go over decades, else the height."""
    its = LANDSCAPES[name]
    above = np.maximum(height - its.lowest, 0.0)
    logarithmic = not its.is_saddle and name != "Gaussians"
    return np.log10(above + 1e-3 * np.max(above)) if logarithmic else height


def _draw_contours(axis: Axes, name: str) -> None:
    its = LANDSCAPES[name]
    x, y, height = heights_on_grid(name)
    axis.contourf(x, y, _drawn_height(name, height), levels=24, cmap="Greys", alpha=0.6)
    marker = "x" if its.is_saddle else "*"
    axis.plot(*np.transpose(its.targets), marker, color="k", markersize=9)
    axis.plot(*its.start, "o", color="k", markersize=5)
    (left, below), (right, above) = its.box
    axis.set_xlim(left, right)
    axis.set_ylim(below, above)
    axis.set_title(name, fontsize=10)


def draw_trajectories(paths: Mapping[str, Paths], colours: Colours, path: Path) -> None:
    """Each landscape's contours, and the path of each optimizer on them.

    A dot is the start, a star the least height, a cross the saddle.
    """
    columns = 3
    figure = Figure(figsize=(4 * columns, 3.3 * -(-len(paths) // columns)), layout="constrained")
    axes = figure.subplots(-(-len(paths) // columns), columns, squeeze=False).flat
    for axis, (name, of_name) in zip(axes, paths.items(), strict=False):
        _draw_contours(axis, name)
        for optimizer, descent in of_name.items():
            axis.plot(*descent.points.T, color=colours[optimizer], linewidth=1.2, label=optimizer)
    for axis in list(figure.axes)[len(paths) :]:
        axis.remove()
    add_legend(figure, "outside upper center")
    figure.savefig(path, dpi=90)


def draw_surfaces(lecture: Lecture, colours: Colours, path: Path) -> None:
    """The lecture's landscapes in three dimensions, with the first steps at one learning rate."""
    figure = Figure(figsize=(5 * len(lecture.paths), 4.8), layout="constrained")
    for at, (name, paths) in enumerate(lecture.paths.items(), start=1):
        axis = figure.add_subplot(1, len(lecture.paths), at, projection="3d", computed_zorder=False)
        x, y, height = heights_on_grid(name)
        axis.plot_surface(x, y, height, cmap="Greys", alpha=0.5, rcount=40, ccount=40)
        (left, below), (right, above) = LANDSCAPES[name].box
        for optimizer, descent in paths.items():
            px, py = descent.points[:ON_SURFACES].T
            seen = (left <= px) & (px <= right) & (below <= py) & (py <= above)
            along = (px, py, descent.heights[:ON_SURFACES])
            drawn = [np.where(seen, each, np.nan) for each in along]
            axis.plot(*drawn, color=colours[optimizer], label=optimizer, zorder=10)
        axis.set_title(name)
        axis.view_init(elev=35, azim=-60)
    add_legend(figure, "outside lower center")
    figure.savefig(path, dpi=90)


def draw_saddle(lecture: Lecture, colours: Colours, path: Path) -> None:
    """How far from the saddle point each is, and how much noise it takes to leave its ridge."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for optimizer, descent in lecture.paths[RIDGE].items():
        distances = np.linalg.norm(descent.points, axis=1)[: int(descent.taken) + 1]
        left.plot(distances, color=colours[optimizer], label=optimizer)
    left.set_yscale("log")
    left.set_xlabel("step, until the saddle is left")
    left.set_ylabel("distance to the saddle point")
    left.set_title(f"from beside the ridge, learning rate {LEARNING_RATE}")
    left.legend(frameon=False)
    for optimizer, steps in lecture.escapes.items():
        medians = np.median(steps, axis=1)
        right.plot(NOISES[1:], medians[1:], marker=".", color=colours[optimizer], label=optimizer)
    right.set_xscale("log")
    if any(np.isfinite(np.median(steps, axis=1)[1:]).any() for steps in lecture.escapes.values()):
        right.set_yscale("log")  # which an axis without any point cannot be
    right.set_xlabel("standard deviation of the gradient's noise")
    right.set_ylabel("median steps until the saddle is left")
    stay = all(np.isinf(steps[0]).all() for steps in lecture.escapes.values())
    right.set_title("from the ridge" + ("; without noise none ever leaves" if stay else ""))
    figure.savefig(path, dpi=100)


def animate(lecture: Lecture, colours: Colours, path: Path) -> None:
    """A film of the lecture's landscapes; its steps grow, since most happens early."""
    figure = Figure(figsize=(4 * len(lecture.paths), 4.2), layout="constrained")
    axes = figure.subplots(1, len(lecture.paths))
    lines = {}
    for axis, (name, paths) in zip(axes, lecture.paths.items(), strict=True):
        _draw_contours(axis, name)
        for optimizer, descent in paths.items():
            color = colours[optimizer]
            (line,) = axis.plot([], [], color=color, linewidth=1.2, label=optimizer)
            (head,) = axis.plot([], [], "o", color=color, markersize=5)
            lines[name, optimizer] = line, head, descent.points
    add_legend(figure, "outside lower center")
    title = figure.suptitle("step 0")
    last = len(next(iter(lines.values()))[2]) - 1
    steps = np.unique(np.geomspace(1, last, FRAMES).round().astype(int))

    def draw(step: int):
        for line, head, points in lines.values():
            line.set_data(*points[: step + 1].T)
            head.set_data(*points[step][:, None])
        title.set_text(f"step {step}, learning rate {LEARNING_RATE}")
        return []

    film = FuncAnimation(figure, draw, frames=steps, cache_frame_data=False)
    film.save(path, writer=PillowWriter(fps=FRAMES_A_SECOND), dpi=70)
