"""Tiny Shakespeare: a million characters of Shakespeare's plays.

Reference: Karpathy (2015), "The unreasonable effectiveness of recurrent neural networks"; its code,
char-rnn, holds the file.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.prepare import RawFile, prepare, url_infos
from structdl.datasets.sequences import Splits
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
class TinyShakespeareBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """One example a split: all of its characters as numbers; the vocabulary is in the metadata."""

    name = "tiny_shakespeare"
    VERSION = tfds.core.Version("1.0.0")

    @property
    def url_infos(self) -> dict[str, tfds.download.checksums.UrlInfo]:
        return url_infos([RAW_FILE])

    def _info(self) -> tfds.core.DatasetInfo:
        ids = tfds.features.Tensor(shape=(None,), dtype=np.int32, encoding="bytes")
        return tfds.core.DatasetInfo(
            builder=self,
            description="A million characters of Shakespeare's plays.",
            features=tfds.features.FeaturesDict({"ids": ids}),
            homepage="https://github.com/karpathy/char-rnn",
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        text = read_raw(Path(dl_manager.download(RAW_FILE.url)))
        self.info.metadata["vocabulary"] = text.vocabulary
        return {split: self._generate_examples(getattr(text, split)) for split in Splits._fields}

    def _generate_examples(self, ids: np.ndarray) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        yield 0, {"ids": ids}


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
    parts = (builder.as_data_source(split)[0]["ids"] for split in Splits._fields)
    return Text(*parts, tuple(builder.info.metadata["vocabulary"]))


def read_raw(path: Path) -> Text:
    """Reads a text and splits it by position; the vocabulary is that of the training part.

    Raises:
      InputError: no text, or a character that the training part does not have.
    """
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no text that can be read ({error})") from error
    bounds = [0, *(int(share * len(text)) for share in SHARES), len(text)]
    parts = [text[bounds[part] : bounds[part + 1]] for part in range(3)]
    vocabulary = vocabulary_of(parts[0])
    try:
        return Text(*(encode(part, vocabulary) for part in parts), vocabulary)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
