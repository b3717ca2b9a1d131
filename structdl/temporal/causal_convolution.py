"""Dilated causal convolution over time, and the gradient of its kernel.

Reference: Bai, Kolter, Koltun (2018), "An empirical evaluation of generic convolutional and
recurrent networks for sequence modeling", arXiv:1803.01271.
"""

import functools
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from structdl.errors import require_known
from structdl.temporal.receptive_field import require_size

Method = Literal["plain", "loop"]

_DIMENSIONS = ("NWC", "WIO", "NWC")


def causal_convolution(
    x: Float[Array, "batch time in_features"],
    kernel: Float[Array, "kernel_size in_features features"],
    *,
    dilation: int = 1,
    method: Method | None = None,
) -> Float[Array, "batch time features"]:
    """F(s) = sum over i < k of f(i) x_{s - d i}, with zeros before the first input.

    Tap i of the equation is kernel[k - 1 - i], as in a correlation. The dilation may exceed the
    sequence: what lies before it is zeros.

    Args:
      x: the inputs.
      kernel: f, the last tap first: kernel[-1] meets the present.
      dilation: d.
      method: how the kernel's gradient is made: "plain" as XLA derives it, "loop" by a product for
        each sequence in turn, with which a training step on CPU takes down to 0.6 of the time. It
        has no forward-mode derivative, and a batch divided over devices would be gathered by it.
        None means "loop" on a CPU of one device and "plain" elsewhere.

    Raises:
      InputError: a dilation below 1, a kernel without taps, or an unknown method.

    Reference: Bai et al. (2018), section 3.2.

    >>> x = jnp.array([[[1.0], [2.0], [3.0], [4.0]]])
    >>> causal_convolution(x, jnp.array([[[10.0]], [[1.0]]]), dilation=2)[0, :, 0]
    Array([ 1.,  2., 13., 24.], dtype=float32)
    """
    require_size("dilation", dilation)
    require_size("kernel_size", kernel.shape[0])
    if method is None:
        on_one_cpu = jax.default_backend() == "cpu" and jax.device_count() == 1
        method = "loop" if on_one_cpu else "plain"
    require_known("method", method, get_args(Method))
    return (_convolve if method == "plain" else _convolve_with_loop)(x, kernel, dilation)


def _convolve(x, kernel, dilation: int):
    past = (kernel.shape[0] - 1) * dilation
    return jax.lax.conv_general_dilated(
        x, kernel, (1,), [(past, 0)], rhs_dilation=(dilation,), dimension_numbers=_DIMENSIONS
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve_with_loop(x, kernel, dilation: int):
    return _convolve(x, kernel, dilation)


def _forward(x, kernel, dilation: int):
    return _convolve(x, kernel, dilation), (x, kernel)


def _backward(dilation: int, saved, cotangent):
    x, kernel = saved
    _, pull_back = jax.vjp(lambda x: _convolve(x, kernel, dilation), x)
    return *pull_back(cotangent), _kernel_gradient(x, cotangent, kernel.shape[0], dilation)


def _kernel_gradient(x, cotangent, taps: int, dilation: int):
    """df(i) = sum over t of x_{t - d i} times cotangent_t, a product of all taps per sequence."""
    time, (in_features, features) = x.shape[1], (x.shape[2], cotangent.shape[2])
    starts = [(taps - 1 - tap) * dilation for tap in range(taps)]

    def add_sequence(total, sequence):
        x, cotangent = sequence
        padded = jnp.pad(cotangent, ((0, starts[0]), (0, 0)))
        shifted = jnp.concatenate([padded[start : start + time] for start in starts], axis=1)
        return total + x.T @ shifted, None

    # a loop also keeps XLA from computing x again, with all its dropout, for each of its uses
    zeros = jnp.zeros((in_features, taps * features), x.dtype)
    total, _ = jax.lax.scan(add_sequence, zeros, (x, cotangent))
    return jnp.swapaxes(total.reshape(in_features, taps, features), 0, 1)


_convolve_with_loop.defvjp(_forward, _backward)
