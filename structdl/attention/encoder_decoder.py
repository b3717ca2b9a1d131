"""An LSTM that reads a sentence and another one that writes its translation, with or without
attention."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from structdl.attention.soft import GlobalAttention
from structdl.core.masks import length_mask
from structdl.core.scan import reverse_within
from structdl.recurrent.stacked import LSTM


class Reading(NamedTuple):
    """What is known of a source sentence, and of its translation so far; leaves [batch, ...]."""

    carry: tuple[jax.Array, jax.Array]  # cell and hidden of the writer, [batch, layers, features]
    places: jax.Array | None  # what attention looks at, [batch, source, features]
    lengths: jax.Array | None  # [batch]


class EncoderDecoder(nn.Module):
    """Two stacks of LSTM layers: the writer starts from the states in which the reader ends.

    The source is read from its end to its beginning. With attention, what the writer gives has
    looked at all outputs of the reader; it is not fed back to the writer.

    Attributes:
      features: the hidden units of each layer.
      num_layers: of the reader, and of the writer.
      attention: whether there is a GlobalAttention.
      dropout_rate: of what enters each layer but the first (key: `rngs={"dropout": key}`).

    Parameters: `reader`, `writer`, and `attend` where there is attention.

    Reference: Sutskever, Vinyals, Le (2014), "Sequence to sequence learning with neural networks",
    arXiv:1409.3215; Luong, Pham, Manning (2015), "Effective approaches to attention-based neural
    machine translation", arXiv:1508.04025, section 3.1.
    Differs from the paper: Luong et al. also feed what attention gives to the writer's next step
    (section 3.3); without it all steps of training are one scan.
    """

    features: int
    num_layers: int = 1
    attention: bool = False
    dropout_rate: float = 0.0

    def setup(self):
        self.reader = LSTM(self.features, self.num_layers, dropout_rate=self.dropout_rate)
        self.writer = LSTM(self.features, self.num_layers, dropout_rate=self.dropout_rate)
        if self.attention:
            self.attend = GlobalAttention(self.features)

    def read(
        self,
        source: Float[Array, "batch source embedding"],
        lengths: Int[Array, " batch"],
        *,
        train: bool,
    ) -> Reading:
        """Reads right-padded sentences."""
        turned = reverse_within(source, lengths)
        places, carry = self.reader(turned, lengths=lengths, train=train)
        carry = _batch_and_layers(carry)
        return Reading(carry, places, lengths) if self.attention else Reading(carry, None, None)

    def write(
        self, reading: Reading, targets: Float[Array, "batch target embedding"], *, train: bool
    ) -> tuple[Float[Array, "batch target features"], Reading]:
        """What tells the word after each target word, any number of them, and where that leads."""
        carry = _batch_and_layers(reading.carry)
        outputs, carry = self.writer(targets, carry=carry, train=train)
        if self.attention:
            mask = length_mask(reading.lengths, reading.places.shape[1])
            outputs = self.attend(outputs, reading.places, mask)
        return outputs, reading._replace(carry=_batch_and_layers(carry))


def _batch_and_layers(carry):
    """The carry of a stack with its first two axes exchanged."""
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), carry)
