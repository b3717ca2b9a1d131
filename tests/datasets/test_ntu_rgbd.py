"""The reader of NTU RGB+D on files that are written here as the set's are."""

import numpy as np
import pytest

from structdl.datasets.ntu_rgbd import (
    BONES,
    NUM_JOINTS,
    TRAINING_SUBJECTS,
    load,
    parse_name,
    parse_skeletons,
)
from structdl.errors import InputError


def lines_of(frames):
    """Of [{who: positions}], one dict a frame."""
    lines = [f"{len(frames)}"]
    for bodies in frames:
        lines.append(f"{len(bodies)}")
        for who, positions in bodies.items():
            lines.append(f"{who} 0 1 1 0 0 0 0.1 -0.2 2")
            lines.append(f"{NUM_JOINTS}")
            lines += [
                " ".join(f"{value:.6f}" for value in (*joint, *[0.5] * 8)) + " 2"
                for joint in positions
            ]
    return lines


def moving(seed, time, spread=1.0):
    rng = np.random.default_rng(seed)
    return (spread * rng.normal(size=(time, NUM_JOINTS, 3))).astype(np.float32)


def text_of(positions, who=7):
    return "\n".join(lines_of([{who: frame} for frame in positions])) + "\n"


@pytest.fixture
def raw_dir(tmp_path):
    """Two people of either half, each seen by three cameras; and a file with nobody in it."""
    folder = tmp_path / "raw" / "ntu_rgbd" / "some" / "folder"
    folder.mkdir(parents=True)
    for subject in (1, 2, 3, 6):
        for camera in (1, 2, 3):
            name = f"S001C{camera:03}P{subject:03}R001A{10 * camera:03}.skeleton"
            positions = moving(10 * subject + camera, 2 + camera)
            (folder / name).write_text(text_of(positions))
    (folder / "S002C002P001R001A001.skeleton").write_text("2\n0\n0\n")
    return tmp_path / "raw"


@pytest.mark.parametrize("protocol", ["cross-subject", "cross-view"])
def test_who_trains(protocol, raw_dir, tmp_path):
    train, validation, test = load(protocol, data_dir=tmp_path, raw_dir=raw_dir)
    assert validation.positions.shape == (0, 1, NUM_JOINTS, 3)
    if protocol == "cross-subject":
        assert (np.unique(train.subjects).tolist(), np.unique(test.subjects).tolist()) == (
            [1, 2],
            [3, 6],
        )
    else:
        assert (np.unique(train.labels).tolist(), np.unique(test.labels).tolist()) == (
            [19, 29],
            [9],
        )
    assert len(train.labels) + len(test.labels) == 12  # nobody is not a sequence
    for split in (train, test):
        for number, (subject, label) in enumerate(zip(split.subjects, split.labels, strict=True)):
            camera = (label + 1) // 10
            expected = moving(10 * subject + camera, 2 + camera)
            assert split.lengths[number] == len(expected)
            found = split.positions[number, : len(expected)]
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_one_who_moves_most_is_kept():
    still, lively = moving(0, 4, 0.01), moving(1, 3)
    frames = [{1: still[0]}, *({1: still[n], 2: lively[n - 1]} for n in (1, 2, 3))]
    found = parse_skeletons("\n".join(lines_of(frames)), "a file")
    np.testing.assert_allclose(found, lively, atol=1e-5)


def test_nobody_is_no_frame():
    assert parse_skeletons("3\n0\n0\n0\n", "a file").shape == (0, NUM_JOINTS, 3)


GOOD = lines_of([{7: frame} for frame in moving(0, 2)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:30], r"a file line 31: the file ends here"),
        (lambda lines: ["x", *lines[1:]], r"a file line 1: 'x' are no numbers"),
        (lambda lines: ["1.5", *lines[1:]], r"line 1: 1.5, expected a whole number"),
        (lambda lines: ["-1", *lines[1:]], r"line 1: -1, expected a whole number"),
        (lambda lines: [*lines[:2], "7 0", *lines[3:]], r"line 3: 2 numbers, expected 10"),
        (lambda lines: [*lines[:3], "24", *lines[4:]], r"line 4: 24 joints, expected 25"),
        (
            lambda lines: [*lines[:4], "nan" + lines[4][lines[4].index(" ") :], *lines[5:]],
            r"line 5: a position that is not finite",
        ),
        (
            lambda lines: [*lines[:4], "1e39" + lines[4][lines[4].index(" ") :], *lines[5:]],
            r"line 5: a position that is not finite in float32",
        ),
        (lambda lines: [*lines[:4], "1 2 3", *lines[5:]], r"line 5: 3 numbers, expected 12"),
    ],
)
def test_bad_lines_are_named(change, message):
    with pytest.raises(InputError, match=message):
        parse_skeletons("\n".join(change(list(GOOD))), "a file")


@pytest.mark.parametrize(
    "name", ["S001C004P001R001A001.skeleton", "S001C001P001R001A061.skeleton", "walk.skeleton"]
)
def test_other_names_are_refused(name, raw_dir, tmp_path):
    with pytest.raises(InputError, match=f"{name} is no name"):
        parse_name(name)
    (raw_dir / "ntu_rgbd" / name).write_text(text_of(moving(0, 2)))
    with pytest.raises(InputError, match=f"{name} is no name"):
        load("cross-view", data_dir=tmp_path, raw_dir=raw_dir)


def test_without_files_or_protocol(tmp_path):
    (tmp_path / "ntu_rgbd").mkdir()
    with pytest.raises(InputError, match=r"has no .skeleton file: get the set from its authors"):
        load("cross-view", data_dir=tmp_path, raw_dir=tmp_path)
    with pytest.raises(InputError, match="unknown protocol 'x'"):
        load("x", data_dir=tmp_path)


def test_bones_are_a_tree_and_half_the_people_train():
    assert sorted([0, *(child for _, child in BONES)]) == list(range(NUM_JOINTS))
    assert len(set(TRAINING_SUBJECTS)) == 20
