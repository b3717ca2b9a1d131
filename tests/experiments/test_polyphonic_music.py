"""The music experiment on generated chords."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.polyphonic_music.data import eval_batches, train_batches
from experiments.polyphonic_music.presets import PRESETS, Config
from experiments.polyphonic_music.train import EXPERIMENT, main, make_task
from experiments.sequence_model import GRUConfig, SequenceModel, add_noise, encoder_size
from structdl.datasets import chord_progressions
from structdl.datasets.poly_music import NUM_KEYS
from structdl.errors import InputError
from structdl.training.loop import fit
from structdl.training.optimizers import OptimizerConfig, make_optimizer
from structdl.training.profiling import Profile
from structdl.training.run import DataConfig, Run
from structdl.training.task import Inputs

TINY = ["--model.hidden", "4", "--parameters", "0", "--batch-size", "8"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    run = Run(num_steps=6, eval_every=0, steps_per_call=2)
    data = DataConfig(dir=tmp_path_factory.mktemp("data"))
    return Config(model=GRUConfig(4), parameters=0, batch_size=8, data=data, run=run)


@pytest.fixture(scope="module")
def task(config):
    return make_task(config)


def initial(task):
    inputs = Inputs(task.data, (), task.batch(0, 0))
    return task.init(jax.random.key(0), inputs)[0]


def test_the_loss_is_that_of_a_loop_over_pieces_and_steps(config, task):
    params = initial(task)
    (batch, *_) = task.eval_batches("validation")
    total, count = task.metrics(params, (), Inputs(task.data, (), batch), None)["loss"]
    expected, steps = 0.0, 0
    for piece in batch.examples:
        length = task.data.lengths[piece]
        keys = jnp.asarray(task.data.keys[piece, :length], float)
        logits = SequenceModel(config.model, NUM_KEYS).apply(
            {"params": params}, keys[None, :-1], train=False
        )[0]
        chances = np.asarray(jax.nn.sigmoid(logits), np.float64)
        right = np.where(np.asarray(keys[1:]) == 1, chances, 1 - chances)
        expected -= np.log(right).sum()
        steps += length - 1
    assert int(count) == steps
    np.testing.assert_allclose(total, expected, rtol=1e-4)


def test_a_batch_of_no_pieces_counts_nothing(task):
    params = initial(task)
    (batch, *_) = task.eval_batches("test")
    nothing = batch._replace(examples=np.full_like(batch.examples, -1))
    total, count = task.metrics(params, (), Inputs(task.data, (), nothing), None)["loss"]
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


def test_noise_has_its_deviation_and_none_changes_nothing():
    params = {"a": jnp.zeros((300, 40)), "b": jnp.ones(5)}
    noisy = add_noise(jax.random.key(0), params, 0.075)
    assert float(jnp.std(noisy["a"])) == pytest.approx(0.075, rel=0.02)
    assert add_noise(jax.random.key(0), params, 0.0) is params


@pytest.mark.parametrize("name", PRESETS)
def test_the_models_that_are_compared_have_one_size(name):
    config = PRESETS[name].config
    size = encoder_size(config.model, 256, NUM_KEYS)
    assert abs(size - config.parameters) <= 0.05 * config.parameters


def test_a_model_of_another_size_is_refused_with_the_width_that_fits(config):
    with pytest.raises(InputError, match=r"give --model.hidden 45, or --parameters 0"):
        make_task(dataclasses.replace(config, parameters=18_500))


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
    figures = resumed_equals_whole(EXPERIMENT, [*TINY, "--data.dir", str(config.data.dir)])
    assert (figures / "piano_roll.png").exists()


def test_the_least_loss_of_the_readme():
    readme = (EXPERIMENT.directory / "README.md").read_text()
    assert f"below {chord_progressions.least_loss():.2f} nats" in readme


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "jsb"], "--dataset is 'jsb'"),
        (["--max-time", "1"], "--max-time is 1"),
        (["--batch-size", "201"], "--batch-size is 201"),
    ],
)
def test_bad_options_are_named(words, message, config, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main([*TINY, "--data.dir", str(config.data.dir), "--workdir", str(tmp_path), *words])
    assert exit_info.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
