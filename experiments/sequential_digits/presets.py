"""The config of this experiment, and its presets with the figures that they reproduce."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

import tyro

from experiments.sequence_model import (
    GRUConfig,
    LSTMConfig,
    RNNConfig,
    SequenceConfig,
    TCNConfig,
)
from experiments.sequence_presets import BAI, NAMES, run_of, system_of
from structdl.training.experiment import Preset, Published
from structdl.training.optimizers import OptimizerConfig
from structdl.training.ranges import NonNegativeInt, PositiveInt
from structdl.training.run import DataConfig, Run


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run."""

    dataset: Literal["drawn", "mnist"] = "drawn"
    """Digits drawn by a program, or handwritten."""
    size: PositiveInt = 8
    """Rows and columns of pixels: 28, 14 or 8."""
    permuted: bool = False
    """Whether the pixels come in an order drawn once, and not row by row."""
    model: SequenceConfig = GRUConfig(85)
    parameters: NonNegativeInt = 22_400
    """What the model must have, within 5 %, its read-out not counted; 0 for any number."""
    batch_size: PositiveInt = 64
    """Digits a step."""
    optimizer: OptimizerConfig = OptimizerConfig("adam", 0.002, clip_norm=1.0)
    data: DataConfig = DataConfig()
    run: Annotated[Run, tyro.conf.arg(name="")] = Run()


class _Size(NamedTuple):
    """The four models for one size of digits."""

    parameters: int
    epochs: int
    models: Mapping[str, SequenceConfig]


_FIGURES = {
    "digits": {"rnn": 0.215, "gru": 0.962, "lstm": 0.872, "tcn": 0.990},
    "permuted": {"rnn": 0.253, "gru": 0.873, "lstm": 0.857, "tcn": 0.972},
}
_DROPOUT = 0.05
_SIZES = {
    28: _Size(
        70_000,
        20,
        {
            "rnn": RNNConfig(257),
            "gru": GRUConfig(148),
            "lstm": LSTMConfig(128),
            "tcn": TCNConfig(25, 8, 7, _DROPOUT, warn_beyond=False),
        },
    ),
    14: _Size(
        40_000,
        10,
        {
            "rnn": RNNConfig(199),
            "gru": GRUConfig(114),
            "lstm": LSTMConfig(99),
            "tcn": TCNConfig(25, 5, 7, _DROPOUT, warn_beyond=False),
        },
    ),
    8: _Size(
        22_400,
        20,
        {
            "rnn": RNNConfig(149),
            "gru": GRUConfig(85),
            "lstm": LSTMConfig(74),
            "tcn": TCNConfig(25, 3, 7, _DROPOUT, warn_beyond=False),
        },
    ),
}
_EPOCH = 781  # steps of 64 digits


def _optimizer(model: str, num_steps: int) -> OptimizerConfig:
    """The learning rate falls over the whole run."""
    schedule = {"schedule": "cosine", "schedule_steps": num_steps}
    rate = {"rnn": 0.0005, "lstm": 0.001}.get(model, 0.002)
    clip_norm = None if model == "tcn" else 1.0
    return OptimizerConfig("adam", rate, clip_norm=clip_norm, **schedule)


def _run(model: SequenceConfig, epoch: int, epochs: int) -> Run:
    """A validation an epoch."""
    return run_of(model, epoch * epochs, eval_every=epoch, patience=10)


def _mnist(model: str, size: int, permuted: bool) -> Preset:
    parameters, epochs, models = _SIZES[size]
    config = Config(
        "mnist",
        size,
        permuted,
        models[model],
        parameters,
        optimizer=_optimizer(model, _EPOCH * epochs),
        run=_run(models[model], _EPOCH, epochs),
    )
    figures = {"test_accuracy": _FIGURES["permuted" if permuted else "digits"][model]}
    name = f"MNIST {size} x {size}, pixel by pixel" + (", permuted" if permuted else "")
    return _preset(model, config, name, figures if size == 28 else {})


def _preset(model: str, config: Config, dataset: str, figures: Mapping[str, float]) -> Preset:
    picture = {"gru": "models.png", "tcn": "digits.png", "lstm": "permuted.png"}.get(model, "")
    return Preset(
        config,
        system_of(config.model),
        dataset,
        f"{system_of(config.model)}, on {dataset}",
        [Published(metric, value, BAI) for metric, value in figures.items()],
        picture="" if picture == "permuted.png" and not config.permuted else picture,
    )


_DRAWN_EPOCH, _DRAWN_EPOCHS = 62, 10
PRESETS = {
    f"{model}-drawn": _preset(
        model,
        Config(
            model=_SIZES[8].models[model],
            optimizer=_optimizer(model, _DRAWN_EPOCH * _DRAWN_EPOCHS),
            run=_run(_SIZES[8].models[model], _DRAWN_EPOCH, _DRAWN_EPOCHS),
        ),
        "drawn digits 8 x 8, pixel by pixel",
        {},
    )
    for model in ("gru", "rnn", "lstm", "tcn")
}
PRESETS |= {
    f"{model}-{order}" + (f"-{size}" if size < 28 else ""): _mnist(model, size, order == "permuted")
    for size in _SIZES
    for order in _FIGURES
    for model in NAMES
}
