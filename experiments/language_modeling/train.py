"""Language modeling: the task and main."""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from jax import lax

from experiments.language_modeling.data import (
    Stretch,
    in_unit,
    load,
    prompt_ids,
    train_batches,
    unit_of,
    whole,
)
from experiments.language_modeling.figures import draw
from experiments.language_modeling.model import LanguageModel, make_model
from experiments.language_modeling.presets import PRESETS, Config
from experiments.language_modeling.sample import check_temperature
from experiments.sequence_model import check_size
from structdl.training import cli
from structdl.training.experiment import Experiment
from structdl.training.task import Inputs, Task

# an evaluation holds no more than this at once
EVAL_SYMBOLS, EVAL_LOGITS = 2**17, 2**26


def make_task(config: Config) -> Task:
    """The cross-entropy in nats of a symbol, given at least `context` symbols before it.

    Raises:
      InputError: a model that is not of the stated size, a prompt with a symbol that the text does
        not have, a negative temperature; see also `load` and `train_batches`.
    """
    corpus = load(config)
    # what only pictures need is checked before training
    check_temperature(config.temperature)
    prompt_ids(config, corpus)
    stretch, context, num_symbols = config.stretch, config.context, len(corpus.vocabulary)
    batch = train_batches(corpus.bounds.train, config.batch_size, stretch, context)
    model = make_model(config, num_symbols)
    check_size(config.model, context + stretch, config.embedding, config.parameters)

    def init(key, inputs: Inputs):
        symbols = jnp.zeros((1, context + stretch), jnp.int32)
        return model.init(key, symbols, train=False)["params"], ()

    def totals(params, inputs: Inputs, key=None):
        return totals_of(model, params, inputs.data, inputs.batch, (context, stretch), key)

    def loss_fn(params, model_state, inputs: Inputs, key):
        return totals(params, inputs, key), (model_state, {})

    def metrics(params, model_state, inputs: Inputs, key):
        parts = parts_of(inputs.batch, context + stretch, stretch * num_symbols)
        found = [totals(params, inputs._replace(batch=part)) for part in parts]
        total, count = (sum(values) for values in zip(*found, strict=True))
        # a perplexity is no mean: all of a split is in one batch
        value = in_unit(total / count, config.dataset)
        return {"loss": (total, count), unit_of(config.dataset): (value, jnp.ones(()))}

    def eval_batches(name: str):
        return [whole(getattr(corpus.bounds, name), stretch, context)]

    return Task(corpus.ids, init, loss_fn, metrics, eval_batches, batch)


def totals_of(
    model: LanguageModel, params, ids, batch: Stretch, sizes: tuple[int, int], key=None
) -> tuple[jax.Array, jax.Array]:
    """The summed cross-entropies of what counts of a batch, and how many they are."""
    context, stretch = sizes
    read = _slices(ids, batch.starts, context + stretch)
    next_ones = _slices(ids, batch.begins + 1, stretch)
    logits = model.apply(
        {"params": params},
        read,
        batch.begins - batch.starts,
        stretch,
        train=key is not None,
        rngs=None if key is None else {"dropout": key},
    )
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, next_ones)
    counts = batch.begins[:, None] + jnp.arange(stretch)[None] >= batch.firsts[:, None]
    return jnp.sum(losses, where=counts), jnp.sum(counts)


def parts_of(batch: Stretch, time: int, logits: int) -> Iterator[Stretch]:
    """A batch in parts that memory holds, each row of which has so many symbols and logits.

    They are unrolled in the program: within its loops a convolution on CPU takes 18 times as long.
    """
    size = max(1, min(EVAL_SYMBOLS // time, EVAL_LOGITS // logits))
    for start in range(0, len(batch.starts), size):
        yield jax.tree.map(lambda leaf, start=start: leaf[start : start + size], batch)


def _slices(ids, starts, size: int):
    return jax.vmap(lambda start: lax.dynamic_slice_in_dim(jnp.asarray(ids), start, size))(starts)


EXPERIMENT = Experiment("language_modeling", Path(__file__).parent, PRESETS, make_task, draw)


def main(argv: list[str] | None = None) -> None:
    cli.main(EXPERIMENT, argv)
