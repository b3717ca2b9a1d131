"""Graph auto-encoders: node embeddings whose inner products predict the edges.

Reference: Kipf, Welling (2016), "Variational graph auto-encoders", arXiv:1611.07308.
"""

from collections.abc import Callable

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key

from structdl.core.segment import EdgeLayout, edge_list, gather_receivers, gather_senders
from structdl.core.sparse import SparseRows
from structdl.graphs.gcn import GraphConvolution
from structdl.graphs.layer_dropout import drop_input

_BLOCK = 512  # rows: 256 to 1024 measured alike on CPU; a block's logits stay in cache


def inner_product_decoder(
    embeddings: Float[Array, "num_nodes features"],
    senders: Int[Array, " num_pairs"],
    receivers: Int[Array, " num_pairs"],
) -> Float[Array, " num_pairs"]:
    """The logit z_s . z_r of an edge for each given pair; its sigmoid is p(A_sr = 1), eq. 2.

    >>> inner_product_decoder(jnp.array([[1.0, 2.0], [3.0, 0.0]]), jnp.array([0]), jnp.array([1]))
    Array([3.], dtype=float32)
    """
    return _edge_logits(embeddings, edge_list(senders, receivers, embeddings.shape[0]))


def inner_product_logits(
    embeddings: Float[Array, "num_nodes features"],
) -> Float[Array, "num_nodes num_nodes"]:
    """The logits Z Z^T of all pairs; `reconstruction_loss` does not need this matrix."""
    return embeddings @ embeddings.T


def _edge_logits(embeddings, layout: EdgeLayout):
    return jnp.sum(gather_senders(embeddings, layout) * gather_receivers(embeddings, layout), -1)


def reconstruction_loss(
    embeddings: Float[Array, "num_nodes features"], layout: EdgeLayout
) -> Float[Array, ""]:
    """The weighted cross-entropy of all pairs of nodes, those that are edges against the others.

    norm / N^2 * sum over pairs of [y pos_weight softplus(-x) + (1 - y) softplus(x)], x = z_s . z_r
    pos_weight = (N^2 - E) / E,    norm = N^2 / (2 (N^2 - E))

    y is 1 on edges and, as in the authors' code, on the diagonal; E counts edges without the
    diagonal. A graph without edges has E = 1.

    Only the pairs s <= r are computed, block by block, and the gradient comes out of the same pass
    (that of the sum of softplus is 2 sigmoid(Z Z^T) Z), so that no array of N^2 is kept. Time is
    O(N^2): on CPU with its gradient 11 ms for Cora, where the whole matrix takes 115. For large
    graphs see `sampled_reconstruction_loss`.

    Args:
      embeddings: Z.
      layout: the edges to predict, each once in both directions; self-loops, which the encoder's
        layout has, are passed over.

    Reference: Kipf, Welling (2016), eq. 3, first term; the weights are those of the authors'
    code, github.com/tkipf/gae, gae/train.py and gae/optimizer.py.
    """
    embeddings = embeddings.astype(jnp.promote_types(embeddings.dtype, jnp.float32))
    edges, loops, num_zeros, num_edges = _positive_terms(embeddings, layout)

    def gain(logits):  # what a pair costs as an edge beyond what it costs as none
        return num_zeros / num_edges * nn.softplus(-logits) - nn.softplus(logits)

    is_edge = layout.senders != layout.receivers
    positive = jnp.sum(jnp.where(is_edge, gain(edges), 0)) + jnp.sum(gain(loops))
    return (_sum_of_softplus(embeddings) + positive) / (2 * num_zeros)


def sampled_reconstruction_loss(
    embeddings: Float[Array, "num_nodes features"],
    layout: EdgeLayout,
    negative_senders: Int[Array, " num_samples"],
    negative_receivers: Int[Array, " num_samples"],
) -> Float[Array, ""]:
    """An unbiased estimate of `reconstruction_loss` from a sample of the pairs without an edge.

    sum over edges and diagonal of softplus(-x) / (2 E)
        + (N^2 - E - N) / (2 (N^2 - E)) * mean over samples of softplus(x)

    Args:
      embeddings: Z.
      layout: as in `reconstruction_loss`.
      negative_senders: one end of each sampled pair, see
        `structdl.graphs.edge_sampling.negative_sampling`.
      negative_receivers: the other end.

    Differs from the paper: there every pair counts.
    """
    embeddings = embeddings.astype(jnp.promote_types(embeddings.dtype, jnp.float32))
    edges, loops, num_zeros, num_edges = _positive_terms(embeddings, layout)
    is_edge = layout.senders != layout.receivers
    positive = jnp.sum(jnp.where(is_edge, nn.softplus(-edges), 0)) + jnp.sum(nn.softplus(-loops))
    negatives = inner_product_decoder(embeddings, negative_senders, negative_receivers)
    mean = jnp.sum(nn.softplus(negatives)) / max(len(negatives), 1)
    share = jnp.maximum(num_zeros - layout.num_receivers, 0) / (2 * num_zeros)
    return positive / (2 * num_edges) + share * mean


def _positive_terms(embeddings, layout: EdgeLayout):
    """The logits of the edges and of the diagonal, N^2 - E, and E; the counts are at least 1."""
    chex.assert_equal(layout.num_senders, layout.num_receivers)
    num_edges = jnp.sum(layout.senders != layout.receivers, dtype=embeddings.dtype)
    # in floats, since N^2 overflows an int32 at 46 341 nodes
    num_zeros = jnp.maximum(float(layout.num_receivers) ** 2 - num_edges, 1)
    loops = jnp.sum(embeddings * embeddings, axis=-1)
    return _edge_logits(embeddings, layout), loops, num_zeros, jnp.maximum(num_edges, 1)


@jax.custom_jvp
def _sum_of_softplus(embeddings):
    """The sum over all ordered pairs of softplus(z_i . z_j)."""
    return _sum_over_pairs(embeddings, with_gradient=False)[0]


@_sum_of_softplus.defjvp
def _sum_of_softplus_jvp(primals, tangents):
    total, half_gradient = _sum_over_pairs(*primals, with_gradient=True)
    return total, 2 * jnp.sum(half_gradient * tangents[0])


def _sum_over_pairs(embeddings, with_gradient: bool):
    """The sum of softplus(z_i . z_j), and the sums over j of sigmoid(z_i . z_j) z_j.

    Block by block of the upper triangle; a block off the diagonal counts for its mirror image.
    """
    num_nodes, features = embeddings.shape
    num_blocks = max(-(-num_nodes // _BLOCK), 1)
    size = -(-num_nodes // num_blocks)
    padding = num_blocks * size - num_nodes
    padded = jnp.pad(embeddings, ((0, padding), (0, 0))).reshape(num_blocks, size, features)
    is_node = (jnp.arange(num_blocks * size) < num_nodes).reshape(num_blocks, size)

    def block(carry, place):
        total, sums = carry
        row, column = place
        logits = padded[row] @ padded[column].T  # [size, size]
        decay = jnp.exp(-jnp.abs(logits))
        softplus = jnp.maximum(logits, 0) + jnp.log1p(decay)
        is_pair = is_node[row][:, None] & is_node[column][None, :]
        off_diagonal = (row != column).astype(embeddings.dtype)
        total += (1 + off_diagonal) * jnp.sum(jnp.where(is_pair, softplus, 0))
        if with_gradient:
            sigmoid = jnp.where(logits >= 0, 1, decay) / (1 + decay)
            sums = sums.at[row].add(sigmoid @ padded[column])
            sums = sums.at[column].add(off_diagonal * (sigmoid.T @ padded[row]))
        return (total, sums), None

    places = tuple(map(jnp.asarray, np.triu_indices(num_blocks)))
    start = (jnp.zeros((), embeddings.dtype), jnp.zeros_like(padded))
    (total, sums), _ = lax.scan(block, start, places)
    return total, sums.reshape(num_blocks * size, features)[:num_nodes]


def kl_divergence(
    mean: Float[Array, "num_nodes features"], log_std: Float[Array, "num_nodes features"]
) -> Float[Array, ""]:
    """The divergence of the embeddings' distribution from the standard normal one.

    -1 / (2 N) * mean over nodes of sum over features of (1 + 2 log_std - mean^2 - exp(2 log_std))

    Averaged over the nodes and divided by N once more, to go with a reconstruction that is
    averaged over N^2 pairs: the cost of a VGAE is the plain sum of the two.

    Reference: Kipf, Welling (2016), eq. 3, second term; the scale is that of the authors' code.
    """
    terms = 1 + 2 * log_std - mean**2 - jnp.exp(2 * log_std)
    return -jnp.sum(terms) / (2 * max(len(mean), 1) ** 2)


def sample_embeddings(
    key: Key[Array, ""],
    mean: Float[Array, "num_nodes features"],
    log_std: Float[Array, "num_nodes features"],
) -> Float[Array, "num_nodes features"]:
    """Draws z = mean + exp(log_std) * noise, the noise standard normal; eq. 1.

    For evaluation the paper takes the mean.
    """
    return mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape, mean.dtype)


class GAE(nn.Module):
    """The encoder of the graph auto-encoder: two graph convolutions, Z = Â f(Â X W_0) W_1.

    Attributes:
      hidden: the width of the first layer.
      features: the width of the embeddings Z.
      activation: f.
      dropout_rate: of what enters each layer (key: `rngs={"dropout": key}`); the paper has none.

    Parameters: `hidden_layer/kernel`, `embedding/kernel`.
    """

    hidden: int = 32
    features: int = 16
    activation: Callable = nn.relu
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(
        self,
        nodes: Float[Array | np.ndarray, "num_nodes in_features"] | SparseRows | None,
        layout: EdgeLayout,
        weights: Float[Array, " num_edges"],
        *,
        train: bool,
    ) -> Float[Array, "num_nodes features"]:
        """The embedding of every node."""
        hidden = GraphConvolution(self.hidden, name="hidden_layer")
        nodes = self.activation(hidden(drop_input(self, nodes, train), layout, weights))
        embedding = GraphConvolution(self.features, name="embedding")
        return embedding(drop_input(self, nodes, train), layout, weights)


class VGAE(nn.Module):
    """The encoder of the variational graph auto-encoder; see `sample_embeddings`.

    mean = Â f(Â X W_0) W_1,    log_std = Â f(Â X W_0) W_2

    Attributes: as those of `GAE`.

    Parameters: `hidden_layer/kernel`, `mean/kernel`, `log_std/kernel`.
    """

    hidden: int = 32
    features: int = 16
    activation: Callable = nn.relu
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(
        self,
        nodes: Float[Array | np.ndarray, "num_nodes in_features"] | SparseRows | None,
        layout: EdgeLayout,
        weights: Float[Array, " num_edges"],
        *,
        train: bool,
    ) -> tuple[Float[Array, "num_nodes features"], Float[Array, "num_nodes features"]]:
        """The mean and the log standard deviation of every node's embedding."""
        hidden = GraphConvolution(self.hidden, name="hidden_layer")
        nodes = self.activation(hidden(drop_input(self, nodes, train), layout, weights))
        heads = [GraphConvolution(self.features, name=name) for name in ("mean", "log_std")]
        mean, log_std = (head(drop_input(self, nodes, train), layout, weights) for head in heads)
        return mean, log_std
