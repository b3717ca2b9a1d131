"""Sequential digits on those that are drawn by a program."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import digits
from experiments.sequence_model import GRUConfig, SequenceModel, TCNConfig
from experiments.sequential_digits.data import in_place
from experiments.sequential_digits.presets import PRESETS, Config
from experiments.sequential_digits.train import EXPERIMENT, main, make_task
from structdl.datasets import drawn_digits, mnist
from structdl.temporal.receptive_field import levels_to_cover
from structdl.training.run import DataConfig, Run

TINY = ["--model.hidden", "4", "--parameters", "0", "--batch-size", "8"]


@pytest.fixture(scope="module")
def config(data_dir):
    run = Run(num_steps=6, eval_every=0, steps_per_call=2)
    model, data = GRUConfig(4), DataConfig(dir=data_dir)
    return Config(model=model, parameters=0, batch_size=8, data=data, run=run)


@pytest.fixture(scope="module")
def task(config):
    return make_task(config)


def test_a_digit_is_told_after_its_last_pixel(config, task, initial, metrics_of, loss_of):
    params = initial(task)
    batch = task.eval_batches("validation")[0]
    found = metrics_of(task, params, batch)
    model = SequenceModel(config.model, 10)  # which tells one after every pixel
    pixels = jnp.asarray(task.data.pixels[batch])
    logits = model.apply({"params": params}, pixels, train=False)[:, -1]
    chances = np.asarray(jax.nn.softmax(logits), np.float64)
    labels = task.data.labels[batch]
    assert [int(count) for _, count in found.values()] == [len(batch)] * 2
    expected = -np.log(chances[np.arange(len(batch)), labels]).sum()
    np.testing.assert_allclose(found["loss"][0], expected, rtol=1e-5)
    assert int(found["accuracy"][0]) == np.sum(chances.argmax(axis=1) == labels)
    chex.assert_trees_all_close(loss_of(task, params, batch), found["loss"], rtol=1e-5)


def test_a_batch_of_no_digits_counts_nothing(task, initial, metrics_of):
    totals = metrics_of(task, initial(task), np.full(8, -1, np.int32))
    assert all((float(total), int(count)) == (0, 0) for total, count in totals.values())


def test_batches_are_of_their_splits(config, task, batches_are_of_their_splits):
    splits = drawn_digits.load(data_dir=config.data.dir)
    expected = {
        name: [*zip(mnist.as_sequence(images, 8, standardize=True).tolist(), labels, strict=True)]
        for name, (images, labels) in splits._asdict().items()
    }

    def contents(digits):
        return [*zip(*(leaf[digits].tolist() for leaf in task.data), strict=True)]

    trained = batches_are_of_their_splits(
        task, expected, lambda batch: batch[batch >= 0], contents, steps=500
    )
    assert trained == 4000


def test_permuted_pixels_can_be_put_in_place(config, task):
    first = task.eval_batches("test")[0][:5]
    digits = drawn_digits.load(data_dir=config.data.dir)
    images = mnist.as_sequence(digits.test.images[:5], 8, standardize=True).reshape(-1, 8, 8)
    for permuted in (False, True):
        shuffled = dataclasses.replace(config, permuted=permuted)
        pixels = make_task(shuffled).data.pixels[first]
        np.testing.assert_array_equal(in_place(pixels, shuffled), images)
        assert np.array_equal(pixels.reshape(-1, 8, 8), images) == (not permuted)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_only_dropout_draws(config, dropout, only_noise_draws):
    model = dataclasses.replace(config.model, dropout=dropout)
    only_noise_draws(make_task(dataclasses.replace(config, model=model)), draws=bool(dropout))


@pytest.mark.parametrize("name", PRESETS)
def test_the_models_that_are_compared_have_one_size(name, has_its_stated_size):
    config = PRESETS[name].config
    has_its_stated_size(config, 8, 1)
    if isinstance(config.model, TCNConfig):
        levels = levels_to_cover(config.model.kernel_size, config.size**2)
        # the paper's own has one more than it needs
        assert config.model.num_levels == levels + (config.size == 28)


def test_a_few_steps_lower_the_loss_and_compile_once(config, task, few_steps_lower_the_loss):
    few_steps_lower_the_loss(task, config.run, task.batch(0, 0))


def test_every_optimizer_takes_steps(config, task, optimizer_takes_steps):
    optimizer_takes_steps(task, config.run)


def test_a_run_that_goes_on_equals_one_that_was_not_interrupted(resumed_equals_whole):
    figures = resumed_equals_whole(EXPERIMENT, [*TINY, "--permuted"])
    pictures = {path.stem for path in figures.iterdir()}
    assert pictures == {"learning_curves", "models", "digits", "permuted"}


def test_mistakes_are_drawn_first(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(digits.Figure, "savefig", lambda figure, path, dpi: drawn.append(figure))
    labels, read = np.array([3, 1, 4, 1]), np.array([3, 1, 9, 1])
    digits.draw_digits(np.zeros((4, 8, 8)), labels, read, "digits", tmp_path / "digits.png")
    assert [axis.get_title() for axis in drawn[0].axes[:5]] == ["9, not 4", "3", "1", "1", ""]
    assert "1 mistakes of 4" in drawn[0].get_suptitle()
    digits.draw_digits(
        np.zeros((70, 8, 8)), np.repeat([1, 2], 35), np.full(70, 2), "", tmp_path / "digits.png"
    )
    titles = [axis.get_title() for axis in drawn[1].axes]
    assert titles == ["2, not 1"] * 20 + ["2"] * 20


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "9"], "size is 9: it must be one of 28, 14, 8"),
        (["--batch-size", "4001"], "--batch-size is 4001"),
        (["--parameters", "1000"], "give --parameters 0"),
    ],
)
def test_bad_options_are_named(words, message, is_refused):
    is_refused(main, [*TINY, *words], message)
