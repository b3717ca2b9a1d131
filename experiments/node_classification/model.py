"""The model that a config names."""

import flax.linen as nn
import jax

from experiments.node_classification.data import NodeData
from experiments.node_classification.presets import Config
from structdl.errors import InputError
from structdl.graphs.gcn import GCN


def make_model(config: Config, num_classes: int) -> GCN:
    """The graph convolutional network of a config.

    Raises:
      InputError: no hidden layer, or one without units.
    """
    if not config.model.hidden or min(config.model.hidden) < 1:
        raise InputError(f"--model.hidden is {config.model.hidden}: give one width or more.")
    return GCN(
        hidden=config.model.hidden,
        num_classes=num_classes,
        activation={"relu": nn.relu, "tanh": nn.tanh}[config.model.activation],
        dropout_rate=config.model.dropout,
        dense_head=config.model.head == "dense",
    )


def embed(config: Config, params, data: NodeData) -> jax.Array:
    """What enters the classifier, for every node: [num_nodes, last hidden width]."""
    # the classifier's width plays no part in what enters it
    model = make_model(config, num_classes=1)
    return model.apply(
        {"params": params},
        data.features,
        data.layout,
        data.weights,
        train=False,
        method=GCN.embed,
    )
