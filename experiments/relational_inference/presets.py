"""The config of this experiment, and its presets with the figures that they reproduce."""

import dataclasses
from typing import Annotated, Literal

import tyro
from annotated_types import Ge, Le

from structdl.training.experiment import Preset, Published
from structdl.training.optimizers import OptimizerConfig
from structdl.training.ranges import NonNegativeInt, PositiveFloat, PositiveInt, in_range
from structdl.training.run import DataConfig, Run


@dataclasses.dataclass(frozen=True)
class NRIConfig:
    """Learns the graph as the latent variable of a model of the dynamics."""

    encoder: Literal["mlp", "cnn"] = "mlp"
    """Reads a trajectory as one vector, or by convolutions over its time."""
    decoder: Literal["markov", "recurrent"] = "markov"
    """Predicts from the present state alone, or remembers."""
    encoder_hidden: PositiveInt = 64
    """Units of the encoder's layers."""
    decoder_hidden: PositiveInt = 64
    """Units of the decoder's layers, which cost more."""
    num_types: in_range(int, Ge(2)) = 2
    """How many types of edges there are to choose from."""
    skip_first: bool = False
    """Type 0 sends nothing: there is no edge."""
    prior: tuple[PositiveFloat, ...] = ()
    """Of the types; by default all are as likely."""
    temperature: PositiveFloat = 0.5
    """Of the samples of edge types in training."""
    hard: bool = False
    """Samples are one-hot, with the gradient of the relaxed ones."""
    prediction_steps: PositiveInt = 10
    """How many states are predicted from a true one."""
    stretches: NonNegativeInt = 0
    """So many stretches of a trajectory are predicted in a step of training; 0 takes all."""
    burn_in: NonNegativeInt = 0
    """Recurrent: how many first states are given to it."""
    variance: PositiveFloat = 5e-5
    """Of predicted states, in the units of the scaled ones."""
    likelihood: Literal["normal", "laplace"] = "normal"
    """Of predicted states; with laplace, states that cannot be predicted count less."""


@dataclasses.dataclass(frozen=True)
class SupervisedConfig:
    """The encoder alone, told the true edges: what can be reached at best."""

    encoder: Literal["mlp", "cnn"] = "mlp"
    """As of nri."""
    hidden: PositiveInt = 64
    """Units of all layers."""


@dataclasses.dataclass(frozen=True)
class CorrelationConfig:
    """Learns nothing: correlations of trajectories, and a threshold."""


@dataclasses.dataclass(frozen=True)
class LSTMConfig:
    """An LSTM that predicts each object by itself: correlations of its last states."""

    hidden: PositiveInt = 64
    """Units of the one layer."""


ModelConfig = NRIConfig | SupervisedConfig | CorrelationConfig | LSTMConfig


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run."""

    dataset: Literal["springs", "charged", "kuramoto", "walking"] = "springs"
    """What is simulated; or a person who walks, whose joints have no edges that are known."""
    objects: in_range(int, Ge(2), Le(1000)) = 5
    """How many a system has; of walking 25."""
    num_train: PositiveInt = 50_000
    """Systems to train on."""
    num_validation: PositiveInt = 10_000
    """Systems to select on."""
    num_test: PositiveInt = 10_000
    """Systems to test on."""
    model: ModelConfig = NRIConfig()
    batch_size: PositiveInt = 128
    """Systems a step."""
    optimizer: OptimizerConfig = OptimizerConfig("adam", 0.0005)
    data: DataConfig = DataConfig()
    run: Annotated[Run, tyro.conf.arg(name="")] = Run()


KIPF = "Kipf et al. 2018, table 1"
# accuracies of edges for springs, charged and kuramoto, by how many objects there are
_FIGURES = {
    "nri": {5: (0.998, 0.826, 0.960), 10: (0.984, 0.713, 0.762)},
    "supervised": {5: (0.999, 0.963, 0.998), 10: (0.987, 0.949, 0.969)},
    "correlation": {5: (0.524, 0.558, 0.628), 10: (0.504, 0.514, 0.593)},
    "lstm": {5: (0.550, 0.618, 0.559), 10: (0.510, 0.529, 0.539)},
}
_SETS = ("springs", "charged", "kuramoto")


def system_of(model: ModelConfig) -> str:
    """What the ledger calls a model.

    >>> system_of(NRIConfig("cnn", encoder_hidden=32))
    'NRI, cnn encoder of 32, markov decoder of 64 units'
    """
    match model:
        case NRIConfig():
            encoder = f"{model.encoder} encoder of {model.encoder_hidden}"
            return f"NRI, {encoder}, {model.decoder} decoder of {model.decoder_hidden} units"
        case SupervisedConfig():
            return f"supervised {model.encoder} encoder, {model.hidden} units"
        case LSTMConfig():
            return f"correlation of LSTM states, {model.hidden} units"
        case CorrelationConfig():
            return "correlation of paths"


def _run(num_steps: int, eval_every: int, **options) -> Run:
    """The parameters of the best validation loss are tested."""
    return Run(
        num_steps=num_steps,
        eval_every=eval_every,
        steps_per_call=eval_every,
        log_every=eval_every,
        checkpoint_every=eval_every,
        stopping="patience",
        stopping_size=num_steps // eval_every,
        **{"seed_mode": "loop"} | options,
    )


def _optimizer(rate: float, num_steps: int) -> OptimizerConfig:
    """The learning rate falls over the whole run."""
    return OptimizerConfig("adam", rate, schedule="cosine", schedule_steps=num_steps)


def _muon(num_steps: int) -> OptimizerConfig:
    """Kernels by Muon, which takes a fraction of the steps of Adam here; Adam has the rest."""
    return dataclasses.replace(
        _optimizer(0.02, num_steps), name="muon", kwargs={"adam_learning_rate": 0.002}
    )


def _preset(config: Config, kind: str, about: str) -> Preset:
    system = system_of(config.model)
    figures = [
        Published("test_edge_accuracy", of_sets[_SETS.index(config.dataset)], KIPF, where)
        for objects, of_sets in _FIGURES[kind].items()
        for where in [{"objects": objects}]
    ]
    return Preset(
        config,
        system,
        config.dataset,
        f"{system}, on {config.dataset}{about}",
        figures,
        varied=("objects",),
        metrics=("test_edge_accuracy",),
        picture="systems.png" if kind == "nri" else "",
    )


def _small() -> Preset:
    """Another set than the paper's, in a minute."""
    num_steps = 600
    config = Config(
        num_train=5000,
        num_validation=500,
        num_test=1000,
        model=NRIConfig(encoder_hidden=32, decoder_hidden=32, skip_first=True),
        batch_size=32,
        optimizer=_optimizer(0.003, num_steps),
        run=_run(num_steps, 100),
    )
    return _preset(config, "nri", ", few and small")._replace(published=())


# hidden units and steps are fewer than the paper's
_REDUCED = {
    "springs": NRIConfig(encoder_hidden=128, skip_first=True, stretches=2),
    # where charges meet, nothing is to be predicted, and squared errors would see little else;
    # a larger variance keeps the encoder from being sure of edges before the decoder knows them
    "charged": NRIConfig(
        encoder_hidden=128,
        prediction_steps=1,
        stretches=12,
        likelihood="laplace",
        variance=0.005,
    ),
    "kuramoto": NRIConfig("cnn", skip_first=True, stretches=2, variance=0.01),
}
# but for the number of epochs, which is 500
_FULL = {
    "springs": NRIConfig(encoder_hidden=256, decoder_hidden=256),
    "charged": NRIConfig(encoder_hidden=256, decoder_hidden=256),
    "kuramoto": NRIConfig("cnn", encoder_hidden=256, decoder_hidden=256, variance=0.01),
}


def _inferred(dataset: str) -> Preset:
    num_steps = {"springs": 6000, "charged": 40_000, "kuramoto": 3000}[dataset]
    config = Config(
        dataset,
        num_validation=2000,
        model=_REDUCED[dataset],
        batch_size=64,
        optimizer=_muon(num_steps),
        run=_run(num_steps, 500),
    )
    return _preset(config, "nri", ", reduced")


def _walking() -> Preset:
    """Stretches of the joints' rotations; that most pairs do not interact is likely beforehand."""
    num_steps = 1000
    model = NRIConfig(
        encoder_hidden=64, decoder_hidden=64, skip_first=True, prior=(0.9, 0.1), variance=5e-4
    )
    config = Config(
        "walking",
        objects=25,
        num_train=168,
        num_validation=30,
        num_test=33,
        model=model,
        batch_size=8,
        optimizer=_optimizer(0.001, num_steps),
        run=_run(num_steps, 100),
    )
    metrics = [f"test_squared_error{suffix}" for suffix in ("", "_unchanged", "_going_on")]
    system = system_of(model)
    about = f"{system}, on a walking person's joints"
    return Preset(config, system, "walking", about, metrics=metrics, picture="edges.png")


def _full(dataset: str) -> Preset:
    epoch, epochs = 390, 20
    config = Config(
        dataset,
        model=_FULL[dataset],
        optimizer=_optimizer(0.0005, epoch * epochs),
        run=_run(epoch * epochs, epoch),
    )
    return _preset(config, "nri", "")


def _supervised(dataset: str) -> Preset:
    optimizer = _muon(6000)
    if dataset == "charged":  # by Muon the training systems would be learned by heart
        optimizer = _optimizer(0.002, 12_000)
    config = Config(
        dataset,
        num_validation=2000,
        model=SupervisedConfig(hidden=128),
        batch_size=64,
        optimizer=optimizer,
        run=_run(optimizer.schedule_steps, 500),
    )
    return _preset(config, "supervised", ", told the edges")


def _lstm(dataset: str) -> Preset:
    num_steps = 2000
    config = Config(
        dataset,
        num_validation=2000,
        model=LSTMConfig(),
        batch_size=64,
        optimizer=_optimizer(0.002, num_steps),
        run=_run(num_steps, 500),
    )
    return _preset(config, "lstm", "")


def _correlated(dataset: str) -> Preset:
    config = Config(
        dataset, model=CorrelationConfig(), run=Run(num_steps=0, eval_every=0, seed_mode="loop")
    )
    return _preset(config, "correlation", "")


PRESETS = {"small": _small()} | {
    dataset + suffix: preset(dataset)
    for suffix, preset in (
        ("", _inferred),
        ("-full", _full),
        ("-supervised", _supervised),
        ("-lstm", _lstm),
        ("-correlation", _correlated),
    )
    for dataset in _SETS
}
PRESETS["walking"] = _walking()
