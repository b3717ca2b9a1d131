"""Numbers in Chinese numerals and in English words: a generated set of sentence pairs.

Chinese counts in ten thousands, English in thousands: what is twelve ten-thousands in one is a
hundred and twenty thousands in the other, so that a translation is no word-by-word affair.
"""

import os
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.prepare import prepare
from structdl.datasets.sentence_pairs import (
    Pair,
    Sentence,
    SentencePairs,
    SentencePairsBuilder,
    read_pairs,
)
from structdl.datasets.sequences import Splits
from structdl.errors import InputError, require_at_least

SEED = 0  # like a published set, the numbers are always the same
NUM_PAIRS = {"train": 4000, "validation": 300, "test": 300}
LARGEST = 999_999

_DIGITS = "零一二三四五六七八九"
_PLACES = ("", "十", "百", "千")
_ONES = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


class NumberWordsBuilder(SentencePairsBuilder):
    """Needs neither raw files nor the network; no number is in two parts."""

    name = "number_words"

    def _info(self) -> tfds.core.DatasetInfo:
        return self._pairs_info("Numbers in Chinese numerals and in English words.")

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        sizes = [NUM_PAIRS[split] for split in Splits._fields]
        pairs = [pair_of(number) for number in draw_numbers(SEED, sum(sizes))]
        bounds = np.cumsum([0, *sizes]).tolist()
        parts = (pairs[bounds[i] : bounds[i + 1]] for i in range(len(sizes)))
        return self._splits_of(Splits(*parts))


def load(*, data_dir: str | os.PathLike | None = None) -> SentencePairs:
    """Returns the pairs, Chinese as the source.

    Raises:
      InputError: the data folder cannot be written.
    """
    return read_pairs(prepare(NumberWordsBuilder, data_dir=data_dir), min_count=1)


def draw_numbers(seed: int | list[int], num: int) -> list[int]:
    """Different numbers from 1 to LARGEST; each number of digits is about as likely to be drawn.

    Raises:
      InputError: a negative number.
    """
    require_at_least("num", num, 0)
    rng, found = np.random.default_rng(seed), {}
    while len(found) < num:
        found[int((LARGEST + 1) ** rng.random())] = True
    return list(found)


def pair_of(number: int) -> Pair:
    """A number in Chinese and in English.

    Raises:
      InputError: it is not from 0 to LARGEST.

    >>> pair = pair_of(120_305)
    >>> "".join(pair.source), " ".join(pair.target)
    ('十二万零三百零五', 'one hundred twenty thousand three hundred five')
    """
    if not 0 <= number <= LARGEST:
        raise InputError(f"number is {number}: it must be 0 to {LARGEST}")
    return Pair(_in_chinese(number), _in_english(number))


def _in_chinese(number: int) -> Sentence:
    if number == 0:
        return (_DIGITS[0],)
    high, low = divmod(number, 10_000)
    text = (_below_ten_thousand(high) + "万") if high else ""
    if high and 0 < low < 1000:
        text += _DIGITS[0]
    text += _below_ten_thousand(low)
    # ten to nineteen, at the beginning, go without their one
    return tuple(text.removeprefix("一") if text.startswith("一十") else text)


def _below_ten_thousand(number: int) -> str:
    text, gap = "", False
    for place in reversed(range(4)):
        digit = number // 10**place % 10
        if digit:
            text += (_DIGITS[0] if gap and text else "") + _DIGITS[digit] + _PLACES[place]
        gap = not digit
    return text


def _in_english(number: int) -> Sentence:
    if number == 0:
        return (_ONES[0],)
    thousands, rest = divmod(number, 1000)
    return (*(*_below_thousand(thousands), "thousand") * (thousands > 0), *_below_thousand(rest))


def _below_thousand(number: int) -> Sentence:
    hundreds, rest = divmod(number, 100)
    words = (_ONES[hundreds], "hundred") if hundreds else ()
    if rest >= 20:
        tens, rest = divmod(rest, 10)
        words += (_TENS[tens - 2],)
    return (*words, _ONES[rest]) if rest else words
