"""The 2-LSTM: a Grid LSTM over time and depth, in place of stacked LSTM layers."""

import flax.linen as nn
from jaxtyping import Array, Float, Int

from structdl.core.masks import length_mask, select
from structdl.core.scan import check_lengths
from structdl.errors import require_at_least
from structdl.recurrent.grid_lstm import GridLSTM, Kind, as_state, as_values
from structdl.recurrent.grid_orders import State


class TwoLSTM(nn.Module):
    """A 2-LSTM over time and depth that reads a sequence: returns (outputs, last carry).

    An input's projection enters along depth as hidden and memory; what leaves along depth at the
    top, hidden and memory side by side, is the output. A carry is the `State` along time, leaves
    [batch, num_layers, features]; the last one is that at each sequence's own end, and outputs past
    it are zeros.

    Attributes:
      features: the width of both dimensions.
      num_layers: the extent of depth.
      tied: whether all layers have the same weights, as all steps do; the paper's tied 2-LSTM.
      depth: "lstm", or "relu" or "identity" for a dimension without memory.
      squash_memory, forget_bias, order, rematerialize: see `GridLSTM`.

    Parameters: `projection/kernel`, `projection/bias` and those of `grid`, a GridLSTM.

    Raises:
      InputError: no features, steps or layers, or lengths that no sequence has; see also
        `GridLSTM`.

    Reference: Kalchbrenner, Danihelka, Graves (2015), "Grid long short-term memory",
    arXiv:1507.01526, sections 3.2 and 4.2 to 4.4.
    """

    features: int
    num_layers: int = 1
    tied: bool = True
    depth: Kind = "lstm"
    squash_memory: bool = False
    forget_bias: float = 1.0
    order: str = "auto"
    rematerialize: bool = False

    @nn.compact
    def __call__(
        self,
        xs: Float[Array, "batch time in_features"],
        *,
        lengths: Int[Array, " batch"] | None = None,
        carry: State | None = None,
    ) -> tuple[Float[Array, "batch time out_features"], State]:
        """Runs from the given carry, or from zeros."""
        require_at_least("features", self.features, 1)
        with_memory = self.depth == "lstm"
        within = None
        if lengths is not None:
            check_lengths(lengths, batch=xs.shape[0], time=xs.shape[1])
            within = length_mask(lengths, xs.shape[1])
            xs = select(within, xs, 0)  # what stands in the padding changes no gradient
        projected = nn.Dense((1 + with_memory) * self.features, name="projection")(xs)
        entering = as_state(projected, with_memory=with_memory)
        last, top = GridLSTM(
            extents=(xs.shape[1], self.num_layers),
            features=(self.features, self.features),
            kinds=("lstm", self.depth),
            shared=(True, self.tied),
            squash_memory=self.squash_memory,
            forget_bias=self.forget_bias,
            order=self.order,
            rematerialize=self.rematerialize,
            name="grid",
        )([carry, entering], None if lengths is None else [lengths, None])
        outputs = as_values(top)
        return outputs if within is None else select(within, outputs, 0), last
