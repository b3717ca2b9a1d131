"""One directory a task. `python -m experiments` lists them with their presets."""

import dataclasses
import importlib
import pkgutil
import sys
from pathlib import Path

from structdl.training.interrupts import leave_on_interrupt

if sys.argv[:1] == ["-m"]:  # Python is about to run one of these modules as a program
    leave_on_interrupt()


def names() -> list[str]:
    """The experiments: the directories here that have a train module."""
    folders = (module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)
    return sorted(name for name in folders if (Path(__path__[0]) / name / "train.py").exists())


def get(name: str):
    """The `Experiment` of that name."""
    return importlib.import_module(f"experiments.{name}.train").EXPERIMENT


def load_run(workdir, *, data_dir=None, raw_dir=None):
    """Reads a trained run of any experiment back: (config, task, params, model_state).

    Parameters are those that were tested. With several seeds every leaf has a first axis of them,
    with one seed it has not.

    Args:
      workdir: that of the run.
      data_dir, raw_dir: folders of prepared and of raw data, as `--data.dir` and `--data.raw-dir`.
        Without either, they are those of the run; a data folder that only the run's config.json
        names is read, and nothing is prepared in it.

    Raises:
      InputError: there is no run, or none with a checkpoint; config.json is damaged; its data is
        not where the run says.
    """
    import jax

    from structdl.datasets.prepare import without_preparing_in
    from structdl.errors import require_known
    from structdl.training.cli import config_of_run, restore_run
    from structdl.training.run import DataConfig
    from structdl.training.workdir import read_record

    workdir = Path(workdir)
    name = read_record(workdir).experiment
    require_known("experiment", name, names())
    experiment = get(name)
    config = config_of_run(workdir, experiment)
    if data_dir or raw_dir:
        folders = (Path(folder) if folder else None for folder in (raw_dir, data_dir))
        config, named_by_run = dataclasses.replace(config, data=DataConfig(*folders)), None
    else:
        named_by_run = config.data.dir
    with without_preparing_in(named_by_run):
        config, task, fit = restore_run(workdir, experiment, config)
    params, model_state = fit.selected
    if len(fit.seeds) == 1:
        params, model_state = jax.tree.map(lambda leaf: leaf[0], (params, model_state))
    return config, task, params, model_state
