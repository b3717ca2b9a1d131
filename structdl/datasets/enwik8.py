"""enwik8: the first hundred million bytes of a dump of the English Wikipedia, of 2006.

Reference: Hutter (2006), "The human knowledge compression prize", and Mahoney (2006), "Large text
compression benchmark", which hold the file. The split is that of Chung, Gulcehre, Cho, Bengio
(2015), "Gated feedback recurrent neural networks", arXiv:1502.02367, and of Kalchbrenner,
Danihelka, Graves (2015), "Grid long short-term memory", arXiv:1507.01526, section 4.4: the last
five million bytes are the test.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.archives import RawArchive, RawMembers, read_members
from structdl.datasets.prepare import prepare
from structdl.datasets.texts import TextBuilder, read_text
from structdl.datasets.vocabulary import Text
from structdl.errors import InputError

HELD_OUT = 5_000_000  # bytes of the validation part, and of the test after it
RAW_ARCHIVE = RawArchive(
    "enwik8.zip",
    "http://mattmahoney.net/dc/enwik8.zip",
    36445475,
    (
        RawMembers(
            "enwik8",
            1,
            100_000_000,
            "2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8",
        ),
    ),
)


class Enwik8Builder(TextBuilder):
    """Its symbols are bytes, written as the characters of Latin-1."""

    name = "enwik8"
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"{RAW_ARCHIVE.name}: {RAW_ARCHIVE.url}"

    def _info(self) -> tfds.core.DatasetInfo:
        description = "A hundred million bytes of Wikipedia, markup included, of 205 kinds."
        return self._text_info(description, "http://mattmahoney.net/dc/textdata.html")

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        text = read_raw(Path(dl_manager.manual_dir) / RAW_ARCHIVE.name)
        return self._splits_of(text)


def load(
    *, data_dir: str | os.PathLike | None = None, raw_dir: str | os.PathLike | None = None
) -> Text:
    """Returns the text as bytes; `prepare` explains the folders.

    The last five million bytes are the test, the five million before them for validation, the
    ninety million before these for training.

    Raises:
      InputError: the data cannot be had (see `prepare`) or is not what it should be.
    """
    builder = prepare(Enwik8Builder, raw_files=[RAW_ARCHIVE], raw_dir=raw_dir, data_dir=data_dir)
    return read_text(builder)


def read_raw(path: Path) -> Text:
    """Reads the zip's one text and splits it by position.

    The vocabulary is that of the whole text, 205 bytes, as in what has been published on it.

    Raises:
      InputError: no zip, a zip without the text, or a text too short for its parts.
    """
    ((name, content),) = read_members(path, RAW_ARCHIVE)
    content = np.frombuffer(content, np.uint8)
    if len(content) <= 2 * HELD_OUT:
        raise InputError(
            f"{path}: {name} has {len(content)} bytes, expected more than {2 * HELD_OUT}, of which "
            "validation and test take all"
        )
    symbols = np.flatnonzero(np.bincount(content, minlength=256))
    places = np.zeros(256, np.int32)
    places[symbols] = np.arange(len(symbols))
    parts = np.split(places[content], [len(content) - 2 * HELD_OUT, len(content) - HELD_OUT])
    return Text(*parts, tuple(map(chr, symbols.tolist())))


def as_bytes(text: str) -> str:
    """A text's UTF-8 bytes as the symbols of this set.

    >>> as_bytes("né")
    'nÃ©'
    """
    return text.encode().decode("latin-1")


def from_bytes(symbols: str) -> str:
    """The text of this set's symbols; bytes that are no UTF-8 are replaced.

    >>> from_bytes(as_bytes("né") + "Ã")
    'né�'
    """
    return symbols.encode("latin-1").decode(errors="replace")
