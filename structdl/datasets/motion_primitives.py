"""Eight motions of a stick figure: each of four limbs is raised, or lowered.

Both motions of a limb go through the same poses, so that only their order in time tells them apart.
The figure has the joints and bones of MSR Action3D, and so have its people: those with odd numbers
train, the others test.
"""

import os
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.msraction3d import JOINTS, PARTS
from structdl.datasets.prepare import prepare
from structdl.datasets.sequences import Splits
from structdl.datasets.skeletons import Motion, motion_features, read_splits, require_validation
from structdl.errors import require_at_least

SEED = 0  # like a published set, the motions are always the same
SUBJECTS = range(1, 11)
TAKES = 4  # of each motion, a person
LIMBS = ("left arm", "right arm", "left leg", "right leg")
ACTIONS = tuple(f"{way} {limb}" for limb in LIMBS for way in ("raise", "lower"))
NUM_FRAMES = (20, 40)  # of a sequence
NOISE = 0.02  # metres, of what a camera sees of a joint

# x and y of a person of 1.7 metres who stands, with the hip centre at 0
_MIDDLE = {"hip centre": (0, 0), "spine": (0, 0.2), "neck": (0, 0.5), "head": (0, 0.7)}
_SIDES = {
    "shoulder": (0.2, 0.45),
    "elbow": (0.25, 0.2),
    "wrist": (0.27, -0.05),
    "hand": (0.28, -0.12),
    "hip": (0.1, -0.05),
    "knee": (0.11, -0.5),
    "ankle": (0.12, -0.9),
    "foot": (0.14, -0.95),
}


class MotionPrimitivesBuilder(tfds.core.GeneratorBasedBuilder):
    """One example a sequence; needs neither raw files nor the network."""

    name = "motion_primitives"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="A stick figure whose limbs are raised and lowered.",
            features=motion_features(len(JOINTS)),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {"full": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict]]:
        for number, motion in enumerate(simulate_motions(SEED, takes=TAKES)):
            yield number, motion._asdict()


def load(
    *,
    validation_subjects: Sequence[int] = (9,),
    data_dir: str | os.PathLike | None = None,
) -> Splits:
    """Returns three `Skeletons`, of 128, 32 and 160 sequences.

    Args:
      validation_subjects: odd numbers; with none there are no rows for validation.
      data_dir: see `prepare`.

    Raises:
      InputError: another person for validation, or nobody left to train on; the data folder cannot
        be written.
    """
    require_validation(validation_subjects, SUBJECTS)
    builder = prepare(MotionPrimitivesBuilder, data_dir=data_dir)
    return read_splits(builder, validation_subjects, len(JOINTS))


def simulate_motions(seed: int, *, takes: int) -> list[Motion]:
    """Every person's takes of every motion.

    People differ in size, and takes in length, in where the person stands and turns, and in how far
    the limb goes, from 20 to 40 degrees to 80 to 110.

    Raises:
      InputError: no take.
    """
    require_at_least("takes", takes, 1)
    rng = np.random.default_rng(seed)
    sizes = rng.uniform(0.85, 1.15, len(SUBJECTS))
    return [
        Motion(_take(rng, label, size), label, subject)
        for subject, size in zip(SUBJECTS, sizes, strict=True)
        for label in range(len(ACTIONS))
        for _ in range(takes)
    ]


def _take(rng: np.random.Generator, label: int, size: float) -> np.ndarray:
    """[time, joints, 3], float32, metres."""
    time = rng.integers(NUM_FRAMES[0], NUM_FRAMES[1] + 1)
    low, high = np.deg2rad([rng.uniform(20, 40), rng.uniform(80, 110)])
    share = np.sin(np.linspace(0, np.pi / 2, time)) ** 2  # slow at both ends
    limb, lowers = divmod(label, 2)
    angles = low + (high - low) * (share[::-1] if lowers else share)
    joints = list(PARTS[LIMBS[limb]])
    outwards = np.sign(_STANDING[joints[0], 0])
    pose = np.repeat(_STANDING[None], time, axis=0)  # [time, joints, 2]
    centre = pose[:, joints[:1]]
    pose[:, joints] = centre + _turned(pose[:, joints] - centre, outwards * angles)
    in_space = np.concatenate([pose, np.zeros((time, len(JOINTS), 1))], axis=-1) * size
    facing = rng.uniform(-0.4, 0.4)  # radians, about the vertical axis
    in_space[..., [0, 2]] = _turned(in_space[..., [0, 2]], np.full(time, facing))
    place = rng.uniform([-0.5, -0.1, 2], [0.5, 0.1, 4])
    noise = NOISE * rng.standard_normal(in_space.shape)
    return (in_space + place + noise).astype(np.float32)


def _turned(places: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """[time, joints, 2], each frame by its angle, [time], radians."""
    sines, cosines = np.sin(angles), np.cos(angles)
    turn = np.array([[cosines, -sines], [sines, cosines]])  # [2, 2, time]
    return np.einsum("xyt,tjy->tjx", turn, places)


def _standing() -> np.ndarray:
    """[joints, 2]; the person looks at the camera, whose x grows to the person's right."""
    places = []
    for name in JOINTS:
        side, _, what = name.partition(" ")
        if side in ("left", "right"):
            x, y = _SIDES[what]
            places.append((x if side == "right" else -x, y))
        else:
            places.append(_MIDDLE[name])
    return np.array(places)


_STANDING = _standing()
