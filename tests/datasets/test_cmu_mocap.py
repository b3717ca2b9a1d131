"""The CMU motions on a small zip that is made here, and the public files where they are."""

import hashlib
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from structdl.datasets import cmu_mocap
from structdl.datasets.cmu_mocap import NUM_VALUES, load, moving_joints, parse_frames, stretches
from structdl.errors import InputError

FRAMES = {("train", n): 9 + n for n in range(1, 6)} | {("test", 1): 12}


def values_of(part, number):
    """Joint 4 moves, the others rest; the first frame is another pose."""
    rng = np.random.default_rng([len(part), number])
    values = np.full((FRAMES[part, number], NUM_VALUES), 0.25, np.float32)
    values[:, 15:18] = 0.1 * rng.normal(size=(len(values), 3))
    values[0, 3:] = 1.0
    values[:, :3] = rng.normal(size=(len(values), 3))  # the place is left out
    return values


def text_of(values):
    return "\n".join(",".join(f"{value:.7f}" for value in row) for row in values) + "\n"


@pytest.fixture
def raw_dir(tmp_path, monkeypatch):
    """A raw folder with walking; a file of either part has the name walking_1.txt."""
    path = tmp_path / "raw" / "cmu_mocap" / "cmu_mocap.zip"
    path.parent.mkdir(parents=True)
    registered = []
    with zipfile.ZipFile(path, "w") as file:
        for part, numbers in (("train", range(1, 6)), ("test", [1])):
            contents = [text_of(values_of(part, number)) for number in numbers]
            for number, content in zip(numbers, contents, strict=True):
                file.writestr(f"any/{part}/walking/walking_{number}.txt", content)
            joined = "".join(contents).encode()
            registered.append((len(joined), hashlib.sha256(joined).hexdigest()))
    monkeypatch.setitem(cmu_mocap._REGISTERED, "walking", tuple(registered))
    return tmp_path / "raw"


def test_stretches_are_of_their_files(raw_dir, tmp_path):
    splits = load(num_frames=4, every=2, stride=3, data_dir=tmp_path, raw_dir=raw_dir)
    files = [
        [("train", n) for n in range(1, 5)],
        [("train", 5)],
        [("test", 1)],
    ]
    for split, chosen in zip(splits, files, strict=True):
        expected = [
            values_of(*name)[start : start + 7 : 2, 15:18]
            for name in chosen
            for start in range(1, FRAMES[name] - 6, 3)
        ]
        assert split.shape == (len(expected), 4, 1, 3)  # only one joint moves
        np.testing.assert_allclose(split[:, :, 0], expected, atol=1e-6)


def test_joints_that_rest_are_told():
    frames = np.zeros((5, 3, 3))
    frames[2, 1, 2] = 0.1
    frames[:, 2] = 7
    assert moving_joints([frames[:2], frames[2:]]).tolist() == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"action": "flying"}, "unknown action 'flying'"),
        ({"num_frames": 0}, "num_frames is 0"),
        ({"stride": 0}, "stride is 0"),
        (
            {"num_frames": 9, "every": 2},
            "span 17: there are at most 12 without a jump",
        ),
    ],
)
def test_stretches_that_cannot_be(options, message, raw_dir, tmp_path):
    with pytest.raises(InputError, match=message):
        load(**options, data_dir=tmp_path, raw_dir=raw_dir)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1,2,3\n", "a file has 1 lines of 3 numbers: expected 117"),
        (",".join(["nan"] * 117), "a file has a number that is not finite"),
        (",".join(["x"] * 117), "a file: could not convert"),
        (",".join(["1"] * 117) + "\n1,2\n", "a file: "),
    ],
)
def test_what_are_no_frames_is_named(content, message):
    with pytest.raises(InputError, match=message):
        parse_frames(content.encode(), "a file")


def test_a_part_of_another_name_is_missing(raw_dir, tmp_path):
    path = raw_dir / "cmu_mocap" / "cmu_mocap.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("train/walking/walking_1.txt", text_of(values_of("train", 1)))
    with pytest.raises(InputError, match=r"train/walking/walking_\*.txt: found 1 files"):
        load(data_dir=tmp_path, raw_dir=raw_dir)


def test_stretches_overlap_and_stay_within_a_file():
    files = [np.arange(10), np.arange(10, 16)]
    assert stretches(files, 3, 2, 4).tolist() == [[0, 2, 4], [4, 6, 8], [10, 12, 14]]


@pytest.mark.parametrize("joint", [0, 1])
def test_no_stretch_goes_across_a_jump(joint):
    frames = np.cumsum(np.full((12, 2, 3), 0.2), axis=0)
    frames[5:, joint, 1] += 3
    runs = [frames[:5], frames[5:]]
    expected = [run[start : start + 3] for run in runs for start in range(len(run) - 2)]
    np.testing.assert_array_equal(stretches([frames], 3, 1, 1), expected)
    assert len(stretches([frames], 3, 1, 1, jump=4.0)) == 10
    with pytest.raises(InputError, match="there are at most 7 without a jump"):
        stretches([frames], 8, 1, 1)


def test_the_public_set(tmp_path):
    given = os.environ.get("STRUCTDL_RAW_DIR")
    folder = Path(given) if given else Path(__file__).parents[3] / "shared" / "data"
    if not (folder / "cmu_mocap" / "cmu_mocap.zip").exists():
        pytest.skip("no raw motions: set STRUCTDL_RAW_DIR")
    train, validation, test = load(data_dir=tmp_path, raw_dir=folder)
    assert train.shape[1:] == validation.shape[1:] == test.shape[1:] == (49, 25, 3)
    assert min(map(len, (train, validation, test))) >= 25
    stretches_of_all = np.concatenate([train, validation, test])
    assert np.abs(stretches_of_all).max() < 2 * np.pi
    assert np.abs(np.diff(stretches_of_all, axis=1)).max() < 2 * cmu_mocap.JUMP
