"""The config of this experiment, and its presets."""

import dataclasses
from typing import Annotated

import tyro
from annotated_types import Ge

from experiments.sequence_model import (
    GRUConfig,
    LSTMConfig,
    RNNConfig,
    SequenceConfig,
    TCNConfig,
)
from experiments.sequence_presets import run_of, system_of
from structdl.training.experiment import Preset
from structdl.training.optimizers import OptimizerConfig
from structdl.training.ranges import NonNegativeFloat, NonNegativeInt, PositiveInt, in_range
from structdl.training.run import DataConfig, Run

INPUTS, TARGETS = 20, 10  # samples that a step sees, and those after them that it predicts


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run."""

    dataset: str = "decaying_tones"
    """decaying_tones or spoken_digits."""
    model: SequenceConfig = GRUConfig(71)
    parameters: NonNegativeInt = 20_000
    """What the model must have, within 5 %, its read-out not counted; 0 for any number."""
    components: PositiveInt = 20
    """Gaussians in the mixture that a step predicts by."""
    max_samples: in_range(int, Ge(INPUTS + TARGETS)) = 6020
    """Of a longer recording the beginning is kept."""
    batch_size: PositiveInt = 16
    """Recordings a step."""
    max_steps: PositiveInt = 100
    """Of a longer recording a training step sees a stretch of so many steps, drawn at random."""
    weight_noise: NonNegativeFloat = 0.0
    """Standard deviation of what is added to every parameter in each training step."""
    optimizer: OptimizerConfig = OptimizerConfig("adam", 0.003, clip_norm=1.0)
    data: DataConfig = DataConfig()
    run: Annotated[Run, tyro.conf.arg(name="")] = Run()


_TONES = {
    "gru": GRUConfig(71),
    "rnn": RNNConfig(131),
    "lstm": LSTMConfig(61),
    "tcn": TCNConfig(28, num_levels=4, kernel_size=3),
}
_SPEECH = {
    "gru": GRUConfig(227),
    "rnn": RNNConfig(400),
    "lstm": LSTMConfig(195),
    "tcn": TCNConfig(77, num_levels=5, kernel_size=3),
}


PRESETS = {
    f"{model}-tones": Preset(
        Config(model=its, run=run_of(its, 600, eval_every=60, patience=10, log_every=30)),
        system_of(its),
        "generated tones",
        f"{system_of(its)}, on generated tones; needs no network",
        metrics=("test_loss",),
    )
    for model, its in _TONES.items()
}


def _speech(model: str, *, noise: float, learning_rate: float, words: str = "") -> Preset:
    config = Config(
        "spoken_digits",
        _SPEECH[model],
        parameters=169_000,
        batch_size=32,
        max_steps=100,
        weight_noise=noise,
        optimizer=OptimizerConfig("rmsprop", learning_rate, clip_norm=1.0),
        run=run_of(_SPEECH[model], 600, eval_every=60, patience=10, log_every=20),
    )
    return Preset(
        config,
        f"{system_of(config.model)}{words}",
        "spoken digits",
        f"{system_of(config.model)}, on spoken digits{words}",
        metrics=("test_loss",),
        picture={"gru": "models.png", "lstm": "wave.png"}.get(model, "") if noise else "",
    )


PRESETS |= {
    "rnn-speech": _speech("rnn", noise=0.075, learning_rate=0.0003),
    "gru-speech": _speech("gru", noise=0.075, learning_rate=0.001),
    "lstm-speech": _speech("lstm", noise=0.075, learning_rate=0.001),
    "tcn-speech": _speech("tcn", noise=0.0, learning_rate=0.001),
}
PRESETS |= {
    f"{model}-speech-plain": _speech(
        model, noise=0.0, learning_rate=learning_rate, words=", no weight noise"
    )
    for model, learning_rate in {"rnn": 0.0003, "gru": 0.001, "lstm": 0.001}.items()
}
