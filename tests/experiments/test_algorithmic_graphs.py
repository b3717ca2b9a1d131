"""The contract of algorithmic_graphs, at tiny sizes: padding, metrics, learning, resuming."""

import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.algorithmic_graphs import train
from experiments.algorithmic_graphs.data import (
    PaddedGraphs,
    pad_graphs,
)
from experiments.algorithmic_graphs.figures import draw_depth, layout_of
from experiments.algorithmic_graphs.model import make_model
from experiments.algorithmic_graphs.presets import PRESETS, Config, GCNConfig, GGNNConfig
from experiments.algorithmic_graphs.train import EXPERIMENT, main, make_task
from structdl.core.segment import edge_layout
from structdl.datasets.simulate_algorithmic_graphs import TASKS
from structdl.errors import InputError
from structdl.graphs.gcn import GCN, symmetric_normalization
from structdl.graphs.ggnn import GGNN, typed_edge_layout
from structdl.training.cli import restore_run
from structdl.training.loop import fit
from structdl.training.optimizers import OptimizerConfig, make_optimizer
from structdl.training.profiling import Profile
from structdl.training.run import DataConfig, Run
from structdl.training.state import init_train_state
from structdl.training.step import make_train_step
from structdl.training.task import Inputs

TINY = ["--num-train", "16", "--batch-size", "8", "--layers", "2", "--model.hidden", "4"]
SHORT = ["--steps-per-call", "5", "--eval-every", "5", "--log-every", "5"]


@pytest.fixture(scope="module", autouse=True)
def data_dir(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("data")
        patch.setenv("STRUCTDL_DATA_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def config(data_dir):
    run = Run(num_steps=20, steps_per_call=5, eval_every=5, stopping="patience")
    model, data = GGNNConfig(hidden=4), DataConfig(dir=data_dir)
    return Config(num_train=16, batch_size=8, layers=2, model=model, data=data, run=run)


@pytest.fixture(scope="module")
def task(config):
    return make_task(config)


def drawn(name, number=5):
    rng = np.random.default_rng(3)
    return [TASKS[name].generate(rng, size) for size in rng.integers(4, 9, number).tolist()]


def scores_of(config, name, params, graphs):
    return make_model(config, TASKS[name]).apply({"params": params}, graphs, train=False)


@pytest.mark.parametrize("name", ["euler_circuit", "babi04", "babi18"])
def test_a_graphs_answer_is_that_of_the_graph_alone(name):
    """A batch of padded graphs scores as the network does on each graph without padding."""
    question, graphs = TASKS[name], drawn(name)
    config = Config(graphs=name, layers=3, model=GGNNConfig(hidden=5, head=(3,)))
    padded = pad_graphs(graphs)
    model = make_model(config, question)
    params = model.init(jax.random.key(0), padded, train=False)["params"]
    found = scores_of(config, name, params, padded)
    alone = GGNN(5, 3, num_edge_types=question.num_edge_types, head=(3,))
    method = {"nodes": GGNN.__call__, "node": GGNN.node_scores, "graph": GGNN.graph_logits}
    for row, graph in zip(found, graphs, strict=True):
        layout = typed_edge_layout(
            graph.senders,
            graph.receivers,
            graph.edge_types,
            graph.num_nodes,
            question.num_edge_types,
        )
        pooled = (jnp.zeros(graph.num_nodes, int), 1) if question.output == "graph" else ()
        expected = alone.apply(
            {"params": params["ggnn"]},
            jnp.array(graph.annotations),
            layout,
            *pooled,
            train=False,
            method=method[question.output],
        ).ravel()
        actual = np.atleast_1d(row)[: len(expected)]
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_the_gcn_of_a_batch_is_that_of_the_graph_alone():
    graphs = drawn("far_colour")
    config = Config(graphs="far_colour", layers=3, model=GCNConfig(hidden=5))
    padded = pad_graphs(graphs)
    model = make_model(config, TASKS["far_colour"])
    params = model.init(jax.random.key(0), padded, train=False)["params"]
    found = scores_of(config, "far_colour", params, padded)
    for row, graph in zip(found, graphs, strict=True):
        loops = np.arange(graph.num_nodes)
        ends = [np.append(of, loops) for of in (graph.senders, graph.receivers)]
        layout = edge_layout(*ends, graph.num_nodes)
        alone = GCN((5, 5, 5), 1, use_bias=True, dense_head=True)
        weights = symmetric_normalization(layout)
        expected = alone.apply(
            {"params": params["gcn"]}, jnp.array(graph.annotations), layout, weights, train=False
        )
        np.testing.assert_allclose(row[: graph.num_nodes], expected[:, 0], rtol=1e-4, atol=1e-5)


def padded_targets(targets, node_mask) -> PaddedGraphs:
    return PaddedGraphs(None, None, None, None, jnp.array(node_mask), jnp.array(targets))


def test_metrics_by_hand():
    mask = [[True, True, True, False], [True, True, False, False], [True] * 4]
    counts = jnp.array([True, True, False])  # the third fills up the batch
    graphs = padded_targets([[1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 1, 1]], mask)
    logits = jnp.array([[2.0, -1.0, 1.0, 9.0], [-1.0, -1.0, 9.0, 9.0], [9.0] * 4])
    found = train.node_totals(logits, graphs, counts)
    assert found["accuracy"] == (1, 2)
    assert found["node_accuracy"] == (4, 5)
    losses = np.log1p(np.exp([-2.0, -1.0, -1.0, -1.0, 1.0]))
    np.testing.assert_allclose(found["loss"], (losses.sum(), 5), rtol=1e-6)

    found = train.choice_totals(logits, padded_targets([0, 1, 0], mask), counts)
    assert found["accuracy"] == (1, 2)  # equal scores: the first is chosen
    first = -np.log(np.exp(2) / np.exp([2, -1, 1]).sum())
    np.testing.assert_allclose(found["loss"], (first + np.log(2), 2), rtol=1e-6)

    found = train.graph_totals(jnp.array([3.0, 1.0, 9.0]), padded_targets([1, 0, 1], mask), counts)
    assert found["accuracy"] == (1, 2)
    np.testing.assert_allclose(found["loss"], (np.log1p(np.exp([-3.0, 1.0])).sum(), 2), rtol=1e-6)


def test_what_fills_up_a_batch_does_not_change_a_metric(task):
    model_inputs = Inputs(task.data, (), task.batch(0, 0))
    params, state = task.init(jax.random.key(0), model_inputs)
    (first, *_) = task.eval_batches("validation")
    longer = np.append(first, [-1, -1, -1]).astype(np.int32)
    few, more = (
        task.metrics(params, state, Inputs(task.data, (), batch), None) for batch in (first, longer)
    )
    chex.assert_trees_all_close(few, more, rtol=1e-5)


def test_a_few_steps_lower_the_loss_and_compile_once(task, config, tmp_path):
    profile = Profile(tmp_path)
    optimizer = make_optimizer(OptimizerConfig("adam", 0.02))
    result = fit(task, optimizer, config.run, profile=profile)
    before = task.init(jax.random.key(0), Inputs(task.data, (), task.batch(0, 0)))
    params = jax.tree.map(lambda leaf: leaf[0], result.selected)
    inputs = Inputs(task.data, (), np.arange(16, dtype=np.int32))
    losses = [task.metrics(*each, inputs, None)["loss"][0] for each in (before, params)]
    assert np.isfinite(losses).all()
    assert losses[1] < losses[0]
    assert profile.recompilations == []


def test_raised_steps_go_on_bit_for_bit(tmp_path):
    for folder, steps in (("parts", "10"), ("parts", "20"), ("whole", "20")):
        workdir = ["--workdir", str(tmp_path / folder), "--num-steps", steps]
        main(["ggnn-babi15", *workdir, *TINY, *SHORT])
    fits = [restore_run(tmp_path / folder, EXPERIMENT)[2] for folder in ("parts", "whole")]
    assert fits[0].state.train.step == 20
    chex.assert_trees_all_equal(fits[0].state, fits[1].state)
    assert (tmp_path / "whole" / "figures" / "answer.png").read_bytes()[:4] == b"\x89PNG"
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert 0 <= summary["metrics"]["test_accuracy"]["mean"] <= 1


@pytest.mark.parametrize(
    "name", ["sgd", "momentum", "adagrad", "rmsprop", "adam", "lbfgs", "schedule_free_adamw"]
)
def test_optimizers_take_steps(name, task):
    optimizer = make_optimizer(OptimizerConfig(name, 0.01))
    inputs = Inputs(task.data, (), task.batch(0, 0))
    params, model_state = task.init(jax.random.key(1), inputs)
    state = init_train_state(params, model_state, optimizer, jax.random.key(2))
    step = jax.jit(make_train_step(task, optimizer))
    for _ in range(3):
        state, diagnostics = step(state, inputs)
    assert np.isfinite(diagnostics["loss"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch_size": 17}, "--batch-size is 17"),
        ({"model": GGNNConfig(hidden=0)}, "--model.hidden is 0"),
        ({"model": GCNConfig()}, "one type of edges"),
    ],
)
def test_bad_options_are_named(change, words, config):
    with pytest.raises(InputError, match=words):
        make_task(dataclasses.replace(config, **change))


def test_presets_name_tasks():
    assert {preset.config.graphs for preset in PRESETS.values()} == set(TASKS)


def test_a_drawn_path_is_a_line(tmp_path):
    path = np.array([(0, 1, 0), (1, 2, 0), (2, 3, 0)])
    apart = np.linalg.norm(np.diff(layout_of(path, 4), axis=0), axis=1)
    np.testing.assert_allclose(apart, 1, atol=0.05)
    row = {"preset": "depth-gcn", "system": "GCN", "dataset": "paths, 2 layers"}
    draw_depth([row | {"mean": 0.5, "std": 0.1}], tmp_path / "depth.png")
    assert (tmp_path / "depth.png").exists()
    draw_depth([], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
