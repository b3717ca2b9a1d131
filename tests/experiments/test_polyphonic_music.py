"""The music experiment on generated chords."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.polyphonic_music.data import eval_batches, train_batches
from experiments.polyphonic_music.presets import PRESETS, Config
from experiments.polyphonic_music.train import EXPERIMENT, main, make_task
from experiments.sequence_model import GRUConfig, SequenceModel
from structdl.datasets import chord_progressions
from structdl.datasets.poly_music import NUM_KEYS
from structdl.training.run import DataConfig, Run

TINY = ["--model.hidden", "4", "--parameters", "0", "--batch-size", "8"]


@pytest.fixture(scope="module")
def config(data_dir):
    run = Run(num_steps=6, eval_every=0, steps_per_call=2)
    model, data = GRUConfig(4), DataConfig(dir=data_dir)
    return Config(model=model, parameters=0, batch_size=8, max_time=30, data=data, run=run)


@pytest.fixture(scope="module")
def task(config):
    return make_task(config)


def loop_over_steps(config, task, params, pieces, starts, most):
    """(total, count) of the loss, of stretches of at most so many steps of pieces."""
    model = SequenceModel(config.model, NUM_KEYS)
    logits_of = jax.jit(partial(model.apply, train=False))
    total, count = 0.0, 0
    for piece, start in zip(pieces, starts, strict=True):
        end = min(start + most, task.data.lengths[piece])
        keys = np.zeros((1, most, NUM_KEYS), np.float32)
        keys[0, : end - start] = task.data.keys[piece, start:end]
        logits = np.asarray(logits_of({"params": params}, jnp.asarray(keys)), np.float64)[0]
        for step in range(1, end - start):
            chances = 1 / (1 + np.exp(-logits[step - 1]))
            total -= np.log(np.where(keys[0, step] == 1, chances, 1 - chances)).sum()
            count += 1
    return total, count


def test_the_loss_is_that_of_a_loop_over_pieces_and_steps(config, task, initial, metrics_of):
    params = initial(task)
    (batch, *_) = task.eval_batches("validation")
    total, count = metrics_of(task, params, batch)["loss"]
    longest = task.data.keys.shape[1]
    expected, steps = loop_over_steps(config, task, params, *batch, longest)
    assert int(count) == steps
    np.testing.assert_allclose(total, expected, rtol=1e-4)


def test_training_sees_the_stretches_of_its_batch(config, task, initial, loss_of):
    params, batch = initial(task), task.batch(0, 0)
    assert np.any(batch.starts > 0)
    assert np.any(task.data.lengths[batch.examples] < config.max_time)
    total, count = loss_of(task, params, batch)
    expected, steps = loop_over_steps(config, task, params, *batch, config.max_time)
    assert int(count) == steps
    np.testing.assert_allclose(total, expected, rtol=1e-4)


def test_batches_are_of_their_splits(config, task, batches_are_of_their_splits):
    splits = chord_progressions.load(data_dir=config.data.dir)
    expected = {
        name: [keys[:length].tolist() for keys, length in zip(*split, strict=True)]
        for name, split in splits._asdict().items()
    }

    def contents(pieces):
        keys, lengths = task.data
        return [keys[piece, : lengths[piece]].tolist() for piece in pieces]

    def shown_by(batch):
        return batch.examples[batch.examples >= 0]

    trained = batches_are_of_their_splits(task, expected, shown_by, contents, steps=25)
    assert trained == 200


@pytest.mark.parametrize(("noise", "dropout"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.5)])
def test_only_noise_and_dropout_draw(config, noise, dropout, only_noise_draws):
    model = dataclasses.replace(config.model, dropout=dropout)
    task = make_task(dataclasses.replace(config, model=model, weight_noise=noise))
    only_noise_draws(task, draws=bool(noise or dropout))


def test_a_batch_of_no_pieces_counts_nothing(task, initial, metrics_of):
    (batch, *_) = task.eval_batches("test")
    nothing = batch._replace(examples=np.full_like(batch.examples, -1))
    total, count = metrics_of(task, initial(task), nothing)["loss"]
    assert (float(total), int(count)) == (0, 0)


def test_stretches_lie_within_their_pieces_and_epochs_meet_every_piece():
    lengths = np.array([3, 10, 20, 7])
    batch = train_batches(lengths, np.arange(4), 2, max_time=8)
    seen = [batch(step, 0) for step in range(40)]
    for first, second in zip(seen[::2], seen[1::2], strict=True):
        assert sorted([*first.examples, *second.examples]) == [0, 1, 2, 3]
    starts = {number: set() for number in range(4)}
    for stretch in seen:
        for piece, start in zip(*stretch, strict=True):
            starts[int(piece)].add(int(start))
    assert starts[0] == starts[3] == {0}
    assert starts[1] <= {0, 1, 2}
    assert len(starts[2]) > 4
    assert max(starts[2]) <= 12
    (only,) = eval_batches(np.arange(2), 5)
    np.testing.assert_array_equal(only.starts, [0, 0])


@pytest.mark.parametrize("name", PRESETS)
def test_the_models_that_are_compared_have_one_size(name, has_its_stated_size):
    has_its_stated_size(PRESETS[name].config, 256, NUM_KEYS)


def test_a_few_steps_lower_the_loss_and_compile_once(config, task, few_steps_lower_the_loss):
    few_steps_lower_the_loss(task, config.run, task.batch(0, 0))


def test_every_optimizer_takes_steps(config, task, optimizer_takes_steps):
    optimizer_takes_steps(task, config.run)


def test_a_run_that_goes_on_equals_one_that_was_not_interrupted(resumed_equals_whole):
    figures = resumed_equals_whole(EXPERIMENT, [*TINY, "--weight-noise", "0.05"])
    assert (figures / "piano_roll.png").exists()


def test_the_least_loss_of_the_readme():
    readme = (EXPERIMENT.directory / "README.md").read_text()
    assert f"below {chord_progressions.least_loss():.2f} nats" in readme


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "jsb"], "--dataset is 'jsb'"),
        (["--max-time", "1"], "--max-time is 1"),
        (["--weight-noise", "-1"], "--weight-noise is -1"),
        (["--batch-size", "201"], "--batch-size is 201"),
        (["--parameters", "18500"], "give --model.hidden 46, or give --parameters 0"),
    ],
)
def test_bad_options_are_named(words, message, is_refused):
    is_refused(main, [*TINY, *words], message)
