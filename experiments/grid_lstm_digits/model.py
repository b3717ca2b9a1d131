"""A 3-LSTM, a layer of ReLUs and the logits of the digits."""

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from experiments.digits import NUM_CLASSES
from experiments.grid_lstm_digits.presets import Config, ThreeLSTMConfig
from structdl.core.sparse import dropout
from structdl.recurrent.grid_lstm import as_values
from structdl.recurrent.grid_lstm_images import ThreeLSTM, as_patches, require_patch


class DigitReader(nn.Module):
    """Says which digit an image shows.

    What leaves the 3-LSTM along depth at all patches, hiddens and memories, is the input of the
    ReLU layer. Dropout is before and after this layer.

    Parameters: `grid`, a ThreeLSTM, `rectified` and `readout`.
    """

    config: ThreeLSTMConfig

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width"], *, train: bool
    ) -> Float[Array, "batch classes"]:
        its = self.config
        top = ThreeLSTM(
            its.hidden,
            its.num_layers,
            its.depth,
            its.squash_memory,
            its.forget_bias,
            its.order,
            its.rematerialize,
            name="grid",
        )(as_patches(images, its.patch))
        values = as_values(top).reshape(len(images), -1)  # [batch, rows * columns * widths]
        values = self._drop(values, train)
        values = jax.nn.relu(nn.Dense(its.rectified, name="rectified")(values))
        return nn.Dense(NUM_CLASSES, name="readout")(self._drop(values, train))

    def _drop(self, values: jax.Array, train: bool) -> jax.Array:
        if not train or self.config.dropout == 0:
            return values
        return dropout(self.make_rng("dropout"), values, self.config.dropout)


def make_model(config: Config) -> DigitReader:
    """The network of a config.

    Raises:
      InputError: patches that do not cover the images.
    """
    its = config.model
    require_patch("--model.patch", its.patch, config.size, config.size)
    return DigitReader(its)
