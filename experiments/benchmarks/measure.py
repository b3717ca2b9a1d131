"""The command line of the benchmarks, and their tables."""

import argparse
import importlib
import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from experiments.benchmarks.alternate import measure, rows
from experiments.benchmarks.figures import draw_scaling
from structdl.errors import InputError
from structdl.training import ledger

DIRECTORY = Path(__file__).parent
FAMILIES = ("graphs", "sequences", "grid_lstm", "relational", "optimizers")
ON_GPU = ("grid_lstm", "relational")  # whose peers take a GPU where there is one, as JAX does
VERSIONS = ("jax", "optax", "torch", "torch-geometric")
KEY = ("family", "case", "peer", "device", "threads")


def main(argv: list[str] | None = None) -> None:
    """Measures a family, prints its rows, and writes them where asked."""
    options = parse(argv)
    try:
        found = measure_family(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.record:
        ledger.record(DIRECTORY, found, KEY)
        draw_scaling(ledger.read_rows(DIRECTORY), DIRECTORY / "scaling.png")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks",
        description="Measures structdl against its peers on this machine, in one run: "
        "ratio = peer / structdl, of medians of alternating runs.",
    )
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to a file")
    parser.add_argument("--record", action="store_true", help="keep the rows for the README")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name has TEXT")
    parser.add_argument("--rounds", type=int, help="runs of each side (15; 5 of whole processes)")
    parser.add_argument("--threads", type=int, default=_threads(), help="of every side")
    return parser.parse_args(argv)


def measure_family(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of a family, printed as they come."""
    _require_peers()
    device, on_gpu = _device(options.family)
    if options.record:
        ledger.require_clean_tree(DIRECTORY)
    module = f"experiments.benchmarks.{options.family}"
    cases = [case for case in importlib.import_module(module).CASES if options.only in case.name]
    if not cases:
        raise InputError(f"no case of {options.family} has {options.only!r} in its name.")
    setting = {
        "family": options.family,
        "threads": options.threads,
        "device": device,
        "versions": {name: metadata.version(name) for name in VERSIONS},
        "commit": ledger.provenance(DIRECTORY),
        "date": ledger.today(),
    }
    found = []
    print(format_table([]))
    for case in tqdm(cases, unit="case", disable=None):
        milliseconds = measure(module, case, threads=options.threads, rounds=options.rounds)
        new = [setting | row for row in rows(case, milliseconds, on_gpu=on_gpu)]
        tqdm.write("\n".join(format_table(new).splitlines()[2:]))
        found += new
    return found


def format_table(found: list[dict[str, Any]]) -> str:
    """A Markdown table: medians with quartiles in ms, and their ratio beside what is hoped for."""
    lines = [
        "| case | structdl ms | peer | peer ms | ratio | goal |",
        "|---|---|---|---|---|---|",
    ]
    for row in found:
        ours, theirs = (
            f"{_number(row[f'{side}_ms'])} ({' - '.join(map(_number, row[f'{side}_quartiles']))})"
            for side in ("structdl", "peer")
        )
        goal = f"{row['goal']:g}" if row["goal"] else ""
        ratio = f"{row['ratio']:.2f}"
        lines.append(f"| {_case(row)} | {ours} | {row['peer']} | {theirs} | {ratio} | {goal} |")
    return "\n".join(lines)


def _case(row: dict[str, Any]) -> str:
    """Rows of a CPU are the rule and do not name it."""
    device = row.get("device", "CPU")
    return row["case"] if "CPU" in device else f"{row['case']}, on {device}"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _device(family: str) -> tuple[str, bool]:
    """Where a family computes, in words, and whether that is a GPU; the sides are told as well."""
    # each side has a process of its own, and the first would take most of a GPU's memory
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if family in ON_GPU and jax.default_backend() == "gpu":
        return f"1 x {jax.devices()[0].device_kind}", True
    os.environ["JAX_PLATFORMS"] = "cpu"
    return f"{platform.machine()} CPU, {os.cpu_count()} cores", False


def _require_peers() -> None:
    for package in ("torch", "torch-geometric"):
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            raise InputError(
                f"{package} is not installed: pip install -e '.[peers]' brings the peers."
            ) from None
