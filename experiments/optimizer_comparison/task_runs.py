"""Any preset of any experiment as a workload, trained by the loop that all experiments share."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import experiments
from experiments.optimizer_comparison.search import optimizer_config, with_hyperparams
from experiments.optimizer_comparison.workload import (
    Job,
    Outcome,
    Workload,
    evaluates_objective,
)
from structdl.errors import InputError, require_known
from structdl.training.checkpoints import Checkpoints
from structdl.training.configs import identity
from structdl.training.logging import MetricsLog, Stopwatch, read_rows
from structdl.training.loop import Fit, fit
from structdl.training.measure import measure
from structdl.training.optimizers import OptimizerConfig, make_optimizer
from structdl.training.ranges import check_ranges
from structdl.training.run import DataConfig, Run
from structdl.training.workdir import CHECKPOINTS, METRICS

NEVER = 10**9  # validations without improvement after which a run would end
VALIDATIONS = 10  # of every run, at least, or its curve would say little


def task_workload(words: str, data: DataConfig) -> Workload:
    """EXPERIMENT:PRESET or EXPERIMENT:PRESET:STEPS.

    The preset's model, data, batches, schedule and clipping stay; its optimizer, its learning rate
    and its stopping rule do not: all runs take all steps, and those parameters are tested that had
    the least validation loss.

    Raises:
      InputError: an unknown experiment or preset, with the nearest names; steps that are no
        number; a preset without validations.
    """
    name, *rest = words.split(":")
    require_known("experiment in --tasks", name, experiments.names())
    experiment = experiments.get(name)
    preset, *steps = rest or [next(iter(experiment.presets))]
    require_known(f"preset of {name}", preset, experiment.presets)
    config = dataclasses.replace(experiment.presets[preset].config, data=data)
    run = _run(words, config.run, _number(words, steps, config.run.num_steps))
    config = dataclasses.replace(config, run=run)
    check_ranges(config)
    problem = f"{name}:{preset}"

    def train(name: str, jobs: Sequence[Job], folder: Path) -> list[Outcome]:
        chosen = with_hyperparams(optimizer_config(name, config.optimizer), jobs[0].hyperparams)
        task = experiment.make_task(dataclasses.replace(config, optimizer=chosen))
        task = task._replace(score="")  # what is tested is the least validation loss
        optimizer, stopwatch = make_optimizer(chosen), Stopwatch()
        seeds = dataclasses.replace(run, seed=jobs[0].seed, num_seeds=len(jobs))
        log = MetricsLog(folder, total_steps=len(jobs) * run.num_steps, every=run.log_every)
        try:
            result = fit(
                task,
                optimizer,
                seeds,
                hyperparams=[job.hyperparams for job in jobs],
                checkpoints=lambda group: Checkpoints(folder / CHECKPOINTS / group),
                log=log,
                stopwatch=stopwatch,
            )
        finally:
            log.close()
        measured = measure(task, seeds, result, stopwatch)
        return _outcomes(folder, result, measured, stopwatch, evaluates_objective(optimizer))

    kept = identity(dataclasses.replace(config, optimizer=OptimizerConfig()))
    return Workload(problem, (problem,), train, {"num_steps": run.num_steps} | kept)


def _number(words: str, steps: Sequence[str], default: int) -> int:
    if not steps:
        return default
    if len(steps) > 1 or not steps[0].isdecimal():
        raise InputError(
            f"--tasks has {words!r}, which is not of the form EXPERIMENT:PRESET[:STEPS]"
        )
    return int(steps[0])


def _run(words: str, run: Run, num_steps: int) -> Run:
    """A preset's run without its stopping rule, and with VALIDATIONS or more of them."""
    every = min(run.eval_every, max(1, num_steps // VALIDATIONS))
    if every == 0 or num_steps == 0:
        raise InputError(
            f"--tasks has {words!r}, which makes no validations to choose a trial by: give a "
            "preset that validates, and a step or more."
        )
    if every < run.eval_every:
        # one of them has to be a multiple of the other
        per_call = every if run.steps_per_call > 1 else 1
        run = dataclasses.replace(run, steps_per_call=per_call, log_every=every)
    run = dataclasses.replace(
        run,
        num_steps=num_steps,
        eval_every=every,
        stopping="patience",
        stopping_size=NEVER,
        num_seeds=1,
        seed=0,
    )
    run.validate()
    return run


def _outcomes(
    folder: Path, result: Fit, measured: dict, stopwatch: Stopwatch, searches: bool
) -> list[Outcome]:
    seconds, number = stopwatch.total(), len(result.seeds)
    curves = {seed: ([], []) for seed in result.seeds}
    for row in read_rows(folder / METRICS):
        if (loss := row.get("validation_loss")) is not None and np.isfinite(loss):
            steps, losses = curves[row["seed"]]
            steps.append(row["step"])
            losses.append(loss)
    found = []
    for at, seed in enumerate(result.seeds):
        loss = float(measured["validation_loss"][at])
        # a loss can be too large to validate while its gradient is finite
        diverged = bool(result.state.diverged[at]) or not np.isfinite(loss)
        taken = int(result.state.train.step[at])
        test = {
            name.removeprefix("test_"): float(values[at])
            for name, values in measured.items()
            if name.startswith("test_")
        }
        found.append(
            Outcome(
                *curves[seed],
                selected=np.inf if diverged else loss,
                test={} if diverged else test,
                taken=taken,
                diverged=diverged,
                evaluations=None if searches else taken,
                seconds=(seconds["train"] + seconds["evaluate"]) / number,
                compile_seconds=seconds["compile"] / number,
            )
        )
    return found
