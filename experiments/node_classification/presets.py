"""The config of this experiment, and its presets with the figures that they reproduce."""

import dataclasses
from typing import Annotated, Literal

import tyro

from experiments.node_classification.model import (
    ChebyshevConfig,
    DeepWalkConfig,
    GATConfig,
    GCNConfig,
    GGNNConfig,
    GraphSAGEConfig,
    LabelPropagationConfig,
    ModelConfig,
    SpectralConfig,
)
from structdl.training.experiment import Preset, Published
from structdl.training.optimizers import OptimizerConfig
from structdl.training.run import DataConfig, Run


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run."""

    dataset: str = "cora"
    """karate, cora, citeseer or pubmed."""
    split: Literal["fixed", "random"] = "fixed"
    """random draws, by the seed, as many nodes per class as the fixed split has."""
    model: ModelConfig = GCNConfig()
    optimizer: OptimizerConfig = OptimizerConfig("adam", 0.01)
    data: DataConfig = DataConfig()
    run: Annotated[Run, tyro.conf.arg(name="")] = Run()


KIPF = "Kipf and Welling 2017, table 2"
KIPF_ABLATION = "recalled (Kipf and Welling 2017, table 3)"
VELICKOVIC = "recalled (Velickovic et al. 2018, table 2)"
LECTURE = "Kipf and Welling 2017, table 2, from Yang et al. 2016"

# Kipf and Welling's appendix A: no features, three layers, one label a class
KARATE = Config(
    dataset="karate",
    model=GCNConfig((4, 4, 2), "tanh", dropout=0.0, head="dense", l2=0.0),
    optimizer=OptimizerConfig("adam", 0.01),
    run=Run(num_steps=300, eval_every=0, steps_per_call=50, log_every=10, checkpoint_every=100),
)

# Kipf and Welling, section 5.2: at most 200 epochs, stopped by the validation cost
WINDOW = Run(
    num_steps=200,
    steps_per_call=20,
    seeds_per_call=20,
    stopping="window_mean",
    stopping_size=10,
    checkpoint_every=100,
)
# Velickovic et al., section 3.3: until neither validation loss nor accuracy has improved for 100
PATIENCE = dataclasses.replace(
    WINDOW, num_steps=1000, stopping="patience", stopping_size=100, checkpoint_every=200
)


def _preset(system: str, dataset: str, model, run: Run, figures=(), **options) -> Preset:
    """A preset on a Planetoid set; figures are its published accuracies on the fixed split."""
    name = dataset.capitalize()
    config = Config(dataset=dataset, model=model, run=run, **options)
    published = [Published("test_accuracy", value, source) for value, source in figures]
    return Preset(config, system, name, f"{system} on {name}", published, varied=("split",))


def _gcn(dataset: str, fixed: float, random: float) -> Preset:
    preset = _preset("GCN", dataset, GCNConfig(), WINDOW)
    published = (
        Published("test_accuracy", fixed, KIPF, {"split": "fixed"}),
        Published("test_accuracy", random, KIPF, {"split": "random"}),
    )
    return preset._replace(published=published)


def _chebyshev(dataset: str, order: int, figure: float) -> Preset:
    system = f"Chebyshev filters, K = {order}"
    return _preset(system, dataset, ChebyshevConfig(order=order), WINDOW, [(figure, KIPF_ABLATION)])


def _gat(dataset: str, figure: float, learning_rate=0.005, **model) -> Preset:
    optimizer = OptimizerConfig("adam", learning_rate)
    # ten seeds under vmap take 1.7 times as long as one after another
    run = dataclasses.replace(PATIENCE, seed_mode="loop")
    figures = [(figure, VELICKOVIC)]
    return _preset("GAT", dataset, GATConfig(**model), run, figures, optimizer=optimizer)


def _sage(dataset: str, aggregator: str) -> Preset:
    model = GraphSAGEConfig(aggregator=aggregator)
    return _preset(f"GraphSAGE, {aggregator.replace('_', ' ')}", dataset, model, PATIENCE)


def _unsupervised(system: str, dataset: str, model, run: Run, figure: float) -> Preset:
    optimizer = OptimizerConfig("adam", 0.01)
    return _preset(system, dataset, model, run, [(figure, LECTURE)], optimizer=optimizer)


CITATIONS = ("cora", "citeseer", "pubmed")
AGGREGATORS = ("gcn", "mean", "max_pool", "mean_pool", "lstm")
_GCN = {"cora": (0.815, 0.801), "citeseer": (0.703, 0.679), "pubmed": (0.790, 0.789)}
_CHEBYSHEV = {
    2: {"cora": 0.812, "citeseer": 0.696, "pubmed": 0.738},
    3: {"cora": 0.795, "citeseer": 0.698, "pubmed": 0.744},
}
_LABEL_PROPAGATION = {"cora": 0.680, "citeseer": 0.453, "pubmed": 0.630}
_DEEPWALK = {"cora": 0.672, "citeseer": 0.432, "pubmed": 0.653}
NO_TRAINING = Run(num_steps=0, eval_every=0)
SKIP_GRAM = Run(num_steps=400, eval_every=0, steps_per_call=100, log_every=100, seed_mode="loop")

PRESETS = {
    "karate": Preset(
        KARATE,
        "GCN",
        "karate club",
        "GCN on Zachary's karate club, one label a class; needs no network",
        varied=("split",),
        picture="embedding.png",
    )
}
PRESETS |= {f"gcn-{name}": _gcn(name, *_GCN[name]) for name in CITATIONS}
PRESETS |= {
    f"{preset}-{name}": _chebyshev(name, order, _CHEBYSHEV[order][name])
    for preset, order in (("cheb", 2), ("cheb-k3", 3))
    for name in CITATIONS
}
PRESETS |= {
    "gat-cora": _gat("cora", 0.830),
    "gat-citeseer": _gat("citeseer", 0.725),
    # section 3.3 there: eight output heads, more regularisation
    "gat-pubmed": _gat("pubmed", 0.790, 0.01, output_heads=8, l2=1e-3),
}
PRESETS |= {
    f"sage-{aggregator.replace('_', '-')}-{name}": _sage(name, aggregator)
    for aggregator in AGGREGATORS
    for name in CITATIONS
}
PRESETS |= {f"ggnn-{name}": _preset("GGNN", name, GGNNConfig(), PATIENCE) for name in CITATIONS}
PRESETS |= {
    f"spectral-{name}": _preset("Full-spectrum convolution", name, SpectralConfig(), PATIENCE)
    for name in ("cora", "citeseer")
}
PRESETS |= {
    f"lp-{name}": _unsupervised(
        "Label propagation", name, LabelPropagationConfig(), NO_TRAINING, _LABEL_PROPAGATION[name]
    )
    for name in CITATIONS
}
PRESETS |= {
    f"deepwalk-{name}": _unsupervised(
        "DeepWalk", name, DeepWalkConfig(), SKIP_GRAM, _DEEPWALK[name]
    )
    for name in CITATIONS
}
