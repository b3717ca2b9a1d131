"""Algorithmic graph tasks: the task and main."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.algorithmic_graphs.data import PaddedGraphs, load
from experiments.algorithmic_graphs.figures import draw
from experiments.algorithmic_graphs.model import keep_state, make_model
from experiments.algorithmic_graphs.presets import PRESETS, Config
from structdl.training import cli
from structdl.training.batches import in_order, shuffled_epochs
from structdl.training.experiment import Experiment
from structdl.training.precision import apply
from structdl.training.task import Inputs, Task

EVAL_BATCH = 250  # graphs


def make_task(config: Config) -> Task:
    """Cross-entropy of the answers; a batch is the numbers of its graphs, -1 for none."""
    data, question, sizes = load(config)
    places = {name: np.arange(start, start + number) for name, (start, number) in sizes.items()}
    model = make_model(config, question)
    totals = {"nodes": node_totals, "node": choice_totals, "graph": graph_totals}[question.output]

    def init(key, inputs: Inputs):
        graphs = graphs_of(inputs)
        return keep_state(model.init(key, graphs, train=False)["params"], config), ()

    def totals_of(params, inputs: Inputs, train: bool):
        graphs = graphs_of(inputs)
        scores = apply(model, {"params": params}, graphs, train=train)
        return totals(scores, graphs, inputs.batch >= 0)

    def loss_fn(params, model_state, inputs: Inputs, key):
        metrics = totals_of(params, inputs, train=True)
        return metrics.pop("loss"), (model_state, metrics)

    def metrics(params, model_state, inputs: Inputs, key):
        return totals_of(params, inputs, train=False)

    return Task(
        data=data,
        init=init,
        loss_fn=loss_fn,
        metrics=metrics,
        eval_batches=lambda name: in_order(places[name], EVAL_BATCH),
        batch=shuffled_epochs(places["train"], config.batch_size),
        score="accuracy",
    )


def graphs_of(inputs: Inputs) -> PaddedGraphs:
    """The graphs of a batch."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[inputs.batch], inputs.data)


def node_totals(logits, graphs: PaddedGraphs, counts):
    """A class of each node: a graph is right where all of its nodes are."""
    mask = graphs.node_mask & counts[:, None]
    losses = optax.sigmoid_binary_cross_entropy(logits, graphs.targets)
    correct = (logits > 0) == (graphs.targets > 0)
    number = jnp.sum(mask)
    return {
        "loss": (jnp.sum(losses, where=mask), number),
        "accuracy": _share(jnp.all(correct | ~graphs.node_mask, axis=1), counts),
        "node_accuracy": (jnp.sum(correct, where=mask), number),
    }


def choice_totals(scores, graphs: PaddedGraphs, counts):
    """One node of each graph, by a softmax over them."""
    scores = jnp.where(graphs.node_mask, scores, np.finfo(np.float32).min)
    losses = optax.softmax_cross_entropy_with_integer_labels(scores, graphs.targets)
    return {
        "loss": _share(losses, counts),
        "accuracy": _share(jnp.argmax(scores, axis=1) == graphs.targets, counts),
    }


def graph_totals(logits, graphs: PaddedGraphs, counts):
    """One of two classes of each graph."""
    losses = optax.sigmoid_binary_cross_entropy(logits, graphs.targets)
    return {
        "loss": _share(losses, counts),
        "accuracy": _share((logits > 0) == (graphs.targets > 0), counts),
    }


def _share(values, counts):
    return jnp.sum(values, where=counts), jnp.sum(counts)


EXPERIMENT = Experiment("algorithmic_graphs", Path(__file__).parent, PRESETS, make_task, draw)


def main(argv: list[str] | None = None) -> None:
    cli.main(EXPERIMENT, argv)
