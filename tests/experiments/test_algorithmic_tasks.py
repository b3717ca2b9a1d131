"""Parity, addition and memorization: models against loops, totals by hand, and runs that stop."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.algorithmic_tasks.data import features, num_classes
from experiments.algorithmic_tasks.figures import draw_samples
from experiments.algorithmic_tasks.model import make_model
from experiments.algorithmic_tasks.presets import (
    PRESETS,
    Config,
    FeedForwardConfig,
    GridLSTMConfig,
    StackedLSTMConfig,
)
from experiments.algorithmic_tasks.train import answer_totals, main, make_task
from structdl.errors import InputError
from structdl.training.run import DataConfig, Run

SMALL = {"num_train": 40, "batch_size": 5, "length": 4, "num_symbols": 3}
MODELS = [
    ("parity", GridLSTMConfig(3, 2)),
    ("parity", FeedForwardConfig(3, 2, tied=False, activation="relu")),
    ("addition", GridLSTMConfig(3, 2, tied=False)),
    ("memorization", StackedLSTMConfig(3, 2)),
]


def initial(config: Config):
    model = make_model(config, num_classes(config))
    inputs = jnp.zeros((2, 4) if config.problem == "parity" else (2, 10), jnp.uint8)
    params = model.init(jax.random.key(0), features(config, inputs))["params"]
    keys = iter(jax.random.split(jax.random.key(1), 100))
    return model, jax.tree.map(
        lambda leaf: leaf + 0.3 * jax.random.normal(next(keys), leaf.shape), params
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("tied", [True, False])
def test_a_one_lstm_runs_along_depth_alone(tied):
    config = Config(model=GridLSTMConfig(3, 4, tied), length=4)
    model, params = initial(config)
    bits = np.array([[1, 0, 1, 1], [0, 0, 1, 0]], np.float32)
    p = jax.tree.map(np.asarray, params)
    projected = bits @ p["projection"]["kernel"] + p["projection"]["bias"]
    hidden, memory = projected[:, :3], projected[:, 3:]
    for layer in range(4):
        own = () if tied else layer
        gates = hidden @ p["grid"]["kernel_0"][own] + p["grid"]["bias_0"][own]
        enter, forget, candidate, leave = np.split(gates, 4, axis=1)
        memory = sigmoid(forget) * memory + sigmoid(enter) * np.tanh(candidate)
        hidden = np.tanh(sigmoid(leave) * memory)
    top = np.concatenate([hidden, memory], axis=1)
    expected = top @ p["readout"]["kernel"] + p["readout"]["bias"]
    found = model.apply({"params": params}, jnp.asarray(bits))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("activation", "tied"), [("tanh", True), ("relu", False)])
def test_a_tied_feed_forward_network_repeats_one_layer(activation, tied):
    config = Config(model=FeedForwardConfig(3, 4, tied, activation), length=4)
    model, params = initial(config)
    names = {name for name in params if name.startswith("layer_")}
    assert names == ({"layer_0"} if tied else {f"layer_{place}" for place in range(4)})
    apply = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0)}[activation]
    x = np.array([[1, 0, 1, 1]], np.float32)
    for name in ("projection", *(f"layer_{0 if tied else place}" for place in range(4))):
        x = apply(x @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"]))
    expected = x @ np.asarray(params["readout"]["kernel"]) + np.asarray(params["readout"]["bias"])
    found = model.apply({"params": params}, jnp.array([[1.0, 0, 1, 1]]))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_string_is_right_where_all_of_its_answer_is():
    scores = np.log(
        np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.6, 0.4], [0.7, 0.3]], [[0.5, 0.5]] * 2])
    )
    targets = np.array([[0, 1], [0, 1], [0, 0]], np.uint8)
    counts = jnp.array([True, True, False])
    found = answer_totals(jnp.asarray(scores), jnp.asarray(targets), counts)
    total, number = found["loss"]
    assert int(number) == 4, "two strings of two symbols"
    np.testing.assert_allclose(total, -np.log([0.9, 0.8, 0.6, 0.3]).sum(), rtol=1e-6)
    assert tuple(map(int, found["accuracy"])) == (1, 2)
    parity = answer_totals(jnp.asarray(scores[:, 0]), jnp.asarray(targets[:, 0]), counts)
    assert (tuple(map(int, parity["accuracy"])), int(parity["loss"][1])) == ((2, 2), 2)


@pytest.mark.parametrize(("problem", "model"), MODELS)
def test_every_model_runs_and_its_task_reads_what_the_problem_gives(tmp_path, problem, model):
    config = Config(problem, model=model, data=DataConfig(dir=tmp_path), **SMALL)
    task = make_task(config)
    params, _ = task.init(jax.random.key(0), _inputs(task, task.batch(0, 0)))
    totals = task.metrics(params, (), _inputs(task, task.eval_batches("test")[0]), None)
    time = {"parity": 1, "addition": 16, "memorization": 10}[problem]
    assert (int(totals["accuracy"][1]), int(totals["loss"][1])) == (500, 500 * time)
    chance = np.log(num_classes(config))
    assert 0.3 * chance < float(totals["loss"][0]) / (500 * time) < 3 * chance


def _inputs(task, batch):
    from structdl.training.task import Inputs

    return Inputs(jax.tree.map(jnp.asarray, task.data), (), jnp.asarray(batch))


def test_short_parity_is_solved_and_the_run_stops_there(tmp_path, capsys):
    options = ["--length", "3", "--num-train", "5000", "--batch-size", "50", "--model.hidden"]
    options += ["16", "--model.num-layers", "2", "--optimizer.learning-rate", "0.02"]
    options += ["--data.dir", str(tmp_path / "data"), "--workdir", str(tmp_path / "run")]
    main(["grid-parity", *options])
    assert "test_accuracy          1.0000" in capsys.readouterr().out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    steps = summary["steps"]["mean"]
    assert steps % 500 == 0 < steps < PRESETS["grid-parity"].config.run.num_steps
    figures = {path.name for path in (tmp_path / "run" / "figures").iterdir()}
    assert figures == {"learning_curves.png", "models.png", "answers.png"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": StackedLSTMConfig()}, "parity gives all bits at once"),
        ({"problem": "addition", "model": FeedForwardConfig()}, "reads all bits at once"),
        ({"length": 0}, "the number of bits is 0"),
    ],
)
def test_what_does_not_go_together_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        make_task(dataclasses.replace(Config(run=Run()), **options))


def test_samples_are_drawn_of_the_ledgers_rows(tmp_path, monkeypatch):
    drawn = []

    def savefig(figure, path, **_):
        (axis,) = figure.axes
        drawn.append(
            (
                path.name,
                [bar.get_width() for bar in axis.patches],
                [text.get_text() for text in axis.texts],
            )
        )

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)
    row = {"dataset": "parity of bits, 10 length", "system": "tied 1-LSTM, 12 x 64 units"}
    rows = [
        row | {"preset": "grid-parity", "steps": 1500, "mean": 0.999},
        row | {"preset": "relu-parity", "steps": 20_000, "mean": 0.9, "system": "relu"},
        row | {"preset": "tanh-parity", "steps": 30_000, "mean": 0.6, "system": "tanh"},
    ]
    draw_samples(rows, tmp_path)
    words = [" ", " not solved", " not by all seeds"]
    assert drawn == [("samples-parity.png", [150, 3000, 2000], words)]
