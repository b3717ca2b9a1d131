"""A sequence model between an embedding and the logits of the next symbol."""

from typing import Any

import flax.linen as nn
import jax
from jax import lax
from jaxtyping import Array, Float, Int

from experiments.language_modeling.presets import Config
from experiments.sequence_model import SequenceConfig, SequenceModel


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
        self.embed = nn.Embed(self.num_symbols, self.embedding)
        self.dropout = nn.Dropout(self.embedding_dropout)
        self.sequence = SequenceModel(
            self.config, self.embedding if self.tied else self.num_symbols
        )
        if self.tied:
            self.bias = self.param("bias", nn.initializers.zeros, (self.num_symbols,))

    def __call__(
        self,
        symbols: Int[Array, "batch time"],
        begins: Int[Array, " batch"] | None = None,
        num: int = 0,
        *,
        train: bool,
    ) -> Float[Array, "batch num symbols"]:
        """The logits after all symbols, or after `num` of them from each row's own place on."""
        x = self.dropout(self.embed(symbols), deterministic=not train)
        outputs = self.sequence(x, train=train)
        if begins is not None:

            def rows(output, begin):
                return lax.dynamic_slice_in_dim(output, begin, num)

            outputs = jax.vmap(rows)(outputs, begins)
        return self._logits(outputs)

    def initial_state(self, batch: int) -> Any:
        """What `step` starts from: nothing read yet."""
        return self.sequence.initial_state(batch)

    def step(
        self, state: Any, symbols: Int[Array, " batch"]
    ) -> tuple[Any, Float[Array, "batch symbols"]]:
        """Reads one symbol: the new state, and the logits of the next one."""
        state, outputs = self.sequence.step(state, self.embed(symbols))
        return state, self._logits(outputs)

    def _logits(self, outputs):
        if not self.tied:
            return outputs
        bias = self.bias.reshape((1,) * (outputs.ndim - 1) + self.bias.shape)
        return self.embed.attend(outputs) + bias


def make_model(config: Config, num_symbols: int) -> LanguageModel:
    """The model of a config."""
    return LanguageModel(
        config.model, num_symbols, config.embedding, config.embedding_dropout, config.tied
    )
