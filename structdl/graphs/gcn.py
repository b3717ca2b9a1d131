"""Graph convolutional network: a product with the normalised adjacency, then with a kernel.

Reference: Kipf, Welling (2017), "Semi-supervised classification with graph convolutional
networks", arXiv:1609.02907.
"""

from collections.abc import Callable, Sequence

import chex
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from structdl.core.segment import (
    EdgeLayout,
    gather_receivers,
    gather_senders,
    gather_sum,
    segment_sum,
)
from structdl.core.sparse import SparseRows, as_features, matmul
from structdl.graphs.layer_dropout import drop_input


def symmetric_normalization(
    layout: EdgeLayout, edge_weights: Float[Array, " num_edges"] | None = None
) -> Float[Array, " num_edges"]:
    """The entries of D^-1/2 A D^-1/2, one per edge: a_rs / sqrt(d_r d_s), d_r = sum_s a_rs.

    A is the adjacency with its self-loops (see `structdl.graphs.graph.add_self_loops`): eq. 2,
    there D~^-1/2 A~ D~^-1/2. Degrees count incoming edges. An edge at a node whose degree is not
    positive has the entry 0.

    Args:
      layout: the edges s -> r.
      edge_weights: a_rs per edge; None means 1.

    >>> from structdl.core.segment import edge_layout
    >>> symmetric_normalization(edge_layout([0, 1, 0, 1], [1, 0, 0, 1], 2)).round(3)
    Array([0.5, 0.5, 0.5, 0.5], dtype=float32)
    """
    chex.assert_equal(layout.num_senders, layout.num_receivers)
    if edge_weights is None:
        edge_weights = jnp.ones(layout.num_edges)
    degrees = segment_sum(edge_weights, layout.receivers, layout.num_receivers, layout=layout)
    positive = degrees > 0
    # the inner where keeps the gradient of the root finite
    scales = jnp.where(positive, 1 / jnp.sqrt(jnp.where(positive, degrees, 1)), 0)
    return gather_receivers(scales, layout) * edge_weights * gather_senders(scales, layout)


def graph_convolution(
    nodes: Float[Array | np.ndarray, "num_nodes in_features"] | SparseRows | None,
    kernel: Float[Array, "in_features features"],
    layout: EdgeLayout,
    weights: Float[Array, " num_edges"],
    bias: Float[Array, " features"] | None = None,
) -> Float[Array, "num_receivers features"]:
    """One layer before its activation: Â X W + b, eq. 2.

    The narrower side goes through the edges: Â (X W), or (Â X) W where X is dense and has fewer
    features than the result. The two agree but for rounding.

    Args:
      nodes: X; None means the identity, for nodes without features. Then X W is the kernel.
      kernel: W.
      layout: the edges of the graph, self-loops included.
      weights: the entries of Â, one per edge (see `symmetric_normalization`).
      bias: b; None means 0.
    """
    nodes = as_features(nodes)
    if nodes is None:
        out = gather_sum(kernel, layout, weights=weights)
    elif not isinstance(nodes, SparseRows) and kernel.shape[0] < kernel.shape[1]:
        out = gather_sum(nodes, layout, weights=weights) @ kernel
    else:
        out = gather_sum(matmul(nodes, kernel), layout, weights=weights)
    return out if bias is None else out + bias[None]


class GraphConvolution(nn.Module):
    """The layer Â X W (+ b) with its parameters; see `graph_convolution`.

    Attributes:
      features: the width of the result.
      use_bias: whether b is added; the paper has none.
      kernel_init: how W starts; Glorot and Bengio's uniform in the paper.
    """

    features: int
    use_bias: bool = False
    kernel_init: Callable = nn.initializers.glorot_uniform()

    @nn.compact
    def __call__(
        self,
        nodes: Float[Array | np.ndarray, "num_nodes in_features"] | SparseRows | None,
        layout: EdgeLayout,
        weights: Float[Array, " num_edges"],
    ) -> Float[Array, "num_receivers features"]:
        if nodes is None:
            in_features = layout.num_senders
        else:
            in_features = nodes.num_columns if isinstance(nodes, SparseRows) else nodes.shape[1]
        kernel = self.param("kernel", self.kernel_init, (in_features, self.features))
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return graph_convolution(nodes, kernel, layout, weights, bias)


class GCN(nn.Module):
    """Graph convolutions with an activation, then a classifier of the nodes (eq. 9).

    The paper's model for citation networks is `GCN((16,), num_classes, dropout_rate=0.5)`; that
    of its appendix A, for the karate club, `GCN((4, 4, 2), 4, nn.tanh, dense_head=True)` with
    nodes None, whose `embed` gives the plane in which the nodes are drawn.

    Attributes:
      hidden: the widths of the hidden graph convolutions.
      num_classes: the width of the logits.
      activation: what follows each hidden graph convolution.
      dropout_rate: of what enters each layer, the features included (key: `rngs={"dropout": key}`).
      use_bias: whether the graph convolutions have a bias.
      dense_head: whether the classifier is a dense layer with a bias instead of a last graph
        convolution.

    Parameters: `layers_0/kernel` and on, then `head/kernel`.
    """

    hidden: Sequence[int]
    num_classes: int
    activation: Callable = nn.relu
    dropout_rate: float = 0.0
    use_bias: bool = False
    dense_head: bool = False

    def setup(self):
        self.layers = [GraphConvolution(width, self.use_bias) for width in self.hidden]
        if self.dense_head:
            self.head = nn.Dense(self.num_classes, kernel_init=nn.initializers.glorot_uniform())
        else:
            self.head = GraphConvolution(self.num_classes, self.use_bias)

    def __call__(
        self,
        nodes: Float[Array | np.ndarray, "num_nodes in_features"] | SparseRows | None,
        layout: EdgeLayout,
        weights: Float[Array, " num_edges"],
        *,
        train: bool,
    ) -> Float[Array, "num_nodes num_classes"]:
        """The logits of every node."""
        hidden = drop_input(self, self.embed(nodes, layout, weights, train=train), train)
        return self.head(hidden) if self.dense_head else self.head(hidden, layout, weights)

    def embed(
        self,
        nodes: Float[Array | np.ndarray, "num_nodes in_features"] | SparseRows | None,
        layout: EdgeLayout,
        weights: Float[Array, " num_edges"],
        *,
        train: bool,
    ) -> Float[Array, "num_nodes hidden"] | SparseRows | None:
        """What enters the classifier, which is the features where there is no hidden layer.

        Call it by `apply(..., method=GCN.embed)`.
        """
        nodes = as_features(nodes)
        for layer in self.layers:
            nodes = self.activation(layer(drop_input(self, nodes, train), layout, weights))
        return nodes
