"""One directory a task. `python -m experiments` lists them with their presets."""

import importlib
import pkgutil
from pathlib import Path


def names() -> list[str]:
    """The experiments: the directories here that have a train module."""
    folders = (module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)
    return sorted(name for name in folders if (Path(__path__[0]) / name / "train.py").exists())


def get(name: str):
    """The `Experiment` of that name."""
    return importlib.import_module(f"experiments.{name}.train").EXPERIMENT


def load_run(workdir):
    """Reads a trained run of any experiment back: (config, task, params, model_state).

    Parameters are those that were tested. With several seeds every leaf has a first axis of them,
    with one seed it has not.

    Raises:
      InputError: there is no run, or none with a checkpoint.
    """
    import jax

    from structdl.training.cli import restore_run
    from structdl.training.workdir import CONFIG, read_json

    workdir = Path(workdir)
    experiment = get(read_json(workdir / CONFIG)["experiment"])
    config, task, fit = restore_run(workdir, experiment)
    params, model_state = fit.selected
    if len(fit.seeds) == 1:
        params, model_state = jax.tree.map(lambda leaf: leaf[0], (params, model_state))
    return config, task, params, model_state
