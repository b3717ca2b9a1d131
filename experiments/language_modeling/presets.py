"""The config of this experiment, and its presets with the figures that they reproduce."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

import tyro

from experiments.sequence_model import (
    GridLSTMConfig,
    GRUConfig,
    LSTMConfig,
    RNNConfig,
    SequenceConfig,
    TCNConfig,
)
from experiments.sequence_presets import BAI, run_of, system_of
from structdl.training.experiment import Preset, Published
from structdl.training.optimizers import OptimizerConfig
from structdl.training.ranges import DropoutRate, NonNegativeFloat, NonNegativeInt, PositiveInt
from structdl.training.run import FREE, DataConfig, Run


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run."""

    dataset: str = "simple_sentences"
    """simple_sentences, tiny_shakespeare, ptb_characters, ptb_words or enwik8."""
    model: SequenceConfig = GRUConfig(72)
    parameters: NonNegativeInt = 20_000
    """What the model must have, within 5 %, without embedding and read-out; 0 for any number."""
    embedding: PositiveInt = 16
    """Features of a symbol."""
    embedding_dropout: DropoutRate = 0.0
    """Of the features of each symbol that is read."""
    tied: bool = False
    """Whether the softmax compares with the embedding, or has weights of its own."""
    batch_size: PositiveInt = 16
    """Stretches of text a step."""
    stretch: PositiveInt = 50
    """Symbols of each whose next one counts in the loss."""
    context: NonNegativeInt = 25
    """Symbols of each that come before these and do not count."""
    sequence: NonNegativeInt = 0
    """Symbols of sequences that training reads in order, a stretch a step, its state carried from
    one to the next; their first has no context. 0: stretches that do not follow one another."""
    prompt: str = dataclasses.field(default="", metadata=FREE)
    """After which sample.txt is written; by default the beginning of the test part."""
    temperature: NonNegativeFloat = dataclasses.field(default=0.7, metadata=FREE)
    """At which it is written: 1 draws as the model predicts, 0 takes the likeliest symbol."""
    optimizer: OptimizerConfig = OptimizerConfig("adam", 0.005, clip_norm=1.0)
    data: DataConfig = DataConfig()
    run: Annotated[Run, tyro.conf.arg(name="")] = Run()


class _Comparison(NamedTuple):
    """Models of one size on one text."""

    title: str
    config: Config  # but for the model and the run
    steps: int
    eval_every: int
    log_every: int
    models: Mapping[str, SequenceConfig]
    published: Mapping[str, float] = {}
    source: str = BAI
    learning_rates: Mapping[str, float] = {}  # where they are not the config's
    together: Sequence[str] = ()  # models whose seeds train at once, as is faster on a GPU


def _optimizer(name: str, learning_rate: float, steps: int, clip_norm: float) -> OptimizerConfig:
    return OptimizerConfig(
        name, learning_rate, schedule="cosine", schedule_steps=steps, clip_norm=clip_norm
    )


def _with_dropout(models: Mapping[str, SequenceConfig], rate: float) -> dict[str, SequenceConfig]:
    return {name: dataclasses.replace(model, dropout=rate) for name, model in models.items()}


_TINY = {
    "gru": GRUConfig(72),
    "rnn": RNNConfig(133),
    "lstm": LSTMConfig(63),
    "tcn": TCNConfig(29, num_levels=4, kernel_size=3),
    "grid": GridLSTMConfig(34, num_layers=3),
}
_CHARACTERS = {
    "gru": GRUConfig(232),
    "rnn": RNNConfig(416),
    "lstm": LSTMConfig(200),
    "tcn": TCNConfig(92, num_levels=4, kernel_size=3),
    "grid": GridLSTMConfig(106, num_layers=6),
}
_WORDS = {
    "gru": GRUConfig(194),
    "rnn": RNNConfig(374),
    "lstm": LSTMConfig(162),
    "tcn": TCNConfig(96, num_levels=3, kernel_size=3),
}
_LARGE_CHARACTERS = {
    "gru": GRUConfig(581, num_layers=2, dropout=0.1),
    "rnn": RNNConfig(1019, num_layers=2, dropout=0.1),
    "lstm": LSTMConfig(501, num_layers=2, dropout=0.1),
    "tcn": TCNConfig(450, num_levels=3, kernel_size=3, dropout=0.1),
}
_LARGE_WORDS = {
    "gru": GRUConfig(884, num_layers=2, dropout=0.45),
    "rnn": RNNConfig(1600, num_layers=2, dropout=0.45),
    "lstm": LSTMConfig(754, num_layers=2, dropout=0.45),
    "tcn": TCNConfig(600, num_levels=4, kernel_size=3, dropout=0.45),
}
# chosen by the validation loss of short runs on tiny Shakespeare
_ADAM = {"gru": 0.01, "rnn": 0.003, "lstm": 0.01, "tcn": 0.01, "grid": 0.01}
_SMALL = Config(
    "tiny_shakespeare",
    parameters=187_000,
    embedding=32,
    batch_size=32,
    stretch=100,
    context=50,
    optimizer=_optimizer("adam", 0.003, 4000, 1.0),
)
_SMALL_RUN = {"steps": 4000, "eval_every": 250, "log_every": 50, "together": ("grid",)}
_COMPARISONS = {
    "sentences": _Comparison(
        "generated sentences",
        Config(optimizer=_optimizer("adam", 0.005, 1000, 1.0)),
        steps=1000,
        eval_every=100,
        log_every=50,
        models=_TINY,
    ),
    "shakespeare": _Comparison(
        "tiny Shakespeare, characters",
        _SMALL,
        **_SMALL_RUN,
        models=_CHARACTERS,
        learning_rates=_ADAM,
    ),
    "ptb-char": _Comparison(
        "Penn Treebank, characters",
        dataclasses.replace(
            _SMALL, dataset="ptb_characters", optimizer=_optimizer("adam", 0.003, 1600, 1.0)
        ),
        steps=1600,  # once through the text
        eval_every=200,
        log_every=50,
        models=_CHARACTERS,
        learning_rates=_ADAM,
        together=("grid",),
    ),
    "ptb-word": _Comparison(
        "Penn Treebank, words",
        dataclasses.replace(
            _SMALL,
            dataset="ptb_words",
            embedding=128,
            tied=True,
            batch_size=16,
            stretch=40,
            context=20,
        ),
        **_SMALL_RUN,
        models=_with_dropout(_WORDS, 0.1),
    ),
    "ptb-char-large": _Comparison(
        "Penn Treebank, characters",
        Config(
            "ptb_characters",
            parameters=3_220_000,
            embedding=100,
            embedding_dropout=0.1,
            tied=True,
            batch_size=32,
            stretch=320,
            context=80,
            optimizer=_optimizer("sgd", 4.0, 49_400, 0.15),
        ),
        steps=49_400,
        eval_every=494,
        log_every=494,
        models=_LARGE_CHARACTERS,
        published={"rnn": 1.48, "gru": 1.37, "lstm": 1.36, "tcn": 1.31},
    ),
    "ptb-word-large": _Comparison(
        "Penn Treebank, words",
        Config(
            "ptb_words",
            parameters=8_650_000,
            embedding=600,
            embedding_dropout=0.25,
            tied=True,
            batch_size=16,
            stretch=40,
            context=40,
            optimizer=_optimizer("sgd", 4.0, 145_200, 0.35),
        ),
        steps=145_200,
        eval_every=1452,
        log_every=1452,
        models=_LARGE_WORDS,
        published={"rnn": 114.50, "gru": 92.48, "lstm": 78.93, "tcn": 88.68},
    ),
    "enwik8": _Comparison(
        "enwik8, bytes of Wikipedia",
        Config(
            "enwik8",
            parameters=16_420_000,
            embedding=205,
            batch_size=100,
            stretch=50,
            context=1000,
            sequence=10_000,
            optimizer=_optimizer("adam", 0.001, 180_000, 1.0),
        ),
        steps=180_000,  # ten times through the text
        eval_every=9000,
        log_every=200,
        models={"grid": GridLSTMConfig(1000, num_layers=6)},
        published={"grid": 1.47},
        source="Kalchbrenner et al. 2015, section 4.4",
        together=("grid",),
    ),
}


def _preset(model: str, comparison: _Comparison) -> Preset:
    optimizer, its = comparison.config.optimizer, comparison.models[model]
    rate = comparison.learning_rates.get(model, optimizer.learning_rate)
    run = run_of(
        its,
        comparison.steps,
        eval_every=comparison.eval_every,
        patience=20,
        log_every=comparison.log_every,
    )
    config = dataclasses.replace(
        comparison.config,
        model=its,
        optimizer=dataclasses.replace(optimizer, learning_rate=rate),
        run=dataclasses.replace(run, seed_mode="vmap") if model in comparison.together else run,
    )
    metric = "test_perplexity" if config.dataset == "ptb_words" else "test_bits_per_character"
    figures = comparison.published
    return Preset(
        config,
        system_of(its),
        comparison.title,
        f"{system_of(its)}, on {comparison.title}",
        [Published(metric, figures[model], comparison.source)] if model in figures else [],
        metrics=(metric,),
        picture={"gru": "models.png", "lstm": "surprise.png"}.get(model, ""),
    )


PRESETS = {
    f"{model}-{name}": _preset(model, comparison)
    for name, comparison in _COMPARISONS.items()
    for model in comparison.models
}
