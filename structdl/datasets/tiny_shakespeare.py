"""Tiny Shakespeare: a million characters of Shakespeare's plays.

Reference: Karpathy (2015), "The unreasonable effectiveness of recurrent neural networks"; its code,
char-rnn, holds the file.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from structdl.datasets.prepare import RawFile, prepare, url_infos
from structdl.datasets.texts import TextBuilder, read_text
from structdl.datasets.vocabulary import Text, encode, vocabulary_of
from structdl.errors import InputError

SHARES = (0.9, 0.95)  # where the validation and the test part begin
RAW_FILE = RawFile(
    "input.txt",
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    1115394,
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)


# Not registered with TFDS, whose catalogue has a set of this name.
class TinyShakespeareBuilder(TextBuilder, skip_registration=True):
    """Its symbols are characters."""

    name = "tiny_shakespeare"

    @property
    def url_infos(self) -> dict[str, tfds.download.checksums.UrlInfo]:
        return url_infos([RAW_FILE])

    def _info(self) -> tfds.core.DatasetInfo:
        description = "A million characters of Shakespeare's plays."
        return self._text_info(description, "https://github.com/karpathy/char-rnn")

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        text = read_raw(Path(dl_manager.download(RAW_FILE.url)))
        return self._splits_of(text)


def load(
    *, data_dir: str | os.PathLike | None = None, raw_dir: str | os.PathLike | None = None
) -> Text:
    """Returns the text as characters; `prepare` explains the folders.

    The first 90 % of the characters are for training, the next 5 % for validation, the rest is the
    test.

    Raises:
      InputError: the data cannot be had (see `prepare`) or is not what it should be.
    """
    builder = prepare(
        TinyShakespeareBuilder, raw_files=[RAW_FILE], raw_dir=raw_dir, data_dir=data_dir
    )
    return read_text(builder)


def read_raw(path: Path) -> Text:
    """Reads a text and splits it by position; the vocabulary is that of the training part.

    Raises:
      InputError: no text, or a character that the training part does not have.
    """
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable text ({error})") from error
    bounds = [0, *(int(share * len(text)) for share in SHARES), len(text)]
    parts = [text[bounds[part] : bounds[part + 1]] for part in range(3)]
    vocabulary = vocabulary_of(parts[0])
    try:
        return Text(*(encode(part, vocabulary) for part in parts), vocabulary)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
