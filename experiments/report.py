"""Prints the ledger over all experiments; --write renews the tables in the READMEs."""

import argparse
import re
from itertools import chain
from pathlib import Path

from experiments import get, names
from experiments.benchmarks import measure as benchmarks
from experiments.benchmarks.partition_memory import measure as partition_memory
from experiments.optimizer_comparison import compare
from structdl.training.experiment import unmeasured_rows
from structdl.training.ledger import format_table, read_rows

ROOT = Path(__file__).parent.parent
TABLE = re.compile(r"(<!-- results -->\n).*?(<!-- end of results -->)", re.DOTALL)


def tables() -> dict[Path, str]:
    """The table that belongs into each README, by its path; at the top what has been published."""
    rows = {get(name).directory: _rows(name) for name in names()}
    found = {directory / "README.md": format_table(each) for directory, each in rows.items()}
    compared = [row for row in chain.from_iterable(rows.values()) if row["published"] is not None]
    found[ROOT / "README.md"] = format_table(compared)
    measured = read_rows(benchmarks.DIRECTORY)
    found[benchmarks.DIRECTORY / "README.md"] = benchmarks.format_table(measured)
    measured = read_rows(partition_memory.DIRECTORY)
    found[partition_memory.DIRECTORY / "README.md"] = partition_memory.format_table(measured)
    found[compare.HERE / "README.md"] = compare.kept_scores()
    return found


def _rows(name: str) -> list[dict]:
    """An experiment's rows in the order of its presets, then what is not measured."""
    experiment = get(name)
    measured, order = read_rows(experiment.directory), list(experiment.presets)
    measured.sort(key=lambda row: (order.index(row["preset"]), *_in_order(row["dataset"])))
    return measured + unmeasured_rows(experiment, measured)


def _in_order(words: str) -> list[str]:
    """Words as a sort wants them: numbers by their size.

    >>> sorted(["16 layers", "2 layers"], key=_in_order)
    ['2 layers', '16 layers']
    """
    return [part.zfill(12) if part.isdigit() else part for part in re.split(r"(\d+)", words)]


def renewed(path: Path, table: str) -> str:
    """A README's text with its table between the markers."""
    text, count = TABLE.subn(lambda found: f"{found[1]}{table}\n{found[2]}", path.read_text())
    if count != 1:
        raise SystemExit(f"{path} needs one pair of the markers <!-- results --> and its end.")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.report", description=__doc__)
    parser.add_argument("--write", action="store_true", help="renew the tables in the READMEs")
    options = parser.parse_args()
    found = tables()
    print("\n\n".join(table for path, table in found.items() if path.parent != ROOT))
    if options.write:
        for path, table in found.items():
            path.write_text(renewed(path, table))


if __name__ == "__main__":
    main()
