"""Sparse features, and the first product of every graph layer: features times kernel.

Bag-of-words features are zero to 99 in 100. Kept as their nonzeros, the product and the dropout
before it cost what the nonzeros cost.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Array, Float, Int, Key

from structdl.core.arrays import as_array, sum_dtype
from structdl.core.segment import EdgeLayout, edge_layout, gather_sum
from structdl.errors import InputError


class SparseRows(NamedTuple):
    """A matrix by its nonzeros: an edge from column to row for each, and its value as weight.

    Under `jax.vmap` the values may be mapped while the layout is shared: pass the matrix with
    `in_axes=None` and let `dropout` make new values inside the mapped function.
    """

    values: jax.Array  # [num_nonzeros]
    layout: EdgeLayout  # receivers are rows, senders are columns

    @property
    def num_rows(self) -> int:
        return self.layout.num_receivers

    @property
    def num_columns(self) -> int:
        return self.layout.num_senders


def sparse_rows(matrix) -> SparseRows:
    """Puts a scipy.sparse matrix (or a dense NumPy one) on the device, duplicates summed.

    Integers and booleans become floats of the default precision.

    Raises:
      InputError: the matrix holds a NaN or an infinity; the message names the place.

    >>> identity = sparse_rows(scipy.sparse.eye_array(3))
    >>> identity.values
    Array([1., 1., 1.], dtype=float32)
    """
    matrix = _finite_rows(matrix)
    is_float = np.issubdtype(matrix.dtype, np.floating)
    values = jnp.asarray(matrix.data, dtype=None if is_float else float)
    num_rows, num_columns = matrix.shape
    rows = np.repeat(np.arange(num_rows), np.diff(matrix.indptr))
    return SparseRows(values, edge_layout(matrix.indices, rows, num_columns, num_rows))


def matmul(
    x: Float[Array | np.ndarray, "num_rows num_columns"] | SparseRows,
    kernel: Float[Array, "num_columns features"],
) -> Float[Array, "num_rows features"]:
    """The product x @ kernel of dense or sparse rows: out[r] = sum_c x[r, c] * kernel[c].

    Raises:
      InputError: a scipy.sparse matrix; see `as_features`.

    >>> matmul(sparse_rows(np.array([[0.0, 2.0]])), jnp.array([[1.0], [3.0]]))
    Array([[6.]], dtype=float32)
    """
    if isinstance(x, SparseRows):
        kernel = kernel.astype(jnp.result_type(kernel, x.values))
        return gather_sum(kernel, x.layout, weights=x.values)
    return as_array(x) @ kernel


def as_features(x):
    """Features as layers take them: NumPy arrays become JAX's, None and SparseRows stay.

    Raises:
      InputError: a scipy.sparse matrix: its layout is built once, by `sparse_rows`, and not in
        every call.
    """
    return x if x is None or isinstance(x, SparseRows) else as_array(x)


def lookup(
    table: Float[Array, "num_rows features"], rows: Int[Array, "*places"]
) -> Float[Array, "*places features"]:
    """Rows of a table by their numbers: the product of one-hot rows with it.

    The table's gradient sums over the places of a row, in float32 where the table is of half
    precision.

    >>> lookup(jnp.array([[1.0], [3.0]]), jnp.array([1, 1]))
    Array([[3.],
           [3.]], dtype=float32)
    """
    return table.astype(sum_dtype(table.dtype))[rows].astype(table.dtype)


def dropout(
    key: Key[Array, ""], x: Float[Array | np.ndarray, "..."] | SparseRows, rate: float
) -> Float[Array, "..."] | SparseRows:
    """Zeroes each value with probability `rate` and divides the others by 1 - rate.

    Of sparse rows only the nonzeros are drawn for, since a zero stays zero either way. At rate 0
    it returns x itself.

    Raises:
      InputError: the rate is not in 0 <= rate < 1, or x is a scipy.sparse matrix.

    Reference: Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov (2014), "Dropout: a simple
    way to prevent neural networks from overfitting", JMLR 15.
    Differs from the paper: the scaling is at training time, so that evaluation does nothing.
    """
    if not 0 <= rate < 1:
        raise InputError(
            f"dropout rate = {rate}: the allowed range is 0 <= rate < 1; give the probability to "
            "drop, not to keep, as a fraction"
        )
    x = as_features(x)
    if rate == 0:
        return x
    if isinstance(x, SparseRows):
        return x._replace(values=dropout(key, x.values, rate))
    return jnp.where(_bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def _bernoulli(key: Key[Array, ""], probability: float, shape: tuple[int, ...]):
    """True with that probability, to 1 in 65 536, from as few random words as will do.

    Hashing words is a quarter of a training step on sparse features. A draw takes as many bits
    as the probability has: 1 for a half, 2 for a quarter, at most 16.
    """
    threshold = round(probability * 2**16)
    bits = next(bits for bits in (1, 2, 4, 8, 16) if threshold % 2 ** (16 - bits) == 0)
    size, draws_per_word = math.prod(shape), 32 // bits
    words = jax.random.bits(key, (-(-size // draws_per_word), 1), jnp.uint32)
    shifts = jnp.arange(0, 32, bits, dtype=jnp.uint32)[None]
    draws = ((words >> shifts) & (2**bits - 1)).reshape(-1)[:size]
    return (draws < threshold >> (16 - bits)).reshape(shape)


def normalize_rows(matrix) -> scipy.sparse.csr_array:
    """Divides each row of a scipy.sparse (or dense NumPy) matrix by its sum, on the host.

    A row whose sum is 0 becomes zeros. This is what the Planetoid protocol of GCN and its
    successors does to bags of words.

    Raises:
      InputError: the matrix holds a NaN or an infinity; the message names the place.

    >>> normalize_rows(np.array([[1, 3], [0, 0]])).toarray()
    array([[0.25, 0.75],
           [0.  , 0.  ]])
    """
    matrix = _finite_rows(matrix)
    totals = np.asarray(matrix.sum(axis=1), dtype=np.result_type(matrix.dtype, np.float32))
    inverse = np.divide(1, totals, out=np.zeros_like(totals), where=totals != 0)
    return scipy.sparse.csr_array(scipy.sparse.diags_array(inverse) @ matrix)


def _finite_rows(matrix) -> scipy.sparse.csr_array:
    """The matrix in canonical compressed rows; the given one is left as it is."""
    matrix = scipy.sparse.csr_array(matrix, copy=True)
    if matrix.ndim != 2:
        raise InputError(f"matrix has {matrix.ndim} dimensions: give a matrix [rows, columns]")
    matrix.sum_duplicates()
    bad = np.flatnonzero(~np.isfinite(matrix.data))
    if bad.size:
        row = np.searchsorted(matrix.indptr, bad[0], side="right") - 1
        raise InputError(
            f"matrix[{row}, {matrix.indices[bad[0]]}] = {matrix.data[bad[0]]} (one of {bad.size} "
            "such values): entries must be finite numbers; remove or replace them"
        )
    return matrix
