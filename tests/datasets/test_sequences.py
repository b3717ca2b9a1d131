"""The generated tasks against loops, and what the sequence sets share."""

import math

import numpy as np
import pytest

from structdl.datasets import adding, copy_memory, labelled_sequences
from structdl.datasets.sequences import Splits, pad
from structdl.datasets.simulate_sequences import (
    memoryless_loss,
    simulate_adding,
    simulate_copy_memory,
)
from structdl.errors import InputError


def assert_same(one, other):
    for array, expected in zip(one, other, strict=True):
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == expected.dtype


@pytest.mark.parametrize("marks", ["anywhere", "halves"])
@pytest.mark.parametrize("time", [2, 3, 10, 601])
def test_adding_targets_are_the_sums_of_the_marked(time, marks):
    inputs, targets = simulate_adding(0, 50, time, marks=marks)
    assert inputs.shape == (50, time, 2)
    assert (inputs.dtype, targets.dtype, targets.shape) == (np.float32, np.float32, (50,))
    for sequence, target in zip(inputs, targets, strict=True):
        assert set(sequence[:, 1].tolist()) <= {0, 1}
        marked = [place for place in range(time) if sequence[place, 1] == 1]
        assert len(marked) == 2
        total = np.float32(0)
        for place in marked:
            total += sequence[place, 0]
        assert target == total
        if marks == "halves":
            assert marked[0] < time // 2 <= marked[1]
    assert inputs[..., 0].min() >= 0
    assert inputs[..., 0].max() < 1


def test_every_pair_of_places_is_as_likely():
    inputs, _ = simulate_adding(0, 12_000, 4)
    pairs, counts = np.unique(inputs[..., 1], axis=0, return_counts=True)
    assert len(pairs) == 6
    np.testing.assert_allclose(counts, 2000, atol=5 * math.sqrt(2000))
    inputs, targets = simulate_adding(1, 12_000, 5, marks="halves")
    assert len(np.unique(inputs[..., 1], axis=0)) == 2 * 3
    assert inputs[..., 0].mean() == pytest.approx(1 / 2, abs=0.01)
    assert np.square(targets - 1).mean() == pytest.approx(1 / 6, rel=0.05)


@pytest.mark.parametrize("time", [1, 2, 7, 1000])
def test_copy_memory_equals_a_loop(time):
    inputs, targets = simulate_copy_memory(3, 20, time)
    for sequence, target in zip(inputs.tolist(), targets.tolist(), strict=True):
        symbols = sequence[:10]
        assert set(symbols) <= set(range(1, 9))
        assert sequence == symbols + [0] * (time - 1) + [9] * 11
        assert target == [0] * (time + 10) + symbols
    assert inputs.dtype == targets.dtype == np.uint8


def test_copy_memory_has_every_symbol_at_every_place():
    symbols = simulate_copy_memory(0, 8000, 1).inputs[:, :10]
    counts = np.stack([(symbols == value).sum(axis=0) for value in range(1, 9)])
    np.testing.assert_allclose(counts, 1000, atol=5 * math.sqrt(1000))


def test_memoryless_loss_is_that_of_the_best_guess():
    targets = simulate_copy_memory(0, 1, 50).targets[0]
    losses = [math.log(8) if target else 0.0 for target in targets]
    assert memoryless_loss(50) == pytest.approx(np.mean(losses))


@pytest.mark.parametrize("simulate", [simulate_adding, simulate_copy_memory])
def test_the_seed_decides_and_fewer_are_the_first_of_more(simulate):
    assert_same(simulate(1, 9, 30), simulate(1, 9, 30))
    assert_same(simulate(1, 4, 30), [array[:4] for array in simulate(1, 9, 30)])
    assert not np.array_equal(simulate(2, 9, 30).inputs, simulate(1, 9, 30).inputs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


NUMBERS = {"num_train": 30, "num_validation": 7, "num_test": 11}


@pytest.mark.parametrize("time", [13, 200])
@pytest.mark.parametrize(
    ("module", "width"),
    [(adding, (2,)), (copy_memory, ())],
)
def test_load_gives_what_was_drawn(module, width, time, folder, monkeypatch):
    monkeypatch.setattr(labelled_sequences, "VALUES_PER_EXAMPLE", 1000)  # several examples a split
    config = module.make_config(time, **NUMBERS, seed=5)
    for _ in range(2):  # prepared, and read again
        splits = module.load(time, **NUMBERS, seed=5, data_dir=folder)
        assert [len(split.inputs) for split in splits] == [30, 7, 11]
        for name in Splits._fields:
            assert_same(getattr(splits, name), labelled_sequences.draw_split(config, name))
        assert splits.train.inputs.shape[2:] == width
        assert not np.array_equal(splits.validation.inputs, splits.test.inputs[:7])


def test_other_splits_leave_a_split_as_it_is(folder):
    one = adding.load(20, num_train=5, num_validation=0, num_test=3, data_dir=folder)
    other = adding.load(20, num_train=9, num_validation=4, num_test=0, data_dir=folder)
    assert_same(one.train, [array[:5] for array in other.train])
    assert one.validation.inputs.shape == (0, 20, 2)
    assert other.test.targets.shape == (0,)
    halves = adding.load(20, num_train=5, num_test=3, marks="halves", data_dir=folder)
    assert (halves.train.inputs[:, :10, 1].sum(axis=1) == 1).all()


def test_default_numbers_are_those_of_the_paper(folder):
    splits = copy_memory.load(3, data_dir=folder)
    assert [split.inputs.shape for split in splits] == [(10_000, 23), (1_000, 23), (1_000, 23)]
    assert adding.make_config(600).num_train == 50_000


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        (adding, {"time": 1}, "T is 1: it must be at least 2"),
        (adding, {"time": 9, "marks": "halfs"}, "unknown marks 'halfs': did you mean 'halves'"),
        (adding, {"time": 9, "num_train": 0}, "num_train is 0: it must be at least 1"),
        (adding, {"time": 9, "seed": -1}, "seed is -1: it must be at least 0"),
        (copy_memory, {"time": 0}, "T is 0: it must be at least 1"),
        (copy_memory, {"time": 9, "num_validation": -1}, "num_validation is -1"),
    ],
)
def test_bad_arguments_are_named(module, arguments, message, folder):
    with pytest.raises(InputError, match=message):
        module.load(**arguments, data_dir=folder)


def test_bad_arguments_of_the_simulators_are_named():
    for simulate, least in ((simulate_adding, 2), (simulate_copy_memory, 1)):
        with pytest.raises(InputError, match=f"T is {least - 1}: it must be at least {least}"):
            simulate(0, 1, least - 1)
        with pytest.raises(InputError, match="num is -1"):
            simulate(0, -1, 10)
    with pytest.raises(InputError, match="unknown marks 'none'"):
        simulate_adding(0, 1, 10, marks="none")


def test_configurations_made_on_demand_are_quiet(folder, capfd):
    adding.load(5, **NUMBERS, data_dir=folder)
    assert capfd.readouterr() == ("", "")


def test_pad_equals_a_loop():
    rng = np.random.default_rng(0)
    sequences = [rng.normal(size=(length, 3)).astype(np.float32) for length in (4, 0, 7, 1)]
    values, lengths = pad(sequences)
    assert values.shape == (4, 7, 3)
    assert (values.dtype, lengths.dtype, lengths.tolist()) == (np.float32, np.int32, [4, 0, 7, 1])
    for row, sequence in enumerate(sequences):
        for time in range(7):
            expected = sequence[time] if time < len(sequence) else [0, 0, 0]
            np.testing.assert_array_equal(values[row, time], expected)
    with pytest.raises(InputError, match="no sequences to pad"):
        pad([])
