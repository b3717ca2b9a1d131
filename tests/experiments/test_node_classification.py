"""Every model of node classification learns on the karate club, given one-hot features."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.node_classification import train
from experiments.node_classification.data import load
from experiments.node_classification.model import (
    ChebyshevConfig,
    DeepWalkConfig,
    GATConfig,
    GCNConfig,
    GGNNConfig,
    GraphSAGEConfig,
    LabelPropagationConfig,
    SpectralConfig,
    penalized,
)
from experiments.node_classification.presets import PRESETS, Config
from structdl.core.sparse import sparse_rows
from structdl.training.configs import from_dict, identity, to_dict
from structdl.training.evaluate import make_evaluate
from structdl.training.logging import MetricsLog
from structdl.training.loop import fit
from structdl.training.optimizers import OptimizerConfig, make_optimizer
from structdl.training.run import Run

MODELS = {
    "gcn": GCNConfig(dropout=0.1),
    "chebyshev": ChebyshevConfig(dropout=0.1),
    "gat": GATConfig(hidden=(4,), heads=2, dropout=0.1),
    "sage-mean": GraphSAGEConfig(dropout=0.1),
    "sage-lstm": GraphSAGEConfig((8,), "lstm", max_neighbours=17, dropout=0.1),
    "ggnn": GGNNConfig(8, dropout=0.1),
    "spectral": SpectralConfig(8, (8,), num_control_points=6, dropout=0.1),
}
ADAM = make_optimizer(OptimizerConfig("adam", 0.02))


@pytest.fixture
def with_features(monkeypatch):
    """The karate club, each member of which knows its own number."""

    def loaded(config):
        return load(config)._replace(features=sparse_rows(np.eye(34, dtype=np.float32)))

    monkeypatch.setattr(train, "load", loaded)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_every_network_learns(with_features, model):
    task = train.make_task(Config("karate", model=model))
    log = MetricsLog(None, every=10)
    run = Run(num_steps=60, steps_per_call=10, eval_every=0, num_seeds=2)
    result = fit(task, ADAM, run, log=log)
    losses = [row["train_loss"] for row in log.rows if row["seed"] == 1]
    assert losses[-1] < 0.6 * losses[0]
    if model.__class__ in (GCNConfig, GATConfig):  # the others may know four members by heart
        values = make_evaluate(task)(result.selected, result.state.train.key, result.seeds, "test")
        assert np.all(values["accuracy"] > 0.5)


def test_labels_spread_to_the_factions(with_features):
    model = LabelPropagationConfig(num_iterations=100)
    task = train.make_task(Config("karate", model=model))
    result = fit(task, ADAM, Run(num_steps=0, eval_every=0))
    values = make_evaluate(task)(result.selected, result.state.train.key, (0,), "test")
    assert values["accuracy"] > 0.7


def test_deepwalk_sees_the_factions(with_features):
    model = DeepWalkConfig(8, num_walks=16, length=10, window=3)
    task = train.make_task(Config("karate", model=model))
    result = fit(task, ADAM, Run(num_steps=100, steps_per_call=50, eval_every=0))
    values = make_evaluate(task)(result.selected, result.state.train.key, (0,), "test")
    assert values["accuracy"] > 0.5


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_penalty_leaves_out_biases(with_features, model):
    config = Config("karate", model=model)
    task = train.make_task(config)
    inputs = train.Inputs(task.data, task.seed_data(0), task.batch(0, 0))
    params, _ = jax.jit(task.init)(jax.random.key(0), inputs)
    ones = jax.tree.map(jnp.ones_like, params)
    kept = penalized(model, ones)
    np.testing.assert_allclose(task.penalty(ones), model.l2 * sum(map(jnp.size, kept)) / 2)
    sizes = [jnp.size(leaf) for leaf in jax.tree.leaves(params)]
    biased = [
        path for path, _ in jax.tree_util.tree_leaves_with_path(params) if "bias" in path[-1].key
    ]
    assert len(kept) == 1 or len(kept) == len(sizes) - len(biased)


def test_the_class_of_the_model_is_kept_and_is_identity():
    for preset in PRESETS.values():
        assert from_dict(Config, to_dict(preset.config)) == preset.config
    gcn, chebyshev = (PRESETS[name].config for name in ("gcn-cora", "cheb-cora"))
    changed = dataclasses.replace(gcn, model=chebyshev.model)
    assert identity(gcn)["model"] == "GCNConfig" != identity(changed)["model"]
