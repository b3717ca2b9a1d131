"""Dropout of what enters a layer, the same in every network of this topic."""

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float

from structdl.core.sparse import SparseRows, as_features, dropout


def drop_input(
    module: nn.Module, x: Float[Array | np.ndarray, "..."] | SparseRows | None, train: bool
) -> Float[Array, "..."] | SparseRows | None:
    """Drops x out in training, at `module.dropout_rate` under the module's key "dropout".

    Args:
      module: a bound module with a `dropout_rate`.
      x: what enters the next layer; None, for nodes without features, stays None.
      train: whether to drop.
    """
    x = as_features(x)
    if x is None or not train or module.dropout_rate == 0:
        return x
    return dropout(module.make_rng("dropout"), x, module.dropout_rate)
