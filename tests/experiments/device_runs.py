"""Prints, as JSON, the losses of an experiment's first steps, by how and on how many devices.

`python device_runs.py EXPERIMENT jit-2 pmap-4 ...`; the process needs as many devices. With
JAX_ENABLE_X64 parameters, data and batches are of 64 bits.
"""

import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from experiments import get
from structdl.training.logging import MetricsLog
from structdl.training.loop import fit
from structdl.training.optimizers import make_optimizer
from structdl.training.placement import EXAMPLES, divides
from structdl.training.task import Task

STEPS, ALL_NEIGHBOURS = 20, 400
AUGMENTATION = ("rotation", "scaling", "cropping")


def without_randomness(config):
    """A config without dropout, noise and samples; under pmap each device draws for itself."""
    changes = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = without_randomness(value)
        elif "dropout" in field.name or "noise" in field.name or field.name in AUGMENTATION:
            changes[field.name] = 0.0
    if hasattr(config, "fan_outs"):  # one layer, of all neighbours
        changes |= {"fan_outs": (ALL_NEIGHBOURS,), "hidden": config.hidden[:1]}
    return dataclasses.replace(config, **changes)


def in_double(task: Task) -> Task:
    """The task with floats of 64 bits: parameters, data and batches."""

    def double(tree):
        return jax.tree.map(as_double, tree)

    def as_double(leaf):
        is_float = jax.dtypes.issubdtype(jnp.result_type(leaf), np.floating)
        return leaf.astype(np.float64) if is_float else leaf

    return task._replace(
        data=double(task.data),
        init=lambda key, inputs: double(task.init(key, inputs)),
        batch=lambda step, seed: double(task.batch(step, seed)),
        seed_data=lambda seed: double(task.seed_data(seed)),
    )


def losses(name: str, places: list[str], **changes) -> dict:
    """The training losses of an experiment's default, on one device and at each of the places."""
    experiment, found = get(name), {}
    config = next(iter(experiment.presets.values())).config
    config = dataclasses.replace(without_randomness(config), **changes)
    task = experiment.make_task(config)
    task = in_double(task) if jax.config.jax_enable_x64 else task
    # what has no examples to divide has its seeds divided
    batch = jax.tree.map(lambda leaf: np.asarray(leaf)[None, None, None], task.batch(0, 0))
    num_seeds = 1 if divides(batch, EXAMPLES, 8) or "batch_size" in changes else 8
    for place in ["none-1", *places]:
        parallel, num_devices = place.split("-")
        run = dataclasses.replace(
            config.run,
            num_steps=STEPS,
            steps_per_call=1,
            eval_every=STEPS,
            stopping="none",
            num_seeds=num_seeds,
            parallel=parallel,
            num_devices=int(num_devices),
        )
        log = MetricsLog(None, every=1)
        fit(task, make_optimizer(config.optimizer), run, log=log)
        found[place] = [row["train_loss"] for row in log.rows]
    return found


if __name__ == "__main__":
    name, *places = sys.argv[1:]
    shown = {"default": losses(name, places)}
    if name == "polyphonic_music":  # and a batch that no number of devices divides
        shown["nine pieces"] = losses(name, places, batch_size=9)
    if name == "graph_classification":  # and graphs whose nodes and edges divide, as they must not
        shown["fifteen graphs"] = losses(name, ["pmap-2"], batch_size=15)
    print(json.dumps({"devices": jax.device_count(), "losses": shown}))
