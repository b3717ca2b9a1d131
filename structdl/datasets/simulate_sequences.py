"""Two tasks that ask for long memory: adding two marked numbers, and copying symbols.

Each example is a stretch of the stream of its seed: those of a smaller `num` are the first of those
of a larger one.
"""

import math
from typing import NamedTuple

import numpy as np

from structdl.errors import require_at_least, require_known

MARKS = ("anywhere", "halves")

# Copying: symbols to keep, and what else stands in a sequence.
NUM_SYMBOLS = 10
SYMBOL_VALUES = 8  # 1 to 8
BLANK, DELIMITER = 0, 9
NUM_CLASSES = 10


class Labelled(NamedTuple):
    """Sequences and what to say about them; the functions below tell the shapes."""

    inputs: np.ndarray
    targets: np.ndarray


def simulate_adding(
    seed: int | list[int], num: int, time: int, *, marks: str = "anywhere"
) -> Labelled:
    """Draws sequences of which two elements are marked; the target is their sum.

    A network that always says 1, the mean, has a squared error of 1/6.

    Args:
      seed: the same seed gives the same arrays.
      num: how many sequences.
      time: the length, at least 2.
      marks: "anywhere", two different places of the sequence; or "halves", one in each half (of an
        odd length the first is the shorter).

    Returns:
      inputs [num, time, 2] float32, uniform in [0, 1) and the marks, which are 1; targets [num]
      float32.

    Raises:
      InputError: a value out of its range.

    Reference: Hochreiter, Schmidhuber (1997), "Long short-term memory", Neural Computation 9(8),
    task 4; "anywhere" as in Bai, Kolter, Koltun (2018), "An empirical evaluation of generic
    convolutional and recurrent networks for sequence modeling", arXiv:1803.01271, "halves" as in
    Arjovsky, Shah, Bengio (2016), "Unitary evolution recurrent neural networks", arXiv:1511.06464.

    Differs from the paper of 1997: it draws from [-1, 1], marks an element among the first ten and
    one in the first half, scales the target, and its sequences differ in length.

    >>> inputs, targets = simulate_adding(0, 1, 4)
    >>> inputs[0].round(2)
    array([[0.8 , 0.  ], [0.94, 0.  ], [0.01, 1.  ], [0.32, 1.  ]], dtype=float32)
    >>> targets.round(2)
    array([0.32], dtype=float32)
    """
    require_at_least("num", num, 0)
    require_at_least("T", time, 2)
    require_known("marks", marks, MARKS)
    rng, rng_marks = np.random.default_rng(seed).spawn(2)
    inputs = np.zeros((num, time, 2), np.float32)
    inputs[..., 0] = rng.random((num, time), np.float32)
    if marks == "halves":
        places = rng_marks.integers([0, time // 2], [time // 2, time], (num, 2))
    else:
        places = rng_marks.integers([0, 0], [time, time - 1], (num, 2))
        places[:, 1] += places[:, 1] >= places[:, 0]  # uniform over the other places
    rows = np.arange(num)[:, None]
    inputs[rows, places, 1] = 1
    return Labelled(inputs, inputs[rows, places, 0].sum(axis=1))


def simulate_copy_memory(seed: int | list[int], num: int, time: int) -> Labelled:
    """Draws ten symbols to be said again after `time` steps.

    inputs: ten symbols of 1 to 8, T - 1 blanks (0), then eleven delimiters (9), from the first of
    which on the network has to answer; targets: T + 10 blanks, then the ten symbols.

    Args:
      seed: the same seed gives the same arrays.
      num: how many sequences.
      time: T, at least 1.

    Returns:
      inputs and targets [num, T + 20], uint8, classes 0 to 9.

    Raises:
      InputError: a value out of its range.

    Reference: Arjovsky, Shah, Bengio (2016), arXiv:1511.06464, section 4.1; Bai, Kolter, Koltun
    (2018), arXiv:1803.01271, section 4.2.

    Differs from Arjovsky et al.: one delimiter and ten blanks there are eleven delimiters here, as
    in the code of Bai et al.

    >>> inputs, targets = simulate_copy_memory(0, 1, 2)
    >>> inputs
    array([[7, 6, 5, 3, 3, 1, 1, 1, 2, 7, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]], dtype=uint8)
    >>> targets
    array([[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 6, 5, 3, 3, 1, 1, 1, 2, 7]], dtype=uint8)
    """
    require_at_least("num", num, 0)
    require_at_least("T", time, 1)
    symbols = np.random.default_rng(seed).integers(1, SYMBOL_VALUES + 1, (num, NUM_SYMBOLS))
    inputs = np.full((num, time + 2 * NUM_SYMBOLS), BLANK, np.uint8)
    targets = inputs.copy()
    inputs[:, :NUM_SYMBOLS] = targets[:, -NUM_SYMBOLS:] = symbols
    inputs[:, -NUM_SYMBOLS - 1 :] = DELIMITER
    return Labelled(inputs, targets)


def memoryless_loss(time: int) -> float:
    """Copying's cross-entropy, nats a step, of a network that knows when to answer but not what.

    10 ln 8 / (T + 20)

    >>> round(memoryless_loss(1000), 4)
    0.0204
    """
    return NUM_SYMBOLS * math.log(SYMBOL_VALUES) / (time + 2 * NUM_SYMBOLS)
