"""Graph isomorphism network: a sum over neighbours, then a perceptron, as strong as colouring.

Reference: Xu, Hu, Leskovec, Jegelka (2019), "How powerful are graph neural networks?",
arXiv:1810.00826.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from structdl.core.arrays import as_array
from structdl.core.segment import EdgeLayout, gather_sum


def sum_with_self(
    nodes: Float[Array | np.ndarray, "num_nodes features"],
    layout: EdgeLayout,
    epsilon: Float[Array, ""] | float = 0.0,
) -> Float[Array, "num_nodes features"]:
    """What enters a layer's perceptron: (1 + epsilon) h_v + sum of h_u over edges (u, v), eq. 4.1.

    A sum over a multiset of neighbours tells two of them apart where a mean or a maximum may not.
    The graph has both directions of an undirected edge and no self-loops beyond its own: a node
    counts itself by 1 + epsilon. A node without incoming edges keeps (1 + epsilon) h_v.

    >>> from structdl.core.segment import edge_layout
    >>> sum_with_self(jnp.eye(2), edge_layout([0], [1], 2), 0.5)
    Array([[1.5, 0. ],
           [1. , 1.5]], dtype=float32)
    """
    nodes = as_array(nodes)
    return (1 + epsilon) * nodes + gather_sum(nodes, layout)


class GINConvolution(nn.Module):
    """One layer before its activation: MLP((1 + epsilon) h_v + sum over edges (u, v) of h_u).

    Attributes:
      features: the widths of the perceptron's dense layers; the last is that of the result.
      train_epsilon: whether epsilon is learned, from 0, or stays 0; the paper has both.
      batch_norm: whether each hidden layer of the perceptron is normalised before its relu.

    Parameters: `dense_0/kernel`, `dense_0/bias`, `norm_0/norm/scale` and on; `epsilon`.
    """

    features: Sequence[int]
    train_epsilon: bool = False
    batch_norm: bool = False

    @nn.compact
    def __call__(
        self,
        nodes: Float[Array | np.ndarray, "num_nodes in_features"],
        layout: EdgeLayout,
        *,
        train: bool,
        mask: Bool[Array, " num_nodes"] | None = None,
    ) -> Float[Array, "num_nodes features"]:
        epsilon = self.param("epsilon", nn.initializers.zeros, ()) if self.train_epsilon else 0.0
        hidden = sum_with_self(nodes, layout, epsilon)
        for number, width in enumerate(self.features):
            hidden = nn.Dense(width, name=f"dense_{number}")(hidden)
            if number + 1 < len(self.features):
                if self.batch_norm:
                    hidden = NodeNorm(name=f"norm_{number}")(hidden, train=train, mask=mask)
                hidden = nn.relu(hidden)
        return hidden


class GIN(nn.Module):
    """Layers of `GINConvolution` with relu; gives the states of all of them.

    The paper reads every layer out (eq. 4.2): z_g = [readout of h^(k) for k = 0 to num_layers], and
    a linear classifier of z_g is the sum of one for each k.

    Attributes:
      features: the width of every layer.
      num_layers: how many.
      mlp_layers: the dense layers of each perceptron.
      train_epsilon: see `GINConvolution`.
      batch_norm: whether every dense layer is normalised over the nodes of the batch, before its
        relu. In training the collection `batch_stats` must be mutable then.
    """

    features: int
    num_layers: int
    mlp_layers: int = 2
    train_epsilon: bool = False
    batch_norm: bool = True

    @nn.compact
    def __call__(
        self,
        nodes: Float[Array | np.ndarray, "num_nodes in_features"],
        layout: EdgeLayout,
        *,
        train: bool,
        mask: Bool[Array, " num_nodes"] | None = None,
    ) -> list[Float[Array, "num_nodes ..."]]:
        """The features and the states after each layer: num_layers + 1 arrays.

        Args:
          nodes: the features.
          layout: the edges.
          train: whether batch normalisation uses, and updates from, the statistics of this batch.
          mask: the nodes that enter those statistics; None means all.
        """
        states = [as_array(nodes)]
        for number in range(self.num_layers):
            convolution = GINConvolution(
                (self.features,) * self.mlp_layers,
                self.train_epsilon,
                self.batch_norm,
                name=f"layers_{number}",
            )
            hidden = convolution(states[-1], layout, train=train, mask=mask)
            if self.batch_norm:
                hidden = NodeNorm(name=f"norm_{number}")(hidden, train=train, mask=mask)
            states.append(nn.relu(hidden))
        return states


class NodeNorm(nn.Module):
    """Batch normalisation over the nodes that a mask counts, with PyTorch's momentum of 0.1.

    Without any node that counts all do: the result is finite and means nothing. The running
    variance is the batch's own, not multiplied by n / (n - 1) as PyTorch's is.
    """

    @nn.compact
    def __call__(
        self,
        nodes: Float[Array | np.ndarray, "num_nodes features"],
        *,
        train: bool,
        mask: Bool[Array, " num_nodes"] | None = None,
    ) -> Float[Array, "num_nodes features"]:
        if mask is not None:
            mask = (mask | ~jnp.any(mask))[:, None]
        norm = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, name="norm")
        return norm(nodes, mask=mask)
