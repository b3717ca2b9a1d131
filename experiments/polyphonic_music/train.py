"""Polyphonic music: the task and main."""

from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from jax import lax

from experiments.polyphonic_music.data import eval_batches, load, train_batches
from experiments.polyphonic_music.figures import draw
from experiments.polyphonic_music.presets import PRESETS, Config
from experiments.sequence_model import SequenceModel, add_noise
from experiments.sequence_presets import check_model
from structdl.core.masks import length_mask
from structdl.datasets.poly_music import NUM_KEYS
from structdl.training import cli
from structdl.training.experiment import Experiment
from structdl.training.precision import apply
from structdl.training.task import Inputs, Task

EVAL_BATCH = 32  # pieces


def make_task(config: Config) -> Task:
    """The negative log-likelihood of each step's keys, given the steps before it.

    A batch is the numbers of its pieces and where in them it starts; -1 is no piece.

    Raises:
      InputError: see `check_model`, `load` and `train_batches`.
    """
    data, splits = load(config)
    model = SequenceModel(config.model, NUM_KEYS)
    whole = data.keys.shape[1]
    check_model(config.model, whole, NUM_KEYS, config.parameters)
    crop = min(config.max_time, whole)

    def init(key, inputs: Inputs):
        return model.init(key, jnp.zeros((1, whole, NUM_KEYS)), train=False)["params"], ()

    def totals(params, inputs: Inputs, time: int, key=None):
        keys, lengths = stretch_of(inputs, time)
        rngs = None if key is None else {"dropout": key}
        logits = apply(
            model, {"params": params}, keys[:, :-1], lengths - 1, train=key is not None, rngs=rngs
        )
        losses = jnp.sum(optax.sigmoid_binary_cross_entropy(logits, keys[:, 1:]), axis=2)
        mask = length_mask(lengths - 1, time - 1)
        return {"loss": (jnp.sum(losses, where=mask), jnp.sum(mask))}

    def loss_fn(params, model_state, inputs: Inputs, key):
        noise_key, dropout_key = jax.random.split(key)
        noisy = add_noise(noise_key, params, config.weight_noise)
        return totals(noisy, inputs, crop, dropout_key)["loss"], (model_state, {})

    def metrics(params, model_state, inputs: Inputs, key):
        return totals(params, inputs, whole)

    return Task(
        data=data,
        init=init,
        loss_fn=loss_fn,
        metrics=metrics,
        eval_batches=lambda name: eval_batches(getattr(splits, name), EVAL_BATCH),
        batch=train_batches(data.lengths, splits.train, config.batch_size, config.max_time),
    )


def stretch_of(inputs: Inputs, time: int) -> tuple[jax.Array, jax.Array]:
    """A batch's keys [batch, time, 88] and their lengths: 1, of which no step follows, for none."""
    data, (pieces, starts) = inputs.data, inputs.batch

    def one(piece, start):
        keys = lax.dynamic_slice_in_dim(jnp.asarray(data.keys)[piece], start, time)
        return keys.astype(float), jnp.minimum(jnp.asarray(data.lengths)[piece] - start, time)

    keys, lengths = jax.vmap(one)(pieces, starts)
    # a piece of length 0 has no step either
    return keys, jnp.where(pieces < 0, 1, jnp.maximum(lengths, 1))


EXPERIMENT = Experiment("polyphonic_music", Path(__file__).parent, PRESETS, make_task, draw)


def main(argv: list[str] | None = None) -> None:
    cli.main(EXPERIMENT, argv)
