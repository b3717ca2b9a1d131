"""Simple sentences: a generated text of characters, whose entropy is known.

A sentence is a noun phrase, a verb that agrees with it, and another noun phrase: "the old dogs see
a cat." Choices are uniform and independent, but for the verb's ending, which follows from whether
the subject is singular, and the determiner: "a" and "some" go with one number each.
"""

import itertools
import math
import os
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.prepare import prepare
from structdl.datasets.sequences import Splits
from structdl.datasets.texts import TextBuilder, read_text
from structdl.datasets.vocabulary import Text, encode, vocabulary_of
from structdl.errors import require_at_least

SEED = 0  # like a published set, the text is always the same
NUM_SENTENCES = {"train": 6000, "validation": 600, "test": 600}

_DETERMINERS = (("a", "the"), ("some", "the"))  # singular, plural
_ADJECTIVES = ("", "big ", "small ", "old ", "quiet ", "friendly ")
_NOUNS = ("dog", "cat", "bird", "farmer", "sister", "robot", "monkey", "teacher")
_VERBS = ("see", "hear", "like", "follow", "help", "remember")


class SimpleSentencesBuilder(TextBuilder):
    """Its symbols are characters; needs neither raw files nor the network."""

    name = "simple_sentences"

    def _info(self) -> tfds.core.DatasetInfo:
        return self._text_info("Generated sentences.")

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        parts = [
            simulate_sentences([SEED, place], NUM_SENTENCES[split])
            for place, split in enumerate(Splits._fields)
        ]
        vocabulary = vocabulary_of(parts[0])
        return self._splits_of(Text(*(encode(part, vocabulary) for part in parts), vocabulary))


def load(*, data_dir: str | os.PathLike | None = None) -> Text:
    """Returns the text as characters.

    Raises:
      InputError: the data folder cannot be written.
    """
    builder = prepare(SimpleSentencesBuilder, data_dir=data_dir)
    return read_text(builder)


def simulate_sentences(seed: int | list[int], num: int) -> str:
    """Draws sentences, each on a line of its own.

    Raises:
      InputError: a negative number.

    >>> print(simulate_sentences(0, 2), end="")
    the old birds hear a cat.
    the friendly sisters follow the old sisters.
    """
    require_at_least("num", num, 0)
    rng = np.random.default_rng(seed)
    sizes = (2, 2, len(_ADJECTIVES), len(_NOUNS))
    choices = rng.integers(0, (*sizes, len(_VERBS), *sizes), (num, 9))
    return "".join(_sentence(*row) for row in choices.tolist())


def least_loss() -> float:
    """The text's entropy in nats a character, below which no model comes on average.

    The entropy of a sentence over its mean length, since sentences are independent and each can be
    read in one way only.
    """
    phrase = math.log(2 * 2 * len(_ADJECTIVES) * len(_NOUNS))
    numbers = itertools.product(range(2), repeat=2)
    determiners = np.mean([len(_DETERMINERS[number][choice]) for number, choice in numbers])
    adjectives, nouns, verbs = (
        np.mean([len(word) for word in words]) for words in (_ADJECTIVES, _NOUNS, _VERBS)
    )
    # half of the nouns and of the verbs have an s; a space after each word, or a stop; a line end
    length = 2 * (determiners + adjectives + nouns + 2.5) + verbs + 1.5 + 1
    return float((2 * phrase + math.log(len(_VERBS))) / length)


def _sentence(*choices: int) -> str:
    subject, verb, object_ = choices[:4], _VERBS[choices[4]], choices[5:]
    ending = "" if choices[0] else "s"
    return f"{_phrase(*subject)} {verb}{ending} {_phrase(*object_)}.\n"


def _phrase(plural: int, determiner: int, adjective: int, noun: int) -> str:
    ending = "s" if plural else ""
    return f"{_DETERMINERS[plural][determiner]} {_ADJECTIVES[adjective]}{_NOUNS[noun]}{ending}"
