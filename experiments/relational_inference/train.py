"""Relational inference: the task and main."""

from pathlib import Path

import jax
import jax.numpy as jnp

from experiments.relational_inference.accuracy import approach_of, score
from experiments.relational_inference.data import load
from experiments.relational_inference.figures import draw
from experiments.relational_inference.presets import PRESETS, Config
from structdl.training import cli
from structdl.training.batches import in_order, shuffled_epochs
from structdl.training.experiment import Experiment
from structdl.training.task import Inputs, Task

EVAL_BATCH = 500  # systems


def make_task(config: Config) -> Task:
    """What an approach minimises, of whole trajectories.

    A batch is the numbers of its systems; -1 is none.

    Raises:
      InputError: see `make_approach` and `load`.
    """
    data, splits = load(config)
    approach = approach_of(config)

    def systems(inputs: Inputs):
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[inputs.batch], inputs.data)

    def loss_fn(params, model_state, inputs: Inputs, key):
        mask = inputs.batch >= 0
        found, model_state = approach.totals(params, model_state, systems(inputs), mask, key)
        return found.pop("loss"), (model_state, found)

    def metrics(params, model_state, inputs: Inputs, key):
        mask = inputs.batch >= 0
        return approach.totals(params, model_state, systems(inputs), mask, None)[0]

    return Task(
        data=data,
        init=lambda key, inputs: approach.init(key, systems(inputs).states[:1]),
        loss_fn=loss_fn,
        metrics=metrics,
        eval_batches=lambda name: in_order(getattr(splits, name), EVAL_BATCH),
        batch=shuffled_epochs(splits.train, config.batch_size),
    )


EXPERIMENT = Experiment(
    "relational_inference", Path(__file__).parent, PRESETS, make_task, draw, score
)


def main(argv: list[str] | None = None) -> None:
    cli.main(EXPERIMENT, argv)
