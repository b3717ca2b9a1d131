"""The command line of the comparison."""

import dataclasses
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import tyro
from annotated_types import Ge, Gt, Lt

from experiments.optimizer_comparison.landscape_runs import NAME as LANDSCAPES, landscape_workload
from experiments.optimizer_comparison.report import REPORT, SCORES, scores_table, write_report
from experiments.optimizer_comparison.search import parse_spaces
from experiments.optimizer_comparison.study import PROVENANCE, Study, run_study
from experiments.optimizer_comparison.summary import summarize
from experiments.optimizer_comparison.task_runs import task_workload
from experiments.optimizer_comparison.workload import Workload
from structdl.errors import InputError
from structdl.files import read_json
from structdl.training import ledger
from structdl.training.cli import device, mendable, versions
from structdl.training.ranges import PositiveInt, check_ranges, in_range
from structdl.training.run import DataConfig
from structdl.training.runtime import keep_compiled_programs, keep_freed_memory
from structdl.training.update_rules import UPDATE_RULES
from structdl.training.workdir import naming_workdir

HERE, REPORTS = Path(__file__).parent, "reports"
LANDSCAPE_STEPS = 1000


@dataclasses.dataclass(frozen=True)
class Config:
    """Optimizers compared, by default the five of a first lecture on eighteen landscapes."""

    tasks: tuple[str, ...] = (LANDSCAPES,)
    """landscapes[:STEPS], or EXPERIMENT:PRESET[:STEPS] for any preset of any experiment."""
    optimizers: tuple[str, ...] = tuple(UPDATE_RULES)
    """Any of optax. The five have the options of their equations, others optax's defaults."""
    search: tuple[str, ...] = ()
    """OPTIMIZER.HYPERPARAMETER=LOW:HIGH; by default the learning rate, from 1e-5 to 10."""
    trials: PositiveInt = 15
    """Of each optimizer on each problem."""
    num_seeds: PositiveInt = 5
    """At the setting that validation chose, the same ones for all optimizers."""
    search_seed: in_range(int, Ge(0), Lt(2**32)) = 0
    """Of the quasi-random sequence of trials."""
    target: in_range(float, Gt(0), Lt(1)) = 0.02
    """The part of the way back from the best loss to the start that still counts as solved."""
    data: DataConfig = DataConfig()
    workdir: Path | None = None
    """Where the study is kept; by default runs/optimizer_comparison/HASH. It resumes there."""
    overwrite: bool = False
    """Start again, removing what the workdir holds of the study before."""
    record: str = ""
    """Keep the report beside the README under this name; the code must be committed."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a study; what the user can mend ends in one paragraph and exit code 2."""
    with mendable():
        compare(parse(sys.argv[1:] if argv is None else list(argv)))


def parse(argv: Sequence[str]) -> Config:
    """The options."""
    prog = "python -m experiments.optimizer_comparison"
    return tyro.cli(Config, prog=prog, args=list(argv), config=(tyro.conf.FlagCreatePairsOff,))


def compare(config: Config) -> Path:
    """Runs a study, writes its report and prints its scores; returns its folder.

    Raises:
      InputError: see `parse_spaces`, `task_workload`, `run_study`; a target out of its range; a
        report's name that is a path.
    """
    check_ranges(config)
    keep_compiled_programs()
    keep_freed_memory()
    if config.record:
        _require_name(config.record)
        ledger.require_clean_tree(HERE)
    spaces = parse_spaces(config.optimizers, config.search)
    workloads = [_workload(words, config.data) for words in dict.fromkeys(config.tasks)]
    if not workloads:
        raise InputError("there is no task to compare optimizers on: name some after --tasks.")
    study = Study(workloads, spaces, config.trials, config.num_seeds, config.search_seed)
    protocol = study.protocol()
    path = config.workdir or _default_workdir(protocol)
    provenance = {
        "commit": ledger.provenance(HERE) or "unknown",
        "machine": device(),
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "date": ledger.today(),
    }
    records = run_study(study, path, overwrite=config.overwrite, provenance=provenance)
    summary = summarize(records, config.target)
    with naming_workdir(path):
        write_report(summary, protocol, read_json(path / PROVENANCE), path)
    print(f"{scores_table(summary)}\n{path / REPORT}")
    if config.record:
        _keep(path, HERE / REPORTS / config.record)
    return path


def kept_scores() -> str:
    """The tables of scores of the reports that are kept, for the README."""
    files = sorted((HERE / REPORTS).glob(f"*/{SCORES}"))
    return "\n\n".join(
        f"[{file.parent.name}]({REPORTS}/{file.parent.name}/{REPORT}):\n\n{file.read_text()}".strip()
        for file in files
    )


def _require_name(record: str) -> None:
    """What is kept under a name replaces the folder of that name, which no path may lead out of."""
    if not re.fullmatch(r"\w[\w.-]*", record):
        raise InputError(
            f"--record is {record!r}: give a name of letters, digits, dots and dashes; the report "
            f"is kept in {HERE.name}/{REPORTS}/NAME."
        )


def _keep(path: Path, kept: Path) -> None:
    """Copies a report and its pictures, without the runs that it was made of."""
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for file in path.iterdir():
        if file.suffix in (".md", ".csv", ".png", ".gif"):
            shutil.copy(file, kept)


def _workload(words: str, data: DataConfig) -> Workload:
    name, *steps = words.split(":")
    if name != LANDSCAPES:
        return task_workload(words, data)
    if steps and not (len(steps) == 1 and steps[0].isdecimal()):
        raise InputError(f"--tasks has {words!r}, which is not of the form {LANDSCAPES}[:STEPS]")
    return landscape_workload(int(steps[0]) if steps else LANDSCAPE_STEPS)


def _default_workdir(protocol: dict) -> Path:
    text = json.dumps(protocol, sort_keys=True)
    names = "-".join(name.split(":")[-1] for name in protocol["tasks"])
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return Path("runs") / "optimizer_comparison" / f"{names}-{digest}"
