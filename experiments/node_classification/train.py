"""Semi-supervised node classification: the task and main."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax

from experiments.node_classification.data import SPLITS, load
from experiments.node_classification.figures import draw
from experiments.node_classification.model import make_model
from experiments.node_classification.presets import PRESETS, Config
from structdl.training import cli
from structdl.training.experiment import Experiment
from structdl.training.task import Inputs, Task


def make_task(config: Config) -> Task:
    """Cross-entropy over a split's nodes, from logits of all nodes.

    A batch is the index of a split among train, validation and test: the graph is whole each step.
    """
    data, num_classes, split = load(config)
    model = make_model(config, num_classes)

    def init(key, inputs: Inputs):
        data = inputs.data
        params = model.init(key, data.features, data.layout, data.weights, train=False)
        return params["params"], ()

    def totals(logits, inputs: Inputs):
        mask, labels = inputs.seed_data[inputs.batch], inputs.data.labels
        # a node without a label is in no split
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
        correct = jnp.argmax(logits, axis=-1) == labels
        count = jnp.sum(mask)
        return {
            "loss": (jnp.sum(losses, where=mask), count),
            "accuracy": (jnp.sum(correct, where=mask), count),
        }

    def apply(params, data, train, **kwargs):
        return model.apply(
            {"params": params}, data.features, data.layout, data.weights, train=train, **kwargs
        )

    def loss_fn(params, model_state, inputs: Inputs, key):
        logits = apply(params, inputs.data, train=True, rngs={"dropout": key})
        metrics = totals(logits, inputs)
        return metrics.pop("loss"), (model_state, metrics)

    def metrics(params, model_state, inputs: Inputs, key):
        return totals(apply(params, inputs.data, train=False), inputs)

    def eval_batches(name: str):
        index = np.int32(SPLITS.index(name))
        return [index] if split(config.run.seed)[index].any() else []

    def penalty(params):
        return config.model.l2 * optax.tree.norm(params["layers_0"], squared=True) / 2

    return Task(
        data=data,
        init=init,
        loss_fn=loss_fn,
        metrics=metrics,
        eval_batches=eval_batches,
        batch=lambda step, seed: np.int32(0),
        seed_data=split,
        penalty=penalty,
        score="accuracy",
    )


EXPERIMENT = Experiment("node_classification", Path(__file__).parent, PRESETS, make_task, draw)


def main(argv: list[str] | None = None) -> None:
    cli.main(EXPERIMENT, argv)
