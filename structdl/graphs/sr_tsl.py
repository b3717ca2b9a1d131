"""Spatial reasoning over body parts, and temporal stack learning over clips of a sequence.

Reference: Si, Jing, Wang, Wang, Tan (2018), "Skeleton-based action recognition with spatial
reasoning and temporal stack learning", arXiv:1805.02335.
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from structdl.core.scan import unroll
from structdl.errors import InputError, require_at_least
from structdl.graphs.agc_lstm import differences
from structdl.recurrent.cells import LSTMParams, lstm_step, lstm_update
from structdl.recurrent.gates import gate_biases, gate_kernels

glorot, orthogonal = nn.initializers.glorot_uniform(), nn.initializers.orthogonal()


class ReasoningParams(NamedTuple):
    """The parameters of `reason`."""

    message_kernel: jax.Array  # [features, features]
    message_bias: jax.Array  # [features]
    cell: LSTMParams  # of inputs [2 * features] and states [features]


def reason(
    params: ReasoningParams,
    nodes: Float[Array, "*batch parts features"],
    *,
    num_steps: int,
) -> Float[Array, "*batch parts features"]:
    """A residual graph network: parts hear of all others, and add to what they are.

    m_k = sum over i != k of (W r_i + b);  s_k' = LSTM([r_k, m_k], s_k);  r_k' = r_k + s_k'

    Args:
      params: W, b and those of the LSTM.
      nodes: r at first; s and the LSTM's cell are 0 at first.
      num_steps: how often all parts are heard.

    Reference: section 3.1, eq. 1 to 4.
    """
    state = (jnp.zeros_like(nodes), jnp.zeros_like(nodes))
    for _ in range(num_steps):
        said = nodes @ params.message_kernel
        said += params.message_bias.reshape((1,) * (nodes.ndim - 1) + (-1,))
        heard = jnp.sum(said, axis=-2, keepdims=True) - said
        state, change = lstm_step(params.cell, state, jnp.concatenate([nodes, heard], axis=-1))
        nodes += change
    return nodes


def skip_clip_lstm(
    params: LSTMParams, xs: Float[Array, "batch time in_features"], *, clip: int
) -> Float[Array, "batch clips hidden"]:
    """An LSTM over each clip that starts with what all clips before have added up to.

    H_m = H_(m-1) + the last hidden state of clip m, whose hidden state starts at H_(m-1), and whose
    cell starts at 0; H_0 = 0.

    Args:
      params: one LSTM's, for all clips.
      xs: frames, of which those after the last whole clip are left out.
      clip: how many frames make one.

    Returns:
      H_1 and on.

    Raises:
      InputError: a clip below 1 frame, or no whole one.

    Reference: section 3.2, eq. 8 to 10.
    """
    require_at_least("clip", clip, 1)
    batch, time, _ = xs.shape
    clips = time // clip
    if not clips:
        raise InputError(f"clip is {clip}: sequences have {time} frames, less than one clip")
    projected = (xs @ params.input_kernel)[:, : clips * clip].reshape(batch, clips, clip, -1)

    def of_clip(params, hidden, frames):
        start = (jnp.zeros_like(hidden), hidden)
        (_, last), _ = unroll(lstm_update, params, start, frames)
        hidden += last
        return hidden, hidden

    hidden = jnp.zeros((batch, params.recurrent_kernel.shape[0]), xs.dtype)
    return unroll(of_clip, params, hidden, projected)[1]


class SpatialReasoning(nn.Module):
    """`reason` with its parameters, for every frame by itself, to one vector a frame.

    Attributes:
      features: those of a part.
      num_steps: how often all parts are heard.
      frame_features: of the vector that is read from all parts of a frame.
    """

    features: int
    num_steps: int
    frame_features: int

    @nn.compact
    def __call__(
        self, parts: Sequence[Float[Array, "batch time _"]]
    ) -> Float[Array, "batch time frame_features"]:
        width = self.features
        encoded = [nn.Dense(width, name=f"part_{n}")(part) for n, part in enumerate(parts)]
        params = ReasoningParams(
            self.param("message_kernel", glorot, (width, width)),
            self.param("message_bias", nn.initializers.zeros, (width,)),
            _lstm_params(self, "reasoning", 2 * width, width),
        )
        nodes = reason(params, jnp.stack(encoded, axis=2), num_steps=self.num_steps)
        flat = nodes.reshape(*nodes.shape[:2], -1)  # [batch, time, parts * features]
        return nn.Dense(self.frame_features, name="frame")(nn.relu(flat))


class SRTSL(nn.Module):
    """Spatial reasoning, and skip-clip LSTMs over frames and over their differences, to logits.

    Logits are there for every clip, of what has been seen up to its end; those of the last are the
    answer. The two streams' are added.

    Attributes:
      num_classes: how many actions there are.
      features: those of a part.
      hidden: the units of each stream's LSTM, and the features of a frame.
      num_steps: how often all parts are heard.
      clip: how many frames make one.
      dropout: of what enters the LSTMs and what leaves them.

    Reference: sections 3.1 to 3.3; loss: see `clip_weights`.
    Differs from the paper: one layer of LSTM a stream, and the streams are trained together.
    """

    num_classes: int
    features: int
    hidden: int
    num_steps: int = 3
    clip: int = 8
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, parts: Sequence[Float[Array, "batch time _"]], *, train: bool
    ) -> Float[Array, "batch clips classes"]:
        drop = nn.Dropout(self.dropout, deterministic=not train)
        reasoning = SpatialReasoning(self.features, self.num_steps, self.hidden, name="reasoning")
        frames = reasoning(parts)
        logits = 0.0
        for name, xs in (("position", frames), ("velocity", differences(frames))):
            params = _lstm_params(self, name, self.hidden, self.hidden)
            hidden = skip_clip_lstm(params, drop(xs), clip=self.clip)
            logits += nn.Dense(self.num_classes, name=f"{name}_logits")(drop(hidden))
        return logits


def clip_weights(clips: int) -> Float[Array, " clips"]:
    """How much the loss of the logits after each clip counts: m / M, the later the more.

    Reference: section 3.3, the clip-based incremental loss.

    >>> clip_weights(4).tolist()
    [0.25, 0.5, 0.75, 1.0]
    """
    return jnp.arange(1, clips + 1) / clips


def _lstm_params(module: nn.Module, name: str, in_features: int, hidden: int) -> LSTMParams:
    gates = 4 * hidden
    return LSTMParams(
        module.param(f"{name}_input_kernel", gate_kernels(glorot, 4), (in_features, gates)),
        module.param(f"{name}_recurrent_kernel", gate_kernels(orthogonal, 4), (hidden, gates)),
        module.param(f"{name}_bias", gate_biases(1.0), (gates,)),
    )
