"""Sequential digits: the task and main."""

from pathlib import Path

import jax
import jax.numpy as jnp

from experiments.digits import NUM_CLASSES
from experiments.sequence_model import SequenceModel
from experiments.sequence_presets import check_model
from experiments.sequential_digits.data import load
from experiments.sequential_digits.figures import draw
from experiments.sequential_digits.presets import PRESETS, Config
from structdl.training import cli
from structdl.training.batches import in_order, shuffled_epochs
from structdl.training.experiment import Experiment
from structdl.training.metrics import class_totals
from structdl.training.precision import apply
from structdl.training.task import Inputs, Task, of_totals

EVAL_BATCH = 250  # digits


def make_task(config: Config) -> Task:
    """The cross-entropy of a digit, which is told after its last pixel.

    A batch is the numbers of its digits; -1 is none.

    Raises:
      InputError: see `check_model` and `load`.
    """
    data, splits = load(config)
    model = SequenceModel(config.model, NUM_CLASSES, last=True)
    time = data.pixels.shape[1]
    check_model(config.model, time, 1, config.parameters, reach=time)

    def init(key, inputs: Inputs):
        return model.init(key, jnp.zeros((1, time, 1)), train=False)["params"], ()

    def totals(params, inputs: Inputs, key=None):
        digits = jax.tree.map(lambda leaf: jnp.asarray(leaf)[inputs.batch], inputs.data)
        rngs = None if key is None else {"dropout": key}
        logits = apply(model, {"params": params}, digits.pixels, train=key is not None, rngs=rngs)
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


EXPERIMENT = Experiment("sequential_digits", Path(__file__).parent, PRESETS, make_task, draw)


def main(argv: list[str] | None = None) -> None:
    cli.main(EXPERIMENT, argv)
