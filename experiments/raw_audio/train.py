"""Raw audio: the task and main."""

from pathlib import Path

import jax
import jax.numpy as jnp
from jax import lax

from experiments.raw_audio.data import load, train_batches, whole
from experiments.raw_audio.figures import draw
from experiments.raw_audio.mixture import log_density, mixture_of
from experiments.raw_audio.model import make_model
from experiments.raw_audio.presets import INPUTS, PRESETS, TARGETS, Config
from experiments.sequence_model import add_noise, totals_in_parts
from experiments.sequence_presets import check_model
from structdl.core.masks import length_mask
from structdl.training import cli
from structdl.training.experiment import Experiment
from structdl.training.precision import apply
from structdl.training.task import Inputs, Task

EVAL_RECORDINGS = 64  # an evaluation holds no more of them at once


def make_task(config: Config) -> Task:
    """The negative log-likelihood in nats of a step's ten samples, given those before them.

    A batch is the numbers of its recordings and where in them it starts; -1 is no recording.

    Raises:
      InputError: see `check_model`, `load` and `train_batches`.
    """
    data, splits = load(config)
    batch = train_batches(data.steps, splits.train, config.batch_size, config.max_steps)
    model = make_model(config)
    longest = int(data.steps.max())
    check_model(config.model, longest, INPUTS, config.parameters)

    def init(key, inputs: Inputs):
        return model.init(key, jnp.zeros((1, longest, INPUTS)), train=False)["params"], ()

    def totals(params, inputs: Inputs, time: int, key=None):
        x, targets, steps = frames_of(inputs, time)
        rngs = None if key is None else {"dropout": key}
        outputs = apply(model, {"params": params}, x, steps, train=key is not None, rngs=rngs)
        losses = -log_density(mixture_of(outputs, config.components, TARGETS), targets)
        mask = length_mask(steps, time)
        return jnp.sum(losses, where=mask), jnp.sum(mask)

    def loss_fn(params, model_state, inputs: Inputs, key):
        noise_key, dropout_key = jax.random.split(key)
        noisy = add_noise(noise_key, params, config.weight_noise)
        return totals(noisy, inputs, min(config.max_steps, longest), dropout_key), (model_state, {})

    def metrics(params, model_state, inputs: Inputs, key):
        def of_part(part):
            return totals(params, inputs._replace(batch=part), longest)

        return {"loss": totals_in_parts(of_part, inputs.batch, EVAL_RECORDINGS)}

    def eval_batches(name: str):
        return [whole(getattr(splits, name))]

    return Task(data, init, loss_fn, metrics, eval_batches, batch)


def frames_of(inputs: Inputs, time: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What a batch's steps see [batch, time, 20] and predict [batch, time, 10]; how many there are.

    As `structdl.datasets.spoken_digits.frames`, from the recordings on the device.
    """
    data, (recordings, starts) = inputs.data, inputs.batch

    def one(recording, start):
        size = INPUTS + TARGETS * time
        wave = jnp.asarray(data.waves)[recording]
        wave = lax.dynamic_slice_in_dim(wave, TARGETS * start, size)
        tens = wave.reshape(-1, TARGETS)  # a step sees two of them and predicts the third
        return jnp.concatenate([tens[:-2], tens[1:-1]], axis=1), tens[2:]

    x, targets = jax.vmap(one)(recordings, starts)
    steps = jnp.clip(jnp.asarray(data.steps)[recordings] - starts, 0, time)
    return x, targets, jnp.where(recordings < 0, 0, steps)


EXPERIMENT = Experiment("raw_audio", Path(__file__).parent, PRESETS, make_task, draw)


def main(argv: list[str] | None = None) -> None:
    cli.main(EXPERIMENT, argv)
