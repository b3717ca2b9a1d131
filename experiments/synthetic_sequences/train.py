"""Synthetic sequences: the task and main."""

from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from experiments.sequence_presets import check_model
from experiments.synthetic_sequences.data import PROBLEMS, load, reach_of
from experiments.synthetic_sequences.figures import draw
from experiments.synthetic_sequences.model import features, make_model
from experiments.synthetic_sequences.presets import PRESETS, Config
from structdl.datasets.simulate_sequences import NUM_SYMBOLS
from structdl.training import cli
from structdl.training.batches import in_order, shuffled_epochs
from structdl.training.experiment import Experiment
from structdl.training.precision import apply
from structdl.training.task import Inputs, Task, of_totals

EVAL_BATCH = 250  # sequences


def make_task(config: Config) -> Task:
    """Adding: the squared error of the sum. Copying: the cross-entropy of every step.

    A batch is the numbers of its sequences; -1 is none.

    Raises:
      InputError: see `check_model` and `load`.
    """
    data, splits = load(config)
    model, totals_of = make_model(config), {"adding": sum_totals, "copy": copy_totals}
    time, in_features = data.inputs.shape[1], PROBLEMS[config.problem].in_features
    reach = reach_of(config)
    check_model(config.model, time, in_features, config.parameters, reach=reach)

    def init(key, inputs: Inputs):
        return model.init(key, jnp.zeros((1, time, in_features)), train=False)["params"], ()

    def totals(params, inputs: Inputs, key=None):
        sequences = jax.tree.map(lambda leaf: jnp.asarray(leaf)[inputs.batch], inputs.data)
        rngs = None if key is None else {"dropout": key}
        answers = apply(
            model,
            {"params": params},
            features(config, sequences.inputs),
            train=key is not None,
            rngs=rngs,
        )
        return totals_of[config.problem](answers, sequences.targets, inputs.batch >= 0)

    loss_fn, metrics = of_totals(totals)
    return Task(
        data=data,
        init=init,
        loss_fn=loss_fn,
        metrics=metrics,
        eval_batches=lambda name: in_order(getattr(splits, name), EVAL_BATCH),
        batch=shuffled_epochs(splits.train, config.batch_size),
    )


def sum_totals(answers, targets, counts):
    """The squared error of answers [batch, 1] to targets [batch]."""
    errors = jnp.square(answers[:, 0] - targets)
    return {"loss": (jnp.sum(errors, where=counts), jnp.sum(counts))}


def copy_totals(scores, targets, counts):
    """The cross-entropy of all steps, and how many of the copied symbols are right.

    Args:
      scores: [batch, time, classes].
      targets: [batch, time].
      counts: [batch], whether there is a sequence.
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(scores, targets.astype(jnp.int32))
    right = jnp.argmax(scores, axis=2) == targets
    number = jnp.sum(counts)
    return {
        "loss": (jnp.sum(losses, where=counts[:, None]), number * targets.shape[1]),
        "accuracy": (
            jnp.sum(right[:, -NUM_SYMBOLS:], where=counts[:, None]),
            number * NUM_SYMBOLS,
        ),
    }


EXPERIMENT = Experiment("synthetic_sequences", Path(__file__).parent, PRESETS, make_task, draw)


def main(argv: list[str] | None = None) -> None:
    cli.main(EXPERIMENT, argv)
