"""Gated graph neural network: a recurrent unit at every node, fed by the sum of its messages.

Reference: Li, Tarlow, Brockschmidt, Zemel (2016), "Gated graph sequence neural networks",
arXiv:1511.05493.
"""

from collections.abc import Sequence
from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from structdl.core.arrays import as_array
from structdl.core.edge_layout import check_size, is_inside
from structdl.core.segment import (
    EdgeLayout,
    edge_layout,
    edge_list,
    gather_sum,
    segment_max,
    segment_sum,
)
from structdl.core.sparse import SparseRows, matmul
from structdl.errors import InputError
from structdl.graphs.layer_dropout import drop_input
from structdl.graphs.readout import GatedReadout
from structdl.recurrent.cells import GRUParams, gru_step


class GatedGraphParams(NamedTuple):
    """What all steps share."""

    kernels: jax.Array  # [num_edge_types, hidden, hidden]
    biases: jax.Array | None  # [num_edge_types, hidden]; None means 0
    gru: GRUParams  # of width hidden, with messages of width hidden


def typed_edge_layout(
    senders, receivers, edge_types, num_nodes: int, num_edge_types: int
) -> EdgeLayout:
    """The layout of a graph with edge types, whose senders are node * num_edge_types + type.

    A state that has gone through every type's kernel is then a sender of its own, and one
    `gather_sum` picks for each edge the product that its type asks for. What is stored is
    [num_nodes, num_edge_types, hidden], for any number of edges.

    Args:
      senders: the node each edge starts from, an index per edge.
      receivers: the node it points to. In the paper information flows both ways, with a type of
        its own for the reverse edges: the caller's graph has both.
      edge_types: the type of each edge, 0 to num_edge_types - 1.
      num_nodes: how many nodes there are, isolated ones included.
      num_edge_types: how many types.

    Raises:
      InputError: an index, a type or a size is out of range, or the arrays are not integers of one
        length.

    >>> typed_edge_layout([0, 1], [1, 0], [0, 2], num_nodes=2, num_edge_types=3).senders
    Array([0, 5], dtype=int32)
    """
    check_size("num_nodes", num_nodes)
    check_size("num_edge_types", num_edge_types)
    senders, types = np.asarray(senders), np.asarray(edge_types)
    if types.shape != senders.shape or (types.size and types.dtype.kind not in "iu"):
        raise InputError(
            f"edge_types has shape {types.shape} and dtype {types.dtype}: it must be one integer "
            f"for each of {len(senders)} edges"
        )
    bad = np.flatnonzero((types < 0) | (types >= num_edge_types))
    if bad.size:
        raise InputError(
            f"edge_types[{bad[0]}] = {types[bad[0]]} (one of {bad.size} such values): with "
            f"num_edge_types = {num_edge_types} types are 0 to {num_edge_types - 1}; number them "
            "from 0, or raise num_edge_types"
        )
    bad = np.flatnonzero((senders < 0) | (senders >= num_nodes))
    if bad.size:
        raise InputError(
            f"senders[{bad[0]}] = {senders[bad[0]]} (one of {bad.size} such values): a graph of "
            f"num_nodes = {num_nodes} has the indices 0 to {num_nodes - 1}; mend the edge or "
            "raise num_nodes"
        )
    typed_senders = senders.astype(np.int64) * num_edge_types + types
    return edge_layout(typed_senders, receivers, num_nodes * num_edge_types, num_nodes)


def typed_edge_list(
    senders: Int[Array, " num_edges"],
    receivers: Int[Array, " num_edges"],
    edge_types: Int[Array, " num_edges"],
    num_nodes: int,
    num_edge_types: int,
) -> EdgeLayout:
    """`typed_edge_layout` without tables, for padded graphs inside jit.

    An edge of which an end or the type is out of range is dropped, see `edge_list`.
    """
    inside = is_inside(senders, num_nodes) & is_inside(edge_types, num_edge_types)
    typed_senders = jnp.where(inside, senders * num_edge_types + edge_types, -1)
    return edge_list(typed_senders, receivers, num_nodes * num_edge_types, num_nodes)


def edge_messages(
    hidden: Float[Array, "num_nodes hidden"],
    kernels: Float[Array, "num_edge_types hidden features"],
    biases: Float[Array, "num_edge_types features"] | None,
    layout: EdgeLayout,
) -> Float[Array, "num_nodes features"]:
    """What every node receives: m_r = sum over edges (s, r) of h_s W_type + b_type, eq. 2.

    The layout is that of `typed_edge_layout`, or with one type a plain one. A node without
    incoming edges receives 0.
    """
    num_edge_types, width, features = kernels.shape
    fused = jnp.swapaxes(kernels, 0, 1).reshape(width, num_edge_types * features)
    sent = (hidden @ fused).reshape(-1, num_edge_types, features)
    if biases is not None:
        sent = sent + biases[None]
    return gather_sum(sent.reshape(-1, features), layout)  # senders are node * types + type


def gated_graph_convolution(
    params: GatedGraphParams,
    nodes: Float[Array | np.ndarray, "num_nodes in_features"],
    layout: EdgeLayout,
    *,
    num_steps: int,
    reset_after: bool = True,
) -> Float[Array, "num_nodes hidden"]:
    """Runs a gated recurrent unit at every node for num_steps steps, eq. 1-6.

    h_v at step 0 = [x_v, 0], and then
    h_v = GRU(h_v, sum over edges (u, v) of W_type h_u + b_type)

    All steps share their weights and run in one loop; the time and the memory that the gradient
    takes grow with their number, the program does not.

    Args:
      params: the kernels of the edge types and the unit.
      nodes: x, the annotations, padded with zeros to the width of the unit.
      layout: the typed edges (see `typed_edge_layout`), or plain ones where there is one type.
      num_steps: how many edges information can travel.
      reset_after: see `structdl.recurrent.cells.gru_step`.

    Raises:
      ValueError: the annotations are wider than the unit.
      AssertionError: the layout does not have a sender for each node and type.

    Differs from the paper: with reset_after the reset gate follows the recurrent product, as in
    PyTorch; False gives eq. 5. The update gate keeps where eq. 6 writes, which is the same model
    with the signs of that gate's parameters exchanged.
    """
    nodes = as_array(nodes)
    num_edge_types, width, _ = params.kernels.shape
    num_nodes, in_features = nodes.shape
    chex.assert_equal(layout.num_senders, num_nodes * num_edge_types)
    chex.assert_equal(layout.num_receivers, num_nodes)
    if in_features > width:
        raise ValueError(
            f"annotations of width {in_features} for a hidden width of {width}: they are padded "
            "with zeros, so that they cannot be wider; raise the hidden width or project them"
        )

    def step(hidden, _):
        messages = edge_messages(hidden, params.kernels, params.biases, layout)
        hidden, _ = gru_step(params.gru, hidden, messages, reset_after=reset_after)
        return hidden, None

    hidden = jnp.pad(nodes, ((0, 0), (0, width - in_features)))
    hidden, _ = jax.lax.scan(step, hidden, length=num_steps)
    return hidden


def node_log_probabilities(
    scores: Float[Array, " num_nodes"],
    graph_ids: Int[Array, " num_nodes"],
    num_graphs: int,
) -> Float[Array, " num_nodes"]:
    """The log-softmax over the nodes of each graph, which selects one of them (section 3.2).

    out[v] = scores[v] - log(sum over u in the graph of v of exp(scores[u]))

    >>> jnp.exp(node_log_probabilities(jnp.array([1.0, 1.0, 5.0]), jnp.array([0, 0, 1]), 2))
    Array([0.5, 0.5, 1. ], dtype=float32)
    """
    maxima = segment_max(jax.lax.stop_gradient(scores), graph_ids, num_graphs)
    shifted = scores - maxima[graph_ids]
    totals = segment_sum(jnp.exp(shifted), graph_ids, num_graphs)
    return shifted - jnp.log(jnp.where(totals == 0, 1, totals))[graph_ids]


class GatedGraphConvolution(nn.Module):
    """`gated_graph_convolution` with its parameters.

    Attributes:
      features: the width of the unit, at least that of the annotations.
      num_steps: how many steps, with shared weights.
      num_edge_types: how many kinds of edges have a kernel of their own.
      use_bias: whether messages have a bias for each type.
      reset_after: see `structdl.recurrent.cells.gru_step`.

    Parameters: `message_kernels`, `message_biases`, and those of `GRUParams`. Kernels start as
    Glorot's uniform, biases at 0.
    """

    features: int
    num_steps: int
    num_edge_types: int = 1
    use_bias: bool = True
    reset_after: bool = True

    @nn.compact
    def __call__(
        self, nodes: Float[Array | np.ndarray, "num_nodes in_features"], layout: EdgeLayout
    ) -> Float[Array, "num_nodes features"]:
        width, num_types = self.features, self.num_edge_types
        per_type = nn.initializers.glorot_uniform(batch_axis=0)
        per_gate, zeros = _three_glorot_kernels, nn.initializers.zeros
        params = GatedGraphParams(
            self.param("message_kernels", per_type, (num_types, width, width)),
            self.param("message_biases", zeros, (num_types, width)) if self.use_bias else None,
            GRUParams(
                self.param("input_kernel", per_gate, (width, 3 * width)),
                self.param("recurrent_kernel", per_gate, (width, 3 * width)),
                self.param("input_bias", zeros, (3 * width,)),
                self.param("recurrent_bias", zeros, (3 * width,)),
            ),
        )
        return gated_graph_convolution(
            params, nodes, layout, num_steps=self.num_steps, reset_after=self.reset_after
        )


def _three_glorot_kernels(key, shape, dtype=jnp.float32):
    """A kernel of three gates, each scaled for its own width."""
    width = shape[1] // 3
    kernels = nn.initializers.glorot_uniform(batch_axis=0)(key, (3, shape[0], width), dtype)
    return jnp.concatenate(list(kernels), axis=1)


class GGNN(nn.Module):
    """Gated graph convolution, then an output for every node, for a choice of one, or for graphs.

    `__call__` gives the logits of every node, `node_scores` one score a node, for
    `node_log_probabilities`, and `graph_logits` those of every graph, through the gated readout of
    eq. 7. Each has parameters of its own: initialise with `method=` the one that is used.

    Attributes:
      features: the width of the unit.
      num_steps: how many steps.
      num_classes: the width of the logits.
      num_edge_types: how many kinds of edges have a kernel of their own.
      head: the widths of the tanh layers between [h_v, x_v], or the graph's vector, and the output.
      project: whether the features first go through a dense layer to the width of the unit.
      dropout_rate: of the features and of what enters the output (key: `rngs={"dropout": key}`).
      reset_after: see `structdl.recurrent.cells.gru_step`.

    Differs from the paper: `project`, for features wider than the unit, such as bags of words;
    there x_v is the projection, also where the output reads it. Dropout.
    """

    features: int
    num_steps: int
    num_classes: int = 1
    num_edge_types: int = 1
    head: Sequence[int] = ()
    project: bool = False
    dropout_rate: float = 0.0
    reset_after: bool = True

    def setup(self):
        self.convolution = GatedGraphConvolution(
            self.features, self.num_steps, self.num_edge_types, reset_after=self.reset_after
        )
        if self.project:
            self.projection = Projection(self.features)
        self.head_layers = [nn.Dense(width) for width in self.head]
        self.output = nn.Dense(self.num_classes)
        self.score = nn.Dense(1)
        self.readout = GatedReadout(self.features)

    def __call__(
        self,
        nodes: Float[Array | np.ndarray, "num_nodes in_features"] | SparseRows,
        layout: EdgeLayout,
        *,
        train: bool,
    ) -> Float[Array, "num_nodes num_classes"]:
        """The logits of every node, of its state and its annotation."""
        return self.output(self._after_head(self._joined(nodes, layout, train), train))

    def node_scores(
        self,
        nodes: Float[Array | np.ndarray, "num_nodes in_features"] | SparseRows,
        layout: EdgeLayout,
        *,
        train: bool,
    ) -> Float[Array, " num_nodes"]:
        """The score of every node, of which a softmax within each graph selects one."""
        return self.score(self._after_head(self._joined(nodes, layout, train), train))[:, 0]

    def graph_logits(
        self,
        nodes: Float[Array | np.ndarray, "num_nodes in_features"] | SparseRows,
        layout: EdgeLayout,
        graph_ids: Int[Array, " num_nodes"],
        num_graphs: int,
        *,
        train: bool,
        mask: Bool[Array, " num_nodes"] | None = None,
    ) -> Float[Array, "num_graphs num_classes"]:
        """The logits of every graph, over the nodes that the mask counts."""
        hidden, annotations = self.embed(nodes, layout, train=train)
        graphs = self.readout(hidden, annotations, graph_ids, num_graphs, mask=mask)
        return self.output(self._after_head(graphs, train))

    def embed(
        self,
        nodes: Float[Array | np.ndarray, "num_nodes in_features"] | SparseRows,
        layout: EdgeLayout,
        *,
        train: bool,
    ) -> tuple[Float[Array, "num_nodes hidden"], Float[Array, "num_nodes annotation"]]:
        """The states after the last step, and the annotations with which they started."""
        nodes = drop_input(self, nodes, train)
        if self.project:
            nodes = self.projection(nodes)
        elif isinstance(nodes, SparseRows):
            raise ValueError("SparseRows need project=True: states are dense from the first step")
        return self.convolution(nodes, layout), nodes

    def _joined(self, nodes, layout, train):
        return jnp.concatenate(self.embed(nodes, layout, train=train), axis=1)

    def _after_head(self, x, train):
        for layer in self.head_layers:
            x = nn.tanh(layer(x))
        return drop_input(self, x, train)


class Projection(nn.Module):
    """A dense layer of dense or sparse rows, x W + b.

    Attributes:
      features: the width of the result.
    """

    features: int

    @nn.compact
    def __call__(
        self, nodes: Float[Array | np.ndarray, "num_nodes in_features"] | SparseRows
    ) -> Float[Array, "num_nodes features"]:
        in_features = nodes.num_columns if isinstance(nodes, SparseRows) else nodes.shape[1]
        init = nn.initializers.glorot_uniform()
        kernel = self.param("kernel", init, (in_features, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return matmul(nodes, kernel) + bias[None]
