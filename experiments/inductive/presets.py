"""The config of this experiment, and its presets with the figures that they stand beside."""

import dataclasses
from typing import Annotated, Literal

import tyro

from structdl.training.experiment import Preset, Published
from structdl.training.optimizers import OptimizerConfig
from structdl.training.ranges import DropoutRate, NonNegativeInt, PositiveInt, Widths
from structdl.training.run import DataConfig, Run


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """GraphSAGE on sampled neighbourhoods."""

    aggregator: Literal["gcn", "mean", "max_pool", "mean_pool", "lstm"] = "mean"
    hidden: Widths = (128, 128)
    """Widths of the layers; the node and its neighbours side by side are twice as wide, but for
    gcn."""
    fan_outs: Widths = (25, 10)
    """Neighbours drawn per layer, first layer first: the last number is drawn around the batch."""
    replace: bool = False
    """Whether a neighbour may be drawn twice."""
    normalize: Literal["every", "last", "never"] = "last"
    """Whose rows get length 1; last is the authors' code, every the paper's Algorithm 1."""
    aggregator_features: PositiveInt = 128
    """The width of the pool or of the LSTM."""
    dropout: DropoutRate = 0.0
    """Of what enters each layer and the classifier."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run."""

    dataset: str = "block-model-large"
    """block-model-small, block-model-large, cora, citeseer or pubmed."""
    batch_size: PositiveInt = 512
    """Training nodes in a step."""
    eval_batch_size: PositiveInt = 512
    eval_nodes: NonNegativeInt = 0
    """Nodes of validation, and of test, that are evaluated, drawn once; 0 for all of them."""
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig("adam", 0.01)
    data: DataConfig = DataConfig()
    run: Annotated[Run, tyro.conf.arg(name="")] = Run()


PPI = "Hamilton et al. 2017, table 1 (PPI)"
COSTS = ("examples_per_second", "peak_memory_gb")

SMALL = Config(
    dataset="block-model-small",
    batch_size=128,
    model=ModelConfig(hidden=(32, 32), fan_outs=(10, 10)),
    run=Run(num_steps=300, eval_every=50, steps_per_call=50, log_every=10, seed_mode="loop"),
)


def _large(name: str, model: ModelConfig, published: float) -> Preset:
    """Section 4, with four epochs in place of its ten."""
    # no validation between the steps: a call's time is that of its steps
    run = Run(
        num_steps=1000,
        eval_every=0,
        steps_per_call=10,
        log_every=10,
        seed_mode="loop",
        checkpoint_every=100,
    )
    return Preset(
        Config(eval_nodes=5120, model=model, run=run),
        f"GraphSAGE {name}",
        "block model, 200 000 nodes",
        f"GraphSAGE {name} on the block model of 200 000 nodes and 10 million edges",
        (Published("test_f1", published, PPI),),
        metrics=("test_f1", *COSTS),
        proxy=True,
        picture="degrees.png" if name == "mean" else "",
    )


def _paper(name: str, aggregator: str, dataset: str, num_steps: int) -> Preset:
    """Planetoid's split; the test nodes and their edges are not in the training graph."""
    run = Run(
        num_steps=num_steps,
        eval_every=10,
        steps_per_call=10,
        log_every=10,
        seed_mode="loop",
    )
    config = Config(
        dataset=dataset,
        batch_size={"cora": 140, "citeseer": 120}[dataset],
        eval_batch_size=250,
        model=ModelConfig(aggregator, fan_outs=(5, 5), dropout=0.5),
        run=run,
    )
    title = dataset.capitalize()
    about = f"GraphSAGE {name} on {title}, test nodes unseen in training"
    return Preset(config, f"GraphSAGE {name}", f"{title}, inductive", about)


PRESETS = {
    "sage-mean-small": Preset(
        SMALL,
        "GraphSAGE mean",
        "block model, 2 000 nodes",
        "GraphSAGE mean on a block model of 2 000 nodes; needs no network",
        metrics=("test_f1",),
    ),
    # one kernel here makes what two halves make elsewhere
    "sage-gcn-large": _large("GCN", ModelConfig("gcn", hidden=(256, 256)), 0.500),
    "sage-mean-large": _large("mean", ModelConfig("mean"), 0.598),
    "sage-pool-large": _large("pool", ModelConfig("max_pool"), 0.600),
    "sage-lstm-large": _large("LSTM", ModelConfig("lstm"), 0.612),
    "sage-mean-cora": _paper("mean", "mean", "cora", 100),
    "sage-pool-cora": _paper("pool", "max_pool", "cora", 100),
    "sage-mean-citeseer": _paper("mean", "mean", "citeseer", 100),
    "sage-pool-citeseer": _paper("pool", "max_pool", "citeseer", 100),
}
