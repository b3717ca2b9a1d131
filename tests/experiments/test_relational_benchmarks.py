"""The sides of the benchmark of relational inference compute the same step."""

import jax
import numpy as np
import pytest

from experiments.benchmarks import measure, relational
from experiments.benchmarks.case import OURS
from structdl.errors import InputError

SMALL = relational.Size(batch=3, encoder=8, decoder=6, objects=4)


@pytest.mark.peers
@pytest.mark.parametrize("kind", ["dense", "gathers"])
def test_torch_has_the_same_loss_and_gradients(kind):
    pytest.importorskip("torch")
    from experiments.benchmarks import relational_peers

    arrays = relational.inputs(SMALL)
    expected, gradients = relational.our_step(SMALL, arrays)()
    loss, found = relational_peers.training_step(kind, arrays)()
    np.testing.assert_allclose(loss.cpu(), expected, rtol=1e-5)
    ours = relational_peers.state_dicts(*jax.device_get(gradients))
    for network, theirs in zip(ours, found, strict=True):
        assert network.keys() == theirs.keys()
        for name, gradient in network.items():
            largest = np.abs(gradient).max()
            assert largest > 0
            np.testing.assert_allclose(theirs[name].cpu(), gradient, atol=1e-4 * largest)


def test_a_side_that_computes_another_network_is_refused():
    def step(size, arrays):
        return relational.our_step(size, arrays._replace(noise=-arrays.noise))

    with pytest.raises(InputError, match="this is another network"):
        relational.prepare(step, SMALL)


def test_simulating_is_timed_without_its_compilation():
    case = relational.simulation_case(5)
    assert 0 < case.sides[OURS]()() < case.sides[relational.ALLOWED]()() == 120


def test_the_family_is_listed_and_has_goals():
    assert "relational" in measure.FAMILIES
    names = [case.name for case in relational.CASES]
    assert len(set(names)) == len(names)
    assert all(case.goals for case in relational.CASES)
