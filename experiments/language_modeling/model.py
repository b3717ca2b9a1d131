"""A sequence model between an embedding and the logits of the next symbol."""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float, Int

from experiments.language_modeling.presets import Config
from experiments.sequence_model import SequenceConfig, SequenceModel
from structdl.core.sparse import lookup


class LanguageModel(nn.Module):
    """What comes next, after each symbol of a text.

    Parameters: `embed`, `sequence` and, where the softmax is tied, `bias`: the read-out of the
    sequence model is then compared with the embedding of each symbol.
    """

    config: SequenceConfig
    num_symbols: int
    embedding: int
    embedding_dropout: float = 0.0
    tied: bool = False

    def setup(self):
        # of norm 1 where it meets the softmax, else of deviation 1, with which all learn faster
        deviation = self.embedding**-0.5 if self.tied else 1.0
        self.embed = nn.Embed(
            self.num_symbols, self.embedding, embedding_init=nn.initializers.normal(deviation)
        )
        self.dropout = nn.Dropout(self.embedding_dropout)
        self.sequence = SequenceModel(
            self.config, self.embedding if self.tied else self.num_symbols
        )
        if self.tied:
            self.bias = self.param("bias", nn.initializers.zeros, (self.num_symbols,))

    def __call__(
        self, symbols: Int[Array, "batch time"], *, train: bool
    ) -> Float[Array, "batch time symbols"]:
        """The logits of the next symbol after each."""
        return self.logits(self.outputs(symbols, train=train))

    def outputs(
        self, symbols: Int[Array, "batch time"], *, train: bool
    ) -> Float[Array, "batch time outputs"]:
        """What `logits` are of: fewer numbers than these, where the softmax is tied."""
        x = self.dropout(self._embedded(symbols), deterministic=not train)
        return self.sequence(x, train=train)

    def logits(self, outputs: Float[Array, "*any outputs"]) -> Float[Array, "*any symbols"]:
        """The logits of the next symbol."""
        if not self.tied:
            return outputs
        bias = self.bias.reshape((1,) * (outputs.ndim - 1) + self.bias.shape)
        return self.embed.attend(outputs) + bias

    def initial_state(self, batch: int) -> Any:
        """What `step` starts from: nothing read yet."""
        return self.sequence.initial_state(batch)

    def step(
        self, state: Any, symbols: Int[Array, " batch"]
    ) -> tuple[Any, Float[Array, "batch symbols"]]:
        """Reads one symbol: the new state, and the logits of the next one."""
        state, outputs = self.sequence.step(state, self._embedded(symbols))
        return state, self.logits(outputs)

    def continued(
        self, state: Any, symbols: Int[Array, "batch time"], *, train: bool
    ) -> tuple[Any, Float[Array, "batch time outputs"]]:
        """Reads on from a state: the new one, and what `logits` are of. Not for a TCN."""
        x = self.dropout(self._embedded(symbols), deterministic=not train)
        return self.sequence.continued(state, x, train=train)

    def _embedded(self, symbols):
        return lookup(self.embed.embedding, symbols)


def make_model(config: Config, num_symbols: int) -> LanguageModel:
    """The model of a config."""
    return LanguageModel(
        config.model, num_symbols, config.embedding, config.embedding_dropout, config.tied
    )
