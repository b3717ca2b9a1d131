"""Actions of skeletons: the task and main."""

from pathlib import Path

import jax
import jax.numpy as jnp

from experiments.skeleton_action.data import Augmentation, load, prepare
from experiments.skeleton_action.figures import draw
from experiments.skeleton_action.model import make_model
from experiments.skeleton_action.presets import PRESETS, Config
from structdl.graphs.sr_tsl import clip_weights
from structdl.training import cli
from structdl.training.batches import in_order, shuffled_epochs
from structdl.training.experiment import Experiment
from structdl.training.metrics import class_totals
from structdl.training.precision import apply
from structdl.training.task import Inputs, Task, of_totals

EVAL_BATCH = 100  # sequences


def make_task(config: Config) -> Task:
    """The cross-entropy of an action.

    A batch is the numbers of its sequences; -1 is none.

    Raises:
      InputError: see `make_model` and `load`.
    """
    augmentation = Augmentation(config.rotation, config.scaling, config.cropping)
    data, splits = load(config)
    model = make_model(config)

    def shown(inputs: Inputs, key=None):
        skeletons = jax.tree.map(lambda leaf: jnp.asarray(leaf)[inputs.batch], inputs.data)
        changes = None if key is None else augmentation
        xs = prepare(skeletons.positions, skeletons.lengths, config.frames, changes, key)
        return xs, skeletons.labels

    def init(key, inputs: Inputs):
        return model.init(key, shown(inputs)[0][:1], train=False)["params"], ()

    def totals(params, inputs: Inputs, key=None):
        changes_key, dropout_key = (None, None) if key is None else jax.random.split(key)
        xs, labels = shown(inputs, changes_key)
        rngs = None if key is None else {"dropout": dropout_key}
        logits, _ = apply(model, {"params": params}, xs, train=key is not None, rngs=rngs)
        return _totals(logits, labels, inputs.batch >= 0)

    loss_fn, metrics = of_totals(totals)
    return Task(
        data=data,
        init=init,
        loss_fn=loss_fn,
        metrics=metrics,
        eval_batches=lambda name: in_order(getattr(splits, name), EVAL_BATCH),
        batch=shuffled_epochs(splits.train, config.batch_size),
    )


def _totals(logits, labels, mask):
    """The loss after every clip, the later the more; the accuracy of the last answer."""
    clips = logits.shape[1]
    weights = clip_weights(clips) / jnp.sum(clip_weights(clips))
    found = [class_totals(logits[:, clip], labels, mask) for clip in range(clips)]
    loss = sum(weights[clip] * found[clip]["loss"][0] for clip in range(clips))
    return found[-1] | {"loss": (loss, found[-1]["loss"][1])}


EXPERIMENT = Experiment("skeleton_action", Path(__file__).parent, PRESETS, make_task, draw)


def main(argv: list[str] | None = None) -> None:
    cli.main(EXPERIMENT, argv)
