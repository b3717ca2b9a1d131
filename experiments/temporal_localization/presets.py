"""The config of this experiment, and its presets."""

import dataclasses
from typing import Annotated

import tyro
from annotated_types import Gt, Le

from structdl.training.experiment import Preset
from structdl.training.optimizers import OptimizerConfig
from structdl.training.ranges import DropoutRate, PositiveInt, Share, in_range
from structdl.training.run import DataConfig, Run


@dataclasses.dataclass(frozen=True)
class MatcherConfig:
    """Prototypes of actions, and frames that are embedded among them."""

    relational: bool = True
    """Prototypes come from a GCN over actions that occur together; else each is learned alone."""
    features: PositiveInt = 32
    """Of a prototype."""
    hidden: PositiveInt = 64
    """Units of the embedding's and of the GCN's inner layer."""
    dropout: DropoutRate = 0.5
    """Of what enters the embedding's second layer."""
    threshold: in_range(float, Gt(0), Le(1)) = 0.2
    """From which share of its videos on an action has another for a neighbour."""
    neighbour_share: Share = 0.1
    """What a prototype takes of its neighbours."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run; the seed decides the videos too."""

    num_train: PositiveInt = 400
    """Videos to train on."""
    num_validation: PositiveInt = 200
    """Videos to select on."""
    num_test: PositiveInt = 400
    """Videos to test on."""
    group_share: Share = 0.5
    """How much alike the actions of a group look, and are described: 0 to 1."""
    model: MatcherConfig = MatcherConfig()
    frame_share: in_range(float, Gt(0), Le(1)) = 0.125
    """Of a video's frames, the best of which say what it has."""
    batch_size: PositiveInt = 32
    """Videos a step."""
    optimizer: OptimizerConfig = OptimizerConfig("adam", 0.002)
    data: DataConfig = DataConfig()
    run: Annotated[Run, tyro.conf.arg(name="")] = Run()


METRICS = (
    "test_map_50",
    "test_map_75",
    "test_map_95",
    "test_map_average",
    "test_map_average_rare",
)


def _config(num_train: int, relational: bool, num_steps: int, num_seeds: int) -> Config:
    """All steps are run, and the last parameters tested; the learning rate falls to 0."""
    optimizer = OptimizerConfig("adam", 0.002, schedule="cosine", schedule_steps=num_steps)
    run = Run(
        num_steps=num_steps,
        eval_every=100,
        steps_per_call=100,
        log_every=100,
        checkpoint_every=500,
        num_seeds=num_seeds,
        seeds_per_call=10,
    )
    model = MatcherConfig(relational=relational)
    return Config(num_train, model=model, optimizer=optimizer, run=run)


def _preset(config: Config) -> Preset:
    system = system_of(config.model)
    dataset = f"untrimmed streams, {config.num_train} videos"
    return Preset(
        config,
        system,
        dataset,
        f"{system}, on {dataset}",
        metrics=METRICS,
        proxy=True,
        picture="localization.png" if config.model.relational else "",
    )


def system_of(model: MatcherConfig) -> str:
    """What the ledger calls a model.

    >>> system_of(MatcherConfig(relational=False))
    'independent prototypes'
    """
    return "prototypes of a co-occurrence GCN" if model.relational else "independent prototypes"


PRESETS = {
    "small": _preset(_config(100, True, 300, 1)),
    "gcn": _preset(_config(400, True, 1000, 10)),
    "independent": _preset(_config(400, False, 1000, 10)),
    "gcn-few": _preset(_config(200, True, 1000, 10)),
    "independent-few": _preset(_config(200, False, 1000, 10)),
}
