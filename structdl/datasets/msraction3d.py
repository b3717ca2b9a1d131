"""MSR Action3D: twenty actions of ten people, as moving skeletons of twenty joints.

Each person does each action two or three times. The people with odd numbers are those to train on,
the others those to test on.

Reference: Li, Zhang, Liu (2010), "Action recognition based on a bag of 3D points", CVPR workshops.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.archives import RawArchive, RawMembers, read_members
from structdl.datasets.prepare import prepare
from structdl.datasets.sequences import Splits
from structdl.datasets.skeletons import (
    Motion,
    motion_features,
    parse_numbers,
    read_splits,
    require_validation,
)
from structdl.errors import InputError

ACTIONS = (
    "high arm wave",
    "horizontal arm wave",
    "hammer",
    "hand catch",
    "forward punch",
    "high throw",
    "draw X",
    "draw tick",
    "draw circle",
    "hand clap",
    "two hand wave",
    "side boxing",
    "bend",
    "forward kick",
    "side kick",
    "jogging",
    "tennis swing",
    "tennis serve",
    "golf swing",
    "pickup and throw",
)
JOINTS = (
    "left shoulder",
    "right shoulder",
    "neck",
    "spine",
    "left hip",
    "right hip",
    "hip centre",
    "left elbow",
    "right elbow",
    "left wrist",
    "right wrist",
    "left hand",
    "right hand",
    "left knee",
    "right knee",
    "left ankle",
    "right ankle",
    "left foot",
    "right foot",
    "head",
)
# a tree whose root is the hip centre: parents and children
BONES = (
    *((6, 3), (3, 2), (2, 19)),
    *((2, 0), (0, 7), (7, 9), (9, 11)),
    *((2, 1), (1, 8), (8, 10), (10, 12)),
    *((6, 4), (4, 13), (13, 15), (15, 17)),
    *((6, 5), (5, 14), (14, 16), (16, 18)),
)
PARTS = {
    "torso": (6, 3, 2, 19),
    "left arm": (0, 7, 9, 11),
    "right arm": (1, 8, 10, 12),
    "left leg": (4, 13, 15, 17),
    "right leg": (5, 14, 16, 18),
}
SUBJECTS = range(1, 11)
# all zeros, and 936 frames of which most are
CORRUPT = ("a13_s09_e02", "a13_s09_e03")

RAW_ARCHIVE = RawArchive(
    "msraction3d.zip",
    "https://github.com/JeslieHCI/UTKinect_3/archive/590aede4d94d.zip",
    100_000_000,
    (
        RawMembers(
            "a??_s??_e??_skeleton3D.txt",
            567,
            17541873,
            "c8c4a0cde0ef3fa16912e2d737dba684266e36e836dd2cf144511f1a28e138d4",
        ),
    ),
)


class MSRAction3DBuilder(tfds.core.GeneratorBasedBuilder):
    """One example a sequence, in the order of action, person and take."""

    name = "msraction3d"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"{RAW_ARCHIVE.name}: {RAW_ARCHIVE.url}"

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Skeletons of twenty joints, seen by a depth camera.",
            features=motion_features(len(JOINTS)),
            homepage="https://sites.google.com/view/wanqingli/data-sets/msr-action3d",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {"full": self._generate_examples(Path(dl_manager.manual_dir) / RAW_ARCHIVE.name)}

    def _generate_examples(self, path: Path) -> Iterator[tuple[int, dict]]:
        for number, sequence in enumerate(read_raw(path)):
            yield number, sequence._asdict()


def load(
    *,
    validation_subjects: Sequence[int] = (9,),
    data_dir: str | os.PathLike | None = None,
    raw_dir: str | os.PathLike | None = None,
) -> Splits:
    """Returns three `Skeletons`; `prepare` explains the folders.

    The people 2, 4, 6, 8 and 10 are the test (275 sequences), and of 1, 3, 5, 7 and 9 (290) those
    named are for validation. Two corrupt sequences are left out (`CORRUPT`), and so are the frames
    in which no joint was seen, of which eighteen others have some.

    Args:
      validation_subjects: odd numbers; with none there are no rows for validation.
      data_dir: see `prepare`.
      raw_dir: see `prepare`.

    Raises:
      InputError: another person for validation, or nobody left to train on; the data cannot be had
        (see `prepare`) or is not what it should be.
    """
    require_validation(validation_subjects, SUBJECTS)
    builder = prepare(
        MSRAction3DBuilder, raw_files=[RAW_ARCHIVE], raw_dir=raw_dir, data_dir=data_dir
    )
    return read_splits(builder, validation_subjects, len(JOINTS))


def read_raw(path: Path) -> list[Motion]:
    """Reads the sequences of the zip but the corrupt ones, `aAA_sSS_eEE_skeleton3D.txt`.

    Raises:
      InputError: names the member and what is wrong with it.
    """
    sequences = []
    for name, content in read_members(path, RAW_ARCHIVE):
        match = re.fullmatch(r"(a(\d\d)_s(\d\d)_e\d\d)_skeleton3D\.txt", name)
        if match and match[1] in CORRUPT:
            continue
        action, subject = (int(match[2]), int(match[3])) if match else (0, 0)
        if not 1 <= action <= len(ACTIONS) or subject not in SUBJECTS:
            raise InputError(f"{path}: member {name} is not of 20 actions and 10 people")
        positions = parse_skeleton(content, f"{path}: member {name}")
        sequences.append(Motion(positions, action - 1, subject))
    return sequences


def parse_skeleton(content: bytes, where: str) -> np.ndarray:
    """The positions, [time, joints, 3], of lines `x y z confidence`, joint after joint.

    Frames in which all positions are 0 are left out.

    Raises:
      InputError: says `where`, and what is wrong.
    """
    rows = parse_numbers(content, where)
    num_joints = len(JOINTS)
    if rows.shape[1:] != (4,) or len(rows) % num_joints:
        raise InputError(
            f"{where} has {len(rows)} lines of {rows.shape[-1]} numbers: expected 4 numbers a line "
            f"and {num_joints} lines a frame"
        )
    positions = rows[:, :3].reshape(-1, num_joints, 3)
    seen = positions[(positions != 0).any(axis=(1, 2))]
    if not len(seen):
        raise InputError(f"{where} has no frame in which a joint was seen")
    return seen
