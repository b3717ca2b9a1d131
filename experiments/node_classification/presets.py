"""The config of this experiment, and its presets with the figures that they reproduce."""

import dataclasses
from typing import Annotated, Literal

import tyro

from structdl.training.experiment import Preset, Published
from structdl.training.optimizers import OptimizerConfig
from structdl.training.run import DataConfig, Run


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A graph convolutional network."""

    hidden: tuple[int, ...] = (16,)
    """Widths of the hidden graph convolutions."""
    activation: Literal["relu", "tanh"] = "relu"
    dropout: float = 0.5
    """Of what enters each layer, the features included."""
    head: Literal["convolution", "dense"] = "convolution"
    """The classifier: a last graph convolution, or a dense layer."""
    l2: float = 5e-4
    """The penalty on the first layer's kernel W is l2 * |W|^2 / 2."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run."""

    dataset: str = "cora"
    """karate, cora, citeseer or pubmed."""
    split: Literal["fixed", "random"] = "fixed"
    """random draws, by the seed, as many nodes per class as the fixed split has."""
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig("adam", 0.01)
    data: DataConfig = DataConfig()
    run: Annotated[Run, tyro.conf.arg(name="")] = Run()


KIPF = "Kipf and Welling 2017, table 2"

# Kipf and Welling's appendix A: no features, three layers, one label a class
KARATE = Config(
    dataset="karate",
    model=ModelConfig((4, 4, 2), "tanh", dropout=0.0, head="dense", l2=0.0),
    optimizer=OptimizerConfig("adam", 0.01),
    run=Run(num_steps=300, eval_every=0, steps_per_call=50, log_every=10, checkpoint_every=100),
)


def _gcn(dataset: str, fixed: float, random: float) -> Preset:
    """Section 5.2: at most 200 epochs, stopped by the validation cost, last parameters tested."""
    run = Run(
        num_steps=200,
        steps_per_call=20,
        seeds_per_call=20,
        stopping="window_mean",
        stopping_size=10,
        checkpoint_every=100,
    )
    name = dataset.capitalize()
    published = (
        Published("test_accuracy", fixed, KIPF, {"split": "fixed"}),
        Published("test_accuracy", random, KIPF, {"split": "random"}),
    )
    config = Config(dataset=dataset, run=run)
    return Preset(config, "GCN", name, f"GCN on {name}", published, varied=("split",))


PRESETS = {
    "karate": Preset(
        KARATE,
        "GCN",
        "karate club",
        "GCN on Zachary's karate club, one label a class; needs no network",
        varied=("split",),
        picture="embedding.png",
    ),
    "gcn-cora": _gcn("cora", 0.815, 0.801),
    "gcn-citeseer": _gcn("citeseer", 0.703, 0.679),
    "gcn-pubmed": _gcn("pubmed", 0.790, 0.789),
}
