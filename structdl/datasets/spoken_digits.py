"""Spoken digits: 3000 recordings of six speakers, 8000 samples a second, to be predicted as waves.

They stand in for the private speech of Chung, Gulcehre, Cho, Bengio (2014), "Empirical evaluation
of gated recurrent neural networks on sequence modeling", arXiv:1412.3555, section 4.2.

Reference: Jackson et al., "Free spoken digit dataset",
https://github.com/Jakobovski/free-spoken-digit-dataset, whose test set are the takes 0 to 4.
"""

import io
import os
import re
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.archives import RawArchive, RawMembers, read_members
from structdl.datasets.prepare import prepare
from structdl.datasets.sequences import Splits, pad
from structdl.errors import InputError, require_at_least

SAMPLE_RATE = 8000
TAKES = {"train": range(10, 50), "validation": range(5, 10), "test": range(5)}

# Size and SHA-256 of the 500 recordings of each speaker.
_REGISTERED = {
    "george": (3555740, "850a07b492bf234407e063d0bb633fb25f7904d3714d67d882e4249d59b506d9"),
    "jackson": (4153680, "80f575d3bd1b1c7ff2195c2c3036c4bb67478b55e97cc84564953d6ee1d11275"),
    "lucas": (4615688, "9d43966e683d1908f776bdfc3942241a47454de9ffdcb817043070305f597a8c"),
    "nicolas": (2815502, "826cc33f6aa23a68acfe3358d74ad3a6061b21ffbee235f5811229fc68a950a6"),
    "theo": (3132898, "6b3920b7ae4fbefe475da9808f8985266290992f3eed7a3ad631aa009a433992"),
    "yweweler": (2855340, "edb903c3f6981ba9d7a52a0167c4a97e726e608506a0dd19de6d00301b3b1b9b"),
}
SPEAKERS = tuple(_REGISTERED)
RAW_ARCHIVE = RawArchive(
    "fsdd.zip",
    "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/"
    "26eb9aaf76e81b692f806f9140c2d2777410d7a1.zip",
    100_000_000,
    tuple(
        RawMembers(f"?_{speaker}_*.wav", 500, size, sha256)
        for speaker, (size, sha256) in _REGISTERED.items()
    ),
)


class Recordings(NamedTuple):
    """Recordings of a split, in the order of take, speaker and digit."""

    waves: np.ndarray  # [num, time], float32, standardized; zeros past the end
    lengths: np.ndarray  # [num], int32, samples
    digits: np.ndarray  # [num], int32, 0 to 9
    speakers: np.ndarray  # [num], int32, places in SPEAKERS


class SpokenDigitsBuilder(tfds.core.GeneratorBasedBuilder):
    """One example a recording."""

    name = "fsdd"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"{RAW_ARCHIVE.name}: {RAW_ARCHIVE.url}"

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "wave": tfds.features.Tensor(shape=(None,), dtype=np.int16, encoding="bytes"),
            "digit": tfds.features.Scalar(dtype=np.int32),
            "speaker": tfds.features.Scalar(dtype=np.int32),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Recordings of spoken digits, 8000 samples a second.",
            features=tfds.features.FeaturesDict(features),
            homepage="https://github.com/Jakobovski/free-spoken-digit-dataset",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        recordings = read_raw(Path(dl_manager.manual_dir) / RAW_ARCHIVE.name)
        return {split: self._generate_examples(recordings, split) for split in Splits._fields}

    def _generate_examples(
        self, recordings: dict[tuple[int, int, int], np.ndarray], split: str
    ) -> Iterator[tuple[int, dict]]:
        chosen = sorted(key for key in recordings if key[0] in TAKES[split])
        for number, key in enumerate(chosen):
            _, speaker, digit = key
            yield number, {"wave": recordings[key], "digit": digit, "speaker": speaker}


def load(
    *,
    max_time: int | None = None,
    data_dir: str | os.PathLike | None = None,
    raw_dir: str | os.PathLike | None = None,
) -> Splits:
    """Returns three `Recordings`; `prepare` explains the folders.

    Takes 0 to 4 of each speaker and digit are the test (300), 5 to 9 are for validation (300), and
    10 to 49 for training (2400). From the waves of all three the mean of all training samples is
    subtracted, and their standard deviation divides.

    Args:
      max_time: how many samples are kept of a longer recording; None means all. The longest has
        18 262, one in a hundred more than 7361: padded to the longest, the training waves take
        175 MB, and 71 MB with max_time = 7361.
      data_dir: see `prepare`.
      raw_dir: see `prepare`.

    Raises:
      InputError: max_time below 1; the data cannot be had (see `prepare`) or is not what it should
        be.
    """
    if max_time is not None:
        require_at_least("max_time", max_time, 1)
    builder = prepare(
        SpokenDigitsBuilder, raw_files=[RAW_ARCHIVE], raw_dir=raw_dir, data_dir=data_dir
    )
    examples = {}
    for split in Splits._fields:
        source = builder.as_data_source(split)
        examples[split] = source.__getitems__(range(len(source)))
    training = np.concatenate([example["wave"] for example in examples["train"]])
    moments = training.mean(), training.std()
    return Splits(*(_recordings(examples[split], moments, max_time) for split in Splits._fields))


def _recordings(
    examples: list[dict], moments: tuple[float, float], max_time: int | None
) -> Recordings:
    mean, deviation = np.float32(moments)
    waves = [
        (example["wave"][:max_time].astype(np.float32) - mean) / deviation for example in examples
    ]
    digits, speakers = (
        np.array([example[field] for example in examples], np.int32)
        for field in ("digit", "speaker")
    )
    return Recordings(*pad(waves), digits, speakers)


def frames(
    waves: np.ndarray, *, inputs: int = 20, targets: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts waves [..., time] into what a network sees at each step and what it is to predict.

    Step s sees the samples s * targets to s * targets + inputs - 1 and predicts the `targets`
    samples after these, so that each sample is predicted once. As many steps as fit:
    `num_frames(time)`; the samples left over are not used.

    Returns:
      [..., steps, inputs] and [..., steps, targets]; views, which take no memory of their own.

    Raises:
      InputError: a number below 1, or a wave too short for one step.

    Reference: Chung et al. (2014), arXiv:1412.3555, section 4.2, which looks at 20 samples and
    predicts the following 10.

    >>> x, y = frames(np.arange(9), inputs=4, targets=2)
    >>> x.tolist(), y.tolist()
    ([[0, 1, 2, 3], [2, 3, 4, 5]], [[4, 5], [6, 7]])
    """
    require_at_least("inputs", inputs, 1)
    require_at_least("targets", targets, 1)
    time = waves.shape[-1]
    if time < inputs + targets:
        raise InputError(
            f"waves of {time} samples: a step needs at least inputs + targets = {inputs + targets}"
        )
    windows = np.lib.stride_tricks.sliding_window_view(waves, inputs + targets, axis=-1)
    windows = windows[..., ::targets, :]
    return windows[..., :inputs], windows[..., inputs:]


def num_frames(lengths: np.ndarray, *, inputs: int = 20, targets: int = 10) -> np.ndarray:
    """How many steps of `frames` lie within the first `lengths` samples, 0 where none does.

    >>> num_frames(np.array([29, 30, 39, 40]))
    array([0, 1, 1, 2])
    """
    return np.maximum((lengths - inputs) // targets, 0)


def read_raw(path: Path) -> dict[tuple[int, int, int], np.ndarray]:
    """Reads the recordings of the zip, `<digit>_<speaker>_<take>.wav`.

    Returns:
      Samples [time], int16, by take, place of the speaker in SPEAKERS, and digit.

    Raises:
      InputError: names the member and what is wrong with it.
    """
    recordings = {}
    for name, content in read_members(path, RAW_ARCHIVE):
        match = re.fullmatch(rf"(\d)_({'|'.join(SPEAKERS)})_(\d+)\.wav", name)
        if not match or int(match[3]) >= TAKES["train"].stop:
            raise InputError(f"{path}: {name} is no name of a recording such as 0_george_49.wav")
        key = int(match[3]), SPEAKERS.index(match[2]), int(match[1])
        recordings[key] = _read_wave(f"{path}: {name}", content)
    return recordings


def _read_wave(where: str, content: bytes) -> np.ndarray:
    try:
        with wave.open(io.BytesIO(content)) as file:
            found = (file.getnchannels(), 8 * file.getsampwidth(), file.getframerate())
            time = file.getnframes()
            samples = file.readframes(time)
    except (wave.Error, EOFError, RuntimeError) as error:  # RuntimeError: a chunk beyond the end
        raise InputError(f"{where}: no wave file ({str(error) or 'it is too short'})") from error
    if found != (1, 16, SAMPLE_RATE):
        raise InputError(
            f"{where}: {found[0]} channels of {found[1]} bits, {found[2]} samples a second; "
            f"expected 1 of 16 bits, {SAMPLE_RATE}"
        )
    if len(samples) != 2 * time:
        raise InputError(f"{where}: {len(samples)} bytes of samples, expected {2 * time}")
    return np.frombuffer(samples, "<i2").astype(np.int16)
