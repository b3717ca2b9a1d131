"""Chebyshev filters: polynomials of the graph Laplacian, which reach `order` edges far.

Reference: Defferrard, Bresson, Vandergheynst (2016), "Convolutional neural networks on graphs with
fast localized spectral filtering", arXiv:1606.09375, after Hammond, Vandergheynst, Gribonval
(2011), "Wavelets on graphs via spectral graph theory", arXiv:0912.3848; as a baseline of citation
networks: Kipf, Welling (2017), arXiv:1609.02907, eq. 4-5 and table 3.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
from jaxtyping import Array, Float

from structdl.core.segment import EdgeLayout, gather_sum
from structdl.core.sparse import SparseRows, as_features, matmul
from structdl.errors import InputError
from structdl.graphs.gcn import symmetric_normalization
from structdl.graphs.layer_dropout import drop_input

_SMALL = 64  # nodes: a dense solver is at least as fast, and needs no convergence


class RescaledLaplacian(NamedTuple):
    """The matrix L~ whose spectrum lies in [-1, 1]: what lies on the edges, and the diagonal.

    Any such matrix will do for `chebyshev_convolution`; `rescaled_laplacian` makes the usual one.
    """

    entries: jax.Array  # [num_edges], of the edge s -> r in row r and column s
    diagonal: jax.Array  # [num_nodes]


def rescaled_laplacian(
    layout: EdgeLayout,
    edge_weights: Float[Array, " num_edges"] | None = None,
    lambda_max: float | Float[Array, ""] = 2.0,
) -> RescaledLaplacian:
    """The matrix L~ = 2 L / lambda_max - I of the normalised Laplacian L = I - D^-1/2 A D^-1/2.

    Self-loops are left out of A, so that the layout of a GCN will do. Of a node without edges the
    row of L is that of I, as in PyTorch Geometric: the diagonal of L~ is 2 / lambda_max - 1 at
    every node, which is 0 with lambda_max = 2. Degrees count incoming edges.

    Args:
      layout: the edges s -> r; both directions of an undirected edge.
      edge_weights: a_rs per edge; None means 1.
      lambda_max: the largest eigenvalue of L, or a bound: no eigenvalue exceeds 2 where weights
        are positive. See `largest_eigenvalue`.

    Raises:
      InputError: lambda_max is a number that is not positive.

    >>> from structdl.core.segment import edge_layout
    >>> rescaled_laplacian(edge_layout([0, 1], [1, 0], 2), lambda_max=1.0)
    RescaledLaplacian(entries=Array([-2., -2.], dtype=float32),
                      diagonal=Array([1., 1.], dtype=float32))
    """
    if isinstance(lambda_max, int | float) and not lambda_max > 0:
        raise InputError(
            f"lambda_max = {lambda_max}: it must be positive; give 2.0, the bound for every graph, "
            "or the result of largest_eigenvalue"
        )
    if edge_weights is None:
        edge_weights = jnp.ones(layout.num_edges)
    between_nodes = jnp.where(layout.senders == layout.receivers, 0, edge_weights)
    entries = symmetric_normalization(layout, between_nodes) * (-2 / lambda_max)
    diagonal = jnp.broadcast_to(2 / lambda_max - 1, (layout.num_receivers,))
    return RescaledLaplacian(entries, diagonal.astype(entries.dtype))


def chebyshev_convolution(
    nodes: Float[Array | np.ndarray, "num_nodes in_features"] | SparseRows | None,
    kernels: Float[Array, "num_terms in_features features"],
    layout: EdgeLayout,
    laplacian: RescaledLaplacian,
    bias: Float[Array, " features"] | None = None,
) -> Float[Array, "num_nodes features"]:
    """One layer before its activation: sum over k of T_k(L~) X W_k, plus b.

    T_0 = 1, T_1(x) = x, T_k(x) = 2 x T_{k-1}(x) - T_{k-2}(x); k goes up to num_terms - 1.

    The narrower side goes through the edges, num_terms - 1 times. Where that is the result, the
    products Y_k = X W_k come first, all at once, and the polynomial is summed from its highest
    term down (Clenshaw 1955):

    B_k = Y_k + 2 L~ B_{k+1} - B_{k+2},    result = Y_0 + L~ B_1 - B_2

    Dense X with fewer features than the result goes through T_k(L~) X instead. The two agree but
    for rounding.

    Args:
      nodes: X; None means the identity, for nodes without features.
      kernels: W_0, W_1 and on.
      layout: the edges of the graph.
      laplacian: L~, see `rescaled_laplacian`.
      bias: b; None means 0.

    Reference: Defferrard et al. (2016), eq. 4-5 and section 2.1; Kipf, Welling (2017), eq. 4-5.
    Differs from the paper: the order of the products, with 16 units and 1433 features 90 times
    less to send through the edges.
    """
    chex.assert_equal(layout.num_senders, layout.num_receivers)
    nodes = as_features(nodes)
    num_terms, in_features, features = kernels.shape
    if nodes is None:
        out = _clenshaw(list(kernels), layout, laplacian)
    elif not isinstance(nodes, SparseRows) and in_features < features:
        terms = jnp.concatenate(_polynomials(nodes, num_terms, layout, laplacian), axis=1)
        out = terms @ kernels.reshape(num_terms * in_features, features)
    else:
        side_by_side = kernels.transpose(1, 0, 2).reshape(in_features, num_terms * features)
        out = matmul(nodes, side_by_side)  # [num_nodes, num_terms * features]
        out = _clenshaw(jnp.split(out, num_terms, axis=1), layout, laplacian)
    return out if bias is None else out + bias[None]


def _propagate(nodes, layout: EdgeLayout, laplacian: RescaledLaplacian):
    """The product L~ X."""
    along_edges = gather_sum(nodes, layout, weights=laplacian.entries)
    return along_edges + laplacian.diagonal[:, None].astype(along_edges.dtype) * nodes


def _polynomials(nodes, num_terms: int, layout, laplacian) -> list:
    """T_0(L~) X, T_1(L~) X and on."""
    terms = [nodes]
    for k in range(1, num_terms):
        product = _propagate(terms[-1], layout, laplacian)
        terms.append(product if k == 1 else 2 * product - terms[-2])
    return terms


def _clenshaw(terms: list, layout, laplacian):
    """The sum over k of T_k(L~) Y_k."""
    above, two_above = terms[-1], None
    for k in range(len(terms) - 2, -1, -1):
        product = _propagate(above, layout, laplacian)
        current = terms[k] + (2 if k > 0 else 1) * product
        current = current if two_above is None else current - two_above
        above, two_above = current, above
    return above


def normalized_laplacian(
    layout: EdgeLayout, edge_weights: Float[Array, " num_edges"] | None = None
) -> scipy.sparse.csr_array:
    """The matrix L = I - D^-1/2 A D^-1/2 in float64, on the host; as in `rescaled_laplacian`.

    Raises:
      InputError: there is an edge without its reverse, or of another weight than its reverse.
    """
    senders, receivers = np.asarray(layout.senders), np.asarray(layout.receivers)
    weights = np.ones(layout.num_edges) if edge_weights is None else np.asarray(edge_weights, float)
    shape = (layout.num_receivers, layout.num_senders)
    is_loop = senders == receivers
    adjacency = scipy.sparse.coo_array((np.where(is_loop, 0, weights), (receivers, senders)), shape)
    adjacency = adjacency.tocsr()
    tolerance = 1e-6 * np.abs(weights).max(initial=0)
    one_way = (abs(adjacency - adjacency.T) > tolerance).tocoo()
    if one_way.nnz:
        pair = one_way.row[0], one_way.col[0]
        row, column = max(pair, pair[::-1], key=lambda entry: adjacency[entry])
        raise InputError(
            f"the edge {column} -> {row} weighs {adjacency[row, column]:g} and {row} -> {column} "
            f"weighs {adjacency[column, row]:g} ({one_way.nnz // 2} such pairs): the spectrum of a "
            "graph needs both directions with one weight; use structdl.graphs.graph.symmetrize"
        )
    degrees = np.asarray(adjacency.sum(axis=1))
    scales = np.zeros_like(degrees)
    scales[degrees > 0] = degrees[degrees > 0] ** -0.5
    scale = scipy.sparse.diags_array(scales)
    return scipy.sparse.csr_array(scipy.sparse.eye_array(*shape) - scale @ adjacency @ scale)


def largest_eigenvalue(
    layout: EdgeLayout, edge_weights: Float[Array, " num_edges"] | None = None
) -> float:
    """The lambda_max of the normalised Laplacian by Lanczos' method, on the host.

    Raises:
      InputError: the graph is not undirected, or has no nodes.

    >>> from structdl.core.segment import edge_layout
    >>> round(largest_eigenvalue(edge_layout([0, 1, 2, 1, 2, 0], [1, 2, 0, 0, 1, 2], 3)), 6)
    1.5
    """
    if layout.num_receivers == 0:
        raise InputError("a graph of 0 nodes has no eigenvalue: give at least one node")
    laplacian = normalized_laplacian(layout, edge_weights)
    num_nodes = layout.num_receivers
    if num_nodes <= _SMALL:
        return float(scipy.linalg.eigvalsh(laplacian.toarray())[-1])
    # a random start has a part of the eigenvector; its own seed gives the same bits every time
    start = np.random.default_rng(0).normal(size=num_nodes)
    found = scipy.sparse.linalg.eigsh(
        laplacian, k=1, which="LA", v0=start, return_eigenvectors=False
    )
    return float(found[0])


class ChebyshevConvolution(nn.Module):
    """The layer sum over k of T_k(L~) X W_k (+ b); see `chebyshev_convolution`.

    Attributes:
      features: the width of the result.
      order: the largest k. K in Kipf and Welling's table 3 is `order`; K in Defferrard et al. and
        in PyTorch Geometric's ChebConv counts the terms, `order + 1`.
      use_bias: whether b is added.
      kernel_init: how each W_k starts; Glorot and Bengio's uniform, as in Kipf's code.

    Parameters: `kernels` [order + 1, in_features, features], `bias`.
    """

    features: int
    order: int
    use_bias: bool = False
    kernel_init: Callable = nn.initializers.glorot_uniform(batch_axis=0)

    @nn.compact
    def __call__(
        self,
        nodes: Float[Array | np.ndarray, "num_nodes in_features"] | SparseRows | None,
        layout: EdgeLayout,
        laplacian: RescaledLaplacian,
    ) -> Float[Array, "num_nodes features"]:
        if self.order < 0:
            raise InputError(f"order = {self.order}: give the largest power of L~, 0 or more")
        if nodes is None:
            in_features = layout.num_senders
        else:
            in_features = nodes.num_columns if isinstance(nodes, SparseRows) else nodes.shape[1]
        shape = (self.order + 1, in_features, self.features)
        kernels = self.param("kernels", self.kernel_init, shape)
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return chebyshev_convolution(nodes, kernels, layout, laplacian, bias)


class ChebNet(nn.Module):
    """Chebyshev convolutions with an activation, then one as the classifier of the nodes.

    That of Kipf and Welling's table 3 is `ChebNet((16,), num_classes, order=2, dropout_rate=0.5)`,
    and order 3 in its other row.

    Attributes:
      hidden: the widths of the hidden convolutions.
      num_classes: the width of the logits.
      order: the largest power of L~ in each layer.
      activation: what follows each hidden convolution.
      dropout_rate: of what enters each layer, the features included (key: `rngs={"dropout": key}`).
      use_bias: whether the convolutions have a bias.

    Parameters: `layers_0/kernels` and on, then `head/kernels`.

    Differs from the paper: Defferrard et al. coarsen the graph and pool between the layers; here
    every layer keeps the nodes, as in Kipf and Welling.
    """

    hidden: Sequence[int]
    num_classes: int
    order: int
    activation: Callable = nn.relu
    dropout_rate: float = 0.0
    use_bias: bool = False

    def setup(self):
        self.layers = [
            ChebyshevConvolution(width, self.order, self.use_bias) for width in self.hidden
        ]
        self.head = ChebyshevConvolution(self.num_classes, self.order, self.use_bias)

    def __call__(
        self,
        nodes: Float[Array | np.ndarray, "num_nodes in_features"] | SparseRows | None,
        layout: EdgeLayout,
        laplacian: RescaledLaplacian,
        *,
        train: bool,
    ) -> Float[Array, "num_nodes num_classes"]:
        """The logits of every node."""
        hidden = drop_input(self, self.embed(nodes, layout, laplacian, train=train), train)
        return self.head(hidden, layout, laplacian)

    def embed(
        self,
        nodes: Float[Array | np.ndarray, "num_nodes in_features"] | SparseRows | None,
        layout: EdgeLayout,
        laplacian: RescaledLaplacian,
        *,
        train: bool,
    ) -> Float[Array, "num_nodes hidden"] | SparseRows | None:
        """What enters the classifier, which is the features where there is no hidden layer.

        Call it by `apply(..., method=ChebNet.embed)`.
        """
        nodes = as_features(nodes)
        for layer in self.layers:
            nodes = self.activation(layer(drop_input(self, nodes, train), layout, laplacian))
        return nodes
