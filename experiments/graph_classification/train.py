"""Graph classification: the task and main."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.graph_classification.data import (
    SPLITS,
    GraphSet,
    draw_batch,
    load,
    make_room,
    pack,
)
from experiments.graph_classification.figures import draw
from experiments.graph_classification.model import make_model
from experiments.graph_classification.presets import PRESETS, Config
from structdl.graphs.graph import Graph, graph_mask
from structdl.training import cli
from structdl.training.experiment import Experiment
from structdl.training.metrics import class_totals
from structdl.training.precision import apply
from structdl.training.ranking import roc_auc
from structdl.training.seeds import stack
from structdl.training.task import Inputs, Task

# beyond these many standard deviations a batch of training is drawn again, one of a split refused
DRAWN_DEVIATIONS, SPLIT_DEVIATIONS = 4.0, 6.0


def make_task(config: Config) -> Task:
    """The task of a config, over the graphs of its set."""
    return task_of(load(config), config)


def task_of(data: GraphSet, config: Config) -> Task:
    """Cross-entropy over graphs, or over all labels that are there.

    A batch of training is a padded graph, drawn on the host by seed and step. What differs between
    seeds are the graphs of validation and of test, each split a batch of its own, since a ranking's
    metrics are no means; for them a batch is the index among the two.
    """
    model = make_model(config, data)
    room = make_room(data.graph, config.batch_size, DRAWN_DEVIATIONS)
    sizes = [len(part) for part in data.split(config.run.seed)]
    split_room = make_room(data.graph, max(sizes[1:]) + 1, SPLIT_DEVIATIONS)
    totals = graph_totals if data.num_classes else label_totals

    def init(key, inputs: Inputs):
        variables = dict(model.init(key, inputs.batch, train=False))
        return variables.pop("params"), variables

    def loss_fn(params, model_state, inputs: Inputs, key):
        variables, rngs = {"params": params, **model_state}, {"dropout": key}
        logits, model_state = apply(
            model, variables, inputs.batch, train=True, rngs=rngs, mutable=list(model_state)
        )
        metrics = totals(logits, inputs.batch)
        return metrics.pop("loss"), (model_state, metrics)

    def metrics(params, model_state, inputs: Inputs, key):
        graph = jax.tree.map(lambda leaf: leaf[inputs.batch], inputs.seed_data)
        logits = apply(model, {"params": params, **model_state}, graph, train=False)
        found = totals(logits, graph)
        return found | task_areas(logits, graph, data.tasks) if data.tasks else found

    def batch(step: int, seed: int) -> Graph:
        rng = np.random.default_rng([seed, 1, step])
        return draw_batch(data.graph, data.split(seed)[0], room, rng)

    def seed_data(seed: int) -> Graph:
        return stack([pack(data.graph, part, split_room) for part in data.split(seed)[1:]])

    return Task(
        data=(),
        init=init,
        loss_fn=loss_fn,
        metrics=metrics,
        eval_batches=lambda name: [np.int32(SPLITS.index(name))] if name in SPLITS else [],
        batch=batch,
        seed_data=seed_data,
        score="roc_auc" if data.tasks else "",
    )


def graph_totals(logits: jax.Array, graph: Graph):
    """Cross-entropy and accuracy over the graphs that are no padding; labels are in globals."""
    return class_totals(logits, graph.globals[:, 0], graph_mask(graph))


def label_totals(logits: jax.Array, graph: Graph):
    """Binary cross-entropy over the labels that are not missing."""
    known = _known(graph)
    losses = optax.sigmoid_binary_cross_entropy(logits, graph.globals)
    # a batch without any label has a loss of 0, not of 0 / 0
    return {"loss": (jnp.sum(losses, where=known), jnp.maximum(jnp.sum(known), 1))}


def task_areas(logits: jax.Array, graph: Graph, tasks):
    """The area under the ROC curve of each task over a whole split, and their mean."""
    areas = jax.vmap(roc_auc, in_axes=1)(logits, graph.globals, _known(graph))
    named = {f"roc_auc_{name}": (area, 1) for name, area in zip(tasks, areas, strict=True)}
    return {"roc_auc": (jnp.mean(areas), 1)} | named


def _known(graph: Graph):
    return graph_mask(graph)[:, None] & (graph.globals >= 0)


EXPERIMENT = Experiment("graph_classification", Path(__file__).parent, PRESETS, make_task, draw)


def main(argv: list[str] | None = None) -> None:
    cli.main(EXPERIMENT, argv)
