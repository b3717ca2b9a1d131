"""Translations of a trained model.

`python -m experiments.translation.translate RUN --sentence SENTENCE` prints them.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.translation.data import load, symbols_of
from experiments.translation.model import Translator
from experiments.translation.presets import Config
from structdl.datasets.sentence_pairs import (
    END,
    PAD,
    START,
    UNKNOWN,
    Sentence,
    SentencePairs,
    decode_sentence,
    encode_sentences,
)
from structdl.errors import InputError
from structdl.recurrent.decoding import beam_search

SENTENCES = 250  # that are translated at once
LONGEST = 40  # symbols of a translation, END included


def make_model(config: Config, corpus: SentencePairs) -> Translator:
    """The model of a config, for a set's vocabularies."""
    sizes = len(corpus.source_vocabulary), len(corpus.target_vocabulary)
    return Translator(config.model, *sizes, config.embedding)


def translate(
    config: Config,
    corpus: SentencePairs,
    params: Any,
    sources: Sequence[Sentence],
    *,
    beams: int,
) -> list[Sentence]:
    """A translation of each sentence; with one beam the words are those of greedy search.

    It is empty where the model's logits are not finite.

    Raises:
      InputError: an empty sentence, or beams below 1.
    """
    return [words for words, _ in _scored(config, corpus, params, sources, beams)]


def _scored(config, corpus, params, sources, beams: int) -> list[tuple[Sentence, float]]:
    """Translations and their scores, -inf of one that cannot be found."""
    model, size = make_model(config, corpus), min(SENTENCES, max(1, len(sources)))
    ids = encode_sentences(sources, corpus.source_vocabulary)
    longest = max(map(len, ids), default=1)
    found = []
    for start in range(0, len(ids), size):
        part = ids[start : start + size]
        padded, lengths = np.zeros((size, longest), np.int32), np.zeros(size, np.int32)
        for row, sentence in enumerate(part):
            padded[row, : len(sentence)], lengths[row] = sentence, len(sentence)
        best = _search(model, params, padded, lengths, beams, config.length_penalty)
        symbols, scores = (np.asarray(leaf)[: len(part)].tolist() for leaf in best)
        written = [decode_sentence(row, corpus.target_vocabulary) for row in symbols]
        found += zip(written, scores, strict=True)
    return found


@partial(jax.jit, static_argnums=(0, 4, 5))
def _search(model, params, source, lengths, beams: int, length_penalty: float):
    variables = {"params": params}

    def step(state, symbols):
        state, logits = model.apply(variables, state, symbols, method="step")
        return state, logits.at[:, jnp.array([PAD, START])].set(-jnp.inf)

    found = beam_search(
        step,
        model.apply(variables, source, lengths, method="start"),
        start=START,
        end=END,
        beams=beams,
        max_length=LONGEST,
        length_penalty=length_penalty,
    )
    return found.symbols[:, 0], found.scores[:, 0]


def describe(config: Config, corpus: SentencePairs, params: Any, text: str) -> str:
    """What a model makes of a sentence, greedily and with beams.

    Raises:
      InputError: an empty sentence, or a model whose logits are not finite.
    """
    sentence = symbols_of(text)
    (ids,) = encode_sentences([sentence], corpus.source_vocabulary)
    unknown = [symbol for symbol, place in zip(sentence, ids, strict=True) if place == UNKNOWN]
    lines = [f"not in the vocabulary, read as <unk>: {' '.join(unknown)}"] if unknown else []
    for name, beams in (("greedy", 1), (f"{config.beams} beams", config.beams)):
        ((words, score),) = _scored(config, corpus, params, [sentence], beams)
        if not np.isfinite(score):
            raise InputError(
                "the model's logits for this sentence are not finite: its parameters have "
                "diverged; train it again with a lower --optimizer.learning-rate"
            )
        lines.append(f"{name}: {' '.join(words)}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Reads a run back and prints its translations of a sentence."""
    import experiments
    from structdl.training.cli import mendable

    def command(run: tyro.conf.Positional[Path], sentence: str) -> tuple[Path, str]:
        """Prints a trained model's translations.

        Args:
          run: the workdir of a finished run, say runs/translation/reencoder-numbers-0123abcd.
          sentence: to be translated.
        """
        return run, sentence

    run, sentence = tyro.cli(command, prog="python -m experiments.translation.translate", args=argv)
    with mendable():
        config, _, params, _ = experiments.load_run(run)
        if config.run.num_seeds > 1:
            params = jax.tree.map(lambda leaf: leaf[0], params)
        print(describe(config, load(config), params, sentence))


if __name__ == "__main__":
    main()
