"""The sides of a sequence benchmark do the same work."""

import inspect

import jax
import numpy as np
import pytest

from experiments.benchmarks import sequences, tcn_cases
from experiments.benchmarks.case import OURS
from structdl.temporal.tcn import tcn_params

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


TCN = tcn_cases.Size("tiny", 3, 12, 2, 3, 2, 4, 5, every_step=True, dropout_rate=0.0)
TCNS = {
    "every step": TCN,
    "the last step": TCN._replace(every_step=False),
    "a number": TCN._replace(every_step=False, num_outputs=1, in_features=TCN.width),
}


def copied(params, network):
    """torch's network gets all weights of ours: [taps, in, features] as [features, in, taps]."""
    import torch

    weights = {"head.weight": params["kernel"].T, "head.bias": params["bias"]}
    places = ("layers.0.convolution", "layers.3.convolution", "residual")
    for level, block in enumerate(tcn_params(params["tcn"]["params"])):
        for place, convolution in zip(places, block, strict=True):
            if convolution is None:
                continue
            name, (direction, bias, scale) = f"blocks.{level}.{place}", convolution
            weight = f"{name}.weight"
            if scale is not None:
                weight = f"{name}.parametrizations.weight.original1"
                weights[weight[:-1] + "0"] = scale[:, None, None]
            weights |= {weight: direction.transpose(2, 1, 0), f"{name}.bias": bias}
    tensors = {name: torch.tensor(np.array(value)) for name, value in weights.items()}
    network.load_state_dict(tensors, strict=True)


def beside_ours(ours, size, pad_left=True):
    """torch's training step, from where ours begins."""
    from experiments.benchmarks import tcn_peers

    theirs = tcn_peers.training_step(size, pad_left)
    (params, *_) = inspect.getclosurevars(ours).nonlocals["state"]
    copied(params, inspect.getclosurevars(theirs).nonlocals["network"])
    return theirs


@pytest.mark.peers
@pytest.mark.parametrize("name", TCNS)
def test_all_sides_of_a_convolution_take_the_same_steps(name):
    pytest.importorskip("torch")
    size = TCNS[name]
    ours = tcn_cases.training_step(size)
    sides = [beside_ours(ours, size, pad_left) for pad_left in (False, True)]
    with jax.numpy_rank_promotion("allow"):
        expected, *found = ([step().item() for _ in range(3)] for step in (ours, *sides))
    # the later ones also by the gradients, and by what Adam makes of them
    np.testing.assert_allclose(found, [expected] * 2, rtol=1e-5)
    assert expected[2] < expected[0]


@pytest.mark.peers
def test_all_sides_of_a_convolution_drop_out():
    pytest.importorskip("torch")
    dropping = TCN._replace(dropout_rate=0.5)
    ours = tcn_cases.training_step(dropping)
    sides = [beside_ours(ours, dropping, pad_left) for pad_left in (False, True)]
    without = beside_ours(ours, TCN)().item()
    with jax.numpy_rank_promotion("allow"):
        assert all(abs(step().item() - without) > 1e-3 for step in (ours, *sides))


def test_the_goals_name_sides():
    for case in sequences.CASES:
        assert set(case.goals) == set(case.sides) - {OURS}
    assert len({case.name for case in sequences.CASES}) == len(sequences.CASES)
