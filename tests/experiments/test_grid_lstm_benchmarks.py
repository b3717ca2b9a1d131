"""The sides of the benchmark of Grid LSTM compute the same, on whatever device they take."""

import jax
import numpy as np
import pytest

from experiments.benchmarks import grid_lstm, measure
from experiments.benchmarks.alternate import rows
from experiments.benchmarks.case import OURS
from structdl.errors import InputError

GRIDS = ((4, 2), (2, 3, 2))


@pytest.mark.peers
@pytest.mark.parametrize("extents", GRIDS)
def test_every_side_has_the_same_loss_and_gradients(extents):
    pytest.importorskip("torch")
    case = grid_lstm.step_case(extents, batch=3, hidden=5)
    expected = jax.tree.leaves(case.sides[OURS]()())
    assert len(expected) == 1 + 4 * len(extents)
    assert all(np.abs(leaf).min() > 0 for leaf in expected[1:])
    for side in set(case.sides) - {OURS}:
        _, (weights, edges) = found = case.sides[side]()()
        assert len(weights) == len(edges) == len(extents)
        for ours, theirs in zip(expected, jax.tree.leaves(found), strict=True):
            theirs = theirs if isinstance(theirs, jax.Array) else theirs.cpu().numpy()
            np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-5)


def test_a_side_that_computes_another_grid_is_refused():
    def step(extents, arrays):
        weights, edges = arrays
        return grid_lstm.our_step("auto", extents, (weights[::-1], edges))

    with pytest.raises(InputError, match="this is another grid"):
        grid_lstm.prepare(step, (4, 2), 3, 5)


def test_compiling_is_timed_in_a_process_of_its_own():
    case = grid_lstm.compilation_case("nested", (2, 2))
    assert case.sides[OURS]()() > 0
    assert case.sides[grid_lstm.ALLOWED]()() == 20


def test_the_family_is_listed_and_has_goals_of_either_device():
    assert "grid_lstm" in measure.FAMILIES
    assert len({case.name for case in grid_lstm.CASES}) == len(grid_lstm.CASES) == 5
    case = grid_lstm.step_case((36, 18))
    assert case.name in {each.name for each in grid_lstm.CASES}
    milliseconds = {side: [1.0] for side in case.sides}
    goals = {
        on_gpu: {row["peer"]: row["goal"] for row in rows(case, milliseconds, on_gpu=on_gpu)}
        for on_gpu in (False, True)
    }
    on_both = {grid_lstm.TORCH: 1.0, grid_lstm.NESTED: None, grid_lstm.WAVEFRONT: None}
    assert goals == {False: on_both, True: on_both | {grid_lstm.NESTED: 5.0}}


def test_a_row_of_a_gpu_names_it():
    (row,) = rows(grid_lstm.CASES[-1], {OURS: [900.0], grid_lstm.ALLOWED: [20000.0]})
    assert "wavefront | 900" in measure.format_table([row | {"device": "x86_64 CPU, 2 cores"}])
    named = measure.format_table([row | {"device": "1 x NVIDIA H100"}])
    assert "wavefront, on 1 x NVIDIA H100 | 900" in named
