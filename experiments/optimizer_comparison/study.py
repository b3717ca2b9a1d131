"""The protocol: as many trials for every optimizer, a choice by validation, then paired seeds."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from experiments.optimizer_comparison.search import Space, quasi_random
from experiments.optimizer_comparison.workload import Job, Outcome, Workload
from structdl.errors import InputError
from structdl.files import PART, read_json, remove, write_json, write_whole
from structdl.training.workdir import held, naming_workdir

PROTOCOL, PROVENANCE, RUNS = "protocol.json", "provenance.json", "runs"
UNFINISHED = "unfinished"
TRIAL, SEED = "trial", "seed"


class Record(NamedTuple):
    """A run and where it stands in the study.

    Fields:
      phase: TRIAL, of the search, or SEED, at the hyperparameters that were chosen.
      number: which of the trials or of the seeds; equal numbers are paired over optimizers.
    """

    phase: str
    optimizer: str
    number: int
    job: Job
    outcome: Outcome


class Study(NamedTuple):
    """What is compared.

    Fields:
      workloads: where.
      spaces: what is searched of each optimizer.
      num_trials: of each optimizer on each problem.
      num_seeds: at the setting that was chosen.
      search_seed: of the quasi-random sequence, which is one for all optimizers.
    """

    workloads: Sequence[Workload]
    spaces: dict[str, Space]
    num_trials: int
    num_seeds: int
    search_seed: int

    def protocol(self) -> dict[str, Any]:
        """All that decides the outcomes, as JSON has it."""
        decides = {
            "tasks": {workload.name: workload.protocol for workload in self.workloads},
            "optimizers": self.spaces,
            "trials": self.num_trials,
            "num-seeds": self.num_seeds,
            "search-seed": self.search_seed,
        }
        return json.loads(json.dumps(decides))


def run_study(
    study: Study,
    path: Path,
    *,
    overwrite: bool = False,
    provenance: Mapping[str, str] = MappingProxyType({}),
) -> list[Record]:
    """Runs what the folder does not hold yet; the outcomes of all.

    Trials have the seeds 0, 1, ... and the chosen setting those that follow them. What comes of
    a trial is known by its validation alone; test metrics of trials are looked at by nobody.

    Args:
      overwrite: whether what the folder holds is given up.
      provenance: by what and where; kept in the folder with what earlier processes were.

    Raises:
      InputError: the folder is in use, or holds a study of another protocol;
        one task twice; a problem on which every trial of every optimizer diverged.
    """
    _require_different(study.workloads)
    with held(path):
        _claim(path, study.protocol(), overwrite)
        records: list[Record] = []
        stages = [(workload, name) for workload in study.workloads for name in study.spaces]
        last = list(study.spaces)[-1]
        for workload, name in tqdm(stages, unit="optimizer", disable=None):
            for phase in (TRIAL, SEED):
                records += _stage(study, workload, name, phase, records, path, provenance)
            if name == last:  # not after tasks that may take hours more
                for problem in workload.problems:
                    _require_survivor(problem, records)
    return records


def chosen_trial(records: Sequence[Record], problem: str, optimizer: str) -> Record | None:
    """The trial of the least validation loss, and of those the fastest; None if all diverged."""
    survivors = [
        record
        for record in records
        if (record.phase, record.job.problem, record.optimizer) == (TRIAL, problem, optimizer)
        and not record.outcome.diverged
    ]

    def order(record: Record):
        return record.outcome.selected, float(np.mean(record.outcome.validation)), record.number

    return min(survivors, key=order, default=None)


def _stage(
    study: Study,
    workload: Workload,
    name: str,
    phase: str,
    records: Sequence[Record],
    path: Path,
    provenance: Mapping[str, str],
) -> list[Record]:
    """A phase of an optimizer on a workload, from the folder where it is there already."""
    stage = f"{workload.name.replace(':', '-')}-{name}-{phase}"
    file, unfinished = path / RUNS / f"{stage}.jsonl", path / UNFINISHED / stage
    if file.exists():
        return [_record(json.loads(line)) for line in file.read_text().splitlines()]
    numbered = _jobs(study, workload, name, phase, records)
    if not numbered:
        return []
    with naming_workdir(path):
        unfinished.mkdir(parents=True, exist_ok=True)
        _add_provenance(path, provenance)
    jobs = [job for _, job in numbered]
    outcomes = workload.run(name, jobs, unfinished)
    found = [
        Record(phase, name, number, job, outcome)
        for (number, job), outcome in zip(numbered, outcomes, strict=True)
    ]
    with naming_workdir(path):
        file.parent.mkdir(exist_ok=True)
        write_whole(file, "".join(map(_line, found)))
        shutil.rmtree(unfinished)
    return found


def _add_provenance(path: Path, provenance: Mapping[str, str]) -> None:
    file = path / PROVENANCE
    known = read_json(file) if file.exists() else []
    if dict(provenance) not in known:
        write_json(file, [*known, dict(provenance)])


def _jobs(
    study: Study, workload: Workload, name: str, phase: str, records: Sequence[Record]
) -> list[tuple[int, Job]]:
    if phase == TRIAL:
        trials = quasi_random(study.spaces[name], study.num_trials, study.search_seed)
        return [
            (number, Job(problem, hyperparams, seed=number))
            for problem in workload.problems
            for number, hyperparams in enumerate(trials)
        ]
    chosen = [chosen_trial(records, problem, name) for problem in workload.problems]
    return [
        (number, record.job._replace(seed=study.num_trials + number))
        for record in chosen
        if record
        for number in range(study.num_seeds)
    ]


def _require_different(workloads: Sequence[Workload]) -> None:
    """Records are kept by a task's name: of two the second would find those of the first."""
    names = [workload.name for workload in workloads]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"--tasks has {name} more than once: give each task once, or a study of its own "
                "for each number of steps."
            )


def _require_survivor(problem: str, records: Sequence[Record]) -> None:
    trials = [
        record for record in records if record.phase == TRIAL and record.job.problem == problem
    ]
    if all(record.outcome.diverged for record in trials):
        raise InputError(
            f"on {problem} every trial of every optimizer diverged: search lower learning rates, "
            f"say --search {trials[0].optimizer}.learning_rate=1e-7:1e-3, in another --workdir."
        )


def _claim(path: Path, protocol: dict[str, Any], overwrite: bool) -> None:
    """Refuses a folder of something else; removes what `--overwrite` gives up."""
    file = path / PROTOCOL
    if not file.exists() and any(entry.name != ".lock" for entry in path.iterdir()):
        raise InputError(f"{path} is not empty and not a study: give another --workdir.")
    if file.exists() and not overwrite:
        before = read_json(file)
        if not isinstance(before, dict):
            raise InputError(f"{file} does not describe a study; was it edited by hand?")
        changes = [
            f"{name} was {before.get(name)} and is {value}"
            for name, value in protocol.items()
            if before.get(name) != value
        ]
        if changes:
            raise InputError(
                f"{path} holds a study of another protocol: {'; '.join(changes)}. Give another "
                "--workdir to keep both, or --overwrite to start again there."
            )
    with naming_workdir(path):
        for leftover in path.glob(f"*{PART}"):
            remove(leftover)
        if overwrite:
            for name in (PROVENANCE, RUNS, UNFINISHED):
                remove(path / name)
        write_json(file, protocol)


def _line(record: Record) -> str:
    outcome = record.outcome._asdict()
    if record.outcome.diverged:
        outcome["selected"] = None  # JSON has no infinity
    placed = {"phase": record.phase, "optimizer": record.optimizer, "number": record.number}
    return json.dumps(placed | record.job._asdict() | outcome) + "\n"


def _record(row: dict[str, Any]) -> Record:
    if row["selected"] is None:
        row["selected"] = float("inf")
    job = Job(*(row[name] for name in Job._fields))
    outcome = Outcome(*(row[name] for name in Outcome._fields))
    return Record(row["phase"], row["optimizer"], row["number"], job, outcome)
