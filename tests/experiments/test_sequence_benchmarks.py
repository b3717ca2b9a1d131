"""The sides of a sequence benchmark do the same work."""

import jax
import numpy as np
import pytest

from experiments.benchmarks import sequences
from experiments.benchmarks.case import OURS

SIZE = sequences.Size(batch=3, time=4, in_features=2, hidden=5)


@pytest.mark.peers
@pytest.mark.parametrize("layer", ["RNN", "GRU", "LSTM"])
def test_every_side_differentiates_by_kernels_and_inputs(layer):
    torch = pytest.importorskip("torch")
    from experiments.benchmarks import sequence_peers

    case = sequences.recurrent_case(layer, SIZE)
    kernels = {}
    for side in (OURS, sequences.LINEN):
        value, (variables_bar, xs_bar) = case.sides[side]()()
        assert value > 0
        assert np.abs(xs_bar).min() > 0
        leaves = [leaf for leaf in jax.tree.leaves(variables_bar) if leaf.ndim == 2]
        assert all(np.abs(leaf).max() > 0 for leaf in leaves)
        kernels[side] = sum(leaf.size for leaf in leaves)
    assert kernels[OURS] == kernels[sequences.LINEN]

    module = getattr(torch.nn, layer)(SIZE.in_features, SIZE.hidden, batch_first=True)
    sequence_peers.training_step(lambda xs: module(xs)[0], module, sequences.inputs(SIZE))()
    weights = [weight for weight in module.parameters() if weight.ndim == 2]
    assert all(weight.grad.abs().max() > 0 for weight in weights)
    assert sum(weight.numel() for weight in weights) == kernels[OURS]
    case.sides[sequences.TORCH]()()


def test_the_goals_name_sides():
    for case in sequences.CASES:
        assert set(case.goals) == set(case.sides) - {OURS}
    assert len({case.name for case in sequences.CASES}) == len(sequences.CASES)
