"""The config of this experiment, and its presets with the figures that they reproduce."""

import dataclasses
from typing import Annotated, Literal

import tyro

from structdl.training.experiment import Preset
from structdl.training.optimizers import OptimizerConfig
from structdl.training.run import DataConfig, Run


@dataclasses.dataclass(frozen=True)
class GridLSTMConfig:
    """Parity: a 1-LSTM along depth. Strings: a 2-LSTM over time and depth."""

    hidden: int = 64
    """Units of each dimension."""
    num_layers: int = 12
    """The extent of depth."""
    tied: bool = True
    """Whether all layers have the same weights."""


@dataclasses.dataclass(frozen=True)
class FeedForwardConfig:
    """Parity alone: layers of tanh or rectified linear units."""

    hidden: int = 64
    """Units of each layer."""
    num_layers: int = 12
    tied: bool = True
    """Whether all layers have the same weights."""
    activation: Literal["tanh", "relu"] = "tanh"


@dataclasses.dataclass(frozen=True)
class StackedLSTMConfig:
    """Strings alone: LSTM layers one upon another."""

    hidden: int = 100
    """Units of each layer."""
    num_layers: int = 1


ModelConfig = GridLSTMConfig | FeedForwardConfig | StackedLSTMConfig


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run."""

    problem: Literal["parity", "addition", "memorization"] = "parity"
    """Whether the number of ones is odd, the sum of two integers, or a string once more."""
    length: int = 8
    """Bits (parity), digits of each integer (addition), or symbols (memorization)."""
    num_train: int = 1_000_000
    """Different samples to train on; 1000 more are for validation, and 1000 for the test."""
    share: Literal["half", "any"] = "any"
    """Parity: of ones in the strings to train on; any share, or each bit a half."""
    num_symbols: int = 64
    """Memorization: how many symbols there are to draw from."""
    model: ModelConfig = GridLSTMConfig()
    batch_size: int = 20
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
    """Until the validation strings are solved; on a CPU one seed after another is as fast."""
    return Run(
        num_steps=num_steps,
        eval_every=eval_every,
        steps_per_call=eval_every,
        log_every=eval_every,
        checkpoint_every=10 * eval_every,
        seed_mode="loop",
        stopping="solved",
        stopping_score=score,
    )


def _parity(model: ModelConfig, length: int, steps: int, learning_rate: float = 0.001) -> Preset:
    config = Config(
        length=length,
        model=model,
        optimizer=OptimizerConfig("adam", learning_rate),
        run=_run(steps, 500, 1.0),
    )
    return _preset(config, f"parity of {length} bits")


def _strings(problem: str, length: int, model: ModelConfig, steps: int, eval_every: int) -> Preset:
    config = Config(
        problem,
        length,
        model=model,
        batch_size=15,
        run=_run(steps, eval_every, 0.99 if problem == "addition" else 1.0),
    )
    title = {"addition": "addition of {} digits", "memorization": "memorization of {} symbols"}
    return _preset(config, title[problem].format(length))


def _preset(config: Config, dataset: str) -> Preset:
    system = system_of(config.model, config.problem)
    return Preset(config, system, dataset, f"{system}, {dataset}")


PRESETS = {
    "grid-parity-10": _parity(GridLSTMConfig(64, 12), 10, 40_000),
    "grid-addition-3": _strings("addition", 3, GridLSTMConfig(100, 6), 40_000, 250),
    "untied-addition-3": _strings("addition", 3, GridLSTMConfig(100, 6, False), 40_000, 250),
    "stacked-addition-3": _strings("addition", 3, StackedLSTMConfig(100, 1), 40_000, 250),
    "grid-memorization-10": _strings("memorization", 10, GridLSTMConfig(100, 4), 40_000, 250),
}
