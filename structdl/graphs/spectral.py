"""Graph Fourier transform, and convolution by one factor for each frequency of the graph.

Everything here costs num_nodes^2 in memory and in time for each channel (num_nodes^3, once, for
the eigenvectors), and belongs to one graph. `structdl.graphs.chebyshev` filters without them.

Reference: Bruna, Zaremba, Szlam, LeCun (2014), "Spectral networks and locally connected networks
on graphs", arXiv:1312.6203.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import scipy.interpolate
import scipy.linalg
from jaxtyping import Array, Float

from structdl.core.arrays import as_array, no_wider
from structdl.core.segment import EdgeLayout
from structdl.core.sparse import SparseRows, matmul
from structdl.errors import InputError
from structdl.graphs.chebyshev import normalized_laplacian
from structdl.graphs.layer_dropout import drop_input

_MOST_NODES = 20_000
_MATRICES = 4  # of num_nodes^2 float64: the Laplacian turned into vectors, and LAPACK's workspace


def laplacian_eigenvectors(
    layout: EdgeLayout,
    edge_weights: Float[Array, " num_edges"] | None = None,
    *,
    num_frequencies: int | None = None,
) -> tuple[Float[Array, " num_frequencies"], Float[Array, "num_nodes num_frequencies"]]:
    """The eigenvalues, ascending, and eigenvectors, as columns, of the normalised Laplacian.

    L = I - D^-1/2 A D^-1/2 = U diag(lambda) U^T

    Computed densely in float64 on the host: half a minute for Cora's 2708 nodes on two busy cores.
    Self-loops are left out of A and the row of a node without edges is that of I, as in
    `structdl.graphs.chebyshev.rescaled_laplacian`. The sign of an eigenvector, and the basis of an
    eigenvalue that occurs several times, is LAPACK's choice and may differ between machines.

    Args:
      layout: the edges, both directions of each.
      edge_weights: a_rs per edge; None means 1.
      num_frequencies: keep only so many of the smallest eigenvalues; None keeps all.

    Raises:
      InputError: the graph is not undirected, or too large for dense matrices; num_frequencies is
        out of range.

    >>> from structdl.core.segment import edge_layout
    >>> eigenvalues, eigenvectors = laplacian_eigenvectors(edge_layout([0, 1], [1, 0], 2))
    >>> eigenvalues.round(3), abs(eigenvectors).round(3)
    (Array([0., 2.], dtype=float32), Array([[0.707, 0.707],
                                            [0.707, 0.707]], dtype=float32))
    """
    num_nodes = layout.num_receivers
    if num_nodes > _MOST_NODES:
        gibibytes = _MATRICES * 8 * num_nodes**2 / 2**30
        raise InputError(
            f"a graph of {num_nodes} nodes: its eigenvectors and the workspace would need about "
            f"{gibibytes:.0f} GiB; the limit is {_MOST_NODES} nodes. Use "
            "structdl.graphs.chebyshev, which needs no eigenvectors, or a subgraph"
        )
    if num_frequencies is not None and not 1 <= num_frequencies <= num_nodes:
        raise InputError(
            f"num_frequencies = {num_frequencies}: a graph of {num_nodes} nodes has 1 to "
            f"{num_nodes} of them; None keeps all"
        )
    laplacian = normalized_laplacian(layout, edge_weights).toarray()
    if num_nodes == 0:
        return jnp.zeros(0), jnp.zeros((0, 0))
    kept = None if num_frequencies is None else [0, num_frequencies - 1]
    eigenvalues, eigenvectors = scipy.linalg.eigh(
        laplacian, subset_by_index=kept, overwrite_a=True, driver="evd" if kept is None else "evr"
    )
    return jnp.asarray(eigenvalues, float), jnp.asarray(eigenvectors, float)


def fourier_transform(
    signal: Float[Array, "num_nodes channels"],
    eigenvectors: Float[Array, "num_nodes num_frequencies"],
) -> Float[Array, "num_frequencies channels"]:
    """The graph Fourier transform U^T x of each channel.

    Reference: Hammond, Vandergheynst, Gribonval (2011), "Wavelets on graphs via spectral graph
    theory", arXiv:0912.3848, section 4.
    """
    return eigenvectors.T @ signal


def inverse_fourier_transform(
    spectrum: Float[Array, "num_frequencies channels"],
    eigenvectors: Float[Array, "num_nodes num_frequencies"],
) -> Float[Array, "num_nodes channels"]:
    """The signal U x^ of a spectrum; with all frequencies, the inverse of `fourier_transform`."""
    return eigenvectors @ spectrum


def spectral_convolution(
    nodes: Float[Array | np.ndarray, "num_nodes in_features"],
    filters: Float[Array, "num_frequencies in_features features"],
    eigenvectors: Float[Array, "num_nodes num_frequencies"],
    bias: Float[Array, " features"] | None = None,
) -> Float[Array, "num_nodes features"]:
    """One layer before its activation: y_o = sum over f of U diag(theta_fo) U^T x_f, plus b_o.

    Args:
      nodes: the channels x_f.
      filters: theta, one factor for each frequency, input channel f and output channel o.
      eigenvectors: U, or its first columns: then the higher frequencies are dropped.
      bias: b; None means 0.

    Reference: Bruna et al. (2014), section 3.2, eq. 3.2; without the coarsening of the graph.
    """
    nodes = as_array(nodes)
    eigenvectors = no_wider(eigenvectors, nodes)
    spectrum = fourier_transform(nodes, eigenvectors)
    filtered = jnp.einsum("nf,nfo->no", spectrum, filters)  # [num_frequencies, features]
    out = inverse_fourier_transform(filtered, eigenvectors)
    return out if bias is None else out + bias[None]


def interpolation_matrix(
    num_frequencies: int, num_control_points: int, kind: str = "cubic"
) -> Float[Array, "num_frequencies num_control_points"]:
    """The matrix that draws a curve over the frequencies 0, 1, ... through few control points.

    filter = matrix @ control_points

    The control points lie at equal distances from the first frequency to the last. "cubic" is the
    natural spline through them, "linear" the straight lines between them. A single control point
    gives a constant.

    Raises:
      InputError: fewer than 1 control points, more than frequencies, or another kind.

    Reference: Bruna et al. (2014), section 3.4: the fixed cubic spline kernel K with
    theta = K alpha, since a filter that is smooth over the frequencies is localised on the nodes.

    >>> interpolation_matrix(3, 2, "linear")
    Array([[1. , 0. ],
           [0.5, 0.5],
           [0. , 1. ]], dtype=float32)
    """
    if not 1 <= num_control_points <= num_frequencies:
        raise InputError(
            f"num_control_points = {num_control_points}: {num_frequencies} frequencies take 1 to "
            f"{num_frequencies} of them; None gives each frequency a factor of its own"
        )
    if kind not in ("cubic", "linear"):
        raise InputError(f"interpolation {kind!r}: 'cubic' or 'linear'")
    if num_control_points == 1:
        return jnp.ones((num_frequencies, 1))
    control_points = np.linspace(0, num_frequencies - 1, num_control_points)
    if kind == "cubic":
        curve = scipy.interpolate.CubicSpline(
            control_points, np.eye(num_control_points), bc_type="natural"
        )
    else:
        curve = scipy.interpolate.make_interp_spline(
            control_points, np.eye(num_control_points), k=1
        )
    return jnp.asarray(curve(np.arange(num_frequencies)), float)


class SpectralConvolution(nn.Module):
    """The layer sum over f of U diag(theta_fo) U^T x_f (+ b); see `spectral_convolution`.

    Attributes:
      features: the number of output channels.
      num_control_points: of each filter, which is then smooth over the frequencies; None gives
        each frequency a factor of its own, for this one graph.
      interpolation: "cubic" or "linear", between the control points.
      use_bias: whether b is added.
      kernel_init: how the factors or the control points start; each frequency has the kernel of a
        dense layer.

    Parameters: `filters` [num_frequencies or num_control_points, in_features, features], `bias`.
    """

    features: int
    num_control_points: int | None = None
    interpolation: str = "cubic"
    use_bias: bool = False
    kernel_init: Callable = nn.initializers.glorot_uniform(batch_axis=0)

    @nn.compact
    def __call__(
        self,
        nodes: Float[Array | np.ndarray, "num_nodes in_features"],
        eigenvectors: Float[Array, "num_nodes num_frequencies"],
    ) -> Float[Array, "num_nodes features"]:
        num_frequencies = eigenvectors.shape[1]
        count = num_frequencies if self.num_control_points is None else self.num_control_points
        filters = self.param("filters", self.kernel_init, (count, nodes.shape[1], self.features))
        if self.num_control_points is not None:
            matrix = interpolation_matrix(num_frequencies, count, self.interpolation)
            filters = jnp.einsum("np,pfo->nfo", no_wider(matrix, filters), filters)
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return spectral_convolution(nodes, filters, eigenvectors, bias)


class SpectralNet(nn.Module):
    """Spectral convolutions with an activation, then one as the classifier of the nodes.

    Attributes:
      channels: how many the features are projected to before the first convolution.
      hidden: the widths of the hidden convolutions.
      num_classes: the width of the logits.
      num_control_points: of each filter; None gives each frequency a factor of its own.
      interpolation: "cubic" or "linear".
      activation: what follows each hidden convolution.
      dropout_rate: of the features and of what enters each convolution (key:
        `rngs={"dropout": key}`).
      use_bias: whether the convolutions have a bias.

    Parameters: `projection`, `layers_0/filters` and on, `head/filters`.

    Differs from the paper: the features pass a linear projection to few channels first, a sparse
    product for sparse ones: a filter for each of Cora's 1433 words, 16 outputs and 2708 frequencies
    would be 62 million numbers. And the graph is not coarsened, since each node has a label.
    """

    channels: int
    hidden: Sequence[int]
    num_classes: int
    num_control_points: int | None = None
    interpolation: str = "cubic"
    activation: Callable = nn.relu
    dropout_rate: float = 0.0
    use_bias: bool = False

    def setup(self):
        options = (self.num_control_points, self.interpolation, self.use_bias)
        self.layers = [SpectralConvolution(width, *options) for width in self.hidden]
        self.head = SpectralConvolution(self.num_classes, *options)

    def __call__(
        self,
        nodes: Float[Array | np.ndarray, "num_nodes in_features"] | SparseRows,
        eigenvectors: Float[Array, "num_nodes num_frequencies"],
        *,
        train: bool,
    ) -> Float[Array, "num_nodes num_classes"]:
        """The logits of every node."""
        hidden = drop_input(self, self.embed(nodes, eigenvectors, train=train), train)
        return self.head(hidden, eigenvectors)

    @nn.compact
    def embed(
        self,
        nodes: Float[Array | np.ndarray, "num_nodes in_features"] | SparseRows,
        eigenvectors: Float[Array, "num_nodes num_frequencies"],
        *,
        train: bool,
    ) -> Float[Array, "num_nodes hidden"]:
        """What enters the classifier: the projected features where there is no hidden layer.

        Call it by `apply(..., method=SpectralNet.embed)`.
        """
        in_features = nodes.num_columns if isinstance(nodes, SparseRows) else nodes.shape[1]
        shape = (in_features, self.channels)
        projection = self.param("projection", nn.initializers.glorot_uniform(), shape)
        hidden = matmul(drop_input(self, nodes, train), projection)
        for layer in self.layers:
            hidden = self.activation(layer(drop_input(self, hidden, train), eigenvectors))
        return hidden
