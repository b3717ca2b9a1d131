"""Pairs of sentences as arrays: padded, with START before and END after the target's words."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.translation.presets import Config
from structdl.datasets import number_words, tatoeba
from structdl.datasets.sentence_pairs import (
    END,
    PAD,
    START,
    Pair,
    Sentence,
    SentencePairs,
    encode_sentences,
)
from structdl.errors import InputError


class Batch(NamedTuple):
    """Pairs, right-padded with PAD; one that is none has a target of PAD alone."""

    source: np.ndarray  # [batch, source], int32
    lengths: np.ndarray  # [batch], int32, of the sources
    previous: np.ndarray  # [batch, target], int32: START and the words
    target: np.ndarray  # [batch, target], int32: the words and END


def load(config: Config) -> SentencePairs:
    """The pairs of a config.

    Raises:
      InputError: a set that cannot be had.
    """
    if config.dataset == "numbers":
        return number_words.load(data_dir=config.data.dir)
    return tatoeba.load(data_dir=config.data.dir, raw_dir=config.data.raw_dir)


def symbols_of(text: str) -> Sentence:
    """The symbols of a Chinese sentence that somebody writes."""
    return tatoeba.characters_of(text)


def extents_of(*parts: Sequence[Pair]) -> tuple[int, int]:
    """The longest source and the longest target, END included."""
    sizes = [(len(pair.source), len(pair.target) + 1) for part in parts for pair in part]
    return tuple(map(max, zip(*sizes, strict=True)))


def short_pairs(pairs: Sequence[Pair], config: Config) -> list[Pair]:
    """Those that training shows; what is left out is printed.

    Raises:
      InputError: no pair is so short.
    """
    longest = config.longest_source, config.longest_target
    kept = [pair for pair in pairs if all(map(lambda side, most: len(side) <= most, pair, longest))]
    if not kept:
        raise InputError(
            f"--longest-source is {longest[0]} and --longest-target {longest[1]}: all "
            f"{len(pairs)} pairs of training are longer; give more"
        )
    if len(kept) < len(pairs):
        print(f"{len(pairs) - len(kept)} of {len(pairs)} pairs of training are too long")
    return kept


def as_batch(pairs: Sequence[Pair], corpus: SentencePairs, extents: tuple[int, int]) -> Batch:
    """All of the pairs, and a last row that is none, so that the number -1 names it."""
    sources = encode_sentences([pair.source for pair in pairs], corpus.source_vocabulary)
    targets = encode_sentences([pair.target for pair in pairs], corpus.target_vocabulary)
    num = len(pairs) + 1
    batch = Batch(
        np.full((num, extents[0]), PAD, np.int32),
        np.zeros(num, np.int32),
        np.full((num, extents[1]), PAD, np.int32),
        np.full((num, extents[1]), PAD, np.int32),
    )
    for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
        batch.source[row, : len(source)] = source
        batch.lengths[row] = len(source)
        batch.previous[row, : len(target) + 1] = [START, *target]
        batch.target[row, : len(target) + 1] = [*target, END]
    return batch


def rows_of(batch: Batch, numbers: np.ndarray) -> Batch:
    """Those rows of a batch."""
    return Batch(*(leaf[numbers] for leaf in batch))
