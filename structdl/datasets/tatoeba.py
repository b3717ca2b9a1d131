"""Tatoeba's pairs of sentences: Chinese, in characters, and English, in words.

Reference: the Tatoeba project, tatoeba.org, whose volunteers wrote the sentences, in the form of
manythings.org/anki: a line a pair. The file there changes; the one accepted here is that of about
2019, with 21 116 pairs.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from structdl.datasets.archives import RawArchive, RawMembers, read_members
from structdl.datasets.prepare import RawFile, prepare
from structdl.datasets.sentence_pairs import (
    Pair,
    Sentence,
    SentencePairs,
    SentencePairsBuilder,
    read_pairs,
    split_by_sentences,
)
from structdl.errors import InputError

SEED = 0  # of the split, which is always the same
NUM_VALIDATION = NUM_TEST = 1000  # pairs, at least
MIN_COUNT = 2  # in the training part, of what is no <unk>

RAW_FILE = RawFile(
    "cmn.txt",
    "https://www.manythings.org/anki/cmn-eng.zip",
    1315138,
    "f81798986021a75cbbcdd7521e627d87031e1b74e5601cfb3604cf1637ac62dd",
)
RAW_ARCHIVE = RawArchive(
    "cmn-eng.zip",
    RAW_FILE.url,
    20_000_000,
    (RawMembers(RAW_FILE.name, 1, RAW_FILE.size, RAW_FILE.sha256),),
)
_RELEASE = (
    "That address has a new file from time to time. The one accepted is the cmn.txt of about 2019, "
    "with 21116 lines, English TAB Chinese; put it into DIR/tatoeba_cmn_eng/ and name DIR with "
    "--data.raw-dir or STRUCTDL_RAW_DIR."
)
_CHARACTERS = re.compile(r"[0-9A-Za-z\u00c0-\u024f]+|\S")
_WORDS = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|\d+(?:[.,:]\d+)*|[^\w\s]|_")


class TatoebaCmnEngBuilder(SentencePairsBuilder):
    """Reads cmn.txt, or the zip that holds it."""

    name = "tatoeba_cmn_eng"
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"{RAW_FILE.name}: {RAW_FILE.url}"

    def _info(self) -> tfds.core.DatasetInfo:
        return self._pairs_info("Chinese sentences and English ones.", "https://tatoeba.org")

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        folder = Path(dl_manager.manual_dir)
        path = folder / RAW_FILE.name
        content = path.read_bytes() if path.exists() else _unpacked(folder / RAW_ARCHIVE.name)
        return self._splits_of(
            split_by_sentences(pairs_of(content, path), NUM_VALIDATION, NUM_TEST, SEED)
        )


def load(
    *, data_dir: str | os.PathLike | None = None, raw_dir: str | os.PathLike | None = None
) -> SentencePairs:
    """Returns the pairs, Chinese as the source; `prepare` explains the folders.

    Validation and test have about 1000 pairs each, and no sentence of one part is in another.

    Raises:
      InputError: the data cannot be had (see `prepare`) or is not what it should be; the message
        names the release that is accepted.
    """
    given = raw_dir or os.environ.get("STRUCTDL_RAW_DIR")
    raw_files = [RAW_FILE] if given else [RAW_ARCHIVE]
    try:
        builder = prepare(
            TatoebaCmnEngBuilder, raw_files=raw_files, raw_dir=given, data_dir=data_dir
        )
    except InputError as error:
        if RAW_FILE.url not in str(error):
            raise
        raise InputError(f"{error} {_RELEASE}") from error
    return read_pairs(builder, MIN_COUNT)


def pairs_of(content: bytes, path: Path) -> list[Pair]:
    """The pairs of a file, a line each: English, a tab, Chinese.

    Raises:
      InputError: no text, a line without exactly one tab, or one with an empty sentence; the
        message names it.
    """
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a readable text ({error})") from error
    pairs = []
    for number, line in enumerate(lines, start=1):
        sides = line.split("\t")
        if len(sides) != 2:
            raise InputError(
                f"{path}: line {number} has {len(sides) - 1} tabs: it must be English, one tab, "
                f"Chinese; found {line[:40]!r}"
            )
        pair = Pair(characters_of(sides[1]), words_of_english(sides[0]))
        if not all(pair):
            raise InputError(f"{path}: line {number} has an empty sentence: {line[:40]!r}")
        pairs.append(pair)
    return pairs


def characters_of(text: str) -> Sentence:
    """The characters of a Chinese sentence; Latin letters and digits in a row are one symbol.

    >>> characters_of("我爱 Tom 和2001年。")
    ('我', '爱', 'Tom', '和', '2001', '年', '。')
    """
    return tuple(_CHARACTERS.findall(text))


def words_of_english(text: str) -> Sentence:
    """The words, numbers and marks of an English sentence, in lower case.

    An apostrophe between letters belongs to the word; others are marks.

    >>> words_of_english("Don't say 'Hi' at 10:30, Tom!")
    ("don't", 'say', "'", 'hi', "'", 'at', '10:30', ',', 'tom', '!')
    """
    return tuple(_WORDS.findall(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")))


def _unpacked(path: Path) -> bytes:
    return dict(read_members(path, RAW_ARCHIVE))[RAW_FILE.name]
