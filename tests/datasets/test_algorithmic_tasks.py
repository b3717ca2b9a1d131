"""Parity, addition and memorization against Python's own arithmetic on the strings."""

import numpy as np
import pytest

from structdl.datasets.algorithmic_tasks import load_addition, load_memorization, load_parity
from structdl.datasets.simulate_algorithmic import (
    simulate_addition,
    simulate_memorization,
    simulate_parity,
)
from structdl.errors import InputError

SIMULATIONS = {
    "parity": lambda num: simulate_parity([3], num, 9, share="any"),
    "addition": lambda num: simulate_addition([3], num, 4),
    "memorization": lambda num: simulate_memorization([3], num, 4),
}


def written(line) -> str:
    return "".join("-0123456789"[symbol] for symbol in line)


@pytest.mark.parametrize("share", ["half", "any"])
def test_parity_counts_the_ones(share):
    inputs, targets = simulate_parity(0, 4000, 12, share=share)
    assert set(np.unique(inputs).tolist()) == {0, 1}
    assert targets.tolist() == [sum(bits.tolist()) % 2 for bits in inputs]
    counts = np.bincount(inputs.sum(axis=1), minlength=13) / 4000
    if share == "any":  # all numbers of ones are as likely
        np.testing.assert_allclose(counts, 1 / 13, atol=0.02)
    else:
        np.testing.assert_allclose(counts[6], 924 / 4096, atol=0.03)


@pytest.mark.parametrize("num_digits", [1, 2, 5, 18])
def test_a_sum_is_that_of_what_stands_before_it(num_digits):
    inputs, targets = simulate_addition(0, 300, num_digits)
    assert inputs.shape == targets.shape == (300, 3 * num_digits + 4)
    carries = set()
    for read, said in zip(map(written, inputs), map(written, targets), strict=True):
        first, second = read.strip("-").split("-")
        assert len(first) == len(second) == num_digits
        assert read == f"-{first}-{second}" + "-" * (num_digits + 2)
        total = str(int(first) + int(second))
        assert said == ("-" * (2 * num_digits + 2) + total).ljust(len(read), "-")
        carries.add(len(total) - num_digits)
        if num_digits > 1:
            assert first[0] != "0" != second[0]
    assert carries == {0, 1}, "sums of both lengths are among them"


def test_memorization_says_the_string_again():
    inputs, targets = simulate_memorization(0, 200, 6, num_symbols=5)
    assert sorted(np.unique(inputs).tolist()) == [0, 1, 2, 3, 4, 5]
    for read, said in zip(inputs.tolist(), targets.tolist(), strict=True):
        assert read == [0, *said[7:13], *[0] * 7]
        assert said == [*[0] * 7, *read[1:7], 0]


@pytest.mark.parametrize("name", SIMULATIONS)
def test_fewer_are_the_first_of_more(name):
    more, fewer = SIMULATIONS[name](40), SIMULATIONS[name](7)
    for one, other in zip(more, fewer, strict=True):
        np.testing.assert_array_equal(one[:7], other)
    assert len(np.unique(more.inputs, axis=0)) > 30


def test_splits_are_different_strings_and_only_training_has_any_share(tmp_path):
    numbers = {"num_train": 500, "num_validation": 400, "num_test": 300, "data_dir": tmp_path}
    splits = load_parity(40, share="any", **numbers)
    assert [len(split.targets) for split in splits] == [500, 400, 300]
    deviations = [split.inputs.sum(axis=1).std() for split in splits]
    assert deviations[0] > 10 > 4 > max(deviations[1:])  # of 41 numbers alike; sqrt(10)
    for load, length in ((load_addition, 6), (load_memorization, 5)):
        train, _, test = load(length, **numbers)
        assert not {bytes(line) for line in train.inputs} & {bytes(line) for line in test.inputs}
        again = load(length, **numbers)
        np.testing.assert_array_equal(again.test.targets, test.targets)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simulate_parity(0, 1, 0), "the number of bits is 0"),
        (lambda: simulate_parity(0, 1, 3, share="most"), "unknown share 'most'"),
        (lambda: simulate_addition(0, 1, 0), "the number of digits is 0"),
        (lambda: simulate_addition(0, 1, 19), "the number of digits is 19: .* at most 18"),
        (lambda: simulate_memorization(0, 1, 0), "the length is 0"),
        (lambda: simulate_memorization(0, 1, 2, num_symbols=256), "256: .* at most 255"),
        (lambda: load_parity(4, num_train=0), "num_train is 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
