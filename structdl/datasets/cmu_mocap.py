"""Motions of a person as the rotations of joints: walking and four other actions of the CMU set.

Joint positions, which neural relational inference has, need the lengths of bones, which are not
among these files: rotations take their place. Every file begins with the pose in which a person is
measured, which is left out, and in some a rotation jumps to another way of writing it: no stretch
goes across a jump.

Reference: the CMU graphics lab motion capture database, http://mocap.cs.cmu.edu, in the selection
and the form of Li, Zhang, Lee, Lee (2018), "Convolutional sequence to sequence model for human
dynamics", arXiv:1805.00655.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.archives import RawArchive, RawMembers, read_members
from structdl.datasets.prepare import prepare
from structdl.datasets.sequences import Splits
from structdl.datasets.skeletons import parse_numbers
from structdl.errors import InputError, require_at_least, require_known

NUM_JOINTS = 38  # beside the place of the person
NUM_VALUES = 3 * (1 + NUM_JOINTS)  # of a frame
JUMP = 1.5  # radians from one frame to the next; in these files changes are below 0.8 or above 2.8

# Size and SHA-256 of the five files to train on and of the one to test on.
_REGISTERED = {
    "walking": (
        (2268499, "93562fdcd512d5c73b9b8db4c9c23b40e80e1de2a0f00e106b777a38fc9834a5"),
        (393225, "189d6f44e6193520e6438692bce77c6b6594a8c26ead09d90b63c88acbbe3363"),
    ),
    "running": (
        (909775, "be16df944d8636f170684c89373e3151757d302022fddd47a67c89aeceddf95c"),
        (176754, "e564cdc47db7bddb8dbe1db365072fa85b118df0ce92333ca59a9b986355c96a"),
    ),
    "soccer": (
        (2996564, "329c3a22dda339b187f4498ceac7bb931a9b7fd0ed71291cce8f489590ca2549"),
        (648472, "1942216b67a39128edb090db164a1fb2a2f1fcfc240413e93c5f6722bed8f4b9"),
    ),
    "basketball": (
        (2629870, "bf224f602f1fadfd468c0f067bbaf936f08d6ecbd2cad83ef3f47c7bed043776"),
        (625241, "85e29ef050c68ebc1f6a865bd0f9bbbeed11af124cf2477b3317cee42307c701"),
    ),
    "jumping": (
        (3295774, "2838d2ebba65f480a2f85929ab7a7c32063a644603327559a28e2d6bd59a7f2b"),
        (2256309, "bba6e585edc8efd6ca5a5f9820878a7eebe42e6bc78396d7c2ec079f43d58968"),
    ),
}
ACTIONS = tuple(_REGISTERED)
_PARTS = {"train": 5, "test": 1}  # how many files


def _archive(action: str, part: str) -> RawArchive:
    """The one zip, with the files of an action and a part registered."""
    size, sha256 = _REGISTERED[action][list(_PARTS).index(part)]
    return RawArchive(
        "cmu_mocap.zip",
        "https://github.com/chaneyddtt/Convolutional-Sequence-to-Sequence-Model-for-Human-Dynamics/"
        "archive/f27ccb4ed5b0.zip",
        200_000_000,
        (RawMembers(f"{part}/{action}/{action}_*.txt", _PARTS[part], size, sha256),),
    )


class CMUMocapBuilder(tfds.core.GeneratorBasedBuilder):
    """One example a file; a configuration for each action."""

    name = "cmu_mocap"
    VERSION = tfds.core.Version("1.1.0")
    BUILDER_CONFIGS = tuple(tfds.core.BuilderConfig(name=action) for action in ACTIONS)
    MANUAL_DOWNLOAD_INSTRUCTIONS = "cmu_mocap.zip"

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (None, NUM_JOINTS, 3)
        rotations = tfds.features.Tensor(shape=shape, dtype=np.float32, encoding="bytes")
        return tfds.core.DatasetInfo(
            builder=self,
            description="Rotations of joints, frame by frame.",
            features=tfds.features.FeaturesDict({"rotations": rotations}),
            homepage="http://mocap.cs.cmu.edu",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        folder = Path(dl_manager.manual_dir)
        return {part: self._generate_examples(folder, part) for part in _PARTS}

    def _generate_examples(self, folder: Path, part: str) -> Iterator[tuple[int, dict]]:
        archive = _archive(self.builder_config.name, part)
        path = folder / archive.name
        for number, (name, content) in enumerate(read_members(path, archive)):
            frames = parse_frames(content, f"{path}: member {name}")
            yield number, {"rotations": frames[1:]}


def load(
    action: str = "walking",
    *,
    num_frames: int = 49,
    every: int = 2,
    stride: int = 8,
    data_dir: str | os.PathLike | None = None,
    raw_dir: str | os.PathLike | None = None,
) -> Splits:
    """Returns three arrays of stretches, [num, num_frames, joints, 3], float32, exponential maps.

    The last of the five files to train on is for validation; the test is a file of its own. Joints
    that do not move in the files to train on are left out: of walking 25 remain of 38.

    Args:
      action: one of ACTIONS.
      num_frames: of a stretch.
      every: only every so many-th frame is taken. A stride of walking has about 70 frames.
      stride: how many frames lie between the beginnings of two stretches.
      data_dir: see `prepare`.
      raw_dir: see `prepare`.

    Raises:
      InputError: an unknown action, a number below 1, no file with enough frames for a stretch; the
        data cannot be had (see `prepare`) or is not what it should be.
    """
    require_known("action", action, ACTIONS)
    for name, value in (("num_frames", num_frames), ("every", every), ("stride", stride)):
        require_at_least(name, value, 1)
    archives = [_archive(action, part) for part in _PARTS]
    builder = prepare(
        CMUMocapBuilder, action, raw_files=archives, raw_dir=raw_dir, data_dir=data_dir
    )
    files = {}
    for part in _PARTS:
        source = builder.as_data_source(part)
        files[part] = [example["rotations"] for example in source.__getitems__(range(len(source)))]
    *training, validation = files["train"]
    moves = moving_joints(training)
    return Splits(
        *(
            stretches([its[:, moves] for its in chosen], num_frames, every, stride)
            for chosen in (training, [validation], files["test"])
        )
    )


def moving_joints(files: list[np.ndarray]) -> np.ndarray:
    """The numbers of the joints that are not the same in all frames, of [time, joints, 3]."""
    spread = np.ptp(np.concatenate(files), axis=0).max(axis=1)
    return np.flatnonzero(spread > 1e-3)  # radians


def stretches(
    files: list[np.ndarray], num_frames: int, every: int, stride: int, *, jump: float = JUMP
) -> np.ndarray:
    """All stretches of so many frames, [num, num_frames, ...], one every `stride` frames.

    Args:
      files: [time, ...] each.
      num_frames: of a stretch.
      every: only every so many-th frame is taken.
      stride: how many frames lie between the beginnings of two stretches.
      jump: no stretch goes across a greater change of a value from one frame to the next.

    Raises:
      InputError: there are nowhere enough frames for one.

    >>> stretches([np.array([0, 1, 2, 3, 4, 9, 8, 7])], 2, 2, 2).tolist()
    [[0, 2], [2, 4], [9, 7]]
    """
    runs = [run for file in files for run in smooth_runs(file, jump)]
    span = (num_frames - 1) * every + 1
    starts = [range(0, len(run) - span + 1, stride) for run in runs]
    if not any(starts):
        raise InputError(
            f"{num_frames} frames, every {every}-th, span {span}: there are at most "
            f"{max(map(len, runs))} without a jump"
        )
    return np.stack(
        [
            run[start : start + span : every]
            for run, its in zip(runs, starts, strict=True)
            for start in its
        ]
    )


def smooth_runs(frames: np.ndarray, jump: float) -> list[np.ndarray]:
    """The frames, [time, ...], in parts between which a value changes by more than `jump`."""
    changes = np.abs(np.diff(frames, axis=0)).reshape(max(len(frames) - 1, 0), -1)
    return np.split(frames, 1 + np.flatnonzero((changes > jump).any(axis=1)))


def parse_frames(content: bytes, where: str) -> np.ndarray:
    """Rotations, [time, joints, 3], of lines of 117 numbers, of which three are the place.

    Raises:
      InputError: says `where`, and what is wrong.
    """
    rows = parse_numbers(content, where, delimiter=",")
    if not len(rows) or rows.shape[1] != NUM_VALUES:
        raise InputError(
            f"{where} has {len(rows)} lines of {rows.shape[-1]} numbers: expected {NUM_VALUES}"
        )
    return rows[:, 3:].reshape(len(rows), NUM_JOINTS, 3)
