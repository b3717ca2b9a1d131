"""Machine translation: the task and main."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.sequence_presets import TOLERANCE
from experiments.translation.data import Batch, as_batch, extents_of, load, rows_of, short_pairs
from experiments.translation.figures import draw
from experiments.translation.model import Translator
from experiments.translation.presets import PRESETS, Config
from experiments.translation.scores import require_sacrebleu, score
from experiments.translation.translate import make_model
from structdl.datasets.sentence_pairs import PAD
from structdl.errors import InputError
from structdl.training import cli
from structdl.training.batches import in_order, shuffled_epochs
from structdl.training.experiment import Experiment
from structdl.training.metrics import class_totals
from structdl.training.precision import apply
from structdl.training.task import Inputs, Task, of_totals

EVAL_BATCH = 250  # pairs


def make_task(config: Config) -> Task:
    """The cross-entropy in nats of a target word, given the source and the words before it.

    Raises:
      InputError: a model of another size than is wanted; BLEU is to be computed and sacrebleu is
        not installed; see also `load`, `short_pairs`.
    """
    if config.dataset != "numbers":
        require_sacrebleu()
    corpus = load(config)
    model = make_model(config, corpus)
    check_model(model, config)
    short = short_pairs(corpus.train, config)
    train = as_batch(short, corpus, extents_of(short))
    numbers = shuffled_epochs(np.arange(len(short)), config.batch_size)
    extents = extents_of(*corpus[:3])

    def init(key, inputs: Inputs):
        return model.init(key, *_blank(), train=False)["params"], ()

    def totals(params, inputs: Inputs, key=None):
        batch = Batch(*map(jnp.asarray, inputs.batch))
        rngs = None if key is None else {"dropout": key}
        logits = apply(model, {"params": params}, *batch[:3], train=key is not None, rngs=rngs)
        return class_totals(logits, batch.target, batch.target != PAD)

    loss_fn, metrics = of_totals(totals)

    def eval_batches(name: str):
        pairs = getattr(corpus, name)
        batch = as_batch(pairs, corpus, extents)
        return [rows_of(batch, part) for part in in_order(np.arange(len(pairs)), EVAL_BATCH)]

    return Task(
        data=(),
        init=init,
        loss_fn=loss_fn,
        metrics=metrics,
        eval_batches=eval_batches,
        batch=lambda step, seed: rows_of(train, numbers(step, seed)),
    )


def check_model(model: Translator, config: Config) -> None:
    """Prints a model's size.

    Raises:
      InputError: it is further than TOLERANCE from what is wanted.
    """
    found, wanted = size_of(model), config.parameters
    if not wanted:
        print(f"{found} parameters")
        return
    print(f"{found} parameters, {found / wanted - 1:+.1%} of {wanted}")
    if abs(found - wanted) > TOLERANCE * wanted:
        raise InputError(
            f"the model has {found} parameters, and --parameters asks for {wanted} within "
            f"{TOLERANCE:.0%}: change --model.hidden, or give --parameters 0 for any number."
        )


def size_of(model: Translator) -> int:
    """How many parameters a model has."""

    def init():
        return model.init(jax.random.key(0), *_blank(), train=False)

    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(init)))


def _blank():
    """A batch of one pair for a model's first look."""
    word = jnp.zeros((1, 1), jnp.int32)
    return word, jnp.ones(1, jnp.int32), word


EXPERIMENT = Experiment("translation", Path(__file__).parent, PRESETS, make_task, draw, score)


def main(argv: list[str] | None = None) -> None:
    cli.main(EXPERIMENT, argv)
