"""The inductive experiment's contract, on the small block model and on graphs made here."""

import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.inductive.data import induce, padded_batches, some
from experiments.inductive.presets import PRESETS
from experiments.inductive.train import EXPERIMENT, main, make_task, totals
from structdl.errors import InputError
from structdl.training.cli import restore_run
from structdl.training.loop import fit
from structdl.training.metrics import add_totals, means
from structdl.training.optimizers import OptimizerConfig, make_optimizer
from structdl.training.profiling import Profile
from structdl.training.run import Run
from structdl.training.task import Inputs

TINY = ["--model.hidden", "8", "8", "--model.fan-outs", "3", "3", "--eval-nodes", "64"]
TINY += ["--batch-size", "32", "--eval-batch-size", "64"]
SHORT = ["--eval-every", "10", "--steps-per-call", "10", "--log-every", "10"]


def run(workdir, *options: str) -> dict:
    main(["--workdir", str(workdir), *TINY, *SHORT, *options])
    return json.loads((workdir / "summary.json").read_text())


def test_a_resumed_run_is_the_uninterrupted_one_and_reports_its_costs(tmp_path):
    run(tmp_path / "parts", "--num-steps", "20")
    resumed = run(tmp_path / "parts", "--num-steps", "40")
    whole = run(tmp_path / "whole", "--num-steps", "40")
    assert [resumed["resumed"], whole["resumed"]] == [1, 0]
    assert resumed["metrics"] == whole["metrics"]
    fits = [restore_run(tmp_path / name, EXPERIMENT)[2] for name in ("parts", "whole")]
    chex.assert_trees_all_equal(fits[0].state, fits[1].state)
    log = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    losses = [row["train_loss"] for row in map(json.loads, log) if "train_loss" in row]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    assert whole["costs"]["examples_per_second"]["mean"] > 0
    assert 0.05 < whole["costs"]["peak_memory_gb"]["mean"] < 20
    assert (tmp_path / "whole" / "figures" / "degrees.png").read_bytes()[:4] == b"\x89PNG"


CARD = {
    "sgd": 0.1,
    "momentum": 0.1,
    "adagrad": 0.1,
    "rmsprop": 0.01,
    "adam": 0.01,
    "lbfgs": 1.0,
    "schedule_free_adamw": 0.01,
}


@pytest.fixture(scope="module")
def task(data_dir):
    config = EXPERIMENT.presets["sage-mean-small"].config
    model = config.model.__class__(hidden=(8, 8), fan_outs=(3, 3))
    return make_task(
        config.__class__(
            dataset=config.dataset,
            batch_size=32,
            eval_batch_size=64,
            eval_nodes=64,
            model=model,
            data=config.data.__class__(dir=data_dir),
        )
    )


@pytest.fixture(scope="module")
def validation_loss(task):
    metrics = jax.jit(task.metrics)

    def loss(result) -> float:
        params = jax.tree.map(lambda leaf: leaf[0], result.selected[0])
        inputs = Inputs(task.data, (), task.eval_batches("validation")[0])
        total, count = metrics(params, (), inputs, jax.random.key(0))["loss"]
        return float(total / count)

    return loss


@pytest.fixture(scope="module")
def untrained_loss(task, validation_loss):
    optimizer = make_optimizer(OptimizerConfig("sgd", 0.1))
    return validation_loss(fit(task, optimizer, Run(num_steps=0)))


@pytest.mark.parametrize("name", CARD)
def test_every_optimizer_of_the_card_lowers_the_loss_in_one_program(
    name, task, validation_loss, untrained_loss
):
    optimizer, profile = make_optimizer(OptimizerConfig(name, CARD[name])), Profile()
    run = Run(num_steps=20, steps_per_call=5, eval_every=0, seed_mode="loop")
    result = fit(task, optimizer, run, profile=profile)
    assert profile.recompilations == []
    assert not result.state.diverged.any()
    after = validation_loss(result)
    assert np.isfinite(after)
    assert after < untrained_loss


def test_f1_and_loss_by_hand_and_over_batches():
    logits = jnp.array([[1.0, -1.0, 2.0], [-3.0, 0.5, -0.5], [9.0, 9.0, 9.0]])
    labels = jnp.array([[1, 1, 0], [0, 1, 1], [0, 0, 0]], jnp.uint8)
    mask = jnp.array([True, True, False])
    # TP: (0, 0), (1, 1); FP: (0, 2); FN: (0, 1), (1, 2)
    whole = totals(logits, labels, mask)
    assert [int(each) for each in whole["f1"]] == [4, 7]
    z, y = np.asarray(logits)[:2], np.asarray(labels)[:2]
    losses = np.log1p(np.exp(np.where(y == 1, -z, z)))
    np.testing.assert_allclose(whole["loss"][0], losses.mean(axis=1).sum(), rtol=1e-6)
    parts = [totals(*(leaf[at : at + 1] for leaf in (logits, labels, mask))) for at in range(3)]
    np.testing.assert_allclose(means(add_totals(parts))["f1"], 4 / 7, rtol=1e-6)


def test_accuracy_leaves_the_padding_out():
    logits = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = totals(logits, jnp.array([0, 1, -1]), jnp.array([True, True, False]))
    assert [int(each) for each in found["accuracy"]] == [1, 2]
    expected = np.log1p(np.exp(-1.0)) + np.log1p(np.exp(1.0))
    np.testing.assert_allclose(found["loss"][0], expected, rtol=1e-6)


def test_the_seen_graph_holds_nothing_of_the_others():
    edges = np.array([[0, 1], [0, 3], [1, 2], [2, 3], [2, 2], [3, 4]])
    features, labels = np.arange(5.0)[:, None], np.arange(5)
    data = induce(edges, features, labels, np.array([0, 2, 3]))
    assert data.seen.labels.tolist() == [0, 2, 3]
    assert data.seen.features[:, 0].tolist() == [0, 2, 3]
    assert data.seen.lists.offsets.tolist() == [0, 1, 2, 4]
    # 0 knows 3, 2 knows 3, 3 knows both; the loop is no neighbour
    assert data.seen.lists.neighbours[:2].tolist() == [2, 2]
    assert set(data.seen.lists.neighbours[2:].tolist()) == {0, 1}
    assert data.whole.lists.offsets.tolist() == [0, 2, 4, 6, 9, 10]


def test_what_is_trained_knows_nothing_of_unseen_nodes(task):
    """The loss keeps its value where the whole graph is blanked."""
    params = jax.jit(task.init)(jax.random.key(0), Inputs(task.data, (), ()))[0]
    loss_fn = jax.jit(task.loss_fn)
    batch = task.batch(0, 0)
    nothing = jax.tree.map(jnp.zeros_like, task.data.whole)
    found = [
        loss_fn(params, (), Inputs(data, (), batch), jax.random.key(1))[0]
        for data in (task.data, task.data._replace(whole=nothing))
    ]
    chex.assert_trees_all_equal(*found)


def test_evaluation_covers_the_nodes_once():
    nodes = np.arange(7, 30)
    batches = padded_batches(nodes, 10)
    assert {len(batch.nodes) for batch in batches} == {10}
    kept = np.concatenate([batch.nodes[batch.mask] for batch in batches])
    np.testing.assert_array_equal(kept, nodes)
    np.testing.assert_array_equal(some(nodes, 0), nodes)
    drawn = some(nodes, 5)
    assert len(set(drawn.tolist()) & set(nodes.tolist())) == 5
    np.testing.assert_array_equal(some(nodes, 5), drawn)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dataset", "cola"], "did you mean 'cora'"),
        (["--batch-size", "5000"], "--batch-size is 5000: give 1 to 1200"),
        (["--eval-batch-size", "0"], "--eval-batch-size is 0"),
        (["--eval-nodes", "-1"], "--eval-nodes is -1"),
        (["--model.fan-outs", "5"], "--model.fan-outs is (5,)"),
        (["--model.hidden"], "--model.hidden is ()"),
        (["--model.aggregator-features", "0"], "--model.aggregator-features is 0"),
    ],
)
def test_bad_options_are_named(options, words, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--workdir", str(tmp_path / "run"), *options])
    assert stopped.value.code == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_a_figure_without_its_costs_is_not_recorded():
    from structdl.training.experiment import ledger_rows

    preset, value = "sage-mean-large", {"mean": 0.5, "std": 0.0, "count": 1}
    summary = {
        "commits": ["0" * 12],
        "steps": {"mean": 1},
        "seconds": {"train": 1.0},
        "device": "",
        "versions": {},
        "diverged": 0,
        "metrics": {"test_f1": value},
        "costs": {"peak_memory_gb": value},
    }
    config = PRESETS[preset].config
    with pytest.raises(InputError, match="examples_per_second was not measured"):
        ledger_rows(EXPERIMENT, preset, config, summary, [preset])
    summary["costs"]["examples_per_second"] = value
    rows = ledger_rows(EXPERIMENT, preset, config, summary, [preset])
    assert [row["published"] for row in rows] == [0.598, None, None]
