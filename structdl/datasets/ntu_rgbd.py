"""NTU RGB+D: sixty actions of forty people, as skeletons of twenty-five joints.

The set is licensed and is not downloaded: who has it puts the .skeleton files into
`<raw folder>/ntu_rgbd`. Their bytes are not registered, and are read with suspicion.

Reference: Shahroudy, Liu, Ng, Wang (2016), "NTU RGB+D: a large scale dataset for 3D human activity
analysis", arXiv:1604.02808. Cross-view trains with cameras 2 and 3; the twenty people of
cross-subject are recalled.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.prepare import prepare
from structdl.datasets.sequences import Splits
from structdl.datasets.skeletons import Motion, as_skeletons, motion_features
from structdl.errors import InputError, require_known

NUM_JOINTS = 25
NUM_CLASSES = 60
# parents and children; 0 is the base of the spine, 20 its top
BONES = (
    *((0, 1), (1, 20), (20, 2), (2, 3)),
    *((20, 4), (4, 5), (5, 6), (6, 7), (7, 21), (7, 22)),
    *((20, 8), (8, 9), (9, 10), (10, 11), (11, 23), (11, 24)),
    *((0, 12), (12, 13), (13, 14), (14, 15)),
    *((0, 16), (16, 17), (17, 18), (18, 19)),
)
TRAINING_SUBJECTS = (1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
TRAINING_CAMERAS = (2, 3)
PROTOCOLS = ("cross-subject", "cross-view")

_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})\.skeleton")
_VALUES = {"body": 10, "joint": 12}  # of a line
_LARGEST = float(np.finfo(np.float32).max)
_HIGHEST = {"setup": 17, "camera": 3, "subject": 40, "replication": 2, "action": NUM_CLASSES}


class Recording(NamedTuple):
    """What a file's name says, numbered from 1."""

    setup: int
    camera: int
    subject: int
    replication: int
    action: int


class NTURGBDBuilder(tfds.core.GeneratorBasedBuilder):
    """One example a file in which somebody is seen, in the order of the names."""

    name = "ntu_rgbd"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "the .skeleton files of the licensed set"

    def _info(self) -> tfds.core.DatasetInfo:
        features = dict(motion_features(NUM_JOINTS))
        features["camera"] = tfds.features.Scalar(dtype=np.int32)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Skeletons of twenty-five joints, seen by three depth cameras.",
            features=tfds.features.FeaturesDict(features),
            homepage="https://rose1.ntu.edu.sg/dataset/actionRecognition",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {"full": self._generate_examples(Path(dl_manager.manual_dir))}

    def _generate_examples(self, folder: Path) -> Iterator[tuple[int, dict]]:
        paths = sorted(folder.rglob("*.skeleton"), key=lambda path: path.name)
        if not paths:
            raise InputError(
                f"{folder} has no .skeleton file: get the set from its authors, and put its files "
                "there"
            )
        for number, path in enumerate(paths):
            recording = parse_name(path.name)
            positions = parse_skeletons(path.read_text(errors="replace"), str(path))
            if len(positions):
                motion = Motion(positions, recording.action - 1, recording.subject)
                yield number, {**motion._asdict(), "camera": recording.camera}


def load(
    protocol: str,
    *,
    data_dir: str | os.PathLike | None = None,
    raw_dir: str | os.PathLike | None = None,
) -> Splits:
    """Returns three `Skeletons`; those of validation have no rows, since the set has no such part.

    Files in which nobody is seen are left out. Of several people the one who moves most is kept.

    Args:
      protocol: "cross-subject" or "cross-view": whether the people or the cameras of the test are
        others than those to train on.
      data_dir: see `prepare`.
      raw_dir: the folder above `ntu_rgbd`.

    Raises:
      InputError: an unknown protocol, no files, or a file that is not what it should be: its name
        and line.
    """
    require_known("protocol", protocol, PROTOCOLS)
    builder = prepare(NTURGBDBuilder, raw_dir=raw_dir, data_dir=data_dir)
    source = builder.as_data_source("full")
    parts = {True: [], False: []}
    for example in source.__getitems__(range(len(source))):
        if protocol == "cross-subject":
            trains = int(example["subject"]) in TRAINING_SUBJECTS
        else:
            trains = int(example["camera"]) in TRAINING_CAMERAS
        known = example["positions"], int(example["label"]), int(example["subject"])
        parts[trains].append(Motion(*known))
    return Splits(*(as_skeletons(its, NUM_JOINTS) for its in (parts[True], [], parts[False])))


def parse_name(name: str) -> Recording:
    """What a file's name says.

    Raises:
      InputError: it is none of the set's names.

    >>> parse_name("S001C002P003R002A013.skeleton")
    Recording(setup=1, camera=2, subject=3, replication=2, action=13)
    """
    match = _NAME.fullmatch(name)
    numbers = [int(number) for number in match.groups()] if match else []
    highest = _HIGHEST.values()
    if not match or not all(1 <= n <= most for n, most in zip(numbers, highest, strict=True)):
        limits = ", ".join(f"{what} 1 to {most}" for what, most in _HIGHEST.items())
        raise InputError(f"{name} is no name SsssCcccPpppRrrrAaaa.skeleton of {limits}")
    return Recording(*numbers)


class _Lines:
    """The lines of a file one after another; what is wrong is said with the line's number."""

    def __init__(self, text: str, where: str):
        self.lines, self.where, self.number = text.splitlines(), where, 0

    def fail(self, words: str) -> InputError:
        return InputError(f"{self.where} line {self.number}: {words}")

    def next(self, number: int) -> list[float]:
        """The next line's values, so many."""
        self.number += 1
        if self.number > len(self.lines):
            raise self.fail("the file ends here")
        words = self.lines[self.number - 1].split()
        try:
            values = [float(word) for word in words]
        except ValueError:
            raise self.fail(f"{' '.join(words)[:60]!r} are no numbers") from None
        if len(values) != number:
            raise self.fail(f"{len(values)} numbers, expected {number}")
        return values

    def count(self, most: int) -> int:
        """The next line's one value, a number of things."""
        (value,) = self.next(1)
        if not (value.is_integer() and 0 <= value <= most):
            raise self.fail(f"{value:g}, expected a whole number from 0 to {most}")
        return int(value)


def parse_skeletons(text: str, where: str) -> np.ndarray:
    """The positions of the person who moves most, [time, 25, 3], metres, of a .skeleton file.

    A file has the number of its frames; each of these the number of bodies; each of those a line
    about it, first of all who it is, the number 25, and a line for each joint, which begins with x,
    y and z. Frames in which the person is not seen are left out. A person moves as much as the
    positions of the joints vary.

    Raises:
      InputError: says `where`, the line, and what is wrong.
    """
    lines, people = _Lines(text, where), {}
    for _ in range(lines.count(100_000)):
        for _ in range(lines.count(10)):
            who = lines.next(_VALUES["body"])[0]
            if (joints := lines.count(1000)) != NUM_JOINTS:
                raise lines.fail(f"{joints} joints, expected {NUM_JOINTS}")
            rows = []
            for _ in range(NUM_JOINTS):
                rows.append(lines.next(_VALUES["joint"])[:3])
                if not all(abs(value) <= _LARGEST for value in rows[-1]):
                    raise lines.fail("a position that is not finite in float32")
            people.setdefault(who, []).append(rows)
    found = [np.array(frames, np.float32) for frames in people.values()]
    if not found:
        return np.zeros((0, NUM_JOINTS, 3), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # squares of what float32 still holds
        return max(found, key=lambda positions: positions.var(axis=0).sum())
