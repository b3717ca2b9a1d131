"""Link prediction on the karate club: no leak, figures by hand, and the contract of experiments."""

import dataclasses
import json
import os
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.link_prediction.data import LabelledGraph, link_data, load, walk_data
from experiments.link_prediction.model import embed, encode
from experiments.link_prediction.presets import KARATE, AutoEncoderConfig, Config, SageConfig
from experiments.link_prediction.train import EXPERIMENT, main, make_task
from experiments.link_prediction.walks import classify, walk_loss
from structdl.errors import InputError
from structdl.graphs.graph import graph_from_edges, symmetrize
from structdl.training.cli import parse, restore_run
from structdl.training.experiment import published_figures
from structdl.training.logging import MetricsLog
from structdl.training.loop import fit
from structdl.training.optimizers import OptimizerConfig, make_optimizer
from structdl.training.profiling import Profile
from structdl.training.task import Inputs

# seeds one after another, as in its presets
SAGE_RUN = dataclasses.replace(KARATE.run, seed_mode="loop")
SAGE = dataclasses.replace(KARATE, model=SageConfig(hidden=(8, 8)), run=SAGE_RUN)
SHORT = ["--num-steps", "20", "--steps-per-call", "10", "--log-every", "10"]
TEST = 1  # the row of a split


def short(config: Config, **changes) -> Config:
    run = dict(num_steps=20, steps_per_call=10, eval_every=10) | changes
    return dataclasses.replace(config, run=dataclasses.replace(config.run, **run))


@pytest.fixture(scope="module")
def task():
    return make_task(KARATE)


@pytest.fixture(scope="module")
def trained(task):
    config = short(KARATE, num_seeds=2)
    return fit(task, make_optimizer(config.optimizer), config.run)


def evaluated(task, params, seed_data, row):
    inputs = Inputs(task.data, seed_data, np.int32(row))
    totals = jax.jit(task.metrics)(params, (), inputs, jax.random.key(0))
    return {name: float(total / count) for name, (total, count) in totals.items()}


def dense_encoder(params, layout, weights):
    """W_0, then W_1, each after the matrix that the weights are the entries of."""
    matrix = np.zeros((layout.num_receivers, layout.num_receivers))
    np.add.at(matrix, (np.asarray(layout.receivers), np.asarray(layout.senders)), weights)
    hidden = np.maximum(matrix @ np.asarray(params["hidden_layer"]["kernel"]), 0)
    return matrix, matrix @ hidden @ np.asarray(params["embedding"]["kernel"])


def test_the_encoder_sees_the_training_edges_and_no_other(task, trained):
    """Its matrix is D^-1/2 (A + I) D^-1/2, built here from the training edges alone."""
    split = task.seed_data(0)
    adjacency = np.eye(34)
    adjacency[split.receivers, split.senders] = 1
    degrees = adjacency.sum(axis=1)
    expected = adjacency / np.sqrt(np.outer(degrees, degrees))
    params = jax.tree.map(lambda leaf: leaf[0], trained.selected[0])
    matrix, embeddings = dense_encoder(params, task.data.layout, split.weights)
    np.testing.assert_allclose(matrix, expected, atol=1e-6)
    found, _ = encode(KARATE.model, params, task.data, split.weights)
    np.testing.assert_allclose(found, embeddings, atol=1e-5)


def test_what_is_asked_was_not_shown_and_is_half_edges(task):
    club = load(KARATE).graph
    edges = set(zip(club.senders.tolist(), club.receivers.tolist(), strict=True))
    splits = [task.seed_data(seed) for seed in range(3)]
    for split in splits:
        shown = set(zip(split.senders.tolist(), split.receivers.tolist(), strict=True))
        assert len(shown) == 2 * (78 - 7 - 15)
        assert split.mask.sum(axis=1).tolist() == [14, 30]
        for pairs, is_edge, mask in zip(split.pairs, split.is_edge, split.mask, strict=True):
            assert is_edge[mask].mean() == 0.5
            for pair, joined in zip(pairs[mask].tolist(), is_edge[mask], strict=True):
                assert (tuple(pair) in edges) == joined
                assert tuple(pair) not in shown
    assert (splits[0].pairs[TEST] != splits[1].pairs[TEST]).any()
    chex.assert_trees_all_equal_shapes(*splits)


def test_metrics_by_hand(task, trained):
    split = task.seed_data(1)
    params = jax.tree.map(lambda leaf: leaf[1], trained.selected[0])
    _, embeddings = dense_encoder(params, task.data.layout, split.weights)
    for row, count in enumerate((14, 30)):
        first, second = split.pairs[row, :count].T
        logits = np.sum(embeddings[first] * embeddings[second], axis=1)
        edges, others = logits[: count // 2], logits[count // 2 :]
        wins = np.mean((edges[:, None] > others) + 0.5 * (edges[:, None] == others))
        precisions = [np.sum(edges >= score) / np.sum(logits >= score) for score in edges]
        losses = np.concatenate([np.log1p(np.exp(-edges)), np.log1p(np.exp(others))])
        found = evaluated(task, params, split, row)
        np.testing.assert_allclose(found["auc"], wins, rtol=1e-4)
        np.testing.assert_allclose(found["average_precision"], np.mean(precisions), rtol=1e-4)
        np.testing.assert_allclose(found["loss"], np.mean(losses), rtol=1e-4)


def test_padding_pairs_change_no_metric(task, trained):
    split = task.seed_data(0)
    params = jax.tree.map(lambda leaf: leaf[0], trained.selected[0])
    padding = (0, 0), (0, 5)
    longer = split._replace(
        pairs=np.pad(split.pairs, (*padding, (0, 0)), constant_values=3),
        is_edge=np.pad(split.is_edge, padding, constant_values=True),
        mask=np.pad(split.mask, padding),
    )
    for row in range(2):
        expected = evaluated(task, params, split, row)
        chex.assert_trees_all_close(evaluated(task, params, longer, row), expected, rtol=1e-6)


def test_without_held_out_edges_there_is_no_validation():
    model = AutoEncoderConfig(hidden=8, features=2, validation=0.0, test=0.2)
    task = make_task(dataclasses.replace(KARATE, model=model))
    assert not task.eval_batches("validation")
    assert len(task.eval_batches("test")) == 1


@pytest.mark.parametrize(
    "config",
    [KARATE, dataclasses.replace(KARATE, model=AutoEncoderConfig(True, 8, 4)), SAGE],
    ids=["gae", "vgae", "sage"],
)
def test_the_loss_falls_and_the_call_compiles_once(config):
    log, profile = MetricsLog(None, every=10), Profile()
    config = short(config, num_steps=60, num_seeds=2)
    fit(make_task(config), make_optimizer(config.optimizer), config.run, log=log, profile=profile)
    for seed in range(2):
        losses = [row["train_loss"] for row in log.rows if row["seed"] == seed]
        assert len(losses) == 6
        assert np.all(np.isfinite(losses))
        assert losses[-1] < losses[0]
    assert profile.recompilations == []


@pytest.mark.parametrize(
    "name", ["sgd", "momentum", "adagrad", "rmsprop", "adam", "lbfgs", "schedule_free_adamw"]
)
def test_optimizers_take_a_few_steps(name):
    config = short(KARATE, num_steps=3, steps_per_call=3, eval_every=0)
    rate = 1.0 if name == "lbfgs" else 0.01
    result = fit(make_task(config), make_optimizer(OptimizerConfig(name, rate)), config.run)
    assert result.state.train.step.tolist() == [3]
    assert not result.state.diverged.any()


def test_a_raised_run_equals_an_uninterrupted_one(tmp_path):
    for path, steps in (("parts", "10"), ("parts", "20"), ("whole", "20")):
        main(["karate", "--workdir", str(tmp_path / path), *SHORT, "--num-steps", steps])
    states = [restore_run(tmp_path / path, EXPERIMENT)[2].state for path in ("parts", "whole")]
    chex.assert_trees_all_equal(*states)
    summary = json.loads((tmp_path / "parts" / "summary.json").read_text())
    assert summary["resumed"] == 1
    assert {"test_auc", "test_average_precision"} <= summary["metrics"].keys()
    for picture in ("embedding.png", "learning_curves.png"):
        assert (tmp_path / "parts" / "figures" / picture).read_bytes()[:4] == b"\x89PNG"


def test_sage_runs_from_the_command_line(tmp_path, capsys):
    options = ["--dataset", "karate", "--model.hidden", "8", "--workdir", str(tmp_path)]
    main(["sage-unsupervised-cora", *options, *SHORT])
    assert "test_accuracy" in capsys.readouterr().out
    assert (tmp_path / "figures" / "embedding.png").exists()


def two_stars() -> LabelledGraph:
    """Nodes 0 and 1 are hubs of three leaves each, classes the stars."""
    edges = [(0, 2), (0, 3), (0, 4), (1, 5), (1, 6), (1, 7)]
    graph = symmetrize(graph_from_edges(*zip(*edges, strict=True), num_nodes=8))
    labels = np.array([0, 1, 0, 0, 0, 1, 1, 1], np.int32)
    nodes = map(np.array, ([0, 1], [2, 5], [3, 4, 6, 7]))
    return LabelledGraph(graph, np.eye(8, dtype=np.float32), labels, *nodes, num_classes=2)


def test_walk_loss_by_hand():
    """From a leaf a walk meets its hub, and on its second step perhaps itself, which counts not."""
    data = walk_data(two_stars())
    config = SageConfig(walk_length=1, num_negatives=3, negative_weight=2.0)
    embeddings = np.eye(8, 3, dtype=np.float32) + 0.5
    embeddings[2:5], embeddings[5:8] = embeddings[0] * 2, embeddings[1] * 2
    total, count = walk_loss(config, jax.random.key(0), jnp.asarray(embeddings), data)
    assert count == 8
    hub = np.where(np.asarray(data.labels) == 0, 0, 1)
    met = np.where(np.arange(8) < 2, np.array([2, 5])[hub], hub)  # all leaves of a hub are alike
    attraction = np.log1p(np.exp(-np.sum(embeddings * embeddings[met], axis=1))).sum()
    # what the negatives add depends on the draw: between that of the nearest and the farthest
    products = np.log1p(np.exp(embeddings @ embeddings.T))
    low, high = products.min(axis=1).sum(), products.max(axis=1).sum()
    assert attraction + 2 * low <= total <= attraction + 2 * high
    config = dataclasses.replace(config, negative_weight=0.0)
    total, _ = walk_loss(config, jax.random.key(0), jnp.asarray(embeddings), data)
    np.testing.assert_allclose(total, attraction, rtol=1e-5)
    _, count = walk_loss(
        dataclasses.replace(config, walk_length=2), jax.random.key(0), jnp.asarray(embeddings), data
    )
    assert 8 <= count <= 14  # a hub's second step is always itself


def test_the_classifier_learns_from_the_training_nodes_alone():
    data = walk_data(two_stars())
    stars = jnp.asarray(np.eye(2, dtype=np.float32)[np.asarray(data.labels)])
    assert classify(stars, data, 2).all()
    # what the other labels are changes what is right, not what is said
    swapped = data._replace(labels=jnp.where(jnp.arange(8) < 2, data.labels, 1 - data.labels))
    assert classify(stars, swapped, 2).tolist() == [True] * 2 + [False] * 6


def test_embeddings_are_judged_on_the_nodes_of_the_split():
    task = make_task(SAGE)
    inputs = Inputs(task.data, (), np.int32(0))
    params, _ = task.init(jax.random.key(0), inputs)
    correct = classify(embed(SAGE.model, params, task.data), task.data, 4)
    metrics = jax.jit(task.metrics)
    for row in range(2):
        inputs = inputs._replace(batch=np.int32(row))
        total, count = metrics(params, (), inputs, jax.random.key(1))["accuracy"]
        assert count == 15
        assert total == np.sum(correct, where=np.asarray(task.data.masks[row]))


def test_published_figures_stand_beside_their_presets():
    preset, config = parse(EXPERIMENT, ["vgae-citeseer", "--num-seeds", "7"])
    figures = published_figures(EXPERIMENT, preset, config)
    assert {name: figure.value for name, figure in figures.items()} == {
        "test_auc": 0.908,
        "test_average_precision": 0.920,
    }
    preset, config = parse(EXPERIMENT, ["vgae-citeseer", "--model.test", "0.2"])
    assert published_figures(EXPERIMENT, preset, config) == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["karate", "--dataset", "coro"], "unknown data set 'coro': did you mean 'cora'"),
        (["karate", "--model.hidden", "0"], "--model.hidden is 0"),
        (["karate", "--model.validation", "1.5"], "--model.validation is 1.5"),
        (["karate", "--model.validation", "0.95"], "validation = 0.95"),
        (["sage-unsupervised-cora", "--dataset", "karate", "--model.walk-length", "0"],
         "--model.walk-length is 0"),
        (["sage-unsupervised-cora", "--dataset", "karate", "--model.hidden"],
         "--model.hidden is ()"),
    ],
)  # fmt: skip
def test_bad_options_are_named(options, words, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([*options, "--workdir", str(tmp_path / "run")])
    assert words in " ".join(capsys.readouterr().err.split())


def raw_files() -> Path | None:
    folders = [os.environ.get("STRUCTDL_RAW_DIR"), Path(__file__).parents[3] / "shared" / "data"]
    return next((Path(f) for f in folders if f and (Path(f) / "planetoid").exists()), None)


@pytest.mark.skipif(raw_files() is None, reason="the raw files are not at hand")
def test_cora_has_the_split_of_the_paper():
    _, config = parse(EXPERIMENT, ["gae-cora", "--data.raw-dir", str(raw_files())])
    _, split = link_data(load(config), validation=0.05, test=0.10)
    found = split(0)
    assert len(found.senders) == 2 * (5278 - 263 - 527)
    assert found.mask.sum(axis=1).tolist() == [2 * 263, 2 * 527]


def test_an_unknown_set_is_refused():
    with pytest.raises(InputError, match="did you mean 'karate'"):
        load(dataclasses.replace(KARATE, dataset="karat"))
