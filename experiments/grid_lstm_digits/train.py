"""Digits by a 3-LSTM: the task and main."""

from pathlib import Path

import jax
import jax.numpy as jnp

from experiments.grid_lstm_digits.data import load, shift
from experiments.grid_lstm_digits.figures import draw
from experiments.grid_lstm_digits.model import make_model
from experiments.grid_lstm_digits.presets import PRESETS, Config
from structdl.errors import InputError
from structdl.training import cli
from structdl.training.batches import in_order, shuffled_epochs
from structdl.training.experiment import Experiment
from structdl.training.metrics import class_totals
from structdl.training.precision import apply
from structdl.training.task import Inputs, Task, of_totals

EVAL_BATCH = 250  # digits


def make_task(config: Config) -> Task:
    """The cross-entropy of a digit.

    A batch is the numbers of its digits; -1 is none.

    Raises:
      InputError: a --shift out of its range; see also `make_model` and `load`.
    """
    if config.shift >= config.size:
        raise InputError(f"--shift is {config.shift}: give 0 to {config.size - 1} pixels.")
    data, splits = load(config)
    model = make_model(config)

    def init(key, inputs: Inputs):
        return model.init(key, jnp.zeros((1, config.size, config.size)), train=False)["params"], ()

    def totals(params, inputs: Inputs, key=None):
        digits = jax.tree.map(lambda leaf: jnp.asarray(leaf)[inputs.batch], inputs.data)
        images, rngs = digits.pixels, None
        if key is not None:
            shift_key, dropout_key = jax.random.split(key)
            images, rngs = shift(shift_key, images, config.shift), {"dropout": dropout_key}
        logits = apply(model, {"params": params}, images, train=key is not None, rngs=rngs)
        return class_totals(logits, digits.labels, inputs.batch >= 0)

    loss_fn, metrics = of_totals(totals)
    return Task(
        data=data,
        init=init,
        loss_fn=loss_fn,
        metrics=metrics,
        eval_batches=lambda name: in_order(getattr(splits, name), EVAL_BATCH),
        batch=shuffled_epochs(splits.train, config.batch_size),
    )


EXPERIMENT = Experiment("grid_lstm_digits", Path(__file__).parent, PRESETS, make_task, draw)


def main(argv: list[str] | None = None) -> None:
    cli.main(EXPERIMENT, argv)
