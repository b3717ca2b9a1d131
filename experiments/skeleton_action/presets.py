"""The config of this experiment, and its presets."""

import dataclasses
from typing import Annotated, Literal

import tyro
from annotated_types import Ge, Le

from structdl.training.experiment import Preset
from structdl.training.optimizers import OptimizerConfig
from structdl.training.ranges import (
    Depth,
    DropoutRate,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    ShareBelowOne,
    in_range,
)
from structdl.training.run import DataConfig, Run


@dataclasses.dataclass(frozen=True)
class AGCLSTMConfig:
    """A graph convolutional LSTM with attention, over joints and over body parts."""

    hidden: PositiveInt = 20
    """Units of a joint, and of a part."""
    num_layers: Depth = 3
    """Between two of them time is halved."""
    streams: Literal["joints", "parts", "both"] = "both"
    """What the nodes are; the scores of both are added."""
    dropout: DropoutRate = 0.5
    """Of what enters each layer but the first, and the logits' layers."""


@dataclasses.dataclass(frozen=True)
class SRTSLConfig:
    """Spatial reasoning over body parts, and skip-clip LSTMs over positions and velocities."""

    features: PositiveInt = 32
    """Of a part."""
    hidden: PositiveInt = 55
    """Units of each LSTM."""
    num_steps: in_range(int, Ge(0), Le(1000)) = 3
    """How often the parts of a frame hear each other."""
    clip: PositiveInt = 8
    """Frames of a clip."""
    dropout: DropoutRate = 0.5
    """Of what enters and what leaves the LSTMs."""


@dataclasses.dataclass(frozen=True)
class LSTMConfig:
    """A stacked LSTM over the positions and differences of all joints side by side."""

    hidden: PositiveInt = 62
    """Units of each layer."""
    num_layers: Depth = 2
    dropout: DropoutRate = 0.5
    """Of what enters each layer but the first, and the logits' layer."""


@dataclasses.dataclass(frozen=True)
class GCNConfig:
    """Graph convolutions of each frame; joints and frames are averaged."""

    hidden: PositiveInt = 109
    """Units of a joint."""
    num_layers: Depth = 3
    dropout: DropoutRate = 0.5
    """Of what enters each layer but the first, and the logits' layer."""


ModelConfig = AGCLSTMConfig | SRTSLConfig | LSTMConfig | GCNConfig


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run."""

    dataset: Literal["primitives", "msraction3d"] = "primitives"
    """Limbs of a stick figure that are raised and lowered, or twenty actions of ten people."""
    validation_subjects: tuple[PositiveInt, ...] = (9,)
    """People with odd numbers who do not train; without any, the last parameters are tested."""
    frames: in_range(int, Ge(2)) = 32
    """What every sequence is resampled to."""
    rotation: NonNegativeFloat = 0.3
    """Training sequences are turned about the vertical axis by up to so many radians."""
    scaling: ShareBelowOne = 0.1
    """Training sequences grow or shrink by up to this share."""
    cropping: ShareBelowOne = 0.2
    """Training sequences lose up to this share of their time."""
    model: ModelConfig = AGCLSTMConfig()
    parameters: NonNegativeInt = 0
    """How many the model is to have, within 5 %; 0 for any number."""
    batch_size: PositiveInt = 32
    """Sequences a step."""
    optimizer: OptimizerConfig = OptimizerConfig("adamw", 0.003)
    data: DataConfig = DataConfig()
    run: Annotated[Run, tyro.conf.arg(name="")] = Run()


def system_of(model: ModelConfig) -> str:
    """What the ledger calls a model.

    >>> system_of(LSTMConfig(62))
    'LSTM, 2 x 62 units'
    """
    match model:
        case AGCLSTMConfig():
            streams = {"both": "joints and parts"}.get(model.streams, model.streams)
            return f"AGC-LSTM, {model.num_layers} x {model.hidden} units, {streams}"
        case SRTSLConfig():
            return f"SR-TSL, {model.features} features, {model.hidden} units"
        case LSTMConfig():
            return f"LSTM, {model.num_layers} x {model.hidden} units"
        case GCNConfig():
            return f"GCN, {model.num_layers} x {model.hidden} units"


PARAMETERS = 75_000  # of each model that is compared


def _config(
    dataset: str,
    model: ModelConfig,
    num_steps: int,
    every: int,
    weight_decay: float = 0.01,
    **options,
) -> Config:
    """All steps are run, and the last parameters tested; the learning rate falls to 0."""
    optimizer = OptimizerConfig(
        "adamw",
        0.003,
        {"weight_decay": weight_decay},
        schedule="cosine",
        schedule_steps=num_steps,
        clip_norm=1.0,
    )
    run = Run(
        num_steps=num_steps,
        eval_every=every,
        steps_per_call=abs(every) or 50,
        log_every=50,
        checkpoint_every=5 * (every or 50),
        seed_mode="loop",
    )
    return Config(dataset, model=model, optimizer=optimizer, run=run, **options)


def _small() -> Preset:
    """Another set than the paper's, in a minute."""
    model = AGCLSTMConfig(8, dropout=0.0)
    config = _config("primitives", model, 300, 50, frames=16)
    system = system_of(model)
    about = f"{system}, on generated motions"
    return Preset(config, system, "motion primitives", about, picture="attention.png")


def _msraction3d(model: ModelConfig, **options) -> Preset:
    config = _config(
        "msraction3d",
        model,
        1000,
        0,
        validation_subjects=(),
        parameters=PARAMETERS,
        **options,
    )
    system = system_of(model)
    picture = "attention.png" if isinstance(model, AGCLSTMConfig) else ""
    return Preset(
        config, system, "MSR Action3D", f"{system}, on MSR Action3D", proxy=True, picture=picture
    )


# twice what is usual; what a model has of it and of weight decay was best for held-out people
_AUGMENTED = {"rotation": 0.6, "scaling": 0.2, "cropping": 0.4}

PRESETS = {
    "small": _small(),
    "agc-lstm": _msraction3d(AGCLSTMConfig(), weight_decay=0.3, **_AUGMENTED),
    "sr-tsl": _msraction3d(SRTSLConfig(), weight_decay=0.3, **_AUGMENTED),
    "lstm": _msraction3d(LSTMConfig(), **_AUGMENTED),
    "gcn": _msraction3d(GCNConfig(), **_AUGMENTED),
}
