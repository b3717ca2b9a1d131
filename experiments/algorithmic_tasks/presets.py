"""The config of this experiment, and its presets with the figures that they reproduce."""

import dataclasses
from typing import Annotated, Literal

import tyro
from annotated_types import Ge, Le

from structdl.datasets.simulate_algorithmic import MAX_SYMBOLS
from structdl.training.experiment import Preset, Published
from structdl.training.optimizers import OptimizerConfig
from structdl.training.ranges import Depth, PositiveInt, in_range
from structdl.training.run import DataConfig, Run


@dataclasses.dataclass(frozen=True)
class GridLSTMConfig:
    """Parity: a 1-LSTM along depth. Strings: a 2-LSTM over time and depth."""

    hidden: PositiveInt = 64
    """Units of each dimension."""
    num_layers: Depth = 6
    """The extent of depth."""
    tied: bool = True
    """Whether all layers have the same weights."""


@dataclasses.dataclass(frozen=True)
class FeedForwardConfig:
    """Parity alone: layers of tanh or rectified linear units."""

    hidden: PositiveInt = 64
    """Units of each layer."""
    num_layers: Depth = 12
    tied: bool = True
    """Whether all layers have the same weights."""
    activation: Literal["tanh", "relu"] = "tanh"


@dataclasses.dataclass(frozen=True)
class StackedLSTMConfig:
    """Strings alone: LSTM layers one upon another."""

    hidden: PositiveInt = 100
    """Units of each layer."""
    num_layers: Depth = 1


ModelConfig = GridLSTMConfig | FeedForwardConfig | StackedLSTMConfig


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run."""

    problem: Literal["parity", "addition", "memorization"] = "parity"
    """Whether the number of ones is odd, the sum of two integers, or a string once more."""
    length: in_range(int, Ge(1), Le(100_000)) = 8
    """Bits (parity), digits of each integer (addition), or symbols (memorization)."""
    num_train: PositiveInt = 1_000_000
    """Samples to train on; 1000 others are drawn for validation, and 1000 for the test."""
    share: Literal["half", "any"] = "any"
    """Parity: of ones in the strings to train on; any share, or each bit a half."""
    num_symbols: in_range(int, Ge(1), Le(MAX_SYMBOLS)) = 64
    """Memorization: how many symbols there are to draw from."""
    model: ModelConfig = GridLSTMConfig()
    batch_size: PositiveInt = 100
    """Samples a step."""
    optimizer: OptimizerConfig = OptimizerConfig("adam", 0.001)
    data: DataConfig = DataConfig()
    run: Annotated[Run, tyro.conf.arg(name="")] = Run()


def system_of(model: ModelConfig, problem: str) -> str:
    """What the ledger calls a model.

    >>> system_of(GridLSTMConfig(64, 12), "parity")
    'tied 1-LSTM, 12 x 64 units'
    """
    size = f"{model.num_layers} x {model.hidden} units"
    match model:
        case GridLSTMConfig(tied=tied):
            name = f"{'tied' if tied else 'untied'} {1 if problem == 'parity' else 2}-LSTM"
        case FeedForwardConfig(tied=tied, activation=activation):
            name = f"{'tied' if tied else 'untied'} {activation} feed-forward"
        case StackedLSTMConfig():
            name = "stacked LSTM"
    return f"{name}, {size}"


def _run(num_steps: int, eval_every: int, score: float) -> Run:
    """Until the validation strings are solved."""
    return Run(
        num_steps=num_steps,
        eval_every=eval_every,
        steps_per_call=eval_every,
        log_every=eval_every,
        checkpoint_every=10 * eval_every,
        stopping="solved",
        stopping_score=score,
    )


def _parity(
    model: ModelConfig, learning_rate: float, length: int = 10, published: Published | None = None
) -> Preset:
    config = Config(
        length=length,
        model=model,
        batch_size=100,
        optimizer=OptimizerConfig("adam", learning_rate, clip_norm=0.3),
        run=_run(PARITY_STEPS, 500, 1.0),
    )
    if published:
        # the paper's own: ten million strings, each bit a half
        optimizer, run = OptimizerConfig("adagrad", learning_rate), _run(500_000, 500, 1.0)
        config = dataclasses.replace(
            config,
            num_train=10_000_000,
            share="half",
            batch_size=20,
            optimizer=optimizer,
            run=run,
        )
    return _preset(config, published)


def _strings(
    problem: Literal["addition", "memorization"],
    length: int,
    model: ModelConfig,
    learning_rate: float,
    published: Published | None = None,
) -> Preset:
    config = Config(
        problem,
        length,
        model=model,
        batch_size=15,
        optimizer=OptimizerConfig("adam", learning_rate),
        run=_run(STRING_STEPS, 250, SOLVED),
    )
    if published:
        config = dataclasses.replace(config, num_train=5_000_000, run=_run(333_000, 1000, 1.0))
    return _preset(config, published)


def _preset(config: Config, published: Published | None) -> Preset:
    system = system_of(config.model, config.problem)
    return Preset(
        config,
        system,
        TITLES[config.problem],
        f"{system}, {TITLES[config.problem]}, --length {config.length} or another",
        [published] if published else [],
        varied=("length",),
        picture=_picture(config.model),
    )


def _with_half(preset: Preset) -> Preset:
    """Training as well has each bit at 1 with probability 1/2."""
    dataset = f"{preset.dataset}, trained on halves"
    config = dataclasses.replace(preset.config, share="half")
    about = preset.about.replace(preset.dataset, dataset)
    return preset._replace(config=config, dataset=dataset, about=about, picture="")


def _picture(model: ModelConfig) -> str:
    """Answers of what solves the tasks, and of each the curves of all."""
    match model:
        case GridLSTMConfig(tied=True):
            return "answers.png"
        case FeedForwardConfig(activation="relu") | StackedLSTMConfig():
            return "models.png"
    return ""


TITLES = {
    "parity": "parity of bits",
    "addition": "addition of two integers",
    "memorization": "memorization",
}
PARITY_STEPS, STRING_STEPS = 30_000, 50_000  # 3 million strings, 750 000
SOLVED = 0.99  # of the validation strings
_PAPER = "Kalchbrenner et al. 2015, "
_ALL_RIGHT = Published("test_accuracy", 1.0, _PAPER + "section 4.1")
_TIED, _UNTIED = GridLSTMConfig(100, 6), GridLSTMConfig(100, 6, tied=False)
PRESETS = {
    "grid-parity": _parity(GridLSTMConfig(64, 6), 0.003),
    "half-parity": _with_half(_parity(GridLSTMConfig(64, 6), 0.003)),
    "tanh-parity": _parity(FeedForwardConfig(128, 5), 0.001),
    "relu-parity": _parity(FeedForwardConfig(128, 4, activation="relu"), 0.001),
    "grid-addition": _strings("addition", 3, _TIED, 0.003),
    "untied-addition": _strings("addition", 3, _UNTIED, 0.003),
    "stacked-addition": _strings("addition", 3, StackedLSTMConfig(), 0.01),
    "grid-memorization": _strings("memorization", 10, GridLSTMConfig(100, 4), 0.003),
    "untied-memorization": _strings("memorization", 10, GridLSTMConfig(100, 4, False), 0.003),
    "stacked-memorization": _strings("memorization", 10, StackedLSTMConfig(), 0.01),
    "grid-parity-250": _parity(GridLSTMConfig(500, 148), 0.06, 250, _ALL_RIGHT),
    "grid-parity-220": _parity(GridLSTMConfig(1500, 72), 0.06, 220, _ALL_RIGHT),
    "tanh-parity-30": _parity(FeedForwardConfig(1500, 5), 0.06, 30, _ALL_RIGHT),
    "relu-parity-30": _parity(FeedForwardConfig(1500, 4, activation="relu"), 0.06, 30, _ALL_RIGHT),
}
PRESETS |= {
    f"{name}-addition-15": _strings(
        "addition",
        15,
        model,
        0.001,
        Published("test_accuracy", accuracy, _PAPER + "section 4.2"),
    )
    for name, model, accuracy in (
        ("grid", GridLSTMConfig(400, 18), 0.99),
        ("untied", GridLSTMConfig(400, 5, tied=False), 0.67),
        ("stacked", StackedLSTMConfig(400), 0.51),
    )
}
