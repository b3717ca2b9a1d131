"""Localization of actions: the task and main."""

from pathlib import Path

import jax
import jax.numpy as jnp

from experiments.temporal_localization.data import Videos, indices, videos_of
from experiments.temporal_localization.figures import draw
from experiments.temporal_localization.presets import PRESETS, Config, MatcherConfig
from experiments.temporal_localization.scores import score
from structdl.graphs.prototypes import PrototypeMatcher, best_frames_mean, video_loss
from structdl.training import cli
from structdl.training.batches import in_order, shuffled_epochs
from structdl.training.experiment import Experiment
from structdl.training.precision import apply
from structdl.training.task import Inputs, Task, of_totals

EVAL_BATCH = 100  # videos


def make_task(config: Config) -> Task:
    """What a video has, from its best frames.

    A batch is the numbers of its videos; -1 is none. The videos themselves are another set for
    every seed.

    Raises:
      InputError: a number out of its range.
    """
    model = make_matcher(config.model)
    splits = indices(config)

    def init(key, inputs: Inputs):
        its = Videos(*inputs.seed_data)
        return model.init(key, its.frames[:1], its.descriptions, its.graph, train=False)[
            "params"
        ], ()

    def totals(params, inputs: Inputs, key=None):
        its = Videos(*inputs.seed_data)
        frames, lengths, labels = (leaf[inputs.batch] for leaf in its[:3])
        rngs = None if key is None else {"dropout": key}
        given = frames, its.descriptions, its.graph
        scores, _ = apply(model, {"params": params}, *given, train=key is not None, rngs=rngs)
        found = best_frames_mean(scores, lengths, share=config.frame_share)
        mask = inputs.batch >= 0
        count = jnp.sum(mask)
        is_there = jnp.take_along_axis(labels, jnp.argmax(found, axis=1)[:, None], axis=1)[:, 0]
        return {
            "loss": (jnp.sum(video_loss(found, labels), where=mask), count),
            "accuracy": (jnp.sum(is_there, where=mask), count),
        }

    loss_fn, metrics = of_totals(totals)
    return Task(
        data=(),
        init=init,
        loss_fn=loss_fn,
        metrics=metrics,
        eval_batches=lambda name: in_order(getattr(splits, name), EVAL_BATCH),
        batch=shuffled_epochs(splits.train, config.batch_size),
        seed_data=lambda seed: jax.tree.map(jnp.asarray, tuple(videos_of(config, seed))),
    )


def make_matcher(its: MatcherConfig) -> PrototypeMatcher:
    """The network of a config."""
    return PrototypeMatcher(its.features, its.hidden, its.relational, its.dropout)


EXPERIMENT = Experiment(
    "temporal_localization", Path(__file__).parent, PRESETS, make_task, draw, score
)


def main(argv: list[str] | None = None) -> None:
    cli.main(EXPERIMENT, argv)
