"""The config of this experiment, and its presets with the figures that they reproduce."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal

import tyro
from annotated_types import Ge, Le

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
from structdl.training.ranges import NonNegativeInt, PositiveInt, in_range
from structdl.training.run import DataConfig, Run


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run."""

    problem: Literal["adding", "copy"] = "adding"
    """The sum of two marked numbers, or ten symbols once more after a pause."""
    length: in_range(int, Ge(1), Le(100_000)) = 50
    """T: of the sequence (adding), or how long symbols are to be kept (copy)."""
    num_train: PositiveInt = 5000
    """Sequences to train on; 1000 more are for validation, and 1000 for the test."""
    model: SequenceConfig = GRUConfig(46)
    parameters: NonNegativeInt = 6800
    """What the model must have, within 5 %, its read-out not counted; 0 for any number."""
    batch_size: PositiveInt = 32
    """Sequences a step."""
    optimizer: OptimizerConfig = OptimizerConfig("adam", 0.005, clip_norm=1.0)
    data: DataConfig = DataConfig()
    run: Annotated[Run, tyro.conf.arg(name="")] = Run()


_SMALL = {
    "gru": GRUConfig(46),
    "rnn": RNNConfig(81),
    "lstm": LSTMConfig(40),
    "tcn": TCNConfig(16, num_levels=3, kernel_size=5, warn_beyond=False),
}
_RECURRENT_ADDING = {"rnn": RNNConfig(264), "gru": GRUConfig(151), "lstm": LSTMConfig(131)}
_ADDING = {
    200: _RECURRENT_ADDING | {"tcn": TCNConfig(30, num_levels=6, kernel_size=7, warn_beyond=False)},
    600: _RECURRENT_ADDING | {"tcn": TCNConfig(24, num_levels=8, kernel_size=8, warn_beyond=False)},
}
_ADDING_FIGURES = {"rnn": 0.177, "gru": 5.3e-5, "lstm": 0.164, "tcn": 5.8e-5}  # T = 600
_COPY_1000 = {
    "rnn": RNNConfig(121),
    "gru": GRUConfig(67),
    "lstm": LSTMConfig(58),
    "tcn": TCNConfig(11, num_levels=8, kernel_size=8, warn_beyond=False),
}
_COPY_1000_FIGURES = {"rnn": 0.0202, "gru": 0.0197, "lstm": 0.0204, "tcn": 3.5e-5}
_COPY = {
    "rnn": RNNConfig(94),
    "gru": GRUConfig(52),
    "lstm": LSTMConfig(44),
    "tcn": TCNConfig(10, num_levels=6, kernel_size=8, warn_beyond=False),
}


def _adding(model: str, length: int) -> Preset:
    config = Config(
        "adding",
        length,
        50_000,
        _ADDING[length][model],
        parameters=70_000,
        optimizer=_adding_optimizer(model),
        run=run_of(_ADDING[length][model], 15_600, eval_every=260, patience=30),
    )
    figures = {"test_loss": _ADDING_FIGURES[model]} if length == 600 else {}
    return _preset(model, config, f"adding problem, T = {length}", figures)


def _adding_optimizer(model: str) -> OptimizerConfig:
    if model == "tcn":
        return OptimizerConfig("adam", 0.004)
    return OptimizerConfig("adam", 0.001 if model == "rnn" else 0.003, clip_norm=1.0)


def _copy_1000(model: str) -> Preset:
    config = Config(
        "copy",
        1000,
        10_000,
        _COPY_1000[model],
        parameters=16_000,
        optimizer=_copy_optimizer(model),
        run=run_of(_COPY_1000[model], 5000, eval_every=250, patience=10),
    )
    figures = {"test_loss": _COPY_1000_FIGURES[model]}
    metrics = ("test_loss", "test_accuracy")
    return _preset(model, config, "copy memory, T = 1000", figures, metrics)


def _copy(model: str) -> Preset:
    config = Config(
        "copy",
        50,
        10_000,
        _COPY[model],
        parameters=10_000,
        optimizer=_copy_optimizer(model),
        run=run_of(_COPY[model], 6000, eval_every=250, patience=12),
    )
    metrics = ("test_accuracy", "test_loss")
    preset = _preset(model, config, "copy memory", {}, metrics)
    about = f"{system_of(config.model)}, on copy memory of a --length of yours"
    return preset._replace(about=about, varied=("length",))


def _copy_optimizer(model: str) -> OptimizerConfig:
    rate = 0.005 if model == "gru" else 5e-4
    # PyTorch's decay of the squared gradients
    return OptimizerConfig("rmsprop", rate, kwargs={"decay": 0.99}, clip_norm=1.0)


def _preset(
    model: str,
    config: Config,
    dataset: str,
    figures: Mapping[str, float],
    metrics: tuple[str, ...] = ("test_loss",),
) -> Preset:
    return Preset(
        config,
        system_of(config.model),
        dataset,
        f"{system_of(config.model)}, on {dataset}",
        [Published(metric, value, BAI) for metric, value in figures.items()],
        metrics=metrics,
        picture={"gru": "models.png", "tcn": "answers.png"}.get(model, ""),
    )


PRESETS = {
    f"{model}-adding-50": _preset(
        model,
        Config(model=its, run=run_of(its, 1500, eval_every=50, patience=30)),
        "adding problem, T = 50",
        {},
    )
    for model, its in _SMALL.items()
}
PRESETS |= {
    f"{model}-adding-{length}": _adding(model, length) for length in _ADDING for model in NAMES
}
PRESETS |= {f"{model}-copy-1000": _copy_1000(model) for model in NAMES}
PRESETS |= {f"{model}-copy": _copy(model) for model in NAMES}
