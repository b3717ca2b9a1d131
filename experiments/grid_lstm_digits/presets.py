"""The config of this experiment, and its presets with the figures that they reproduce."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Literal

import tyro

from structdl.training.experiment import Preset, Published
from structdl.training.optimizers import OptimizerConfig
from structdl.training.ranges import AnyFloat, Depth, DropoutRate, NonNegativeInt, PositiveInt
from structdl.training.run import FREE, DataConfig, Run


@dataclasses.dataclass(frozen=True)
class ThreeLSTMConfig:
    """A 3-LSTM over rows, columns and depth, and a ReLU layer."""

    hidden: PositiveInt = 16
    """Units of each of the three dimensions."""
    num_layers: Depth = 4
    """Each begins at another corner, and has weights of its own."""
    patch: PositiveInt = 2
    """Rows and columns of pixels in a patch."""
    depth: Literal["lstm", "relu"] = "lstm"
    """What is along the depth."""
    rectified: PositiveInt = 64
    """Units of the ReLU layer, which reads the states of all patches."""
    dropout: DropoutRate = 0.0
    """Of what enters and of what leaves the ReLU layer."""
    forget_bias: AnyFloat = 1.0
    """Where the forget gates' biases start."""
    squash_memory: bool = False
    """A hidden state sigmoid(o) tanh(memory), the usual form, in place of the paper's."""
    order: Literal["auto", "nested", "wavefront"] = dataclasses.field(default="auto", metadata=FREE)
    """Block after block, or all of a diagonal at once; the result is the same."""
    rematerialize: bool = dataclasses.field(default=False, metadata=FREE)
    """Compute again what the derivative needs, in place of keeping it."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run."""

    dataset: Literal["drawn", "mnist"] = "drawn"
    """Digits drawn by a program, or handwritten."""
    size: PositiveInt = 8
    """Rows and columns of pixels: 28, 14 or 8."""
    model: ThreeLSTMConfig = ThreeLSTMConfig()
    shift: NonNegativeInt = 0
    """Training images are moved by up to so many pixels, anew in each step."""
    batch_size: PositiveInt = 64
    """Digits a step."""
    optimizer: OptimizerConfig = OptimizerConfig("adam", 0.003, clip_norm=1.0)
    data: DataConfig = DataConfig()
    run: Annotated[Run, tyro.conf.arg(name="")] = Run()


KALCHBRENNER = "Kalchbrenner et al. 2015, section 4.6"
_FIGURES = {"lstm": 0.9968, "relu": 0.9964}


def system_of(config: ThreeLSTMConfig) -> str:
    """What the ledger calls a model.

    >>> system_of(ThreeLSTMConfig(100, depth="relu"))
    '3-LSTM with ReLU, 4 x 100 units, patches 2 x 2'
    """
    name = {"lstm": "3-LSTM", "relu": "3-LSTM with ReLU"}[config.depth]
    sizes = f"{config.num_layers} x {config.hidden} units"
    return f"{name}, {sizes}, patches {config.patch} x {config.patch}"


def _optimizer(rate: float, num_steps: int) -> OptimizerConfig:
    """The learning rate falls over the whole run."""
    return OptimizerConfig("adam", rate, clip_norm=1.0, schedule="cosine", schedule_steps=num_steps)


def _run(every: int, validations: int, seed_mode: str, num_seeds: int = 1) -> Run:
    """A validation every so many steps; the parameters of the best one are tested."""
    return Run(
        num_steps=every * validations,
        eval_every=every,
        steps_per_call=every,
        log_every=every,
        stopping="patience",
        stopping_size=validations,
        checkpoint_every=every,
        seed_mode=seed_mode,
        num_seeds=num_seeds,
    )


def _drawn(depth: str) -> Preset:
    epoch, epochs = 62, 6
    config = Config(
        model=ThreeLSTMConfig(depth=depth),
        optimizer=_optimizer(0.003, epoch * epochs),
        run=_run(epoch // 2, 2 * epochs, "loop"),
    )
    return _preset(config, "drawn digits 8 x 8")


def _mnist_14(depth: str) -> Preset:
    epoch, epochs = 781, 8
    config = Config(
        "mnist",
        14,
        ThreeLSTMConfig(48, rectified=256, dropout=0.3, depth=depth),
        shift=1,
        optimizer=_optimizer(0.002, epoch * epochs),
        run=_run(epoch, epochs, "loop"),
    )
    return _preset(config, "MNIST 14 x 14")


def _mnist(depth: str) -> Preset:
    epoch, epochs = 390, 20
    config = Config(
        "mnist",
        28,
        ThreeLSTMConfig(100, patch=4, rectified=1024, dropout=0.5, depth=depth, order="wavefront"),
        shift=2,
        batch_size=128,
        optimizer=_optimizer(0.002, epoch * epochs),
        run=_run(epoch, epochs, "vmap", num_seeds=3),
    )
    figures = [Published("test_accuracy", _FIGURES[depth], KALCHBRENNER)]
    return _preset(config, "MNIST 28 x 28", figures)


def _preset(config: Config, dataset: str, published: Sequence[Published] = ()) -> Preset:
    system = system_of(config.model)
    picture = {"lstm": "digits.png", "relu": "models.png"}[config.model.depth]
    about = f"{system}, on {dataset}"
    return Preset(config, system, dataset, about, published, picture=picture)


PRESETS = {
    prefix + name: preset(depth)
    for name, preset in (("drawn", _drawn), ("mnist-14", _mnist_14), ("mnist", _mnist))
    for prefix, depth in (("", "lstm"), ("relu-", "relu"))
}
