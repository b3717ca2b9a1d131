"""Sentences and their translations: symbols, their vocabularies, and a set's form on disk.

A sentence is a tuple of symbols, which are characters or words. As numbers it begins and ends
without START and END: who pads sentences puts them where they are needed.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.sequences import Splits
from structdl.errors import InputError, require_at_least

SPECIAL = ("<pad>", "<start>", "<end>", "<unk>")
PAD, START, END, UNKNOWN = range(4)

Sentence = tuple[str, ...]


class Pair(NamedTuple):
    """A sentence and its translation."""

    source: Sentence
    target: Sentence


class SentencePairs(NamedTuple):
    """A set in three parts, each a list of pairs, and the vocabularies of its training part."""

    train: list[Pair]
    validation: list[Pair]
    test: list[Pair]
    source_vocabulary: tuple[str, ...]
    target_vocabulary: tuple[str, ...]


def vocabulary_of_sentences(sentences: Iterable[Sentence], min_count: int = 1) -> tuple[str, ...]:
    """The special symbols, and those that occur min_count times or more, the most frequent first.

    >>> vocabulary_of_sentences([("a", "b"), ("b", "c", "c")], min_count=2)
    ('<pad>', '<start>', '<end>', '<unk>', 'b', 'c')
    """
    require_at_least("min_count", min_count, 1)
    counts = Counter(symbol for sentence in sentences for symbol in sentence)
    for symbol in SPECIAL:
        del counts[symbol]
    order = sorted(counts, key=lambda symbol: (-counts[symbol], symbol))
    return (*SPECIAL, *(symbol for symbol in order if counts[symbol] >= min_count))


def encode_sentence(sentence: Sequence[str], vocabulary: Sequence[str]) -> np.ndarray:
    """The place of each symbol in the vocabulary, [length] int32; UNKNOWN where it has none.

    Raises:
      InputError: a sentence without symbols.

    >>> encode_sentence(("b", "z"), (*SPECIAL, "a", "b"))
    array([5, 3], dtype=int32)
    """
    (ids,) = encode_sentences([sentence], vocabulary)
    return ids


def encode_sentences(
    sentences: Sequence[Sequence[str]], vocabulary: Sequence[str]
) -> list[np.ndarray]:
    """`encode_sentence` of each.

    Raises:
      InputError: one without symbols.
    """
    places = {symbol: place for place, symbol in enumerate(vocabulary)}
    for number, sentence in enumerate(sentences):
        if not len(sentence):
            raise InputError(
                f"sentence {number} of {len(sentences)} is empty: give one symbol or more"
            )
    return [
        np.array([places.get(symbol, UNKNOWN) for symbol in sentence], np.int32)
        for sentence in sentences
    ]


def decode_sentence(ids: Sequence[int], vocabulary: Sequence[str]) -> Sentence:
    """The symbols before the first END; without START and PAD.

    >>> decode_sentence([START, 4, UNKNOWN, END, 4], (*SPECIAL, "a"))
    ('a', '<unk>')
    """
    ids = ids[: ids.index(END)] if END in ids else ids
    return tuple(vocabulary[place] for place in ids if place not in (PAD, START))


def split_by_sentences(
    pairs: Sequence[Pair], num_validation: int, num_test: int, seed: int
) -> Splits:
    """Three lists of pairs, such that no sentence of one is in another, on neither side.

    Pairs that share a sentence, or are linked by others that do, stay together. Such groups come
    in an order drawn from the seed: validation and test have at least as many pairs as are asked
    for and end with a whole group, the rest is for training.

    Raises:
      InputError: nothing is left to train on.
    """
    groups = _linked(pairs)
    order = np.random.default_rng(seed).permutation(len(groups))
    parts, wanted, place = {"validation": [], "test": []}, (num_validation, num_test), 0
    for part, number in zip(parts.values(), wanted, strict=True):
        while len(part) < number and place < len(order):
            part += [pairs[i] for i in groups[order[place]]]
            place += 1
    train = [pairs[i] for group in order[place:] for i in groups[group]]
    if not train:
        raise InputError(
            f"{len(pairs)} pairs in {len(groups)} groups that share no sentence are too few for "
            f"{num_validation} of validation, {num_test} of test and a training part"
        )
    return Splits(train, parts["validation"], parts["test"])


def _linked(pairs: Sequence[Pair]) -> list[list[int]]:
    """The numbers of the pairs in groups of those that are linked by sentences they share."""
    parent = list(range(len(pairs)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first = {}
    for i, pair in enumerate(pairs):
        for named in enumerate(pair):  # a source may read as a target does
            parent[root(i)] = root(first.setdefault(named, i))
    groups = {}
    for i in range(len(pairs)):
        groups.setdefault(root(i), []).append(i)
    return list(groups.values())


class SentencePairsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """One example a pair, its symbols with tabs between them.

    A subclass names its set in `_info` and hands its parts on in `_split_generators`.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _pairs_info(self, description: str, homepage: str | None = None) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        return tfds.core.DatasetInfo(
            builder=self,
            description=description,
            features=tfds.features.FeaturesDict({"source": text, "target": text}),
            homepage=homepage,
            disable_shuffling=True,
        )

    def _splits_of(self, parts: Splits) -> dict[str, Iterator]:
        return {split: self._generate_examples(getattr(parts, split)) for split in Splits._fields}

    def _generate_examples(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, dict[str, str]]]:
        for number, pair in enumerate(pairs):
            yield number, {"source": "\t".join(pair.source), "target": "\t".join(pair.target)}


def read_pairs(builder: SentencePairsBuilder, min_count: int) -> SentencePairs:
    """What a builder has prepared; rarer symbols of training are not in the vocabularies."""
    parts = Splits(*(_read_split(builder, split) for split in Splits._fields))
    vocabularies = (
        vocabulary_of_sentences((pair[side] for pair in parts.train), min_count)
        for side in range(2)
    )
    return SentencePairs(*parts, *vocabularies)


def _read_split(builder: tfds.core.DatasetBuilder, split: str) -> list[Pair]:
    source = builder.as_data_source(split)
    examples = source.__getitems__(range(len(source)))
    return [
        Pair(*(tuple(example[side].decode().split("\t")) for side in Pair._fields))
        for example in examples
    ]
