"""Graph convolutional LSTM with attention to joints: skeletons as graphs that move.

Reference: Si, Chen, Wang, Wang, Tan (2019), "An attention enhanced graph convolutional LSTM network
for skeleton-based action recognition", arXiv:1902.09130.
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from structdl.core.scan import unroll
from structdl.errors import InputError
from structdl.recurrent.gates import gate_biases

glorot = nn.initializers.glorot_uniform()


class AttentionParams(NamedTuple):
    """The parameters of `joint_attention`."""

    query_kernel: jax.Array  # W, [hidden, hidden]
    joint_kernel: jax.Array  # W_h, [hidden, hidden]
    context_kernel: jax.Array  # W_q, [hidden, hidden]
    bias: jax.Array  # b_s, [hidden]
    score_kernel: jax.Array  # U_s, [hidden]


class AGCLSTMParams(NamedTuple):
    """The parameters of a layer; the gates lie side by side: input, forget, candidate, output."""

    input_kernel: jax.Array  # [partitions * in_features, 4 * hidden]
    recurrent_kernel: jax.Array  # [partitions * hidden, 4 * hidden]
    bias: jax.Array  # [4 * hidden]
    attention: AttentionParams


class Attended(NamedTuple):
    """What a layer says of its joints."""

    hidden: jax.Array  # H, [batch, time, joints, hidden]
    weights: jax.Array  # alpha, [batch, time, joints], 0 to 1
    plain: jax.Array  # H before attention, [batch, time, joints, hidden]


def spatial_partitions(
    bones: Sequence[tuple[int, int]], num_joints: int
) -> Float[Array, "partitions joints joints"]:
    """What a joint hears of itself, of its parent and of its children: three adjacencies.

    Entry [p, i, j] is the weight with which joint i hears of j. The weights of a joint that hears
    of any joint in a partition sum to 1 there.

    Args:
      bones: parents and children; a tree over all joints.
      num_joints: how many joints there are.

    Raises:
      InputError: the bones are no tree.

    Reference: Yan, Xiong, Lin (2018), "Spatial temporal graph convolutional networks for
    skeleton-based action recognition", arXiv:1801.07455, section 3.3, spatial configuration.
    Differs from the paper: who is closer to the centre is read from the tree.

    >>> spatial_partitions([(0, 1), (0, 2)], 3)[:, 0].tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.5, 0.5]]
    """
    children = [child for _, child in bones]
    known = {joint for bone in bones for joint in bone} or {0}
    is_tree = len(set(children)) == len(children) == num_joints - 1
    if known != set(range(num_joints)) or not is_tree:
        raise InputError(
            f"bones are {list(bones)}: expected a tree over joints 0 to {num_joints - 1}, of pairs "
            "(parent, child)"
        )
    hears = np.zeros((3, num_joints, num_joints), np.float32)
    hears[0] = np.eye(num_joints)
    for parent, child in bones:
        hears[1, child, parent] = hears[2, parent, child] = 1
    return jnp.asarray(hears / np.maximum(hears.sum(axis=2, keepdims=True), 1))


def gather_joints(
    nodes: Float[Array, "*batch joints features"],
    adjacency: Float[Array, "partitions joints joints"],
) -> Float[Array, "*batch joints gathered"]:
    """What each joint hears, the partitions side by side; with a kernel behind it is W *G X."""
    heard = jnp.einsum("pij,...jf->...ipf", adjacency.astype(nodes.dtype), nodes)
    return heard.reshape(*nodes.shape[:-1], -1)  # [..., joints, partitions * features]


def joint_attention(
    params: AttentionParams, nodes: Float[Array, "*batch joints hidden"]
) -> Float[Array, "*batch joints"]:
    """How much each joint matters: alpha = sigmoid(U_s tanh(W_h H + W_q q + b_s)).

    q = relu(sum over joints of W H_i)
    """
    query = jax.nn.relu(jnp.sum(nodes, axis=-2, keepdims=True) @ params.query_kernel)
    shared = query @ params.context_kernel
    shared += params.bias.reshape((1,) * (shared.ndim - 1) + params.bias.shape)
    scores = jnp.tanh(nodes @ params.joint_kernel + shared) @ params.score_kernel
    return jax.nn.sigmoid(scores)


def agc_lstm_update(
    params: AGCLSTMParams,
    adjacency: Float[Array, "partitions joints joints"],
    carry: tuple[Float[Array, "batch joints hidden"], Float[Array, "batch joints hidden"]],
    projected: Float[Array, "batch joints gates"],
) -> tuple[tuple[Array, Array], Attended]:
    """One step, of inputs that have met their kernels: projected = W_x *G X + b.

    [i, f, u, o] = projected + W_h *G H;  cell' = sigmoid(f) cell + sigmoid(i) tanh(u)
    H^ = sigmoid(o) tanh(cell');  H' = (1 + alpha) H^, with alpha of `joint_attention`

    Args:
      params: those of the layer.
      adjacency: see `spatial_partitions`.
      carry: (cell, H), zeros to begin with.
      projected: of this time step.
    """
    cell, hidden = carry
    gates = projected + gather_joints(hidden, adjacency) @ params.recurrent_kernel
    write, keep, candidate, show = jnp.split(gates, 4, axis=-1)
    cell = jax.nn.sigmoid(keep) * cell + jax.nn.sigmoid(write) * jnp.tanh(candidate)
    plain = jax.nn.sigmoid(show) * jnp.tanh(cell)
    weights = joint_attention(params.attention, plain)
    hidden = (1 + weights[..., None]) * plain
    return (cell, hidden), Attended(hidden, weights, plain)


def agc_lstm_layer(
    params: AGCLSTMParams,
    adjacency: Float[Array, "partitions joints joints"],
    xs: Float[Array, "batch time joints in_features"],
    *,
    lengths: Int[Array, " batch"] | None = None,
) -> Attended:
    """A layer over time, from zeros; past a sequence's length all outputs are 0.

    Inputs meet their kernels for all times at once, before the recurrence.
    """
    batch, _, joints, _ = xs.shape
    width = params.bias.shape[0] // 4
    projected = gather_joints(xs, adjacency) @ params.input_kernel
    projected += params.bias[None, None, None]
    zeros = jnp.zeros((batch, joints, width), xs.dtype)

    def step(its, carry, x):
        return agc_lstm_update(*its, carry, x)

    _, outputs = unroll(step, (params, adjacency), (zeros, zeros), projected, lengths=lengths)
    return outputs


def differences(positions: Float[Array, "batch time ..."]) -> Float[Array, "batch time ..."]:
    """What has changed since the frame before; 0 at the first."""
    return jnp.diff(positions, axis=1, prepend=positions[:, :1])


def pool_time(xs: Float[Array, "batch time ..."]) -> Float[Array, "batch half ..."]:
    """The mean of every two frames; a last one without a partner is left out.

    Raises:
      InputError: there is only one frame.
    """
    half = xs.shape[1] // 2
    if not half:
        raise InputError(
            "a sequence of 1 frame cannot be halved in time, as it is between any two layers: give "
            "2^(num_layers - 1) frames or more, or fewer layers"
        )
    return jnp.mean(xs[:, : 2 * half].reshape(xs.shape[0], half, 2, *xs.shape[2:]), axis=2)


class AGCLSTMLayer(nn.Module):
    """`agc_lstm_layer` with its parameters.

    Attributes:
      hidden: the units of a joint.
      forget_bias: at which the forget gates' biases start; the others start at 0.

    Parameters: those of `AGCLSTMParams` and `AttentionParams`.
    """

    hidden: int
    forget_bias: float = 1.0

    @nn.compact
    def __call__(
        self,
        xs: Float[Array, "batch time joints in_features"],
        adjacency: Float[Array, "partitions joints joints"],
        *,
        lengths: Int[Array, " batch"] | None = None,
    ) -> Attended:
        width, partitions = self.hidden, len(adjacency)
        square, zeros = (width, width), nn.initializers.zeros
        attention = AttentionParams(
            self.param("query_kernel", glorot, square),
            self.param("joint_kernel", glorot, square),
            self.param("context_kernel", glorot, square),
            self.param("attention_bias", zeros, (width,)),
            self.param("score_kernel", glorot, (width, 1))[:, 0],
        )
        rows = partitions * xs.shape[-1], partitions * width
        params = AGCLSTMParams(
            self.param("input_kernel", glorot, (rows[0], 4 * width)),
            self.param("recurrent_kernel", glorot, (rows[1], 4 * width)),
            self.param("bias", gate_biases(self.forget_bias), (4 * width,)),
            attention,
        )
        return agc_lstm_layer(params, adjacency, xs, lengths=lengths)


class AGCLSTM(nn.Module):
    """Three layers over one graph, with poolings of time between, to logits of actions.

    Positions are projected, their differences in time stand beside them (feature augmentation),
    and every layer but the last is followed by dropout and `pool_time`. The logits are those of
    the sum of all joints, and of the sum weighted by attention, both averaged over the last
    layer's time. Returns (logits, attention of each layer, [batch, time, joints]).

    Attributes:
      num_classes: how many actions there are.
      hidden: the units of a joint, in all layers.
      num_layers: how many layers.
      dropout: of what enters each layer but the first, and the logits' layers.

    Reference: sections 3.2 to 3.4.
    Differs from the paper: there is no LSTM between augmentation and the first layer, and no loss
    on attention; the last layer's time is averaged.
    """

    num_classes: int
    hidden: int
    num_layers: int = 3
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        positions: Float[Array, "batch time joints in_features"],
        adjacency: Float[Array, "partitions joints joints"],
        *,
        train: bool,
    ) -> tuple[Float[Array, "batch classes"], list[Float[Array, "batch _ joints"]]]:
        drop = nn.Dropout(self.dropout, deterministic=not train)
        projected = nn.Dense(self.hidden, name="projection")(positions)
        xs = jnp.concatenate([projected, differences(projected)], axis=-1)
        attention = []
        for number in range(self.num_layers):
            if number:
                xs = drop(pool_time(xs))
            attended = AGCLSTMLayer(self.hidden, name=f"layer_{number}")(xs, adjacency)
            xs = attended.hidden
            attention.append(attended.weights)
        everywhere = jnp.sum(attended.hidden, axis=2)
        where_it_matters = jnp.sum(attended.weights[..., None] * attended.plain, axis=2)
        logits = 0.0
        for name, features in (("global", everywhere), ("local", where_it_matters)):
            logits += nn.Dense(self.num_classes, name=name)(drop(jnp.mean(features, axis=1)))
        return logits, attention
