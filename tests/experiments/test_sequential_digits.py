"""Sequential digits on those that are drawn by a program."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.sequence_model import GRUConfig, SequenceModel, TCNConfig, encoder_size
from experiments.sequential_digits import figures
from experiments.sequential_digits.data import in_place
from experiments.sequential_digits.presets import PRESETS, Config
from experiments.sequential_digits.train import EXPERIMENT, main, make_task
from structdl.datasets import drawn_digits, mnist
from structdl.temporal.receptive_field import levels_to_cover
from structdl.training.loop import fit
from structdl.training.optimizers import OptimizerConfig, make_optimizer
from structdl.training.profiling import Profile
from structdl.training.run import Run
from structdl.training.task import Inputs

TINY = ["--model.hidden", "4", "--parameters", "0", "--batch-size", "8"]


@pytest.fixture(scope="module")
def config(data_dir):
    run = Run(num_steps=6, eval_every=0, steps_per_call=2)
    config = Config(model=GRUConfig(4), parameters=0, batch_size=8, run=run)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, dir=data_dir))


@pytest.fixture(scope="module")
def task(config):
    return make_task(config)


def initial(task):
    inputs = Inputs(task.data, (), task.batch(0, 0))
    return task.init(jax.random.key(0), inputs)[0]


def test_a_digit_is_told_after_its_last_pixel(config, task):
    params = initial(task)
    batch = task.eval_batches("validation")[0]
    found = task.metrics(params, (), Inputs(task.data, (), batch), None)
    model = SequenceModel(config.model, 10)  # which tells one after every pixel
    pixels = jnp.asarray(task.data.pixels[batch])
    logits = model.apply({"params": params}, pixels, train=False)[:, -1]
    chances = np.asarray(jax.nn.softmax(logits), np.float64)
    labels = task.data.labels[batch]
    assert [int(count) for _, count in found.values()] == [len(batch)] * 2
    expected = -np.log(chances[np.arange(len(batch)), labels]).sum()
    np.testing.assert_allclose(found["loss"][0], expected, rtol=1e-5)
    assert int(found["accuracy"][0]) == np.sum(chances.argmax(axis=1) == labels)


def test_a_batch_of_no_digits_counts_nothing(task):
    nothing = np.full(8, -1, np.int32)
    totals = task.metrics(initial(task), (), Inputs(task.data, (), nothing), None)
    assert all((float(total), int(count)) == (0, 0) for total, count in totals.values())


def test_splits_are_those_of_the_set_and_permuted_pixels_can_be_put_in_place(config, task):
    digits = drawn_digits.load(data_dir=config.data.dir)
    sizes = {name: sum(map(len, task.eval_batches(name))) for name in digits._fields}
    assert sizes == {name: len(split.labels) for name, split in digits._asdict().items()}
    first = task.eval_batches("test")[0][:5]
    np.testing.assert_array_equal(task.data.labels[first], digits.test.labels[:5])
    images = mnist.as_sequence(digits.test.images[:5], 8, standardize=True).reshape(-1, 8, 8)
    for permuted in (False, True):
        shuffled = dataclasses.replace(config, permuted=permuted)
        pixels = make_task(shuffled).data.pixels[first]
        np.testing.assert_array_equal(in_place(pixels, shuffled), images)
        assert np.array_equal(pixels.reshape(-1, 8, 8), images) == (not permuted)


@pytest.mark.parametrize("name", PRESETS)
def test_the_models_that_are_compared_have_one_size(name):
    config = PRESETS[name].config
    size = encoder_size(config.model, 8, 1)
    assert abs(size - config.parameters) <= 0.05 * config.parameters
    if isinstance(config.model, TCNConfig):
        levels = levels_to_cover(config.model.kernel_size, config.size**2)
        # the paper's own has one more than it needs
        assert config.model.num_levels == levels + (config.size == 28)


def test_a_few_steps_lower_the_loss_and_compile_once(config, task, tmp_path):
    profile = Profile(tmp_path)
    result = fit(task, make_optimizer(OptimizerConfig("adam", 0.02)), config.run, profile=profile)
    params = jax.tree.map(lambda leaf: leaf[0], result.selected[0])
    inputs = Inputs(task.data, (), task.batch(0, 0))
    before, after = (
        task.metrics(values, (), inputs, None)["loss"] for values in (initial(task), params)
    )
    assert float(after[0] / after[1]) < float(before[0] / before[1])
    assert profile.recompilations == []


def test_every_optimizer_takes_steps(config, task, optimizer_takes_steps):
    optimizer_takes_steps(task, config.run)


def test_a_run_that_goes_on_equals_one_that_was_not_interrupted(config, resumed_equals_whole):
    figures = resumed_equals_whole(
        EXPERIMENT, [*TINY, "--permuted", "--data.dir", str(config.data.dir)]
    )
    pictures = {path.stem for path in figures.iterdir()}
    assert pictures == {"learning_curves", "models", "digits", "permuted"}


def test_mistakes_are_drawn_first(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(figures.Figure, "savefig", lambda figure, path, dpi: drawn.append(figure))
    labels, read = np.array([3, 1, 4, 1]), np.array([3, 1, 9, 1])
    figures.draw_digits(np.zeros((4, 8, 8)), labels, read, "digits", tmp_path / "digits.png")
    assert [axis.get_title() for axis in drawn[0].axes[:5]] == ["9, not 4", "3", "1", "1", ""]
    assert "1 mistakes of 4" in drawn[0].get_suptitle()
    figures.draw_digits(
        np.zeros((70, 8, 8)), np.repeat([1, 2], 35), np.full(70, 2), "", tmp_path / "digits.png"
    )
    titles = [axis.get_title() for axis in drawn[1].axes]
    assert titles == ["2, not 1"] * 20 + ["2"] * 20


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "9"], "size is 9: it must be one of 28, 14, 8"),
        (["--batch-size", "4001"], "--batch-size is 4001"),
    ],
)
def test_bad_options_are_named(words, message, config, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main([*TINY, "--data.dir", str(config.data.dir), "--workdir", str(tmp_path), *words])
    assert exit_info.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
