"""Arrays as callers hand them over."""

import jax
import jax.numpy as jnp
import scipy.sparse

from structdl.errors import InputError


def as_array(values) -> jax.Array:
    """The values as an array of JAX, converted as jnp does where they are NumPy's.

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

    Weights that nobody gave are float64 where x64 is on, and would widen all that they multiply.
    """
    is_float = jnp.issubdtype(nodes.dtype, jnp.floating)
    if weights.dtype != jnp.float64 or not is_float:
        return weights
    return weights.astype(jnp.promote_types(nodes.dtype, jnp.float32))
