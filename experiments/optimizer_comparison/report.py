"""What a study leaves to be read: results.csv, report.md and its pictures."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.optimizer_comparison import figures, landscape_figures
from experiments.optimizer_comparison.landscape_runs import NAME as LANDSCAPES_TASK
from experiments.optimizer_comparison.landscapes import LANDSCAPES
from experiments.optimizer_comparison.lecture import (
    BOWL,
    LEARNING_RATE,
    NOISES,
    RIDGE,
    Lecture,
    hold_lecture,
    overshoot,
    slowing,
    steps_until,
)
from experiments.optimizer_comparison.scores import bootstrap_ranks, profile_area
from experiments.optimizer_comparison.summary import Cell, Summary
from structdl.files import fill_whole, remove
from structdl.training.metrics import summarize

REPORT, SCORES, CSV = "report.md", "scores.md", "results.csv"
PICTURES = {
    "curves": "Validation loss at the chosen setting: medians, bands from the first to the ninth "
    "decile of the seeds.",
    "sensitivity": "Validation loss of every trial; crosses diverged, rings were chosen.",
    "budget": "The least validation loss that so many trials are expected to find; a line begins "
    "where they are more than those that diverged.",
    "profile": "On which share of the problems an optimizer takes at most so many times the steps "
    "of the fastest one.",
    "ranks": "Mean ranks.",
}
LANDSCAPE_PICTURES = {
    "trajectories.png": "Paths at the chosen settings: from the dot to the star, or away from the "
    "cross.",
    "surfaces.png": f"All at a learning rate of {LEARNING_RATE}.",
    "saddle.png": "The saddle x^2 - y^2. Much noise delays the rules that divide by it.",
    "descent.gif": "The same as a film.",
}


def write_report(
    summary: Summary,
    protocol: Mapping[str, Any],
    provenance: Sequence[Mapping[str, str]],
    folder: Path,
) -> None:
    """Writes a report and its pictures into a folder, all of them or none.

    Args:
      protocol: that of the study.
      provenance: of each part that was computed at once, by what and where.
      folder: that of the study; the files of an earlier report are replaced.
    """
    with fill_whole(folder, within=folder) as fresh:
        _write_files(summary, protocol, provenance, fresh)
    if LANDSCAPES_TASK not in protocol["tasks"]:  # but the study that was overwritten had them
        for name in LANDSCAPE_PICTURES:
            remove(folder / name)


def _write_files(summary, protocol, provenance, folder: Path) -> None:
    _write_csv(summary, folder / CSV)
    (folder / SCORES).write_text(scores_table(summary) + "\n")
    figures.draw_study(summary, folder)
    parts = [_header(protocol, provenance), _scores(summary)]
    parts += [f"![{name}]({name}.png)\n\n{words}" for name, words in PICTURES.items()]
    if LANDSCAPES_TASK in protocol["tasks"]:
        num_steps = protocol["tasks"][LANDSCAPES_TASK]["num_steps"]
        lecture = hold_lecture(summary.optimizers, num_steps)
        colours = {name: figures.colour(summary, name) for name in summary.optimizers}
        landscape_figures.draw_landscapes(summary, lecture, colours, num_steps, folder)
        parts.append(_lecture(lecture))
        parts += [
            f"![{Path(name).stem}]({name})\n\n{words}" for name, words in LANDSCAPE_PICTURES.items()
        ]
    parts.append(_problems(summary))
    (folder / REPORT).write_text("\n\n".join(parts) + "\n")


def scores_table(summary: Summary) -> str:
    """One line an optimizer: the profile's area, its mean rank, and what was spent."""
    area = profile_area(summary.times())
    mean, low, high = bootstrap_ranks(summary.ends())
    rows = []
    for at, name in enumerate(summary.optimizers):
        cells = [summary.cells[problem, name] for problem in summary.problems]
        diverged = np.sum([cell.diverged for cell in cells], axis=0)
        reached = np.isfinite([cell.steps_to_target for cell in cells]).sum()
        rows.append(
            [
                name,
                f"{area[at]:.3f}",
                f"{reached} of {len(cells)}",
                f"{mean[at]:.2f} ({low[at]:.2f} to {high[at]:.2f})",
                f"{diverged[0]} of {sum(len(cell.trials) for cell in cells)}",
                f"{diverged[1]} of {sum(len(cell.seeds) for cell in cells)}",
                *(_spent(cells, field) for field in ("taken", "evaluations")),
                *(_spent(cells, field) for field in ("seconds", "compile_seconds")),
            ]
        )
    header = ["optimizer", "profile area", "targets reached", "mean rank (95 %)"]
    header += ["trials diverged", "seeds diverged", "steps", "gradients", "s", "s compiling"]
    return _table(header, rows)


def _spent(cells: list[Cell], field: str) -> str:
    values = [cell.spent(field) for cell in cells]
    form = ".1f" if "seconds" in field else ".0f"
    return "unknown" if None in values else f"{sum(values):{form}}"


def _header(protocol: Mapping[str, Any], provenance: Sequence[Mapping[str, str]]) -> str:
    spaces: dict[str, list[str]] = {}
    for name, space in protocol["optimizers"].items():
        words = ", ".join(f"{key} {low:g} to {high:g}" for key, (low, high) in space.items())
        spaces.setdefault(words, []).append(name)
    searched = "; ".join(f"{words} ({', '.join(names)})" for words, names in spaces.items())
    tasks = [f"{name}, {its['num_steps']} steps" for name, its in protocol["tasks"].items()]
    facts = [
        f"- tasks: {'; '.join(tasks)}",
        f"- searched, logarithms drawn quasi-randomly: {searched}",
        f"- {protocol['trials']} trials of each optimizer on each problem, chosen by validation "
        f"loss; then {protocol['num-seeds']} seeds, the same ones for all",
        *(
            f"- {'; '.join(f'{name} {value}' for name, value in part.items())}"
            for part in provenance
        ),
    ]
    return "# Optimizers compared\n\n" + "\n".join(facts)


def _scores(summary: Summary) -> str:
    return (
        "## Scores\n\n"
        f"{scores_table(summary)}\n\n"
        "The profile's area is the mean over r from 1 to 4 of the share of problems on which an "
        "optimizer takes at most r times the steps of the fastest to the target (AlgoPerf); the "
        f"target is the best optimizer's validation loss and {summary.share:g} of the way from "
        "there back to the largest loss of a first validation. Ranks are those of the validation "
        "loss at the chosen setting; a seed that diverged has the last. Gradients are "
        "evaluations, unknown for line searches."
    )


def _lecture(lecture: Lecture) -> str:
    slope = jax.vmap(jax.grad(LANDSCAPES[BOWL].function))
    rows = []
    for name, descent in lecture.paths[BOWL].items():
        beyond = overshoot(descent.points, LANDSCAPES[BOWL].targets[0])
        slow = slowing(descent, np.asarray(slope(descent.points)))
        left = steps_until(lecture.paths[RIDGE][name].heights, LANDSCAPES[RIDGE].lowest)
        escapes = np.median(lecture.escapes[name], axis=1)
        chosen = [escapes[NOISES.index(noise)] for noise in (0.0, NOISES[1], NOISES[-2])]
        rows.append([name, f"{beyond:.2f}", f"{slow:.2f}", *map(_steps, [left, *chosen])])
    header = ["optimizer", "overshoot", "last step : first", "steps to leave the saddle"]
    header += ["from its ridge", f"noise {NOISES[1]:.0e}", f"noise {NOISES[-2]:.0e}"]
    return (
        f"## What a lecture says, at a learning rate of {LEARNING_RATE} for all\n\n"
        f"{_table(header, rows)}\n\n"
        f"On {BOWL}: how far a path goes beyond the minimum, in parts of the way there, and what "
        "step a gradient of one makes at the end against the beginning: below 1 it slows down, "
        "above 1 steps are carried on, or scaled up, where the gradient has nearly vanished. "
        "On the saddle: the step at which its height is below -1, beginning beside the ridge, "
        "and on the ridge itself without and with noise in the gradient (medians)."
    )


def _problems(summary: Summary) -> str:
    parts = []
    for problem in summary.problems:
        cells = summary.of(problem)
        metrics = list(
            next(
                (each.outcome.test for cell in cells for each in cell.seeds if each.outcome.test),
                {},
            )
        )
        header = ["optimizer", "chosen", "validation loss", *(f"test {name}" for name in metrics)]
        header += [f"steps to {summary.targets[problem]:.4g}"]
        rows = [
            [
                cell.optimizer,
                _chosen(cell),
                _spread(cell.ends),
                *(_spread(cell.test(metric)) for metric in metrics),
                _steps(cell.steps_to_target),
            ]
            for cell in cells
        ]
        parts.append(f"### {problem}\n\n{_table(header, rows)}")
    return "## Problems\n\n" + "\n\n".join(parts)


def _chosen(cell: Cell) -> str:
    if cell.chosen is None:
        return "every trial diverged"
    words = []
    for name, value in cell.chosen.job.hyperparams.items():
        tried = [record.job.hyperparams[name] for record in cell.trials]
        edge = " (the least tried)" if value == min(tried) else ""
        edge = " (the most tried)" if value == max(tried) else edge
        words.append(f"{name} {value:.3g}{edge if len(tried) > 1 else ''}")
    return ", ".join(words)


def _spread(values: np.ndarray) -> str:
    """Mean and standard deviation of what is finite, and how many are not."""
    its = summarize(values)
    if its["mean"] is None:
        return "none"
    gone = len(values) - its["count"]
    return f"{its['mean']:.4g} ± {its['std']:.2g}" + (f" ({gone} diverged)" if gone else "")


def _steps(number: float) -> str:
    return f"{number:.0f}" if np.isfinite(number) else "never"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _write_csv(summary: Summary, path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(_row(summary, next(iter(summary.cells)))))
        writer.writeheader()
        writer.writerows(_row(summary, key) for key in summary.cells)


def _row(summary: Summary, key: tuple[str, str]) -> dict[str, Any]:
    cell = summary.cells[key]
    validation, tests = summarize(cell.ends), {}
    for metric in next((each.outcome.test for each in cell.seeds if each.outcome.test), {}):
        its = summarize(cell.test(metric))
        tests[metric] = [its["mean"], its["std"]]
    return {
        "problem": cell.problem,
        "optimizer": cell.optimizer,
        "hyperparams": json.dumps(cell.chosen.job.hyperparams if cell.chosen else None),
        "validation_mean": validation["mean"],
        "validation_std": validation["std"],
        "test_mean_std": json.dumps(tests),
        "target": summary.targets[cell.problem],
        "median_steps_to_target": cell.steps_to_target,
        "trials": len(cell.trials),
        "trials_diverged": cell.diverged[0],
        "seeds": len(cell.seeds),
        "seeds_diverged": cell.diverged[1],
        "steps": cell.spent("taken"),
        "gradient_evaluations": cell.spent("evaluations"),
        "seconds": round(cell.spent("seconds"), 3),
        "compile_seconds": round(cell.spent("compile_seconds"), 3),
    }
