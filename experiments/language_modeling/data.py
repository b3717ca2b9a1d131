"""Texts as one row of symbols, and the stretches of them that batches show."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.language_modeling.presets import Config
from structdl.datasets import enwik8, penn_treebank, simple_sentences, tiny_shakespeare
from structdl.datasets.sequences import Splits
from structdl.datasets.vocabulary import END_OF_LINE, Text, encode, words_of
from structdl.errors import InputError, nearest_names
from structdl.training.batches import shuffled_epochs

WORDS = "ptb_words"
BYTES = "enwik8"
DATASETS = ("simple_sentences", "tiny_shakespeare", "ptb_characters", WORDS, BYTES)


class Corpus(NamedTuple):
    """A text whose three parts follow one another."""

    ids: np.ndarray  # [time], int32
    bounds: Splits  # where each part begins and where it ends
    vocabulary: tuple[str, ...]


class Stretch(NamedTuple):
    """What of the text each row of a batch shows; all are places of symbols that a model reads.

    It reads from `starts` on, and its predictions at `begins` and after are looked at, of which
    those before `firsts` do not count: another row has them.
    """

    starts: np.ndarray  # [batch], int32
    begins: np.ndarray  # [batch], int32
    firsts: np.ndarray  # [batch], int32


class NextStretch(NamedTuple):
    """The next stretch of each row's sequence, read in order."""

    starts: np.ndarray  # [batch], int32: places of the first symbols that are read
    fresh: np.ndarray  # (), bool: whether sequences begin here, with nothing read before


def load(config: Config) -> Corpus:
    """The text of a config.

    Raises:
      InputError: an unknown set, one that cannot be had, or a part too short for a stretch.
    """
    folders = {"data_dir": config.data.dir, "raw_dir": config.data.raw_dir}
    match config.dataset:
        case "simple_sentences":
            text = simple_sentences.load(data_dir=config.data.dir)
        case "tiny_shakespeare":
            text = tiny_shakespeare.load(**folders)
        case "ptb_characters":
            text = penn_treebank.load("character", **folders)
        case "ptb_words":
            text = penn_treebank.load("word", **folders)
        case "enwik8":
            text = enwik8.load(**folders)
        case _:
            raise InputError(
                f"--dataset is {config.dataset!r}: {nearest_names(config.dataset, DATASETS)}"
            )
    return join(text)


def join(text: Text) -> Corpus:
    """The three parts of a text in one row."""
    *parts, vocabulary = text
    ends = np.cumsum([len(part) for part in parts]).tolist()
    bounds = Splits(*zip([0, *ends[:-1]], ends, strict=True))
    return Corpus(np.concatenate(parts), bounds, vocabulary)


def train_batches(
    bounds: tuple[int, int], batch_size: int, stretch: int, context: int
) -> Callable[[int, int], Stretch]:
    """`batch(step, seed)`: an epoch goes once through the text, newly cut and shuffled.

    Each row has `context` symbols that only prepare, then `stretch` whose next symbol counts.

    Raises:
      InputError: a text too short for these numbers.
    """
    low, high = bounds
    _check(bounds, stretch, context)
    # of a text that is cut at any of `stretch` places, and whose last symbol has no next one
    num = (high - low - context - stretch) // stretch
    rows = shuffled_epochs(np.arange(num), batch_size)
    steps_per_epoch = num // batch_size

    def batch(step: int, seed: int) -> Stretch:
        cut = np.random.default_rng([seed, step // steps_per_epoch, 1]).integers(stretch)
        firsts = (low + context + cut + stretch * rows(step, seed)).astype(np.int32)
        return Stretch(firsts - context, firsts, firsts)

    return batch


def ordered_batches(
    bounds: tuple[int, int], batch_size: int, stretch: int, sequence: int
) -> Callable[[int, int], NextStretch]:
    """`batch(step, seed)`: sequences of `sequence` symbols, each read a stretch a step, in order.

    Every `sequence // stretch` steps other sequences begin. An epoch goes once through the text,
    newly cut into sequences, which are shuffled.

    Raises:
      InputError: a sequence that is not a whole number of stretches, or a text too short for a
        batch of them.
    """
    low, high = bounds
    _check(bounds, stretch, 0)
    if sequence % stretch:
        raise InputError(
            f"--sequence is {sequence}, and it is read in stretches of {stretch}: give a multiple "
            "of --stretch, or 0 for stretches that do not follow one another."
        )
    # cut as in train_batches
    num = max(0, (high - low - sequence) // sequence)
    if batch_size > num:
        raise InputError(
            f"--batch-size is {batch_size}, and the text of training has {num} sequences of "
            f"{sequence} symbols, cut at any place: give 1 to {num}, or a smaller --sequence."
        )
    rows = shuffled_epochs(np.arange(num), batch_size)
    stretches, groups_per_epoch = sequence // stretch, num // batch_size

    def batch(step: int, seed: int) -> NextStretch:
        group, place = divmod(step, stretches)
        rng = np.random.default_rng([seed, group // groups_per_epoch, 1])
        begins = low + rng.integers(sequence) + sequence * rows(group, seed)
        return NextStretch((begins + stretch * place).astype(np.int32), np.bool_(place == 0))

    return batch


def whole(bounds: tuple[int, int], stretch: int, context: int) -> Stretch:
    """A part in one batch: each of its symbols but the first is predicted, and counts, once.

    Before what is predicted a model has read more than `context` symbols, or all that there are.

    Raises:
      InputError: a text too short for these numbers.
    """
    low, high = bounds
    _check(bounds, stretch, context)
    firsts = np.arange(low, high - 1, stretch, dtype=np.int32)
    begins = np.minimum(firsts, high - 1 - stretch)
    return Stretch(np.maximum(begins - context, low), begins, firsts)


def prompt_ids(config: Config, corpus: Corpus) -> np.ndarray:
    """The prompt as numbers; where there is none, the beginning of the test part.

    Raises:
      InputError: a symbol that the vocabulary does not have.
    """
    if not config.prompt:
        low, _ = corpus.bounds.test
        return corpus.ids[low : low + (6 if config.dataset == WORDS else 30)]
    symbols = config.prompt
    if config.dataset == WORDS:
        symbols = words_of(symbols)
    elif config.dataset == BYTES:
        symbols = enwik8.as_bytes(symbols)
    try:
        return encode(symbols, corpus.vocabulary)
    except InputError as error:
        raise InputError(f"--prompt: {error}") from None


def written(dataset: str, symbols: list[str]) -> str:
    """Symbols as a text to read."""
    if dataset == BYTES:
        return enwik8.from_bytes("".join(symbols))
    if dataset != WORDS:
        return "".join(symbols)
    return " ".join(symbols).replace(f"{END_OF_LINE} ", "\n").replace(END_OF_LINE, "\n")


def unit_of(dataset: str) -> str:
    """In what a text's loss is usually told."""
    return "perplexity" if dataset == WORDS else "bits_per_character"


def in_unit(loss, dataset: str):
    """A mean loss in nats, in the text's unit."""
    return jnp.exp(loss) if dataset == WORDS else loss / math.log(2)


def _check(bounds: tuple[int, int], stretch: int, context: int) -> None:
    low, high = bounds
    if high - low < context + 2 * stretch:
        raise InputError(
            f"--context {context} and --stretch {stretch} do not fit into a part of the text, "
            f"which has {high - low} symbols: twice the stretch and the context must."
        )
