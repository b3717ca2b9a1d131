"""Zachary's karate club: 34 members, 78 friendships, and the split into two factions.

Reference: Zachary (1977), "An information flow model for conflict and fission in small groups",
Journal of Anthropological Research 33(4). The four modularity classes are those coloured in
Kipf, Welling (2017), "Semi-supervised classification with graph convolutional networks",
arXiv:1609.02907, Figure 1; they come from Brandes et al. (2008), "On modularity clustering".
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.prepare import prepare

# For each member the friends with a larger number.
_FRIENDS = {
    0: (1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 17, 19, 21, 31),
    1: (2, 3, 7, 13, 17, 19, 21, 30),
    2: (3, 7, 8, 9, 13, 27, 28, 32),
    3: (7, 12, 13),
    4: (6, 10),
    5: (6, 10, 16),
    6: (16,),
    8: (30, 32, 33),
    9: (33,),
    13: (33,),
    14: (32, 33),
    15: (32, 33),
    18: (32, 33),
    19: (33,),
    20: (32, 33),
    22: (32, 33),
    23: (25, 27, 29, 32, 33),
    24: (25, 27, 31),
    25: (31,),
    26: (29, 33),
    27: (33,),
    28: (31, 33),
    29: (32, 33),
    30: (32, 33),
    31: (32, 33),
    32: (33,),
}
_EDGES = [(member, friend) for member, friends in _FRIENDS.items() for friend in friends]

# 0: stayed with the instructor (member 0); 1: went with the officer (member 33).
_FACTION = [int(digit) for digit in "0000000001000011001010111111111111"]
_MODULARITY_CLASS = [int(digit) for digit in "1111333101311100310101002200200200"]


class KarateClub(NamedTuple):
    """The club as NumPy arrays, int32."""

    edges: np.ndarray  # [78, 2], each friendship once, the smaller number first
    faction: np.ndarray  # [34], 0 with the instructor, 1 with the officer
    modularity_class: np.ndarray  # [34], 0 to 3


class KarateClubBuilder(tfds.core.GeneratorBasedBuilder):
    """One example: the whole graph."""

    name = "karate_club"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        members = tfds.features.Tensor(shape=(34,), dtype=np.int32)
        edges = tfds.features.Tensor(shape=(78, 2), dtype=np.int32)
        features = {"edges": edges, "faction": members, "modularity_class": members}
        return tfds.core.DatasetInfo(
            builder=self,
            description="Friendships in a karate club before it split in two.",
            features=tfds.features.FeaturesDict(features),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {"full": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        facts = KarateClub(_EDGES, _FACTION, _MODULARITY_CLASS)
        yield 0, {name: np.array(value, np.int32) for name, value in facts._asdict().items()}


def load(
    *, data_dir: str | os.PathLike | None = None, raw_dir: str | os.PathLike | None = None
) -> KarateClub:
    """The karate club; it needs neither raw files nor the network.

    >>> load().edges[:3]
    array([[0, 1],
           [0, 2],
           [0, 3]], dtype=int32)

    Raises:
      InputError: the data folder cannot be written.
    """
    builder = prepare(KarateClubBuilder, raw_dir=raw_dir, data_dir=data_dir)
    return KarateClub(**builder.as_data_source("full")[0])
