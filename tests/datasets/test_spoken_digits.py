"""Spoken digits: recordings made here, the public ones, frames against a loop, and wrong files."""

import hashlib
import io
import os
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest

from structdl.datasets import spoken_digits
from structdl.datasets.archives import RawMembers
from structdl.datasets.spoken_digits import SPEAKERS, frames, num_frames
from structdl.errors import InputError


def wav(samples, rate=8000, channels=1, width=2):
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(width)
        writer.setframerate(rate)
        writer.writeframes(np.asarray(samples, f"<i{width}").tobytes())
    return file.getvalue()


def small_set():
    """Samples by name: two speakers, two digits, takes on both sides of each cut."""
    rng = np.random.default_rng(0)
    return {
        f"{digit}_{speaker}_{take}.wav": rng.integers(-3000, 4000, 30 + 7 * take + digit)
        for speaker in ("theo", "george")
        for digit in (7, 2)
        for take in (0, 4, 5, 9, 10, 49)
    }


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes members as the raw zip and registers them as they are."""
    monkeypatch.delenv("STRUCTDL_RAW_DIR", raising=False)
    monkeypatch.setenv("STRUCTDL_DATA_DIR", str(tmp_path / "data"))

    def write_members(contents, folder="free-spoken-digit-dataset-26eb9aa/recordings/"):
        path = tmp_path / "raw" / "fsdd" / "fsdd.zip"
        path.parent.mkdir(parents=True)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("README.md", "nothing to read")
            for name, content in contents.items():
                archive.writestr(folder + name, content)
        joined = b"".join(contents[name] for name in sorted(contents))
        digest = hashlib.sha256(joined).hexdigest()
        members = (RawMembers("*.wav", len(contents), len(joined), digest),)
        archive = spoken_digits.RAW_ARCHIVE._replace(members=members)
        monkeypatch.setattr(spoken_digits, "RAW_ARCHIVE", archive)
        return tmp_path / "raw"

    return write_members


@pytest.fixture(scope="module")
def real_folders(tmp_path_factory):
    """The folders of the public set, where this machine has its raw file."""
    given = os.environ.get("STRUCTDL_RAW_DIR")
    folder = Path(given) if given else Path(__file__).parents[3] / "shared" / "data"
    if not (folder / "fsdd" / "fsdd.zip").exists():
        pytest.skip("no raw spoken digits: set STRUCTDL_RAW_DIR")
    return {"raw_dir": folder, "data_dir": tmp_path_factory.mktemp("data")}


@pytest.mark.parametrize("max_time", [None, 40])
def test_small_set(write, max_time):
    samples = small_set()
    spoken_digits.load(raw_dir=write({name: wav(values) for name, values in samples.items()}))
    splits = spoken_digits.load(max_time=max_time)  # read again, with the raw file out of reach
    training = np.concatenate(
        [values for name, values in samples.items() if int(name[:-4].split("_")[2]) >= 10]
    )
    for split, takes in zip(splits, [(10, 49), (5, 9), (0, 4)], strict=True):
        number = 0
        for take in takes:
            for speaker in ("george", "theo"):
                for digit in (2, 7):
                    values = samples[f"{digit}_{speaker}_{take}.wav"][:max_time]
                    assert split.digits[number] == digit
                    assert SPEAKERS[split.speakers[number]] == speaker
                    assert split.lengths[number] == len(values)
                    expected = (values - training.mean()) / training.std()
                    row = split.waves[number]
                    np.testing.assert_allclose(row[: len(values)], expected, atol=1e-5)
                    assert not row[len(values) :].any()
                    number += 1
        assert number == len(split.waves)
        assert split.waves.shape[1] == split.lengths.max()
        assert [array.dtype for array in split] == [np.float32, np.int32, np.int32, np.int32]


def test_public_set(real_folders):
    splits = spoken_digits.load(**real_folders)
    assert [len(split.waves) for split in splits] == [2400, 300, 300]
    assert sum(int(split.lengths.sum(dtype=np.int64)) for split in splits) == 10_498_424
    assert splits.train.waves.shape[1] == 18_262
    for split, takes in zip(splits, (40, 5, 5), strict=True):
        table = np.zeros((6, 10), int)
        np.add.at(table, (split.speakers, split.digits), 1)
        assert (table == takes).all()
    train = splits.train
    valid = np.arange(train.waves.shape[1]) < train.lengths[:, None]
    samples = train.waves[valid].astype(np.float64)
    assert samples.mean() == pytest.approx(0, abs=1e-6)
    assert samples.std() == pytest.approx(1, abs=1e-6)
    cut = spoken_digits.load(max_time=3000, **real_folders).train
    np.testing.assert_array_equal(cut.waves, train.waves[:, :3000])
    np.testing.assert_array_equal(cut.lengths, np.minimum(train.lengths, 3000))


@pytest.mark.parametrize(("inputs", "targets"), [(20, 10), (3, 5), (1, 1)])
@pytest.mark.parametrize("time", [30, 31, 39, 40, 97])
def test_frames_equal_a_loop(inputs, targets, time):
    waves = np.random.default_rng(0).normal(size=(2, time)).astype(np.float32)
    x, y = frames(waves, inputs=inputs, targets=targets)
    (steps,) = num_frames(np.array([time]), inputs=inputs, targets=targets)
    assert x.shape == (2, steps, inputs)
    assert y.shape == (2, steps, targets)
    for step in range(steps):
        start = step * targets
        np.testing.assert_array_equal(x[:, step], waves[:, start : start + inputs])
        following = waves[:, start + inputs : start + inputs + targets]
        np.testing.assert_array_equal(y[:, step], following)
    # Not one step more would fit, and each sample after the first inputs is predicted once.
    assert time - targets < inputs + steps * targets <= time
    np.testing.assert_array_equal(y.reshape(2, -1), waves[:, inputs : inputs + steps * targets])
    one_wave, _ = frames(waves[0], inputs=inputs, targets=targets)
    np.testing.assert_array_equal(one_wave, x[0])


def test_frames_of_padded_waves_are_those_within_the_lengths():
    lengths = np.array([29, 30, 45, 97])
    assert num_frames(lengths).tolist() == [0, 1, 2, 7]
    assert frames(np.zeros((4, 97)))[0].shape[1] == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "waves of 29 samples: .* inputs \\+ targets = 30"),
        ({"inputs": 0}, "inputs is 0: it must be at least 1"),
        ({"targets": 0}, "targets is 0: it must be at least 1"),
    ],
)
def test_bad_frames_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        frames(np.zeros(29), **arguments)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("1_theo_3.wav", wav([1, 2], rate=16000), "1_theo_3.wav: 1 channels of 16 bits, 16000 sa"),
        ("1_theo_3.wav", wav([1, 2], channels=2), "1_theo_3.wav: 2 channels of 16 bits, 8000 sam"),
        ("1_theo_3.wav", wav([1, 2], width=4), "1_theo_3.wav: 1 channels of 32 bits"),
        ("1_theo_3.wav", wav([1, 2])[:-1], "1_theo_3.wav: 3 bytes of samples, expected 4"),
        ("1_theo_3.wav", wav([1, 2])[:-2], "1_theo_3.wav: 2 bytes of samples, expected 4"),
        ("1_theo_3.wav", b"RIFF", r"1_theo_3.wav: no wave file \(it is too short\)"),
        ("1_theo_3.wav", b"no wave at all", "1_theo_3.wav: no wave file"),
        ("1_anna_3.wav", wav([1]), "1_anna_3.wav is no name of a recording"),
        ("1_theo_50.wav", wav([1]), "1_theo_50.wav is no name of a recording"),
    ],
)
def test_wrong_recordings_are_named(write, name, content, message):
    raw_dir = write({"0_theo_0.wav": wav([1, 2, 3]), name: content})
    with pytest.raises(InputError, match=f"fsdd.zip: {message}"):
        spoken_digits.load(raw_dir=raw_dir)


def test_altered_zip_and_bad_argument_are_named(write):
    raw_dir = write({name: wav(values) for name, values in small_set().items()})
    path = raw_dir / "fsdd" / "fsdd.zip"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"fsdd.zip: (not a readable zip|\*.wav: )"):
        spoken_digits.load(raw_dir=raw_dir)
    with pytest.raises(InputError, match="max_time is 0: it must be at least 1"):
        spoken_digits.load(max_time=0)


def test_registered_archive():
    archive = spoken_digits.RAW_ARCHIVE
    assert "26eb9aaf76e81b692f806f9140c2d2777410d7a1" in archive.url
    assert sum(members.number for members in archive.members) == 3000
    assert sum(members.size for members in archive.members) == 21_128_848
