"""Digits by a 3-LSTM, on those that are drawn by a program."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.grid_lstm_digits.data import shift
from experiments.grid_lstm_digits.model import make_model
from experiments.grid_lstm_digits.presets import PRESETS, Config, ThreeLSTMConfig
from experiments.grid_lstm_digits.train import EXPERIMENT, main, make_task
from structdl.datasets import drawn_digits, mnist
from structdl.recurrent.grid_lstm_images import ThreeLSTM, as_patches
from structdl.training.run import DataConfig, Run

TINY = ["--model.hidden", "3", "--model.rectified", "4", "--model.num-layers", "1"]
TINY += ["--model.order", "wavefront", "--batch-size", "8"]  # which compiles faster


@pytest.fixture(scope="module")
def config(data_dir):
    run = Run(num_steps=6, eval_every=0, steps_per_call=2)
    model, data = ThreeLSTMConfig(3, 1, rectified=8), DataConfig(dir=data_dir)
    return Config(model=model, batch_size=8, data=data, run=run)


@pytest.fixture(scope="module")
def task(config):
    return make_task(config)


@pytest.mark.parametrize("depth", ["lstm", "relu"])
def test_a_digit_is_told_from_the_states_of_all_patches(config, depth, initial, metrics_of):
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, depth=depth))
    task = make_task(config)
    params = initial(task)
    batch = task.eval_batches("validation")[0]
    found = metrics_of(task, params, batch)
    patches = as_patches(jnp.asarray(task.data.pixels[batch]), 2)
    top = ThreeLSTM(3, 1, depth).apply({"params": params["grid"]}, patches)
    assert top.memory.shape[-1] == (3 if depth == "lstm" else 0)
    states = [
        np.concatenate([top.hidden[:, row, column], top.memory[:, row, column]], axis=1)
        for row in range(4)
        for column in range(4)
    ]
    host = jax.tree.map(np.asarray, params)
    rectified = np.concatenate(states, axis=1) @ host["rectified"]["kernel"]
    rectified = np.maximum(rectified + host["rectified"]["bias"], 0)
    logits = rectified @ host["readout"]["kernel"] + host["readout"]["bias"]
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = task.data.labels[batch]
    assert [int(count) for _, count in found.values()] == [len(batch)] * 2
    expected = -np.log(chances[np.arange(len(batch)), labels]).sum()
    np.testing.assert_allclose(found["loss"][0], expected, rtol=1e-5)
    assert int(found["accuracy"][0]) == np.sum(chances.argmax(axis=1) == labels)


def test_training_computes_what_evaluation_does(task, initial, loss_of, metrics_of):
    batch = task.batch(0, 0)
    args = task, initial(task), batch
    chex.assert_trees_all_close(loss_of(*args), metrics_of(*args)["loss"], rtol=1e-5)


def test_a_batch_of_no_digits_counts_nothing(task, initial, metrics_of):
    totals = metrics_of(task, initial(task), np.full(8, -1, np.int32))
    assert all((float(total), int(count)) == (0, 0) for total, count in totals.values())


def test_batches_are_of_their_splits(config, task, batches_are_of_their_splits):
    splits = drawn_digits.load(data_dir=config.data.dir)
    expected = {
        name: [*zip(mnist.as_sequence(images, 8)[..., 0].tolist(), labels, strict=True)]
        for name, (images, labels) in splits._asdict().items()
    }

    def contents(digits):
        pixels = task.data.pixels[digits].reshape(len(digits), -1).tolist()
        return [*zip(pixels, task.data.labels[digits].tolist(), strict=True)]

    trained = batches_are_of_their_splits(
        task, expected, lambda batch: batch[batch >= 0], contents, steps=500
    )
    assert trained == 4000


def test_a_shift_moves_each_image_by_whole_pixels():
    images = np.random.default_rng(0).uniform(0.1, 1, (200, 5, 6)).astype(np.float32)
    found = np.asarray(shift(jax.random.key(0), jnp.asarray(images), 2))
    seen = set()
    for image, moved in zip(images, found, strict=True):
        padded = np.pad(image, 2)
        fits = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if np.array_equal(padded[2 - down : 7 - down, 2 - right : 8 - right], moved)
        ]
        assert len(fits) == 1
        seen.add(fits[0])
    assert len(seen) == 25
    same = shift(jax.random.key(0), jnp.asarray(images), 0)
    np.testing.assert_array_equal(same, images)


@pytest.mark.parametrize(("dropout", "most"), [(0.0, 0), (0.5, 0), (0.0, 1)])
def test_only_dropout_and_shifts_draw(config, dropout, most, only_noise_draws):
    model = dataclasses.replace(config.model, dropout=dropout)
    noisy = dataclasses.replace(config, model=model, shift=most)
    only_noise_draws(make_task(noisy), draws=bool(dropout or most))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_model(name):
    config = PRESETS[name].config
    image = jax.ShapeDtypeStruct((1, config.size, config.size), jnp.float32)
    model = make_model(config)

    def logits(image):
        return model.init_with_output(jax.random.key(0), image, train=False)

    shown, variables = jax.eval_shape(logits, image)
    assert shown.shape == (1, 10)
    per_patch = config.model.hidden * (2 if config.model.depth == "lstm" else 1)
    patches = (config.size // config.model.patch) ** 2
    kernel = variables["params"]["rectified"]["kernel"]
    assert kernel.shape == (patches * per_patch, config.model.rectified)
    assert config.run.num_steps == config.optimizer.schedule_steps


def test_a_few_steps_lower_the_loss_and_compile_once(config, task, few_steps_lower_the_loss):
    few_steps_lower_the_loss(task, config.run, task.batch(0, 0))


def test_every_optimizer_takes_steps(config, task, optimizer_takes_steps):
    optimizer_takes_steps(task, config.run)


def test_a_run_that_goes_on_equals_one_that_was_not_interrupted(resumed_equals_whole):
    figures = resumed_equals_whole(EXPERIMENT, [*TINY, "--shift", "1"])
    pictures = {path.stem for path in figures.iterdir()}
    assert pictures == {"learning_curves", "models", "digits"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "9"], "size is 9: it must be one of 28, 14, 8"),
        (["--model.patch", "3"], "--model.patch is 3, and images have 8 x 8 pixels"),
        (["--model.hidden", "0"], "--model.hidden is 0"),
        (["--model.dropout", "1"], "--model.dropout is 1.0"),
        (["--shift", "8"], "--shift is 8: give 0 to 7"),
        (["--batch-size", "4001"], "--batch-size is 4001"),
    ],
)
def test_bad_options_are_named(words, message, is_refused):
    is_refused(main, [*TINY, *words], message)
