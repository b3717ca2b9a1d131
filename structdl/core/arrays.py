"""Small functions of arrays that reductions and layers share."""

import jax
import jax.numpy as jnp
import scipy.sparse

from structdl.errors import InputError


def as_array(values) -> jax.Array:
    """Converts an array-like to a JAX array, as jnp does.

    Raises:
      InputError: a scipy.sparse matrix, which is not converted without being asked.
    """
    if scipy.sparse.issparse(values):
        raise InputError(
            f"a scipy.sparse matrix of shape {values.shape} where an array is expected: convert it "
            "once, with structdl.core.sparse.sparse_rows(matrix), or matrix.toarray() for dense "
            "features"
        )
    return jnp.asarray(values)


def no_wider(weights: jax.Array, nodes: jax.Array) -> jax.Array:
    """Float64 weights rounded for float32 nodes, and for half precision, whose sums are float32.

    Default weights are float64 under x64 and would promote everything that they multiply.
    """
    is_float = jnp.issubdtype(nodes.dtype, jnp.floating)
    if weights.dtype != jnp.float64 or not is_float:
        return weights
    return weights.astype(jnp.promote_types(nodes.dtype, jnp.float32))


def take(array, indices):
    """Rows of an array at indices known to lie in range."""
    return array.at[indices].get(mode="promise_in_bounds", wrap_negative_indices=False)


def expand(array, ndim):
    """Adds trailing axes of size 1, up to ndim axes."""
    return array.reshape(array.shape + (1,) * (ndim - array.ndim))


def sum_dtype(dtype):
    """Half precision is summed in float32."""
    is_half = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32
    return jnp.float32 if is_half else dtype
