"""Text as numbers: symbols, which are characters or words, and their places in a vocabulary.

A text is a sequence of symbols: a str of characters, or a list of words.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from structdl.errors import InputError

END_OF_LINE = "<eos>"


class Text(NamedTuple):
    """The parts of a text as numbers, int32, and the symbols that they stand for."""

    train: np.ndarray  # [time], 0 to len(vocabulary) - 1
    validation: np.ndarray
    test: np.ndarray
    vocabulary: tuple[str, ...]


def vocabulary_of(text: Sequence[str]) -> tuple[str, ...]:
    """The different symbols of a text, sorted.

    >>> vocabulary_of("hello")
    ('e', 'h', 'l', 'o')
    """
    return tuple(sorted(set(text)))


def words_of(text: str) -> list[str]:
    """The words between white space, and END_OF_LINE for each line that ends.

    >>> words_of("to be\\nor not")
    ['to', 'be', '<eos>', 'or', 'not']
    """
    return text.replace("\n", f" {END_OF_LINE} ").split()


def encode(text: Sequence[str], vocabulary: Sequence[str]) -> np.ndarray:
    """The place of each symbol in the vocabulary, [time] int32.

    Raises:
      InputError: a symbol that the vocabulary does not have.

    >>> encode("hole", vocabulary_of("hello"))
    array([1, 3, 2, 0], dtype=int32)
    """
    places = {symbol: place for place, symbol in enumerate(vocabulary)}
    try:
        return np.fromiter((places[symbol] for symbol in text), np.int32, len(text))
    except KeyError as error:
        symbol = error.args[0]
        position = next(i for i, one in enumerate(text) if one == symbol)
        raise InputError(
            f"{symbol!r} at position {position} is not among the {len(places)} symbols of the "
            "vocabulary, which are those of the training text: replace it by one of them"
        ) from None


def decode(ids: np.ndarray, vocabulary: Sequence[str]) -> list[str]:
    """The symbols at these places; `"".join` makes a text of characters.

    Raises:
      InputError: a number that is no place in the vocabulary.

    >>> "".join(decode(np.array([1, 3, 2, 0]), vocabulary_of("hello")))
    'hole'
    """
    ids = np.asarray(ids)
    wrong = np.flatnonzero((ids < 0) | (ids >= len(vocabulary)))
    if wrong.size:
        raise InputError(
            f"{ids[wrong[0]]} at position {wrong[0]} is out of range, 0 to {len(vocabulary) - 1}"
        )
    return [vocabulary[place] for place in ids.tolist()]
