"""Algorithmic tasks: the task and main."""

from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from experiments.algorithmic_tasks.data import features, load, num_classes
from experiments.algorithmic_tasks.figures import draw
from experiments.algorithmic_tasks.model import make_model
from experiments.algorithmic_tasks.presets import (
    PRESETS,
    Config,
    FeedForwardConfig,
    StackedLSTMConfig,
)
from structdl.errors import InputError
from structdl.training import cli
from structdl.training.batches import in_order, shuffled_epochs
from structdl.training.experiment import Experiment
from structdl.training.precision import apply
from structdl.training.task import Inputs, Task, of_totals

EVAL_BATCH = 500  # strings


def make_task(config: Config) -> Task:
    """The cross-entropy of the answer; of strings, of the symbol that is to be said at each step.

    The accuracy, by which a run is solved, is the share of strings whose whole answer is right. A
    batch is the numbers of its strings; -1 is none.

    Raises:
      InputError: see `check` and `load`.
    """
    check(config)
    data, splits = load(config)
    model = make_model(config, num_classes(config))

    def init(key, inputs: Inputs):
        return model.init(key, features(config, jnp.asarray(inputs.data.inputs)[:1]))["params"], ()

    def totals(params, inputs: Inputs, key=None):
        strings = jax.tree.map(lambda leaf: jnp.asarray(leaf)[inputs.batch], inputs.data)
        scores = apply(model, {"params": params}, features(config, strings.inputs))
        return answer_totals(scores, strings.targets, inputs.batch >= 0)

    loss_fn, metrics = of_totals(totals)
    return Task(
        data=data,
        init=init,
        loss_fn=loss_fn,
        metrics=metrics,
        eval_batches=lambda name: in_order(getattr(splits, name), EVAL_BATCH),
        batch=shuffled_epochs(splits.train, config.batch_size),
        score="accuracy",
    )


def answer_totals(scores, targets, counts):
    """The cross-entropy of all that is said, and how many whole answers are right.

    Args:
      scores: [batch, classes] or [batch, time, classes].
      targets: [batch] or [batch, time].
      counts: [batch], whether there is a string.
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(scores, targets.astype(jnp.int32))
    right = jnp.argmax(scores, axis=-1) == targets
    number = jnp.sum(counts)
    of_each = losses.reshape(len(counts), -1)
    return {
        "loss": (jnp.sum(of_each, where=counts[:, None]), number * of_each.shape[1]),
        "accuracy": (jnp.sum(jnp.all(right.reshape(of_each.shape), axis=1) & counts), number),
    }


def check(config: Config) -> None:
    """Raises InputError where a model does not go with its problem."""
    model = config.model
    if config.problem == "parity" and isinstance(model, StackedLSTMConfig):
        raise InputError(
            "a stacked LSTM reads strings, and parity gives all bits at once: choose "
            "--problem addition or memorization, or another preset"
        )
    if config.problem != "parity" and isinstance(model, FeedForwardConfig):
        raise InputError(
            "a feed-forward network reads all bits at once: choose --problem parity, "
            "or another preset"
        )


EXPERIMENT = Experiment("algorithmic_tasks", Path(__file__).parent, PRESETS, make_task, draw)


def main(argv: list[str] | None = None) -> None:
    cli.main(EXPERIMENT, argv)
