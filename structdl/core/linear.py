"""Multilinear functions with hand-written transposes, differentiable in both modes to any order.

`jax.custom_vjp` has no forward mode, and inside `lax.scan` it has no second derivative where an
argument is of integers; `jax.custom_derivatives.linear_call` has no batching rule. Here a function
that is linear in each of some arrays becomes a primitive: JAX derives the rest from the transposes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Num, PyTree, Shaped


def multilinear(
    function: Callable[..., Array],
    transposes: tuple[Callable[..., Array], ...],
    linear: tuple[Num[Array, "..."] | None, ...],
    residuals: PyTree[Shaped[Array, "..."]] = (),
    static: tuple[Any, ...] = (),
) -> Num[Array, "..."]:
    """Calls function(linear, residuals, *static), whose transposes are given.

    The derivatives call `function` and the transposes, never JAX's derivatives of them. Those of
    higher order are derivatives of the transposes, so these call `multilinear` in turn.

    Args:
      function: `(linear, residuals, *static) -> array`, linear in each array of `linear` while the
        others stay; hashable, as a function at the top of a module is.
      transposes: of each linear array `(cotangent, linear, residuals, *static) -> array`, the
        cotangent of this array, in place of which `linear` has None.
      linear: the arrays; omitted ones are None and come last.
      residuals: arrays of any kind that are not differentiated.
      static: hashable arguments.

    >>> def double(linear, _):
    ...     return 2 * linear[0]
    >>> def transposed(cotangent, linear, _):
    ...     return 2 * cotangent
    >>> jax.grad(lambda x: multilinear(double, (transposed,), (x,)) ** 2)(jnp.float32(3))
    Array(24., dtype=float32)
    """
    arrays, linear_structure = jax.tree.flatten(linear)
    leaves, residual_structure = jax.tree.flatten(residuals)
    return _multilinear.bind(
        *_varying_alike([*arrays, *leaves]),
        function=function,
        transposes=transposes,
        static=static,
        structures=(linear_structure, residual_structure),
        batch_axes=(),
    )


def _varying_alike(arrays):
    """Inside shard_map all arguments vary over the same axes, as those of JAX's primitives do."""
    varying = [jax.typeof(array).manual_axis_type.varying for array in arrays]
    everywhere = frozenset().union(*varying)
    return [
        lax.pcast(array, tuple(everywhere - axes), to="varying") if axes != everywhere else array
        for array, axes in zip(arrays, varying, strict=True)
    ]


def _call(*args, function, transposes, static, structures, batch_axes):
    """The value; `batch_axes` has the axes of each enclosing vmap, the innermost first."""
    del transposes

    def call(*args):
        return function(*_unflatten(args, structures), *static)

    for axes in batch_axes:
        call = jax.vmap(call, axes)
    return call(*args)


def _unflatten(args, structures):
    linear, residuals = structures
    count = linear.num_leaves
    return linear.unflatten(args[:count]), residuals.unflatten(args[count:])


def _jvp(primals, tangents, **params):
    """The sum of the function at each tangent in place of its primal."""
    out = _multilinear.bind(*primals, **params)
    total = ad.Zero(jax.typeof(out).to_tangent_aval())
    for place in range(params["structures"][0].num_leaves):
        if type(tangents[place]) is not ad.Zero:
            args = [*primals[:place], tangents[place], *primals[place + 1 :]]
            total = ad.add_tangents(total, _multilinear.bind(*_varying_alike(args), **params))
    return out, total


def _transpose(cotangent, *args, function, transposes, static, structures, batch_axes):
    del function
    (place,) = [place for place, arg in enumerate(args) if ad.is_undefined_primal(arg)]
    result = [None] * len(args)
    aval = args[place].aval
    if type(cotangent) is ad.Zero:
        result[place] = ad.Zero(aval)
        return result

    def call(cotangent, *args):
        return transposes[place](cotangent, *_unflatten(args, structures), *static)

    for axes in batch_axes:
        call = _map_transpose(call, axes, place)
    args = [*args[:place], None, *args[place + 1 :]]
    result[place] = call(cotangent, *args).astype(aval.dtype)
    return result


def _map_transpose(call, axes, place):
    """The transpose under vmap; an array that the examples share gets the sum of its cotangents."""
    axis = axes[place]
    in_axes = (0, *axes[:place], None, *axes[place + 1 :])
    if axis is not None:
        return jax.vmap(call, in_axes, axis)
    return lambda *args: jnp.sum(jax.vmap(call, in_axes)(*args), axis=0)


def _batch(args, axes, *, batch_axes, **params):
    return _multilinear.bind(*args, batch_axes=(*batch_axes, tuple(axes)), **params), 0


_multilinear = Primitive("multilinear")
_multilinear.def_impl(_call)
_multilinear.def_abstract_eval(
    lambda *avals, **params: jax.make_jaxpr(partial(_call, **params))(*avals).out_avals[0]
)
ad.primitive_jvps[_multilinear] = _jvp
ad.primitive_transposes[_multilinear] = _transpose
batching.primitive_batchers[_multilinear] = _batch
mlir.register_lowering(_multilinear, mlir.lower_fun(_call, multiple_results=False))
