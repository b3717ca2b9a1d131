"""Language modeling: the task and main."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from experiments.language_modeling.data import (
    in_unit,
    load,
    ordered_batches,
    prompt_ids,
    train_batches,
    unit_of,
    whole,
)
from experiments.language_modeling.figures import draw
from experiments.language_modeling.model import LanguageModel, make_model
from experiments.language_modeling.presets import PRESETS, Config
from experiments.language_modeling.sample import check_temperature
from experiments.sequence_model import TCNConfig, totals_in_parts
from experiments.sequence_presets import check_model
from structdl.errors import InputError
from structdl.training import cli
from structdl.training.experiment import Experiment
from structdl.training.precision import apply
from structdl.training.task import Inputs, Task

# what an evaluation holds at once, at most
EVAL_SYMBOLS, EVAL_LOGITS = 2**17, 2**23


def make_task(config: Config) -> Task:
    """The cross-entropy in nats of a symbol, given at least `context` symbols before it.

    With a `sequence`, training reads sequences in order: the task's model state is what each row
    has read so far, and the loss of a stretch is differentiated back to its start. What is
    evaluated does not see that state: it is read in stretches of a whole sequence, from nothing.

    Raises:
      InputError: no embedding, or a dropout of it that is no probability; a prompt with a symbol
        that the text does not have; a negative temperature; a state that cannot be carried; see
        also `check_model`, `load`, `train_batches` and `ordered_batches`.
    """
    corpus = load(config)
    # what only pictures need is checked before training
    check_temperature(config.temperature)
    prompt_ids(config, corpus)
    stretch, context = config.stretch, config.context
    batch = _train_batches(config, corpus.bounds.train)
    check_model(config.model, context + stretch, config.embedding, config.parameters)
    model = make_model(config, len(corpus.vocabulary))

    def init(key, inputs: Inputs):
        symbols = jnp.zeros((1, context + stretch), jnp.int32)
        variables = model.init(key, symbols, train=False)
        if not config.sequence:
            return variables["params"], ()
        state = model.apply(variables, config.batch_size, method="initial_state")
        return variables["params"], state

    def loss_fn(params, model_state, inputs: Inputs, key):
        if config.sequence:
            outputs, targets, model_state = read_on(
                model, params, model_state, inputs, stretch, key
            )
            counts = jnp.ones(targets.shape, bool)
        else:
            outputs, targets, counts = read(model, params, inputs, (context, stretch), key)
        losses = cross_entropies(model, params, outputs, targets)
        return (jnp.sum(losses, where=counts), jnp.sum(counts)), (model_state, {})

    shown = config.sequence or stretch  # of each row of an evaluation

    def metrics(params, model_state, inputs: Inputs, key):
        total, count = totals(model, params, inputs, (context, shown))
        # a perplexity is no mean: all of a split is in one batch
        value = in_unit(total / count, config.dataset)
        return {"loss": (total, count), unit_of(config.dataset): (value, jnp.ones(()))}

    def eval_batches(name: str):
        return [whole(getattr(corpus.bounds, name), shown, context)]

    return Task(corpus.ids, init, loss_fn, metrics, eval_batches, batch)


def _train_batches(config: Config, bounds: tuple[int, int]):
    if not config.sequence:
        return train_batches(bounds, config.batch_size, config.stretch, config.context)
    if isinstance(config.model, TCNConfig):
        raise InputError(
            "a TCN has no state that --sequence could carry on: give --sequence 0, or the preset "
            "of a recurrent network."
        )
    if config.run.parallel == "pmap":
        raise InputError(
            "--parallel pmap averages the state that --sequence carries, which is of other rows "
            "on each device: give --parallel jit, or --sequence 0."
        )
    return ordered_batches(bounds, config.batch_size, config.stretch, config.sequence)


def totals(
    model: LanguageModel, params, inputs: Inputs, sizes: tuple[int, int]
) -> tuple[jax.Array, jax.Array]:
    """The cross-entropy of an evaluation's rows and what counts, in parts that memory holds."""
    context, stretch = sizes
    rows_at_once = max(1, EVAL_LOGITS // (stretch * model.num_symbols))

    def of_row(row):
        return cross_entropies(model, params, *row)

    def of_part(part):
        outputs, targets, counts = read(model, params, inputs._replace(batch=part), sizes)
        losses = lax.map(of_row, (outputs, targets), batch_size=rows_at_once)
        return jnp.sum(losses, where=counts), jnp.sum(counts)

    return totals_in_parts(of_part, inputs.batch, max(1, EVAL_SYMBOLS // (context + stretch)))


def read(
    model: LanguageModel, params, inputs: Inputs, sizes: tuple[int, int], key=None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A model's outputs where a batch is looked at, the symbols that came next, and what counts.

    They are [batch, stretch, outputs], [batch, stretch] and [batch, stretch].
    """
    (context, stretch), batch = sizes, inputs.batch
    symbols = _slices(inputs.data, batch.starts, context + stretch)
    outputs = apply(
        model,
        {"params": params},
        symbols,
        train=key is not None,
        rngs=None if key is None else {"dropout": key},
        method="outputs",
    )

    def looked_at(row, begin):
        return lax.dynamic_slice_in_dim(row, begin, stretch)

    outputs = jax.vmap(looked_at)(outputs, batch.begins - batch.starts)
    places = batch.begins[:, None] + jnp.arange(stretch)[None]
    return outputs, _slices(inputs.data, batch.begins + 1, stretch), places >= batch.firsts[:, None]


def read_on(
    model: LanguageModel, params, carry, inputs: Inputs, stretch: int, key
) -> tuple[jax.Array, jax.Array, Any]:
    """A model's outputs in training, over the next stretch, and the symbols that came next.

    They are [batch, stretch, outputs] and [batch, stretch]; the last is the state to go on from.

    Args:
      carry: the state after the stretch before; not looked at where sequences begin.
    """
    starts, fresh = inputs.batch
    carry, outputs = apply(
        model,
        {"params": params},
        jax.tree.map(lambda leaf: jnp.where(fresh, jnp.zeros_like(leaf), leaf), carry),
        _slices(inputs.data, starts, stretch),
        train=True,
        rngs={"dropout": key},
        method="continued",
    )
    return outputs, _slices(inputs.data, starts + 1, stretch), carry


def cross_entropies(model: LanguageModel, params, outputs, targets) -> jax.Array:
    """In nats, [..., stretch], of outputs [..., stretch, outputs] and the symbols to be told."""
    logits = apply(model, {"params": params}, outputs, method="logits")
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets)


def _slices(ids, starts, size: int):
    return jax.vmap(lambda start: lax.dynamic_slice_in_dim(jnp.asarray(ids), start, size))(starts)


EXPERIMENT = Experiment("language_modeling", Path(__file__).parent, PRESETS, make_task, draw)


def main(argv: list[str] | None = None) -> None:
    cli.main(EXPERIMENT, argv)
