"""Inductive node classification on sampled neighbourhoods: the task and main."""

from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from experiments.inductive.data import InductiveData, LabelledGraph, load, padded_batches, some
from experiments.inductive.figures import draw
from experiments.inductive.model import make_model
from experiments.inductive.presets import PRESETS, Config
from structdl.graphs.sampling import sample_blocks
from structdl.training import cli
from structdl.training.batches import shuffled_epochs
from structdl.training.experiment import Experiment
from structdl.training.metrics import class_totals
from structdl.training.precision import apply
from structdl.training.task import Inputs, Task


def make_task(config: Config) -> Task:
    """Cross-entropy of a batch of nodes, whose neighbourhoods are drawn inside the step.

    A training batch is the nodes' indices in the seen graph; an evaluation batch those in the
    whole graph, and a mask.
    """
    data, parts, num_logits = load(config)
    model = make_model(config, num_logits)

    def run(params, graph: LabelledGraph, nodes, key, train: bool):
        sampling_key, dropout_key, order_key = jax.random.split(key, 3)
        blocks = sample_blocks(
            sampling_key,
            graph.lists,
            nodes,
            config.model.fan_outs,
            replace=config.model.replace,
        )
        rngs = {"dropout": dropout_key, "permutation": order_key}
        return apply(model, {"params": params}, graph.features, blocks, train=train, rngs=rngs)

    def init(key, inputs: Inputs):
        seen, nodes = inputs.data.seen, jnp.zeros(1, jnp.int32)
        blocks_key, params_key = jax.random.split(key)
        blocks = sample_blocks(
            blocks_key, seen.lists, nodes, config.model.fan_outs, replace=config.model.replace
        )
        return model.init(params_key, seen.features, blocks, train=False)["params"], ()

    def loss_fn(params, model_state, inputs: Inputs, key):
        seen, nodes = inputs.data.seen, inputs.batch
        logits = run(params, seen, nodes, key, train=True)
        metrics = totals(logits, seen.labels[nodes], jnp.ones(nodes.shape, bool))
        return metrics.pop("loss"), (model_state, metrics)

    def metrics(params, model_state, inputs: Inputs, key):
        whole, (nodes, mask) = inputs.data.whole, inputs.batch
        return totals(run(params, whole, nodes, key, train=False), whole.labels[nodes], mask)

    def eval_batches(split: str):
        nodes = some(getattr(parts, split), config.eval_nodes)
        return padded_batches(nodes, config.eval_batch_size)

    return Task(
        data=data,
        init=init,
        loss_fn=loss_fn,
        metrics=metrics,
        eval_batches=eval_batches,
        batch=shuffled_epochs(parts.train, config.batch_size),
        score="f1" if has_many_labels(data) else "accuracy",
    )


def has_many_labels(data: InductiveData) -> bool:
    """Whether a node can have several labels, or none."""
    return data.whole.labels.ndim == 2


def totals(logits, labels, mask) -> dict:
    """Loss, and micro-F1 or accuracy, over the nodes of the mask.

    micro-F1 = 2 TP / (2 TP + FP + FN), whose two sides add up over nodes, labels and batches.
    """
    if labels.ndim == 1:  # a node without a label is in no split
        return class_totals(logits, labels, mask)
    wanted, found = labels > 0, logits > 0
    losses = jnp.mean(optax.sigmoid_binary_cross_entropy(logits, wanted), axis=1)
    among = mask[:, None]
    hits = jnp.sum(wanted & found, where=among)
    # 2 TP + FP + FN is what is wanted and what is found
    both = jnp.sum(wanted, where=among) + jnp.sum(found, where=among)
    return {"loss": (jnp.sum(losses, where=mask), jnp.sum(mask)), "f1": (2 * hits, both)}


EXPERIMENT = Experiment("inductive", Path(__file__).parent, PRESETS, make_task, draw)


def main(argv: list[str] | None = None) -> None:
    cli.main(EXPERIMENT, argv)
