"""Semi-supervised node classification: the task and main."""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import optax

from experiments.node_classification import unsupervised
from experiments.node_classification.data import SPLITS, Nodes, load
from experiments.node_classification.figures import draw
from experiments.node_classification.model import (
    ChebyshevConfig,
    DeepWalkConfig,
    GCNConfig,
    LabelPropagationConfig,
    make_network,
    make_structure,
    penalized,
)
from experiments.node_classification.presets import PRESETS, Config
from structdl.core.sparse import SparseRows
from structdl.errors import InputError
from structdl.training import cli
from structdl.training.experiment import Experiment
from structdl.training.metrics import class_totals
from structdl.training.precision import apply
from structdl.training.task import Inputs, Task


class NodeData(NamedTuple):
    """What a network sees, on the device."""

    features: SparseRows | None  # [num_nodes, features]; None: no features
    structure: tuple  # see `model.make_structure`
    labels: jax.Array  # [num_nodes], int32; -1: none


def make_task(config: Config) -> Task:
    """Cross-entropy over a split's nodes, from scores of all nodes.

    A batch is the index of a split among train, validation and test: the graph is whole each step.
    """
    nodes = load(config)
    match config.model:
        case LabelPropagationConfig():
            task = unsupervised.label_propagation(config.model, nodes)
        case DeepWalkConfig():
            task = unsupervised.deepwalk(config.model, nodes)
        case _:
            task = network_task(config, nodes)
    first_masks = nodes.split(config.run.seed)

    def eval_batches(split: str):
        index = np.int32(SPLITS.index(split))
        return [index] if first_masks[index].any() else []

    return task._replace(
        eval_batches=eval_batches,
        batch=lambda step, seed: np.int32(SPLITS.index("train")),
        seed_data=nodes.split,
        score="accuracy",
    )


def network_task(config: Config, nodes: Nodes) -> Task:
    """A network trained on the labels of the training nodes.

    Raises:
      InputError: the nodes have no features, and the network needs them.
    """
    if nodes.features is None and not isinstance(config.model, GCNConfig | ChebyshevConfig):
        raise InputError(
            f"--dataset {config.dataset} has no features, and {type(config.model).__name__} needs "
            "some: choose cora, citeseer or pubmed, or a GCN or Chebyshev preset."
        )
    network = make_network(config.model, nodes.num_classes)

    def logits_of(params, data: NodeData, train: bool, **kwargs):
        variables = {"params": params}
        return apply(network, variables, data.features, *data.structure, train=train, **kwargs)

    def init(key, inputs: Inputs):
        data = inputs.data
        params = network.init(key, data.features, *data.structure, train=False)
        return params["params"], ()

    def loss_fn(params, model_state, inputs: Inputs, key):
        # not split: a line search evaluates this several times with one key
        names = ("dropout", "permutation")
        rngs = {name: jax.random.fold_in(key, place) for place, name in enumerate(names)}
        logits = logits_of(params, inputs.data, train=True, rngs=rngs)
        metrics = class_totals(logits, inputs.data.labels, inputs.seed_data[inputs.batch])
        return metrics.pop("loss"), (model_state, metrics)

    def metrics(params, model_state, inputs: Inputs, key):
        logits = logits_of(params, inputs.data, train=False)
        return class_totals(logits, inputs.data.labels, inputs.seed_data[inputs.batch])

    def penalty(params):
        squares = optax.tree.norm(penalized(config.model, params), squared=True)
        return config.model.l2 * squares / 2

    return Task(
        data=NodeData(nodes.features, make_structure(config.model, nodes.graph), nodes.labels),
        init=init,
        loss_fn=loss_fn,
        metrics=metrics,
        penalty=penalty,
    )


EXPERIMENT = Experiment("node_classification", Path(__file__).parent, PRESETS, make_task, draw)


def main(argv: list[str] | None = None) -> None:
    cli.main(EXPERIMENT, argv)
