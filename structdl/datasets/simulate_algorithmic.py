"""Three algorithmic tasks of short strings: parity of bits, addition of integers, memorization.

Each example is a stretch of the stream of its seed: those of a smaller `num` are the first of those
of a larger one.

Reference: Kalchbrenner, Danihelka, Graves (2015), "Grid long short-term memory", arXiv:1507.01526,
sections 4.1 to 4.3; addition and memorization after Zaremba, Sutskever (2014), "Learning to
execute", arXiv:1410.4615.
"""

import numpy as np

from structdl.datasets.simulate_sequences import Labelled
from structdl.errors import require_at_least, require_at_most, require_known

SHARES = ("half", "any")
DELIMITER = 0
DIGITS = 10  # the digit d is the symbol d + 1
MAX_DIGITS = 18  # of int64
MAX_SYMBOLS = 255  # of uint8


def simulate_parity(
    seed: int | list[int], num: int, num_bits: int, *, share: str = "half"
) -> Labelled:
    """Draws strings of bits; the target is 1 where an odd number of them is 1.

    Args:
      seed: the same seed gives the same arrays.
      num: how many strings.
      num_bits: k, at least 1.
      share: "half", each bit is 1 with probability 1/2; "any", with one that each string draws for
        itself from [0, 1], so that all numbers of ones are as likely.

    Returns:
      inputs [num, k] and targets [num], uint8.

    Raises:
      InputError: a value out of its range.

    >>> simulate_parity(0, 2, 4)
    Labelled(inputs=array([[0, 1, 0, 1],
           [1, 0, 1, 0]], dtype=uint8), targets=array([0, 0], dtype=uint8))
    """
    require_at_least("num", num, 0)
    require_at_least("the number of bits", num_bits, 1)
    require_known("share", share, SHARES)
    rng, rng_shares = np.random.default_rng(seed).spawn(2)
    shares = rng_shares.random((num, 1)) if share == "any" else 0.5
    bits = (rng.random((num, num_bits)) < shares).astype(np.uint8)
    return Labelled(bits, (bits.sum(axis=1) % 2).astype(np.uint8))


def simulate_addition(seed: int | list[int], num: int, num_digits: int) -> Labelled:
    """Draws two integers of so many digits, which come one after the other, and then their sum.

    Of 123 and 899, where - is the delimiter, a network reads the first line and says the second:

        - 1 2 3 - 8 9 9 - - - - -
        - - - - - - - - 1 0 2 2 -

    A sum without a carry in its first place has a delimiter after its last digit instead.

    Args:
      seed: the same seed gives the same arrays.
      num: how many pairs.
      num_digits: of each integer, whose first digit is no 0; 1 to 18.

    Returns:
      inputs and targets [num, 3 num_digits + 4], uint8: 0 is the delimiter, 1 + d the digit d.

    Raises:
      InputError: a value out of its range.

    >>> inputs, targets = simulate_addition(0, 1, 2)
    >>> inputs, targets
    (array([[0, 9, 7, 0, 7, 8, 0, 0, 0, 0]], dtype=uint8),
     array([[0, 0, 0, 0, 0, 0, 2, 6, 4, 0]], dtype=uint8))
    """
    require_at_least("num", num, 0)
    require_at_least("the number of digits", num_digits, 1)
    require_at_most("the number of digits", num_digits, MAX_DIGITS)
    low, high = (10 ** (num_digits - 1), 10**num_digits) if num_digits > 1 else (0, 10)
    terms = np.random.default_rng(seed).integers(low, high, (num, 2))
    blanks = np.zeros((num, 1), np.uint8)
    first, second = (_digits(terms[:, place], num_digits) for place in range(2))
    answer = np.tile(blanks, num_digits + 2)
    inputs = np.concatenate([blanks, first, blanks, second, answer], axis=1)
    total = _digits(terms.sum(axis=1), num_digits + 1)
    carries = total[:, :1] > 1  # a leading 0 is the symbol 1
    total = np.where(carries, total, np.roll(total, -1, axis=1))
    total[:, -1:] *= carries
    silent = np.tile(blanks, 2 * num_digits + 2)
    return Labelled(inputs, np.concatenate([silent, total, blanks], axis=1))


def _digits(numbers: np.ndarray, width: int) -> np.ndarray:
    """The symbols of the digits of integers [num], the first one first: [num, width]."""
    powers = 10 ** np.arange(width - 1, -1, -1, dtype=np.int64)
    return (numbers[:, None] // powers % DIGITS + 1).astype(np.uint8)


def simulate_memorization(
    seed: int | list[int], num: int, length: int, *, num_symbols: int = 64
) -> Labelled:
    """Draws strings of symbols, to be said again after their end.

        - a b c - - - -
        - - - - a b c -

    Args:
      seed: the same seed gives the same arrays.
      num: how many strings.
      length: of each, at least 1.
      num_symbols: how many there are to draw from, 1 to 255.

    Returns:
      inputs and targets [num, 2 length + 2], uint8: 0 is the delimiter.

    Raises:
      InputError: a value out of its range.

    >>> inputs, targets = simulate_memorization(0, 1, 3, num_symbols=9)
    >>> inputs, targets
    (array([[0, 4, 5, 7, 0, 0, 0, 0]], dtype=uint8),
     array([[0, 0, 0, 0, 4, 5, 7, 0]], dtype=uint8))
    """
    require_at_least("num", num, 0)
    require_at_least("the length", length, 1)
    require_at_least("the number of symbols", num_symbols, 1)
    require_at_most("the number of symbols", num_symbols, MAX_SYMBOLS)
    symbols = np.random.default_rng(seed).integers(1, num_symbols + 1, (num, length), np.uint8)
    inputs = np.full((num, 2 * length + 2), DELIMITER, np.uint8)
    targets = inputs.copy()
    inputs[:, 1 : length + 1] = targets[:, length + 1 : -1] = symbols
    return Labelled(inputs, targets)
