import numpy as np
import pytest

from structdl.errors import InputError
from structdl.training.batches import in_order, shuffled_epochs


def test_an_epoch_meets_each_example_once_in_an_order_of_its_own():
    batch = shuffled_epochs(np.arange(100, 130), 10)
    first = np.concatenate([batch(step, 0) for step in range(3)])
    assert sorted(first.tolist()) == list(range(100, 130))
    second = np.concatenate([batch(step, 0) for step in range(3, 6)])
    assert sorted(second.tolist()) == sorted(first.tolist())
    assert (first != second).any()
    assert (batch(0, 1) != first[:10]).any()
    np.testing.assert_array_equal(batch(0, 0), first[:10])
    assert first.dtype == np.int32


def test_what_fills_no_batch_is_left_out_of_its_epoch():
    batch = shuffled_epochs(np.arange(7), 3)
    epochs = [np.concatenate([batch(step, 0), batch(step + 1, 0)]) for step in range(0, 40, 2)]
    assert all(len(set(epoch)) == 6 for epoch in epochs)
    assert set(np.concatenate(epochs)) == set(range(7))


@pytest.mark.parametrize("batch_size", [0, 8])
def test_a_batch_that_cannot_be_filled_is_an_error(batch_size):
    with pytest.raises(InputError, match=f"--batch-size is {batch_size}: give 1 to 7"):
        shuffled_epochs(np.arange(7), batch_size)


def test_a_split_in_order_is_met_once():
    first, second = in_order(np.arange(7, 307), 250)
    assert [*first, *second[second >= 0]] == list(range(7, 307))
    assert len(first) == len(second) == 250
    (only,) = in_order(np.arange(3), 250)
    np.testing.assert_array_equal(only, [0, 1, 2])
    assert in_order(np.arange(0), 250) == []
