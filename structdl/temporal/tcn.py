"""Temporal convolution network: dilated causal convolutions in residual blocks.

Every output sees its own input and earlier ones only, so that right padding never changes a valid
output. The parameters of a network are a tuple of `BlockParams`, one a level; the pure functions
take the dilations, by default 1, 2, 4 and on.

Reference: Bai, Kolter, Koltun (2018), "An empirical evaluation of generic convolutional and
recurrent networks for sequence modeling", arXiv:1803.01271.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from structdl.core.masks import length_mask, select
from structdl.core.scan import check_lengths
from structdl.core.sparse import dropout
from structdl.errors import InputError
from structdl.temporal.causal_convolution import Method, causal_convolution
from structdl.temporal.receptive_field import (
    doubling_dilations,
    require_size,
    warn_beyond_sequence,
)


class ConvolutionParams(NamedTuple):
    """The parameters of one causal convolution; see `effective_kernel`."""

    direction: jax.Array  # [kernel_size, in_features, features], the last tap meets the present
    bias: jax.Array  # [features]
    scale: jax.Array | None = None  # [features]; None: the direction is the kernel as it is


class BlockParams(NamedTuple):
    """The parameters of one residual block."""

    first: ConvolutionParams
    second: ConvolutionParams
    residual: ConvolutionParams | None = None  # of one tap, where the widths differ


def effective_kernel(
    params: ConvolutionParams,
) -> Float[Array, "kernel_size in_features features"]:
    """The kernel by weight normalisation: w = g v / ||v||, with the norm of each output channel.

    A channel whose v is 0 has the kernel 0, and finite gradients.

    Reference: Salimans, Kingma (2016), "Weight normalization: a simple reparameterization to
    accelerate training of deep neural networks", arXiv:1602.07868, eq. 2.
    """
    if params.scale is None:
        return params.direction
    squares = jnp.sum(params.direction**2, axis=(0, 1), keepdims=True)
    inverse_norms = jax.lax.rsqrt(jnp.where(squares == 0, 1, squares))
    return params.direction * (params.scale[None, None] * inverse_norms)


def fold_weight_norm(params: Sequence[BlockParams]) -> tuple[BlockParams, ...]:
    """The same network with its effective kernels in place: what `tcn_step` had better be given."""

    def folded(convolution):
        return ConvolutionParams(effective_kernel(convolution), convolution.bias)

    return jax.tree.map(folded, tuple(params), is_leaf=lambda x: isinstance(x, ConvolutionParams))


def temporal_block(
    params: BlockParams,
    x: Float[Array, "batch time in_features"],
    *,
    dilation: int = 1,
    dropout_rate: float = 0.0,
    drop_channels: bool = False,
    key: Key[Array, ""] | None = None,
    method: Method | None = None,
) -> Float[Array, "batch time features"]:
    """One residual block: relu(residual(x) + D(relu(conv(D(relu(conv(x))))))), D for dropout.

    Args:
      params: of both convolutions and, where the widths differ, of the residual.
      x: the input.
      dilation: of both convolutions.
      dropout_rate: the probability to drop.
      drop_channels: whether D drops a channel of a sequence for all its time, as the paper's text
        says, or each value by itself, as its authors' code does.
      key: draws what is dropped; None drops nothing.
      method: see `causal_convolution`.

    Reference: Bai et al. (2018), section 3.3 and figure 1b.
    """
    keys = (None, None) if key is None else jax.random.split(key)
    hidden = x
    for convolution, key in zip((params.first, params.second), keys, strict=True):
        kernel = effective_kernel(convolution)
        hidden = causal_convolution(hidden, kernel, dilation=dilation, method=method)
        hidden = jax.nn.relu(hidden + convolution.bias[None, None])
        hidden = _drop(key, hidden, dropout_rate, drop_channels)
    return jax.nn.relu(hidden + _residual(params.residual, x))


def tcn(
    params: Sequence[BlockParams],
    x: Float[Array, "batch time in_features"],
    *,
    dilations: Sequence[int] | None = None,
    lengths: Int[Array, " batch"] | None = None,
    dropout_rate: float = 0.0,
    drop_channels: bool = False,
    key: Key[Array, ""] | None = None,
    method: Method | None = None,
) -> Float[Array, "batch time features"]:
    """Residual blocks one upon another; the head is the caller's.

    Args:
      params: of each level.
      x: the inputs.
      dilations: of each level; None means 1, 2, 4 and on.
      lengths: of right-padded sequences. The padding changes no valid output with or without
        them; with them it enters as zeros and leaves as zeros, so that even a NaN in it changes
        no gradient.
      dropout_rate: see `temporal_block`.
      drop_channels: see `temporal_block`.
      key: draws what is dropped; None drops nothing.
      method: see `causal_convolution`.

    Raises:
      InputError: a dilation below 1, another number of dilations than of levels, or lengths that
        are not those of the sequences; see `structdl.core.scan.check_lengths`.
    """
    dilations = _of_levels(params, dilations)
    valid = None
    if lengths is not None:
        check_lengths(lengths, batch=x.shape[0], time=x.shape[1])
        valid = length_mask(lengths, x.shape[1])
        x = select(valid, x, 0)
    for level, (block, dilation) in enumerate(zip(params, dilations, strict=True)):
        x = temporal_block(
            block,
            x,
            dilation=dilation,
            dropout_rate=dropout_rate,
            drop_channels=drop_channels,
            key=None if key is None else jax.random.fold_in(key, level),
            method=method,
        )
    return x if valid is None else select(valid, x, 0)


def init_state(
    params: Sequence[BlockParams], batch: int, *, dilations: Sequence[int] | None = None
) -> tuple[tuple[Array, Array], ...]:
    """What `tcn_step` starts from: the inputs that each convolution has yet to see, zeros.

    Convolution after convolution [batch, (kernel_size - 1) * dilation, its in_features], in all
    `receptive_field` - 1 steps of a sequence: for equal widths 4 * batch * (receptive_field - 1) *
    features bytes in float32, however long the sequence is.

    Args:
      params: of each level.
      batch: how many sequences run side by side.
      dilations: of each level; None means 1, 2, 4 and on.

    Raises:
      InputError: a dilation below 1, or another number of dilations than of levels.
    """

    def past(convolution, dilation):
        taps, in_features, _ = convolution.direction.shape
        shape = (batch, (taps - 1) * dilation, in_features)
        return jnp.zeros(shape, convolution.direction.dtype)

    return tuple(
        (past(block.first, dilation), past(block.second, dilation))
        for block, dilation in zip(params, _of_levels(params, dilations), strict=True)
    )


def tcn_step(
    params: Sequence[BlockParams],
    state: tuple[tuple[Array, Array], ...],
    x: Float[Array, "batch in_features"],
) -> tuple[tuple[tuple[Array, Array], ...], Float[Array, "batch features"]]:
    """One time step of `tcn` without dropout, for inputs that come one by one.

    Args:
      params: of each level; with `fold_weight_norm` the kernels are not made anew every step.
      state: that of `init_state`, or the last step's; its sizes say the dilations.
      x: the input of this time step.

    >>> block = BlockParams(*[ConvolutionParams(jnp.ones((2, 1, 1)), jnp.zeros(1))] * 2)
    >>> state, y = tcn_step((block,), init_state((block,), 1), jnp.array([[2.0]]))
    >>> y, tcn_step((block,), state, jnp.array([[0.0]]))[1]
    (Array([[4.]], dtype=float32), Array([[4.]], dtype=float32))
    """
    new_state = []
    for block, pasts in zip(params, state, strict=True):
        hidden, new_pasts = x, []
        for convolution, past in zip((block.first, block.second), pasts, strict=True):
            kernel = effective_kernel(convolution)
            window = jnp.concatenate([past, hidden[:, None]], axis=1)
            stride = max(1, past.shape[1] // max(1, kernel.shape[0] - 1))
            hidden = jnp.einsum("bki,kif->bf", window[:, ::stride], kernel)
            hidden = jax.nn.relu(hidden + convolution.bias[None])
            new_pasts.append(window[:, 1:])
        x = jax.nn.relu(hidden + _residual(block.residual, x))
        new_state.append(tuple(new_pasts))
    return tuple(new_state), x


def tcn_params(params: Mapping[str, Any]) -> tuple[BlockParams, ...]:
    """The parameters of a `TCN`, its `variables["params"]`, as the pure functions take them."""
    names = BlockParams._fields
    levels = (params[f"levels_{level}"] for level in range(len(params)))
    return tuple(BlockParams(*(_convolution(level, name) for name in names)) for level in levels)


def _convolution(found: Mapping[str, Array], name: str) -> ConvolutionParams | None:
    if f"{name}_direction" not in found:
        return None
    return ConvolutionParams(
        found[f"{name}_direction"], found[f"{name}_bias"], found.get(f"{name}_scale")
    )


def _of_levels(levels: Sequence, dilations: Sequence[int] | None) -> Sequence[int]:
    dilations = doubling_dilations(len(levels)) if dilations is None else dilations
    if len(dilations) != len(levels):
        raise InputError(f"there are {len(dilations)} dilations for {len(levels)} levels")
    for level, dilation in enumerate(dilations):
        require_size(f"dilations[{level}]", dilation)
    return dilations


def _residual(params: ConvolutionParams | None, x: Float[Array, "*any in_features"]):
    if params is None:
        return x
    bias = params.bias.reshape((1,) * (x.ndim - 1) + params.bias.shape)
    return x @ effective_kernel(params)[0] + bias


def _drop(key, x: Float[Array, "batch time features"], rate: float, whole_channels: bool):
    if key is None:
        return x
    if whole_channels:
        return x * dropout(key, jnp.ones_like(x[:, :1]), rate)
    return dropout(key, x, rate)


class TCN(nn.Module):
    """`tcn` with its parameters: [batch, time, in_features] to [batch, time, widths[-1]].

    A head is a dense layer of the result, or of its last step. The paper's network for sequential
    digits is `TCN((25,) * 8, kernel_size=7, dropout_rate=0.05)`.

    Attributes:
      widths: the features of each level.
      kernel_size: the taps of each convolution.
      dilations: of each level; None means 1, 2, 4 and on.
      dropout_rate: after each convolution (key: `rngs={"dropout": key}`).
      drop_channels: see `temporal_block`.
      weight_norm: whether kernels are normalised, see `effective_kernel`; that of the residual
        never is.
      kernel_init: how kernels start.
      residual_init: how the kernels of residuals start.
      method: see `causal_convolution`.
      warn_beyond: whether to warn, when it is traced, of a receptive field that is larger than
        the sequence.

    Parameters: `levels_0/first_direction`, `.../first_bias`, `.../first_scale`, `second_...`, and
    `residual_direction` and `residual_bias` where the widths differ. Biases start at 0.

    Differs from the paper: the authors' code means to start kernels from a normal distribution of
    deviation 0.01, but the normalised ones keep PyTorch's own start, uniform within
    1 / sqrt(fan in); so do these, and only the residual starts from that normal distribution.
    """

    widths: Sequence[int]
    kernel_size: int
    dilations: Sequence[int] | None = None
    dropout_rate: float = 0.0
    drop_channels: bool = False
    weight_norm: bool = True
    kernel_init: Callable = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    residual_init: Callable = nn.initializers.normal(0.01)
    method: Method | None = None
    warn_beyond: bool = True

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch time in_features"],
        *,
        train: bool,
        lengths: Int[Array, " batch"] | None = None,
    ) -> Float[Array, "batch time features"]:
        """The result of the last level; see `tcn` for the lengths.

        Raises:
          InputError: no taps, a width or a dilation below 1, another number of dilations than of
            widths, or a dropout rate out of its range; see `tcn` for the lengths.
        """
        dilations = _of_levels(self.widths, self.dilations)
        require_size("kernel_size", self.kernel_size)
        params, in_features = [], x.shape[-1]
        for level, width in enumerate(self.widths):
            require_size(f"widths[{level}]", width)
            block = _Block(
                width,
                self.kernel_size,
                self.weight_norm,
                self.kernel_init,
                self.residual_init,
                name=f"levels_{level}",
            )
            params.append(block(in_features))
            in_features = width
        if self.warn_beyond:
            warn_beyond_sequence(self.kernel_size, dilations, x.shape[1])
        drops = train and self.dropout_rate != 0
        return tcn(
            params,
            x,
            dilations=dilations,
            lengths=lengths,
            dropout_rate=self.dropout_rate,
            drop_channels=self.drop_channels,
            key=self.make_rng("dropout") if drops else None,
            method=self.method,
        )


class _Block(nn.Module):
    """The parameters of one level."""

    features: int
    kernel_size: int
    weight_norm: bool
    kernel_init: Callable
    residual_init: Callable

    @nn.compact
    def __call__(self, in_features: int) -> BlockParams:
        first = self._convolution("first", in_features)
        second = self._convolution("second", self.features)
        if in_features == self.features:
            return BlockParams(first, second)
        shape = (1, in_features, self.features)
        direction = self.param("residual_direction", self.residual_init, shape)
        bias = self.param("residual_bias", nn.initializers.zeros, (self.features,))
        return BlockParams(first, second, ConvolutionParams(direction, bias))

    def _convolution(self, name: str, in_features: int) -> ConvolutionParams:
        shape = (self.kernel_size, in_features, self.features)
        direction = self.param(f"{name}_direction", self.kernel_init, shape)
        bias = self.param(f"{name}_bias", nn.initializers.zeros, (self.features,))
        if not self.weight_norm:
            return ConvolutionParams(direction, bias)

        def norms(_):  # so that the kernel starts as the direction
            return jnp.sqrt(jnp.sum(direction**2, axis=(0, 1)))

        return ConvolutionParams(direction, bias, self.param(f"{name}_scale", norms))
