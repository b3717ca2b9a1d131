"""The models of the sequence experiments: lengths, dropout, and their sizes."""

import dataclasses
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import get
from experiments.sequence_model import (
    GridLSTMConfig,
    GRUConfig,
    LSTMConfig,
    RNNConfig,
    SequenceModel,
    TCNConfig,
    add_noise,
    totals_in_parts,
)
from experiments.sequence_presets import check_model, encoder_size, run_of, system_of
from structdl.errors import InputError
from structdl.training.cli import parse
from structdl.training.loop import check_start
from structdl.training.optimizers import make_optimizer

MODELS = (
    RNNConfig(3),
    GRUConfig(3),
    LSTMConfig(3),
    TCNConfig(3, num_levels=2, kernel_size=2),
    GridLSTMConfig(3, num_layers=2),
)
TIME, LENGTHS = 7, np.array([7, 3, 1, 0])
each_model = pytest.mark.parametrize("config", MODELS, ids=lambda config: type(config).__name__)


def sequences():
    return jax.random.normal(jax.random.key(0), (len(LENGTHS), TIME, 2))


def initialized(model, x):
    return jax.jit(partial(model.init, train=False))(jax.random.key(1), x)


@each_model
def test_a_sequence_is_read_out_at_its_own_end_and_padding_changes_nothing(config):
    x = sequences()
    variables = initialized(SequenceModel(config, 2), x)
    every = jax.jit(partial(SequenceModel(config, 2).apply, train=False))(variables, x)
    model = SequenceModel(config, 2, last=True)

    @jax.jit
    def answers_and_gradient(variables, x, lengths):
        def total(variables):
            answers = model.apply(variables, x, lengths, train=False)
            return jnp.sum(answers), answers

        return jax.grad(total, has_aux=True)(variables)

    padded = jnp.where(np.arange(TIME)[None, :, None] < LENGTHS[:, None, None], x, jnp.nan)
    found = answers_and_gradient(variables, padded, jnp.asarray(LENGTHS))
    chex.assert_tree_all_finite(found)
    for row, length in enumerate(LENGTHS[:3]):
        np.testing.assert_allclose(found[1][row], every[row, length - 1], rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(found, answers_and_gradient(variables, x, jnp.asarray(LENGTHS)))
    # lengths that are traced cannot be refused: those beyond the array are all of it
    beyond = np.where(LENGTHS == TIME, TIME + 2, LENGTHS)
    chex.assert_trees_all_equal(found, answers_and_gradient(variables, padded, jnp.asarray(beyond)))


@each_model
def test_dropout_is_there_in_training_alone(config):
    x = sequences()
    width = 6 if isinstance(config, GridLSTMConfig) else 3  # hidden and memory
    dropping = SequenceModel(dataclasses.replace(config, dropout=0.5), width)
    variables = initialized(dropping, x)
    # a read-out that says what it is given
    variables["params"]["readout"] = {"kernel": jnp.eye(width), "bias": jnp.zeros(width)}

    @jax.jit
    def trained(key):
        return dropping.apply(variables, x, train=True, rngs={"dropout": key})

    first, other, same = (np.asarray(trained(jax.random.key(seed))) for seed in (1, 2, 1))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)
    evaluated, without = (
        jax.jit(partial(model.apply, train=False))(variables, x)
        for model in (dropping, SequenceModel(config, width))
    )
    np.testing.assert_array_equal(evaluated, without)
    if isinstance(config, TCNConfig):
        assert not np.allclose(first, without)
    else:  # whose one layer has no other dropout than that of what leaves it
        kept = first != 0
        assert 0.3 < kept.mean() < 0.7
        np.testing.assert_allclose(first[kept], 2 * np.asarray(without)[kept], rtol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        RNNConfig(3, num_layers=2),
        GRUConfig(3),
        LSTMConfig(3, num_layers=2),
        GridLSTMConfig(3, num_layers=2),
        GridLSTMConfig(2, num_layers=4, tied=False),
    ],
)
def test_reading_on_from_a_state_gives_what_the_whole_sequence_gives(config):
    x = sequences()
    model = SequenceModel(config, 2)
    variables = initialized(model, x)
    expected = jax.jit(partial(model.apply, train=False))(variables, x)
    read_on = jax.jit(partial(model.apply, train=False, method="continued"))
    step = jax.jit(partial(model.apply, method="step"))
    state = model.apply(variables, len(LENGTHS), method="initial_state")
    state, first = read_on(variables, state, x[:, :4])
    # the state after it is worth as much as what was read
    _, rest = read_on(variables, state, x[:, 4:])
    found = jnp.concatenate([first, rest], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    for place in range(4, TIME):
        state, output = step(variables, state, x[:, place])
        np.testing.assert_allclose(output, expected[:, place], rtol=1e-4, atol=1e-5)


def test_noise_has_its_deviation_and_none_changes_nothing():
    params = {"a": jnp.zeros((300, 40)), "b": jnp.ones(5)}
    noisy = add_noise(jax.random.key(0), params, 0.075)
    assert float(jnp.std(noisy["a"])) == pytest.approx(0.075, rel=0.02)
    assert np.all(noisy["b"] != 1)
    assert add_noise(jax.random.key(0), params, 0.0) is params


def test_sizes_are_those_of_the_papers_equations():
    inputs, hidden = 2, 3
    gate = hidden * (inputs + hidden + 1)
    assert encoder_size(RNNConfig(hidden), 9, inputs) == gate
    assert encoder_size(LSTMConfig(hidden), 9, inputs) == 4 * gate
    # along time and along depth four gates of both hiddens; an input gives hidden and memory
    block, projection = 2 * 4 * hidden * (2 * hidden + 1), 2 * hidden * (inputs + 1)
    for num_layers in (1, 4):
        tied = GridLSTMConfig(hidden, num_layers)
        untied = dataclasses.replace(tied, tied=False)
        assert encoder_size(tied, 9, inputs) == block + projection
        assert encoder_size(untied, 9, inputs) == num_layers * block + projection


def test_a_model_of_another_size_is_refused_with_the_width_that_fits(capsys):
    with pytest.raises(InputError, match=r"give --model.hidden 46, or give --parameters 0"):
        check_model(GRUConfig(4), 9, 88, 18_500)
    with pytest.raises(InputError, match=r"give --model.hidden 106, or give --parameters 0"):
        check_model(GridLSTMConfig(4), 9, 32, 187_000)
    with pytest.raises(InputError, match=r"give --model.channels \d+, or"):
        check_model(TCNConfig(4, warn_beyond=False), 9, 88, 18_500)
    capsys.readouterr()
    check_model(GRUConfig(45), 9, 88, 18_500)
    check_model(GRUConfig(4), 9, 88, 0)
    of_wanted, of_any = capsys.readouterr().out.splitlines()
    assert of_wanted.endswith("of 18500")
    assert of_any == f"{encoder_size(GRUConfig(4), 9, 88)} parameters without the read-out"


def test_a_size_that_no_width_has_is_said_to_have_none():
    with pytest.raises(InputError, match="asks for 10 within 5%: give --parameters 0"):
        check_model(GRUConfig(4), 9, 88, 10)
    with pytest.raises(InputError, match=r"give --model.hidden \d{4}, or"):
        check_model(GRUConfig(4), 9, 88, 10**8)


def test_a_convolution_that_does_not_reach_far_enough_is_refused():
    config = TCNConfig(3, num_levels=2, kernel_size=3, warn_beyond=False)  # sees 13 steps
    check_model(config, 20, 2, 0, reach=13)
    with pytest.raises(InputError, match="3 levels"):
        check_model(config, 20, 2, 0, reach=14)
    check_model(GRUConfig(3), 20, 2, 0, reach=14)


@pytest.mark.parametrize(
    "name",
    [
        "language_modeling",
        "polyphonic_music",
        "raw_audio",
        "sequential_digits",
        "synthetic_sequences",
    ],
)
def test_every_sequence_experiment_takes_a_2_lstm(name):
    experiment = get(name)
    preset, *_ = experiment.presets.values()
    config = dataclasses.replace(preset.config, model=GridLSTMConfig(4, 2), parameters=0)
    its = experiment._replace(presets={"grid": preset._replace(config=config)})
    _, config = parse(its, ["grid", "--model.hidden", "5", "--model.no-tied"])
    assert config.model == GridLSTMConfig(5, 2, tied=False)
    check_start(its.make_task(config), make_optimizer(config.optimizer), config.run)


def test_a_system_is_named_by_its_units():
    assert system_of(GRUConfig(46)) == "GRU, 46 units"
    assert system_of(LSTMConfig(5, num_layers=2)) == "LSTM, 2 x 5 units"
    assert system_of(TCNConfig(16, num_levels=4)) == "TCN, 4 x 16 channels"
    assert system_of(GridLSTMConfig(106, num_layers=6)) == "tied 2-LSTM, 6 x 106 units"
    assert system_of(GridLSTMConfig(9, num_layers=1, tied=False)) == "untied 2-LSTM, 9 units"


def test_only_convolutions_are_called_step_by_step():
    for config, steps in ((GRUConfig(3), 5), (TCNConfig(3), 1)):
        run = run_of(config, 100, eval_every=10, patience=3, log_every=5)
        run.validate()
        assert run.steps_per_call == steps


@pytest.mark.parametrize("size", [1, 3, 7, 10])
def test_totals_in_parts_are_those_of_the_whole(size):
    batch = (jnp.arange(7.0), jnp.arange(7) % 2)

    def totals(part):
        values, counts = part
        return jnp.sum(values * counts), jnp.sum(counts)

    total, count = totals_in_parts(totals, batch, size)
    assert (float(total), int(count)) == (9, 3)
