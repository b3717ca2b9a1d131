"""The ledger of measured figures: results.json beside an experiment, one row a figure."""

import datetime
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from structdl.errors import InputError
from structdl.files import read_json, write_json

RESULTS = "results.json"
CHANGED = "+changes"
MEASURED = (RESULTS, ".md", ".png", ".gif", ".csv")  # how the names of what it changes end
KEY = ("preset", "dataset", "metric", "device")

IN_PERCENT = ("accuracy", "auc", "average_precision", "f1")  # how such a metric's name ends


def read_rows(directory: Path) -> list[dict[str, Any]]:
    """The rows of an experiment; none where nothing is recorded."""
    file = directory / RESULTS
    return read_json(file) if file.exists() else []


def record(directory: Path, rows: list[dict[str, Any]], key: Sequence[str] = KEY) -> None:
    """Adds rows to a directory's ledger; one of the same key is replaced."""
    fresh = {tuple(row[name] for name in key): row for row in read_rows(directory)}
    fresh |= {tuple(row[name] for name in key): row for row in rows}
    write_json(directory / RESULTS, [fresh[name] for name in sorted(fresh)])


def require_clean_tree(directory: Path) -> None:
    """Raises InputError where the code that is about to be measured is not committed.

    Ledgers, READMEs, reports and pictures may be changed: they are what a measurement changes.
    """
    if code := _changed_code(directory):
        raise InputError(
            f"--record measures a commit, and {code[0]} is not committed"
            f"{f' (nor {len(code) - 1} more)' if len(code) > 1 else ''}: commit first."
        )


def _changed_code(directory: Path) -> list[str]:
    changed = [line[3:] for line in _git(directory, "status", "--porcelain", "-uall").splitlines()]
    return [name for name in changed if not name.endswith(MEASURED)]


def provenance(directory: Path) -> str:
    """The commit that is checked out, 12 digits; marked where code differs; "" without git."""
    try:
        head = _git(directory, "rev-parse", "HEAD").strip()[:12]
        return head + (CHANGED if _changed_code(directory) else "")
    except InputError:
        return ""


def today() -> str:
    """The date of a measurement, as in 2026-12-31."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def _git(directory: Path, *args: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *args], capture_output=True, text=True, check=True
        )
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise InputError(f"--record needs a git checkout around {directory}: {error}") from None
    return done.stdout


def format_table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table of the ledger's rows: published, ours, and the gap between them.

    A row whose mean is None says what is not measured.
    """
    header = "| system | data | metric | published | ours | gap | seeds | steps | s | machine |"
    lines = [header, "|" + "---|" * header.count(" | ") + "---|"]
    return "\n".join(lines + [f"| {' | '.join(_cells(row))} |" for row in rows])


def _cells(row: dict[str, Any]) -> list[str]:
    scale, unit = (100, " %") if row["metric"].endswith(IN_PERCENT) else (1, "")
    published = "" if row["published"] is None else f"{row['published'] * scale:.4g}{unit}"
    if row["mean"] is None:
        measured = ["not measured", *[""] * 5]
    else:
        gap = row["published"] is not None
        # a loss of 5e-5 would be 0.00
        small = abs(row["mean"]) < 0.1 and not unit
        digits, less = (".3g", ".2g") if small else (".2f", ".2f")
        measured = [
            f"{row['mean'] * scale:{digits}} ± {row['std'] * scale:{less}}{unit}",
            f"{(row['mean'] - row['published']) * scale:+{less}}" if gap else "",
            str(row["seeds"]),
            f"{row['steps']:.0f}",
            f"{row['seconds']:.0f}",
            row["device"],
        ]
    system = f"{row['system']} (`{row['preset']}`){' (proxy)' if row['proxy'] else ''}"
    return [system, row["dataset"], row["metric"].replace("_", " "), published, *measured]
