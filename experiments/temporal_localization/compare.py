"""The gain of one finished run over another, seed by seed, with its confidence interval."""

import argparse
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from structdl.errors import InputError
from structdl.files import read_json
from structdl.training.workdir import SUMMARY

MEASURES = ("map_50", "map_75", "map_95", "map_average", "map_average_rare")


def gains(run: Path, baseline: Path) -> dict[str, np.ndarray]:
    """What the test figures of `run` are above those of `baseline`, [num_seeds], by measure.

    Raises:
      InputError: the runs do not have the same seeds, or one of a seed diverged.
    """
    summaries = [read_json(path / SUMMARY) for path in (run, baseline)]
    seeds = [summary["config"]["run"]["seed"] for summary in summaries]
    found = {}
    for name in MEASURES:
        values = [summary["metrics"][f"test_{name}"]["values"] for summary in summaries]
        same = seeds[0] == seeds[1] and len(values[0]) == len(values[1])
        if not same or any(None in its for its in values):
            raise InputError(
                f"{run} and {baseline} have no figures of the same seeds: train both with the same "
                "--seed and --num-seeds"
            )
        found[name] = np.subtract(*values)
    return found


def interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean of paired differences.

    Raises:
      InputError: fewer than two of them.

    >>> low, high = interval(np.array([1.0, 2.0, 3.0]))
    >>> round(low, 2), round(high, 2)
    (-0.48, 4.48)
    """
    if len(values) < 2:
        raise InputError("one seed has no interval: train with --num-seeds 2 or more")
    error = stats.sem(values)
    if error == 0:
        return float(values.mean()), float(values.mean())
    low, high = stats.t.interval(confidence, len(values) - 1, values.mean(), error)
    return float(low), float(high)


def draw_gains(found: dict[str, np.ndarray], path: Path) -> None:
    """Each seed's gain, with its mean and the interval of the mean."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    axis.axhline(0, color="0.7", linewidth=1)
    for place, values in enumerate(found.values()):
        spread = place + np.linspace(-0.15, 0.15, len(values))
        axis.plot(spread, 100 * values, ".", color="C0", alpha=0.5)
        low, high = interval(values)
        bars = [[100 * (values.mean() - low)], [100 * (high - values.mean())]]
        axis.errorbar(place, 100 * values.mean(), bars, fmt="o", color="C1", capsize=4)
    axis.set_xticks(range(len(found)), [name.replace("_", " ") for name in found])
    axis.set(ylabel="gain, percentage points", title="gain of each seed; mean and 95 % interval")
    figure.savefig(path, dpi=110)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Gain of RUN over BASELINE, paired by seed.")
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("baseline", type=Path, help="folder of the run to compare with")
    parser.add_argument("--picture", type=Path, help="where to draw the gains")
    options = parser.parse_args(argv)
    try:
        found = gains(options.run, options.baseline)
        for name, values in found.items():
            low, high = interval(values)
            print(
                f"{name:18} {100 * values.mean():+6.2f} points, 95 % interval {100 * low:+.2f} to "
                f"{100 * high:+.2f} ({len(values)} seeds)"
            )
        if options.picture:
            draw_gains(found, options.picture)
    except (InputError, OSError) as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
