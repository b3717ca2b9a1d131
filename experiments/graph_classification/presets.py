"""The config of this experiment, and its presets with the figures that they reproduce."""

import dataclasses
from typing import Annotated, Literal

import tyro

from structdl.training.experiment import Preset, Published
from structdl.training.optimizers import OptimizerConfig
from structdl.training.ranges import Depth, DropoutRate, NonNegativeInt, PositiveInt, Widths
from structdl.training.run import DataConfig, Run


@dataclasses.dataclass(frozen=True)
class GINConfig:
    """A graph isomorphism network; every layer is read out."""

    hidden: PositiveInt = 32
    """The width of every layer."""
    num_layers: Depth = 4
    mlp_layers: Depth = 2
    """Dense layers of each perceptron."""
    train_epsilon: bool = False
    batch_norm: bool = True
    """After every dense layer."""
    dropout: DropoutRate = 0.5
    """Of each graph's vector."""


@dataclasses.dataclass(frozen=True)
class GCNConfig:
    """A graph convolutional network; the last layer is read out."""

    hidden: Widths = (64, 64, 64)
    """Widths of the graph convolutions."""
    dropout: DropoutRate = 0.0
    """Of what enters each layer, and of each graph's vector."""


@dataclasses.dataclass(frozen=True)
class GGNNConfig:
    """A gated graph neural network; each type of edge has a kernel of its own."""

    hidden: PositiveInt = 64
    """The width of the unit."""
    num_steps: NonNegativeInt = 4
    dropout: DropoutRate = 0.0
    """Of the nodes' features, and of each graph's vector."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run."""

    dataset: str = "marked_subgraphs"
    """marked_subgraphs, tox21, or a TU set: MUTAG, PROTEINS, ENZYMES, IMDB-BINARY, IMDB-MULTI, NCI1
    or PTC_MR."""
    readout: Literal["sum", "mean", "max", "gated", "virtual"] = "sum"
    """How nodes become one vector: of all nodes, or the marked; or that of a virtual node, with
    edges from and to them."""
    nodes: Literal["plain", "marked"] = "plain"
    """Of marked_subgraphs: whether the mark is a feature of the nodes as well."""
    batch_size: PositiveInt = 32
    """Graphs a step."""
    model: GINConfig | GCNConfig | GGNNConfig = GINConfig()
    optimizer: OptimizerConfig = OptimizerConfig("adam", 0.01)
    data: DataConfig = DataConfig()
    run: Annotated[Run, tyro.conf.arg(name="")] = Run()


XU = "Xu et al. 2019, table 1, GIN-0 (recalled)"
WU = "Wu et al. 2018, graph convolution, random split (recalled)"


def _subgraph(readout: str, words: str) -> Preset:
    run = Run(num_steps=1000, eval_every=25, steps_per_call=50, log_every=50, checkpoint_every=500)
    run = dataclasses.replace(run, stopping="patience", stopping_size=40)
    config = Config(readout=readout, model=GINConfig(dropout=0.0), run=run)
    return Preset(
        config,
        f"Sub-graph embedding, {words}",
        "density of marked nodes",
        f"GIN, sub-graphs read out by {words}; needs no network",
        varied=("nodes",),
        picture="graphs.png" if readout == "virtual" else "",
    )


def _gin(dataset: str, published: float, num_steps: int, batch_size: int) -> Preset:
    """Ten folds: seed k tests on fold k. A validation fold of MUTAG, 19 graphs, can choose no step:
    all are taken, with a learning rate that falls to zero, and the last parameters are tested."""
    run = Run(num_steps, eval_every=50, steps_per_call=50, log_every=50, seeds_per_call=10)
    config = Config(
        dataset=dataset,
        batch_size=batch_size,
        model=GINConfig(32),
        optimizer=OptimizerConfig("adam", 0.01, schedule="linear", schedule_steps=num_steps),
        run=run,
    )
    figures = (Published("test_accuracy", published, XU),)
    return Preset(config, "GIN", dataset, f"GIN on {dataset}", figures, varied=("readout",))


def _tox21(system: str, model, readout: str, learning_rate: float = 0.001) -> Preset:
    run = Run(num_steps=5000, eval_every=100, steps_per_call=100, log_every=100)
    run = dataclasses.replace(run, stopping="patience", stopping_size=10, seed_mode="loop")
    optimizer = OptimizerConfig("adam", learning_rate)
    config = Config("tox21", readout, "plain", 64, model, optimizer, run=run)
    figures = (Published("test_roc_auc", 0.829, WU),)
    return Preset(
        config,
        system,
        "Tox21",
        f"{system} on Tox21, 12 assays at once; reading molecules needs the extra chem",
        figures,
        varied=("readout",),
        metrics=("test_roc_auc",),
    )


PRESETS = {
    "subgraph-sum": _subgraph("sum", "sum of its nodes"),
    "subgraph-virtual-node": _subgraph("virtual", "virtual node"),
    "gin-mutag": _gin("MUTAG", 0.894, num_steps=1000, batch_size=32),
    "gin-proteins": _gin("PROTEINS", 0.762, num_steps=1500, batch_size=64),
    "gin-tox21": _tox21("GIN", GINConfig(hidden=64, dropout=0.2), "mean"),
    "gcn-tox21": _tox21("GCN", GCNConfig(dropout=0.1), "gated", 0.003),
    "ggnn-tox21": _tox21("GGNN", GGNNConfig(dropout=0.1), "gated"),
}
