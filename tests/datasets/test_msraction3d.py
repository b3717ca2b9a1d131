"""MSR Action3D on a small zip that is made here, and the public files where they are."""

import hashlib
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from structdl.datasets import msraction3d
from structdl.datasets.archives import RawArchive, RawMembers
from structdl.datasets.skeletons import Motion, as_skeletons
from structdl.errors import InputError

JOINTS = len(msraction3d.JOINTS)


def text_of(positions, confidence=0.5):
    rows = [(*joint, confidence) for frame in positions for joint in frame]
    return "\n".join(" ".join(f"{value:.6f}" for value in row) for row in rows) + "\n"


def positions_of(action, subject, take):
    """So many frames as the take's number and two more, none like another."""
    rng = np.random.default_rng([action, subject, take])
    return rng.normal(size=(take + 2, JOINTS, 3)).astype(np.float32)


SEQUENCES = [(action, subject, 1 + (subject > 4)) for action in (1, 20) for subject in range(1, 11)]


@pytest.fixture
def raw_dir(tmp_path, monkeypatch):
    """A raw folder whose zip has two actions, and a corrupt one of the public names."""
    path = tmp_path / "raw" / "msraction3d" / "msraction3d.zip"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as file:
        for action, subject, take in SEQUENCES:
            name = f"a{action:02}_s{subject:02}_e{take:02}_skeleton3D.txt"
            file.writestr(f"some/folder/{name}", text_of(positions_of(action, subject, take)))
        file.writestr("a13_s09_e02_skeleton3D.txt", text_of(np.zeros((3, JOINTS, 3))))
        file.writestr("read_me.txt", "not a skeleton")
    register(path, monkeypatch)
    return tmp_path / "raw"


def register(path, monkeypatch):
    """The members of a zip in place of the public ones."""
    with zipfile.ZipFile(path) as file:
        found = sorted(
            (name.rsplit("/")[-1], file.read(name)) for name in file.namelist() if "_s" in name
        )
    content = b"".join(content for _, content in found)
    members = RawMembers(
        "a??_s??_e??_skeleton3D.txt",
        len(found),
        len(content),
        hashlib.sha256(content).hexdigest(),
    )
    archive = RawArchive("msraction3d.zip", "https://example.invalid", 10**6, (members,))
    monkeypatch.setattr(msraction3d, "RAW_ARCHIVE", archive)


def test_people_with_odd_numbers_train(raw_dir, tmp_path):
    splits = msraction3d.load(validation_subjects=(3, 7), data_dir=tmp_path, raw_dir=raw_dir)
    subjects = [[1, 5, 9], [3, 7], [2, 4, 6, 8, 10]]
    for split, chosen in zip(splits, subjects, strict=True):
        assert split.subjects.tolist() == chosen * 2
        assert split.labels.tolist() == [0] * len(chosen) + [19] * len(chosen)
        for number, (label, subject) in enumerate(zip(split.labels, split.subjects, strict=True)):
            expected = positions_of(label + 1, subject, 1 + (subject > 4))
            length = split.lengths[number]
            assert length == len(expected)
            np.testing.assert_allclose(split.positions[number, :length], expected, atol=1e-6)
            assert (split.positions[number, length:] == 0).all()


def test_all_odd_people_can_train(raw_dir, tmp_path):
    train, validation, test = msraction3d.load(
        validation_subjects=(), data_dir=tmp_path, raw_dir=raw_dir
    )
    assert len(train.labels) == len(test.labels) == 10
    assert validation.positions.shape == (0, 1, JOINTS, 3)


@pytest.mark.parametrize("subjects", [(2,), (1, 3, 5, 7, 9), (11,)])
def test_other_people_cannot_validate(subjects, tmp_path):
    with pytest.raises(InputError, match="give some, and not all, of"):
        msraction3d.load(validation_subjects=subjects, data_dir=tmp_path)


def test_frames_without_a_joint_are_left_out():
    positions = positions_of(1, 1, 2)
    positions[1:3] = 0
    found = msraction3d.parse_skeleton(text_of(positions).encode(), "a file")
    np.testing.assert_allclose(found, positions[[0, 3]], atol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (text_of(positions_of(1, 1, 1))[:-40], "a file"),  # cut off within a frame
        ("1 2 3\n" * 20, "20 lines of 3 numbers: expected 4 numbers a line and 20 lines a frame"),
        ("1 2 3 4\n" * 21, "a file has 21 lines of 4 numbers"),
        ("# nothing\n", "a file has 0 lines of 1 numbers: expected 4 numbers a line"),
        ("1 2 3 1e39\n" * 20, "a file has a number that is not finite"),
        ("1 2 3 nan\n" * 20, "a file has a number that is not finite"),
        ("0 0 0 1\n" * 20, "a file has no frame in which a joint was seen"),
        ("1 2 x 4\n" * 20, "a file: could not convert"),
    ],
)
def test_what_is_no_skeleton_is_named(content, message):
    with pytest.raises(InputError, match=message):
        msraction3d.parse_skeleton(content.encode(), "a file")


def test_a_member_of_another_action_is_named(raw_dir, tmp_path, monkeypatch):
    path = raw_dir / "msraction3d" / "msraction3d.zip"
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("a21_s01_e01_skeleton3D.txt", text_of(positions_of(1, 1, 1)))
    register(path, monkeypatch)
    with pytest.raises(InputError, match=r"a21_s01_e01_skeleton3D.txt is not of 20 actions"):
        msraction3d.load(data_dir=tmp_path, raw_dir=raw_dir)


def test_bones_are_a_tree_and_parts_a_partition():
    children = [child for _, child in msraction3d.BONES]
    assert sorted([6, *children]) == list(range(JOINTS))
    reached = {6}
    for parent, child in msraction3d.BONES:
        assert parent in reached
        reached.add(child)
    assert sorted(j for part in msraction3d.PARTS.values() for j in part) == list(range(JOINTS))
    for part, joints in msraction3d.PARTS.items():
        side = part.split()[0]
        names = [msraction3d.JOINTS[joint] for joint in joints]
        assert all(name.startswith(side) for name in names) == (side != "torso")


def test_no_sequences_are_arrays_without_rows():
    one = as_skeletons([Motion(np.ones((2, 5, 3), np.float32), 3, 7)], 5)
    assert (one.lengths.tolist(), one.labels.tolist(), one.subjects.tolist()) == ([2], [3], [7])
    assert [len(leaf) for leaf in as_skeletons([], 5)] == [0, 0, 0, 0]


def test_the_public_set(tmp_path):
    given = os.environ.get("STRUCTDL_RAW_DIR")
    folder = Path(given) if given else Path(__file__).parents[3] / "shared" / "data"
    if not (folder / "msraction3d" / "msraction3d.zip").exists():
        pytest.skip("no raw skeletons: set STRUCTDL_RAW_DIR")
    train, validation, test = msraction3d.load(data_dir=tmp_path, raw_dir=folder)
    assert [len(split.labels) for split in (train, validation, test)] == [232, 58, 275]
    heads, feet = (
        test.positions[:, 0, msraction3d.JOINTS.index(name), 1] for name in ("head", "left foot")
    )
    assert (heads - feet).min() > 1  # metres, y upwards
    lengths = np.array(
        [
            np.linalg.norm(train.positions[:, 0, child] - train.positions[:, 0, parent], axis=1)
            for parent, child in msraction3d.BONES
        ]
    )
    assert lengths.mean(axis=1).min() > 0.02
    assert lengths.mean(axis=1).max() < 0.7
