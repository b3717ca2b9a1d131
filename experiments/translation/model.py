"""A reader and writer of sentences between embeddings and the logits of the next target word."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Float, Int

from structdl.attention.encoder_decoder import EncoderDecoder
from structdl.core.sparse import dropout, lookup
from structdl.recurrent.grid_lstm import Order
from structdl.recurrent.grid_orders import State
from structdl.recurrent.reencoder import Reencoder
from structdl.training.ranges import Depth, DropoutRate, PositiveInt
from structdl.training.run import FREE


@dataclasses.dataclass(frozen=True)
class ReencoderConfig:
    """A grid of LSTM blocks over source, target and depth."""

    hidden: PositiveInt = 100
    """Features of the source and of the target dimension."""
    depth: PositiveInt = 100
    """Features of depth."""
    num_layers: Depth = 2
    """Grids one upon another; every second one scans the source backwards."""
    dropout: DropoutRate = 0.0
    """Of each symbol's embedding and of what enters the read-out."""
    order: Order = dataclasses.field(default="auto", metadata=FREE)
    """In which the blocks are computed."""
    rematerialize: bool = dataclasses.field(default=False, metadata=FREE)
    """Compute what the derivative needs again, in place of keeping it."""


@dataclasses.dataclass(frozen=True)
class EncoderDecoderConfig:
    """LSTM layers that read, LSTM layers that write."""

    hidden: PositiveInt = 200
    """Units of each layer."""
    num_layers: Depth = 2
    """Of the encoder, and of the decoder."""
    attention: bool = False
    """Whether each target word looks at all places of the source."""
    dropout: DropoutRate = 0.0
    """Of each symbol's embedding, between layers and of what enters the read-out."""


ModelConfig = ReencoderConfig | EncoderDecoderConfig


class ReadAndRewrite(nn.Module):
    """The Reencoder in the form that `Translator` asks for, that of an `EncoderDecoder`.

    Parameters: `reencoder`.
    """

    config: ReencoderConfig

    def setup(self):
        its = self.config
        self.reencoder = Reencoder(
            its.hidden,
            its.depth,
            its.num_layers,
            order=its.order,
            rematerialize=its.rematerialize,
        )

    def read(
        self,
        source: Float[Array, "batch source embedding"],
        lengths: Int[Array, " batch"],
        *,
        train: bool,
    ) -> tuple[list[State], jax.Array]:
        """What enters the first row, and the lengths."""
        return self.reencoder.enter(source, lengths), lengths

    def write(
        self,
        reading: tuple[list[State], jax.Array],
        targets: Float[Array, "batch target embedding"],
        *,
        train: bool,
    ) -> tuple[Float[Array, "batch target outputs"], tuple[list[State], jax.Array]]:
        """What tells the word after each target word, and what enters the row that follows."""
        sources, lengths = reading
        outputs, following = self.reencoder.rows(sources, targets, lengths)
        return outputs, (following, lengths)


class Translator(nn.Module):
    """The logits of each target word, given the source sentence and the target words before it.

    Parameters: `source_embed`, `target_embed`, `core` and `readout`.
    """

    config: ModelConfig
    num_source: int
    num_target: int
    embedding: int

    def setup(self):
        init = nn.initializers.normal(1.0)
        self.source_embed = nn.Embed(self.num_source, self.embedding, embedding_init=init)
        self.target_embed = nn.Embed(self.num_target, self.embedding, embedding_init=init)
        self.core = _core(self.config)
        self.readout = nn.Dense(self.num_target)

    def __call__(
        self,
        source: Int[Array, "batch source"],
        lengths: Int[Array, " batch"],
        previous: Int[Array, "batch target"],
        *,
        train: bool,
    ) -> Float[Array, "batch target symbols"]:
        """The logits of the word after each of the previous ones."""
        reading = self.core.read(
            self._embedded(self.source_embed, source, train), lengths, train=train
        )
        targets = self._embedded(self.target_embed, previous, train)
        outputs, _ = self.core.write(reading, targets, train=train)
        return self.readout(self._dropped(outputs, train))

    def start(self, source: Int[Array, "batch source"], lengths: Int[Array, " batch"]) -> Any:
        """What `step` starts from: leaves [batch, ...]."""
        return self.core.read(
            self._embedded(self.source_embed, source, False), lengths, train=False
        )

    def step(
        self, state: Any, symbols: Int[Array, " batch"]
    ) -> tuple[Any, Float[Array, "batch symbols"]]:
        """Reads one target word: the new state, and the logits of the next word."""
        targets = self._embedded(self.target_embed, symbols[:, None], False)
        outputs, state = self.core.write(state, targets, train=False)
        return state, self.readout(outputs[:, 0])

    def _embedded(self, embed: nn.Embed, symbols, train: bool):
        return self._dropped(lookup(embed.embedding, symbols), train)

    def _dropped(self, x, train: bool):
        if not train or self.config.dropout == 0:
            return x
        return dropout(self.make_rng("dropout"), x, self.config.dropout)


def _core(config: ModelConfig) -> nn.Module:
    match config:
        case ReencoderConfig():
            return ReadAndRewrite(config)
        case EncoderDecoderConfig(hidden, num_layers, attention, rate):
            return EncoderDecoder(hidden, num_layers, attention, rate)
