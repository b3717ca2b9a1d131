"""The config of this experiment, and its presets with the figures that they reproduce."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, NamedTuple

import tyro
from annotated_types import Ge

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
from structdl.training.ranges import NonNegativeFloat, NonNegativeInt, PositiveInt, in_range
from structdl.training.run import DataConfig, Run


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run."""

    dataset: str = "chord_progressions"
    """chord_progressions, jsb_chorales, nottingham, muse_data or piano_midi."""
    model: SequenceConfig = GRUConfig()
    parameters: NonNegativeInt = 18_500
    """What the model must have, within 5 %, its read-out not counted; 0 for any number."""
    batch_size: PositiveInt = 16
    """Pieces a step."""
    max_time: in_range(int, Ge(2)) = 256
    """Of a longer piece a step sees a stretch of this length, drawn at random."""
    weight_noise: NonNegativeFloat = 0.0
    """Standard deviation of what is added to every parameter in each training step."""
    optimizer: OptimizerConfig = OptimizerConfig("rmsprop", 0.001, clip_norm=1.0)
    data: DataConfig = DataConfig()
    run: Annotated[Run, tyro.conf.arg(name="")] = Run()


CHUNG = "Chung et al. 2014, table 2"


class _Collection(NamedTuple):
    dataset: str
    title: str
    epoch: int  # steps of 16 pieces
    small: Mapping[str, float]  # published, of models of 20 000 parameters
    large: Mapping[str, float] = {}  # published, of those of `_LARGE`


_COLLECTIONS = {
    "jsb": _Collection(
        "jsb_chorales",
        "JSB chorales",
        14,
        {"rnn": 9.10, "gru": 8.54, "lstm": 8.67},
        {"rnn": 8.91, "gru": 8.43, "lstm": 8.45, "tcn": 8.10},
    ),
    "nottingham": _Collection(
        "nottingham",
        "Nottingham",
        43,
        {"rnn": 3.13, "gru": 3.23, "lstm": 3.20},
        {"rnn": 4.05, "gru": 3.46, "lstm": 3.29, "tcn": 3.07},
    ),
    "muse": _Collection("muse_data", "MuseData", 32, {"rnn": 6.23, "gru": 5.99, "lstm": 6.23}),
    "piano": _Collection("piano_midi", "Piano-midi", 5, {"rnn": 9.03, "gru": 8.82, "lstm": 9.03}),
}
_SMALL = {
    "rnn": RNNConfig(100),
    "gru": GRUConfig(46),
    "lstm": LSTMConfig(36),
    "tcn": TCNConfig(16, num_levels=4, kernel_size=5, dropout=0.1),
}
_LARGE = {
    "jsb": {
        "rnn": RNNConfig(468, dropout=0.5),
        "gru": GRUConfig(253, dropout=0.5),
        "lstm": LSTMConfig(215, dropout=0.5),
        "tcn": TCNConfig(150, num_levels=2, kernel_size=3, dropout=0.5),
    },
    "nottingham": {
        "rnn": RNNConfig(976, dropout=0.2),
        "gru": GRUConfig(545, dropout=0.2),
        "lstm": LSTMConfig(467, dropout=0.2),
        "tcn": TCNConfig(150, num_levels=4, kernel_size=6, dropout=0.2),
    },
}
_EPOCHS = 400
_LARGE_SIZES = {"jsb": 260_000, "nottingham": 1_040_000}


def _small(model: str, collection: _Collection, optimizer: OptimizerConfig) -> Preset:
    """Chung et al., section 4: RMSProp, weight noise, early stopping."""
    # by the validation loss of one seed
    noisy = (model, collection.dataset) != ("tcn", "nottingham")
    config = Config(
        collection.dataset,
        _SMALL[model],
        weight_noise=0.075 if noisy else 0.0,
        optimizer=optimizer,
        run=_run(_SMALL[model], collection.epoch, _EPOCHS, 40),
    )
    return _preset(model, collection, config, collection.small, CHUNG)


def _small_optimizer(model: str, name: str) -> OptimizerConfig:
    """Learning rates by the validation loss of one seed; the other collections have JSB's."""
    schedule = {}
    if name == "nottingham":
        rate = {"gru": 0.01, "lstm": 0.01, "rnn": 0.003, "tcn": 0.005}[model]
        schedule = {"schedule": "cosine", "schedule_steps": _EPOCHS * _COLLECTIONS[name].epoch}
    else:
        rate = 0.003 if model == "tcn" else 0.001
    return OptimizerConfig("rmsprop", rate, clip_norm=1.0, **schedule)


def _large(model: str, name: str) -> Preset:
    """Bai et al., section 5: Adam, dropout."""
    collection = _COLLECTIONS[name]
    epochs = 200
    # by the validation loss on JSB, of one seed or three
    optimizer = OptimizerConfig("adam", 0.001, clip_norm=0.4)
    if model != "tcn":
        steps = epochs * collection.epoch
        optimizer = dataclasses.replace(
            optimizer, learning_rate=0.003, schedule="cosine", schedule_steps=steps
        )
    config = Config(
        collection.dataset,
        _LARGE[name][model],
        parameters=_LARGE_SIZES[name],
        optimizer=optimizer,
        run=_run(_LARGE[name][model], collection.epoch, epochs, 20),
    )
    return _preset(model, collection, config, collection.large, BAI)


def _run(model: SequenceConfig, epoch: int, epochs: int, patience: int) -> Run:
    """A validation an epoch."""
    return run_of(model, epoch * epochs, eval_every=epoch, patience=patience)


def _preset(model, collection, config, figures: Mapping[str, float], source) -> Preset:
    published = [Published("test_loss", figures[model], source)] if model in figures else []
    return Preset(
        config,
        system_of(config.model),
        collection.title,
        f"{system_of(config.model)}, on {collection.title}",
        published,
        metrics=("test_loss",),
        picture={"gru": "models.png", "tcn": "piano_roll.png"}.get(model, ""),
    )


_CHORDS = _Collection("chord_progressions", "chord progressions", 12, {})
PRESETS = {
    f"{model}-chords": Preset(
        Config(
            model=_SMALL[model],
            optimizer=OptimizerConfig("adam", 0.003, clip_norm=1.0),
            run=dataclasses.replace(_run(_SMALL[model], _CHORDS.epoch, 50, 20), stopping="none"),
        ),
        system_of(_SMALL[model]),
        _CHORDS.title,
        f"{system_of(_SMALL[model])}, on generated chord progressions; needs no network",
        metrics=("test_loss",),
    )
    for model in ("gru", "rnn", "lstm", "tcn")
}
PRESETS |= {
    f"{model}-{name}": _small(model, collection, _small_optimizer(model, name))
    for name, collection in _COLLECTIONS.items()
    for model in NAMES
}
PRESETS |= {f"{model}-{name}-large": _large(model, name) for name in _LARGE for model in NAMES}
