"""The config of this experiment, and its presets with the figures that they reproduce."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal

import tyro
from annotated_types import Ge, Le

from experiments.translation.model import EncoderDecoderConfig, ModelConfig, ReencoderConfig
from structdl.training.experiment import Preset, Published
from structdl.training.optimizers import OptimizerConfig
from structdl.training.ranges import NonNegativeFloat, NonNegativeInt, PositiveInt, in_range
from structdl.training.run import DataConfig, Run

# on a CPU the fastest way, by a factor of 3
_SMALL = ReencoderConfig(32, 32, order="nested", rematerialize=True)


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run."""

    dataset: Literal["numbers", "tatoeba"] = "numbers"
    """Chinese numerals and English words of numbers, or Tatoeba's Chinese and English sentences."""
    model: ModelConfig = _SMALL
    parameters: NonNegativeInt = 38_000
    """What the model must have, within 5 %; 0 for any number."""
    embedding: PositiveInt = 16
    """Features of a symbol."""
    longest_source: PositiveInt = 20
    """Symbols of a source sentence; of training, pairs with a longer one are left out."""
    longest_target: PositiveInt = 14
    """Symbols of a target sentence; of training, pairs with a longer one are left out."""
    beams: in_range(int, Ge(1), Le(1000)) = 5
    """Translations that beam search keeps."""
    length_penalty: NonNegativeFloat = 1.0
    """Beam search compares log probabilities / length ** this."""
    batch_size: PositiveInt = 64
    """Pairs a step."""
    optimizer: OptimizerConfig = OptimizerConfig("adam", 0.005, clip_norm=1.0)
    data: DataConfig = DataConfig()
    run: Annotated[Run, tyro.conf.arg(name="")] = Run()


_DATA = {
    "numbers": "numbers, Chinese numerals to English words",
    "tatoeba": "Tatoeba, Chinese to English",
}
_NUMBERS: Mapping[str, ModelConfig] = {
    "reencoder": _SMALL,
    "seq2seq": EncoderDecoderConfig(36),
    "attention": EncoderDecoderConfig(34, attention=True),
}
_SENTENCES: Mapping[str, ModelConfig] = {
    "reencoder": ReencoderConfig(100, 100, dropout=0.3),
    "seq2seq": EncoderDecoderConfig(200, dropout=0.3),
    "attention": EncoderDecoderConfig(194, attention=True, dropout=0.3),
}
_NUMBERS_EPOCH, _NUMBERS_EPOCHS = 62, 8  # steps of 64 pairs
_EPOCH, _EPOCHS = 146, 14  # steps of 128 pairs


def system_of(config: ModelConfig) -> str:
    """What the ledger calls a model.

    >>> system_of(ReencoderConfig(100)), system_of(EncoderDecoderConfig(194, attention=True))
    ('Reencoder, 2 x 100 units', 'LSTM encoder-decoder with attention, 2 x 194 units')
    """
    match config:
        case ReencoderConfig():
            name = "Reencoder"
        case EncoderDecoderConfig(attention=True):
            name = "LSTM encoder-decoder with attention"
        case EncoderDecoderConfig():
            name = "LSTM encoder-decoder"
    return f"{name}, {config.num_layers} x {config.hidden} units"


def _config(dataset: str, model: ModelConfig) -> Config:
    """The learning rate falls over the whole run; a validation an epoch."""
    numbers = dataset == "numbers"
    epoch, epochs = (_NUMBERS_EPOCH, _NUMBERS_EPOCHS) if numbers else (_EPOCH, _EPOCHS)
    sizes = {} if numbers else {"parameters": 2_480_000, "embedding": 100, "batch_size": 128}
    return Config(
        dataset,
        model,
        optimizer=OptimizerConfig(
            "adam",
            0.005 if numbers else 0.002,
            clip_norm=1.0,
            schedule="cosine",
            schedule_steps=epoch * epochs,
        ),
        run=Run(
            num_steps=epoch * epochs,
            eval_every=epoch,
            steps_per_call=epoch,
            log_every=epoch,
            seed_mode="loop" if numbers else "vmap",
            stopping="patience",
            stopping_size=4,
            checkpoint_every=4 * epoch,
        ),
        **sizes,
    )


def _preset(name: str, dataset: str, model: ModelConfig) -> Preset:
    published = {"reencoder": 42.4} if dataset == "tatoeba" else {}
    source = "Kalchbrenner et al. 2015: BTEC, one reference"
    measured = "accuracy" if dataset == "numbers" else "bleu"
    return Preset(
        _config(dataset, model),
        system_of(model),
        _DATA[dataset],
        f"{system_of(model)}, on {_DATA[dataset]}",
        [
            Published("test_beam_bleu", value, source)
            for key, value in published.items()
            if key == name
        ],
        metrics=(f"test_greedy_{measured}", f"test_beam_{measured}"),
        proxy=dataset == "tatoeba",
        picture={"reencoder": "models.png", "attention": "lengths.png"}.get(name, ""),
    )


PRESETS = {
    f"{name}-numbers": _preset(name, "numbers", model) for name, model in _NUMBERS.items()
} | {name: _preset(name, "tatoeba", model) for name, model in _SENTENCES.items()}
