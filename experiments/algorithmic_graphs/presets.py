"""The config of this experiment, and its presets with the figures that they reproduce."""

import dataclasses
from typing import Annotated

import tyro

from structdl.training.experiment import Preset, Published
from structdl.training.optimizers import OptimizerConfig
from structdl.training.ranges import AnyFloat, Depth, PositiveInt
from structdl.training.run import DataConfig, Run


@dataclasses.dataclass(frozen=True)
class GGNNConfig:
    """A gated graph neural network, all of whose layers share their weights."""

    hidden: PositiveInt = 16
    """The width of a node's state."""
    head: tuple[PositiveInt, ...] = ()
    """Widths of the tanh layers before the output."""
    keep: AnyFloat = 0.0
    """Where the update gate's bias starts: the larger, the more of its state a node keeps."""


@dataclasses.dataclass(frozen=True)
class GCNConfig:
    """A graph convolutional network, each of whose layers has weights of its own."""

    hidden: PositiveInt = 16
    """The width of every layer."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run."""

    graphs: str = "babi15"
    """shortest_path, euler_circuit, far_colour, babi04, babi15, babi16 or babi18."""
    num_train: PositiveInt | None = None
    """Graphs to train on; None means the task's own number."""
    layers: Depth = 5
    """How many edges information travels: the steps of a GGNN, the convolutions of a GCN."""
    batch_size: PositiveInt = 50
    """Graphs in a batch."""
    model: GGNNConfig | GCNConfig = GGNNConfig()
    optimizer: OptimizerConfig = OptimizerConfig("adam", 0.01)
    data: DataConfig = DataConfig()
    run: Annotated[Run, tyro.conf.arg(name="")] = Run()


LI = "recalled (Li et al. 2016, section 5)"


def _ggnn(graphs: str, dataset: str, **options) -> Preset:
    """The parameters of the last validation that was the best so far are tested."""
    run = Run(
        num_steps=options.pop("num_steps"),
        eval_every=50,
        steps_per_call=100,
        seed_mode="loop",
        stopping="patience",
        stopping_size=options.pop("patience", 10),
        log_every=50,
    )
    config = Config(graphs=graphs, run=run, **options)
    published = (Published("test_accuracy", 1.0, LI),)
    about = f"GGNN on {dataset}, generated"
    picture = "answer.png" if graphs == "shortest_path" else ""
    return Preset(config, "GGNN", dataset, about, published, proxy=True, picture=picture)


def _depth(model: GGNNConfig | GCNConfig, system: str, learning_rate: float) -> Preset:
    """All steps are run, and the last parameters tested."""
    run = Run(num_steps=600, eval_every=100, steps_per_call=100, seed_mode="loop", log_every=100)
    config = Config(
        graphs="far_colour",
        layers=32,
        batch_size=20,
        model=model,
        optimizer=OptimizerConfig("adam", learning_rate, clip_norm=1.0),
        run=run,
    )
    return Preset(
        config,
        system,
        "paths of 33 nodes",
        f"{system} of --layers 2 to 32: every node of a path is to know a colour at its end",
        varied=("layers",),
        metrics=("test_node_accuracy",),
    )


PRESETS = {
    "ggnn-babi15": _ggnn("babi15", "task 15, basic deduction", num_steps=300),
    "ggnn-babi4": _ggnn("babi04", "task 4, two-argument relations", num_steps=300, layers=2),
    "ggnn-babi16": _ggnn("babi16", "task 16, basic induction", num_steps=300),
    "ggnn-babi18": _ggnn("babi18", "task 18, size reasoning", num_steps=600),
    "ggnn-shortest-path": _ggnn(
        "shortest_path",
        "shortest path",
        num_steps=1500,
        layers=10,
        model=GGNNConfig(hidden=32, keep=1.0),
        optimizer=OptimizerConfig(
            "adam", 0.01, schedule="cosine", schedule_steps=1500, clip_norm=1.0
        ),
    ),
    "ggnn-euler-circuit": _ggnn(
        "euler_circuit", "Euler circuit", num_steps=300, layers=12, model=GGNNConfig(keep=1.0)
    ),
    "depth-ggnn": _depth(GGNNConfig(keep=3.0), "GGNN", 0.01),
    "depth-gcn": _depth(GCNConfig(), "GCN", 0.001),
}
