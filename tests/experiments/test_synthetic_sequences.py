"""The adding problem and copy memory on short sequences."""

import dataclasses
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments.sequence_model import GRUConfig, TCNConfig
from experiments.synthetic_sequences.data import PROBLEMS, baseline
from experiments.synthetic_sequences.figures import draw_lengths, draw_sums
from experiments.synthetic_sequences.model import features, make_model
from experiments.synthetic_sequences.presets import PRESETS, Config
from experiments.synthetic_sequences.train import EXPERIMENT, copy_totals, main, make_task
from structdl.datasets import adding, copy_memory
from structdl.temporal.receptive_field import receptive_field
from structdl.training.run import DataConfig, Run

TINY = ["--model.hidden", "4", "--parameters", "0", "--batch-size", "8", "--length", "6"]
TINY += ["--num-train", "24"]


@pytest.fixture(scope="module")
def config(data_dir):
    return Config(
        length=6,
        num_train=24,
        model=GRUConfig(4),
        parameters=0,
        batch_size=8,
        data=DataConfig(dir=data_dir),
        run=Run(num_steps=6, eval_every=0, steps_per_call=2),
    )


@pytest.fixture(scope="module")
def tasks(config):
    configs = [dataclasses.replace(config, problem=problem) for problem in PROBLEMS]
    return {each.problem: (each, make_task(each)) for each in configs}


def test_adding_answers_after_the_last_step_and_is_judged_by_the_squared_error(
    tasks, initial, metrics_of, loss_of
):
    config, task = tasks["adding"]
    params = initial(task)
    batch = task.eval_batches("validation")[0]
    found = metrics_of(task, params, batch)
    inputs, targets = task.data.inputs[batch], task.data.targets[batch]
    # the target is the sum of the marked numbers, and the answer is that of the whole sequence
    np.testing.assert_allclose(np.sum(inputs[..., 0] * inputs[..., 1], axis=1), targets, rtol=1e-6)
    encoder, readout = params["encoder"], params["readout"]
    every = dataclasses.replace(make_model(config), last=False)
    answers = every.apply({"params": params}, jnp.asarray(inputs), train=False)[:, -1, 0]
    assert (set(encoder), readout["kernel"].shape) == ({"layers_0"}, (4, 1))
    total, count = found["loss"]
    assert int(count) == len(batch) == 250
    np.testing.assert_allclose(total, np.sum((answers - targets) ** 2), rtol=1e-5)
    chex.assert_trees_all_close(loss_of(task, params, batch), (total, count), rtol=1e-5)


def test_copying_is_judged_by_all_steps_and_its_accuracy_by_the_last_ten(
    tasks, initial, metrics_of, loss_of
):
    config, task = tasks["copy"]
    params = initial(task)
    batch = task.eval_batches("test")[0]
    found = metrics_of(task, params, batch)
    inputs = jax.nn.one_hot(task.data.inputs[batch], 10)
    scores = make_model(config).apply({"params": params}, inputs, train=False)
    chances = np.asarray(jax.nn.softmax(scores), np.float64)
    total, right = 0.0, 0
    for sequence, target in zip(chances, task.data.targets[batch], strict=True):
        for step, symbol in enumerate(target):
            total -= np.log(sequence[step, symbol])
            right += step >= len(target) - 10 and sequence[step].argmax() == symbol
    assert int(found["loss"][1]) == 250 * 26
    np.testing.assert_allclose(found["loss"][0], total, rtol=1e-5)
    assert [int(value) for value in found["accuracy"]] == [right, 250 * 10]
    chex.assert_trees_all_close(loss_of(task, params, batch), found["loss"], rtol=1e-5)


def test_the_baselines_are_the_losses_of_who_remembers_nothing(tasks):
    config, task = tasks["adding"]
    assert np.mean((task.data.targets - 1) ** 2) == pytest.approx(baseline(config).value, abs=0.01)
    config, task = tasks["copy"]
    targets = jnp.asarray(task.data.targets)
    # certain of the blanks, and of nothing but a symbol's coming at the end
    scores = np.full((*targets.shape, 10), -100.0, np.float32)
    scores[:, :-10, 0] = scores[:, -10:, 1:9] = 0
    totals = copy_totals(jnp.asarray(scores), targets, jnp.ones(len(targets), bool))
    total, count = totals["loss"]
    assert float(total / count) == pytest.approx(baseline(config).value, rel=1e-5)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_batch_of_no_sequences_counts_nothing(tasks, problem, initial, metrics_of):
    _, task = tasks[problem]
    totals = metrics_of(task, initial(task), np.full(8, -1, np.int32))
    assert all((float(total), int(count)) == (0, 0) for total, count in totals.values())


@pytest.mark.parametrize(("problem", "source"), [("adding", adding), ("copy", copy_memory)])
def test_batches_are_of_their_splits(tasks, problem, source, batches_are_of_their_splits):
    config, task = tasks[problem]
    splits = source.load(config.length, num_train=config.num_train, data_dir=config.data.dir)

    def rows(inputs, targets):
        return [*zip(inputs.tolist(), targets.tolist(), strict=True)]

    trained = batches_are_of_their_splits(
        task,
        {name: rows(*split) for name, split in splits._asdict().items()},
        lambda batch: batch[batch >= 0],
        lambda sequences: rows(*(leaf[sequences] for leaf in task.data)),
        steps=3,
    )
    assert trained == 24


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_only_dropout_draws(config, dropout, only_noise_draws):
    model = dataclasses.replace(config.model, dropout=dropout)
    only_noise_draws(make_task(dataclasses.replace(config, model=model)), draws=bool(dropout))


@pytest.mark.parametrize("name", PRESETS)
def test_the_models_that_are_compared_have_one_size(name, has_its_stated_size):
    config = PRESETS[name].config
    has_its_stated_size(config, 8, PROBLEMS[config.problem].in_features)
    if isinstance(config.model, TCNConfig):
        field = receptive_field(config.model.kernel_size, config.model.num_levels)
        assert field >= config.length


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_few_steps_lower_the_loss_and_compile_once(tasks, problem, few_steps_lower_the_loss):
    config, task = tasks[problem]
    few_steps_lower_the_loss(task, config.run, task.batch(0, 0))


def test_every_optimizer_takes_steps(tasks, optimizer_takes_steps):
    config, task = tasks["adding"]
    optimizer_takes_steps(task, config.run)


def test_a_run_that_goes_on_equals_one_that_was_not_interrupted(resumed_equals_whole):
    figures = resumed_equals_whole(EXPERIMENT, [*TINY, "--problem", "copy"])
    pictures = {path.name for path in figures.iterdir()}
    assert pictures == {"learning_curves.png", "models.png", "answers.png"}


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    saved = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, dpi: saved.append(figure))
    return saved


def test_the_answers_of_the_adding_problem_are_drawn_against_the_sums(drawn):
    draw_sums(np.array([0.5, 1.5]), np.array([0.6, 1.4]), "sums", Path("none.png"))
    (axis,) = drawn[0].axes
    *_, dots = axis.get_lines()
    np.testing.assert_array_equal(dots.get_xydata(), [[0.5, 0.6], [1.5, 1.4]])


def test_symbols_are_one_hot(config):
    copying = dataclasses.replace(config, problem="copy")
    found = features(copying, jnp.array([[9, 0]], jnp.uint8))
    np.testing.assert_array_equal(found, np.eye(10)[[[9, 0]]])


def test_accuracy_against_length_is_of_the_rows_that_have_it(drawn):
    row = {"preset": "tcn-copy", "system": "TCN", "metric": "test_accuracy", "std": 0.01}
    rows = [
        row | {"dataset": f"copy memory, {n} length", "mean": m} for n, m in ((100, 1), (20, 0.9))
    ]
    rows += [rows[0] | {"preset": "gru-copy", "system": "GRU", "mean": 0.125}]
    others = [rows[0] | {"metric": "test_loss"}]
    others += [row | {"preset": "tcn-copy-1000", "dataset": "copy memory, T = 1000", "mean": 1}]
    draw_lengths(others, Path("none.png"))
    assert drawn == []
    draw_lengths(others + rows, Path("none.png"))
    (axis,) = drawn[0].axes
    lines = {
        container.get_label(): container.lines[0].get_xydata().tolist()
        for container in axis.containers
    }
    assert lines == {"TCN": [[20, 90], [100, 100]], "GRU": [[100, 12.5]]}
    (chance,) = (line for line in axis.get_lines() if line.get_label() == "without memory")
    assert set(chance.get_ydata()) == {12.5}
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["20", "100"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--length", "1"], "T is 1: it must be at least 2"),
        (["--batch-size", "25"], "--batch-size is 25"),
        (["--parameters", "1000"], "give --model.hidden 16, or give --parameters 0"),
    ],
)
def test_bad_options_are_named(words, message, is_refused):
    is_refused(main, [*TINY, *words], message)
