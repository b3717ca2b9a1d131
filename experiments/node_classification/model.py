"""The models that a config names: their options, what they take of a graph, and their modules."""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np

from structdl.core.segment import edge_layout
from structdl.graphs.aggregators import order_edges
from structdl.graphs.chebyshev import ChebNet, rescaled_laplacian
from structdl.graphs.gat import GAT
from structdl.graphs.gcn import GCN, symmetric_normalization
from structdl.graphs.ggnn import GGNN
from structdl.graphs.graph import Graph, add_self_loops
from structdl.graphs.sage import GraphSAGE
from structdl.graphs.spectral import SpectralNet, laplacian_eigenvectors
from structdl.training.ranges import (
    DropoutRate,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Widths,
)


@dataclasses.dataclass(frozen=True)
class GCNConfig:
    """A graph convolutional network."""

    hidden: Widths = (16,)
    """Widths of the hidden graph convolutions."""
    activation: Literal["relu", "tanh"] = "relu"
    dropout: DropoutRate = 0.5
    """Of what enters each layer, the features included."""
    head: Literal["convolution", "dense"] = "convolution"
    """The classifier: a last graph convolution, or a dense layer."""
    l2: NonNegativeFloat = 5e-4
    """The penalty on the first layer's kernel W is l2 * |W|^2 / 2."""


@dataclasses.dataclass(frozen=True)
class ChebyshevConfig:
    """A network of Chebyshev filters."""

    hidden: Widths = (16,)
    """Widths of the hidden convolutions."""
    order: NonNegativeInt = 2
    """The largest power of the Laplacian, K."""
    dropout: DropoutRate = 0.5
    """Of what enters each layer, the features included."""
    l2: NonNegativeFloat = 5e-4
    """The penalty on the first layer's kernels W is l2 * |W|^2 / 2."""


@dataclasses.dataclass(frozen=True)
class GATConfig:
    """A graph attention network."""

    hidden: Widths = (8,)
    """Features of a head in each hidden layer."""
    heads: PositiveInt = 8
    """Heads of a hidden layer, concatenated."""
    output_heads: PositiveInt = 1
    """Heads of the last layer, averaged."""
    dropout: DropoutRate = 0.6
    """Of what enters each layer, the features included, and of the attention weights."""
    drop_values: bool = True
    """Whether the projected features are dropped out too, as in the authors' code."""
    l2: NonNegativeFloat = 5e-4
    """The penalty is l2 * |W|^2 / 2 over all parameters but biases."""


@dataclasses.dataclass(frozen=True)
class GraphSAGEConfig:
    """GraphSAGE on the whole graph."""

    hidden: Widths = (16,)
    """Widths of the hidden layers; concatenation doubles them."""
    aggregator: Literal["gcn", "mean", "max_pool", "mean_pool", "lstm"] = "mean"
    combine: Literal["concat", "sum"] = "concat"
    """How a node is joined with its neighbours in the hidden layers."""
    normalize: Literal["every", "last", "never"] = "never"
    """Which hidden layers' rows get length 1."""
    aggregator_features: PositiveInt | None = 64
    """Width of the dense layer before a pool, or of the LSTM."""
    max_neighbours: PositiveInt = 32
    """Of a node, for the LSTM; of more, so many are drawn once."""
    dropout: DropoutRate = 0.5
    """Of what enters each layer, the features included."""
    l2: NonNegativeFloat = 5e-4
    """The penalty is l2 * |W|^2 / 2 over all parameters but biases."""


@dataclasses.dataclass(frozen=True)
class GGNNConfig:
    """A gated graph neural network; the features are projected to its width first."""

    hidden: PositiveInt = 32
    """Width of the recurrent unit."""
    num_steps: NonNegativeInt = 2
    """Steps of the recurrence: how far a node sees."""
    dropout: DropoutRate = 0.5
    """Of the features, and of what enters the classifier."""
    l2: NonNegativeFloat = 5e-4
    """The penalty is l2 * |W|^2 / 2 over all parameters but biases."""


@dataclasses.dataclass(frozen=True)
class SpectralConfig:
    """A network of convolutions in the graph's Fourier domain."""

    channels: PositiveInt = 16
    """How many the features are projected to first."""
    hidden: Widths = (16,)
    """Widths of the hidden convolutions."""
    num_control_points: PositiveInt | None = 8
    """Of each filter, a spline over the frequencies; None gives each frequency a factor."""
    dropout: DropoutRate = 0.5
    """Of the features, and of what enters each convolution."""
    l2: NonNegativeFloat = 5e-4
    """The penalty is l2 * |W|^2 / 2 over all parameters but biases."""


@dataclasses.dataclass(frozen=True)
class LabelPropagationConfig:
    """Labels that spread along the edges; nothing is trained."""

    num_iterations: NonNegativeInt = 200
    """How often each node becomes the mean of its neighbours."""
    class_mass: bool = True
    """Whether each class is scaled to the share that it has of the given labels."""


@dataclasses.dataclass(frozen=True)
class DeepWalkConfig:
    """Skip-gram embeddings of random walks, then a linear classifier on them."""

    features: PositiveInt = 128
    """Width of an embedding."""
    num_walks: PositiveInt = 128
    """Walks of a step, from nodes drawn by chance."""
    length: PositiveInt = 40
    """Steps of a walk."""
    window: PositiveInt = 10
    """How far apart on a walk two nodes are still pulled together."""
    num_negatives: PositiveInt = 5
    """Nodes that a pair is pushed from."""
    classifier_l2: PositiveFloat = 1e-2
    """The classifier's penalty, see fit_linear_classifier."""


NetworkConfig = (
    GCNConfig | ChebyshevConfig | GATConfig | GraphSAGEConfig | GGNNConfig | SpectralConfig
)
ModelConfig = NetworkConfig | LabelPropagationConfig | DeepWalkConfig


def make_structure(config: NetworkConfig, graph: Graph) -> tuple:
    """What a network takes after the features: the edges, first of all, as it wants them.

    Args:
      graph: both directions of each edge.
    """
    if isinstance(config, GCNConfig | GATConfig):
        # Kipf's code gives a self-loop also to a node that has one, that of GAT does not
        graph = add_self_loops(graph, only_missing=isinstance(config, GATConfig))
    ends = graph.senders, graph.receivers
    layout = edge_layout(*ends, graph.num_nodes)
    # op by op these compile five times as long
    match config:
        case GCNConfig():
            return layout, jax.jit(symmetric_normalization)(layout)
        case ChebyshevConfig():
            return layout, jax.jit(rescaled_laplacian)(layout)
        case SpectralConfig():
            return (laplacian_eigenvectors(layout)[1],)
        case GraphSAGEConfig(aggregator="lstm"):
            return (
                order_edges(
                    *ends,
                    graph.num_nodes,
                    max_neighbours=config.max_neighbours,
                    generator=np.random.default_rng(0),
                ),
            )
        case _:
            return (layout,)


def make_network(config: NetworkConfig, num_classes: int) -> nn.Module:
    """The network of a config: `module(features, *structure, train=...)` gives logits."""
    match config:
        case GCNConfig():
            return GCN(
                config.hidden,
                num_classes,
                {"relu": nn.relu, "tanh": nn.tanh}[config.activation],
                dropout_rate=config.dropout,
                dense_head=config.head == "dense",
            )
        case ChebyshevConfig():
            return ChebNet(config.hidden, num_classes, config.order, dropout_rate=config.dropout)
        case GATConfig():
            return GAT(
                config.hidden,
                num_classes,
                heads=config.heads,
                output_heads=config.output_heads,
                dropout_rate=config.dropout,
                drop_values=config.drop_values,
            )
        case GraphSAGEConfig():
            return GraphSAGE(
                config.hidden,
                num_classes,
                config.aggregator,
                config.combine,
                normalize=config.normalize,
                dropout_rate=config.dropout,
                use_bias=True,
                aggregator_features=config.aggregator_features,
                dense_head=False,
            )
        case GGNNConfig():
            return GGNN(
                config.hidden,
                config.num_steps,
                num_classes,
                project=True,
                dropout_rate=config.dropout,
            )
        case SpectralConfig():
            return SpectralNet(
                config.channels,
                config.hidden,
                num_classes,
                config.num_control_points,
                dropout_rate=config.dropout,
            )


def penalized(config: NetworkConfig, params) -> list[jax.Array]:
    """The parameters that the L2 penalty is on: the first layer's, or all but biases."""
    if isinstance(config, GCNConfig | ChebyshevConfig):
        return jax.tree.leaves(params["layers_0"])
    return [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if "bias" not in path[-1].key
    ]


def embed(config: GCNConfig, params, features: Any, structure: tuple) -> jax.Array:
    """What enters the classifier, for every node: [num_nodes, last hidden width]."""
    # the classifier's width plays no part in what enters it
    network = make_network(config, num_classes=1)
    variables = {"params": params}
    return network.apply(variables, features, *structure, train=False, method=network.embed)
