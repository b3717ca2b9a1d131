"""The sides of the benchmark of optimizers go down the same landscapes in the same way."""

import subprocess

import jax
import numpy as np
import pytest

from experiments.benchmarks import one_by_one, optax_peers, optimizers
from experiments.benchmarks.case import OURS
from experiments.optimizer_comparison.compare import Config
from experiments.optimizer_comparison.landscapes import LANDSCAPES
from experiments.optimizer_comparison.search import RATE
from experiments.optimizer_comparison.workload import Job
from structdl.training.update_rules import UPDATE_RULES

STEPS = 100
JOBS = [
    Job("Rosenbrock", {RATE: 1e-4}, seed=0),
    Job("quadratic 1e2", {RATE: 0.01}, seed=1),
    Job("saddle", {RATE: 0.05}, seed=2),  # which is left
    Job("Rosenbrock", {RATE: 1.0}, seed=3),  # which diverges
]


def outcomes(side, tmp_path):
    with jax.numpy_rank_promotion("allow"):
        return optimizers.workload(side, STEPS).run("momentum", JOBS, tmp_path)


def test_lanes_and_single_descents_have_the_same_heights(tmp_path):
    expected = outcomes(OURS, tmp_path)
    for side in ("optax_peers.python_loop", "optax_peers.compiled_loop"):
        for ours, theirs in zip(expected, outcomes(side, tmp_path), strict=True):
            assert theirs.steps == ours.steps
            assert theirs.diverged == ours.diverged
            if not ours.diverged:
                np.testing.assert_allclose(theirs.validation, ours.validation, rtol=1e-3)
                np.testing.assert_allclose(theirs.selected, ours.selected, rtol=1e-3)
                assert theirs.taken == ours.taken
    assert [outcome.diverged for outcome in expected] == [False, False, False, True]
    assert [outcome.taken for outcome in expected[:3]] == [STEPS, STEPS, 27]


@pytest.mark.peers
@pytest.mark.parametrize("optimizer", UPDATE_RULES)
def test_torch_and_optax_have_the_same_heights(optimizer):
    pytest.importorskip("torch")
    from experiments.benchmarks import torch_optim_peers

    for landscape, rate in (("Beale", 1e-3), ("quadratic 1e2", 0.02)):
        theirs, expected = (
            module.python_loop(optimizer, landscape, STEPS)(rate, 0)
            for module in (torch_optim_peers, optax_peers)
        )
        assert len(expected) == STEPS + 1
        assert expected[-1] < 0.99 * expected[0]
        np.testing.assert_allclose(theirs, expected, rtol=1e-4)


@pytest.mark.peers
@pytest.mark.parametrize("landscape", [name for name in LANDSCAPES if "noise" not in name])
def test_torch_has_the_same_functions(landscape):
    torch = pytest.importorskip("torch")
    from experiments.benchmarks import torch_optim_peers

    its = LANDSCAPES[landscape]
    for shift in (0.0, 0.1, -0.2):
        place = np.array(its.start, np.float32) + np.float32(shift)
        with jax.numpy_rank_promotion("allow"):
            height, slope = jax.value_and_grad(its.function)(place)
        point = torch.tensor(place, requires_grad=True)
        theirs = torch_optim_peers.FUNCTIONS[landscape](point)
        theirs.backward()
        np.testing.assert_allclose(theirs.item(), height, rtol=1e-5)
        np.testing.assert_allclose(point.grad.numpy(), slope, rtol=1e-4, atol=1e-5)


@pytest.mark.peers
def test_torch_has_noise_where_the_landscape_has():
    pytest.importorskip("torch")
    from experiments.benchmarks import torch_optim_peers

    for landscape, differ in (("Beale", False), ("Beale, noise", True)):
        descend = torch_optim_peers.python_loop("sgd", landscape, 5)
        assert np.array_equal(descend(1e-3, 0), descend(1e-3, 0))
        assert np.array_equal(descend(1e-3, 0), descend(1e-3, 1)) != differ


def test_a_step_is_compiled_once_for_all_rates_noises_and_seeds():
    for landscape in ("Beale", "Beale, noise"):
        descend = optax_peers.python_loop("adam", landscape, 3)
        assert np.isfinite(descend(1e-3, 0)).all()
        assert not np.array_equal(descend(1e-3, 0), descend(1e-2, 1))
    function = LANDSCAPES["Beale"].function
    assert optax_peers._compiled_step("adam", function)._cache_size() == 1


def test_a_study_of_single_descents_has_them_all(monkeypatch):
    asked = []

    def prepare(optimizer, landscape, num_steps):
        def descend(rate, seed):
            asked.append((optimizer, landscape, seed))
            return np.linspace(1.0, 0.0, num_steps + 1)

        return descend

    workload = one_by_one.landscapes_one_by_one(prepare, STEPS)
    monkeypatch.setattr(optimizers, "workload", lambda side, num_steps: workload)
    assert optimizers.seconds_of_descents("any", optimizers.Size(trials=2, seeds=1)) > 0
    assert len(asked) == len(set(asked)) == 3 * len(UPDATE_RULES) * len(LANDSCAPES)


@pytest.mark.parametrize(("size", "times"), [(optimizers.STUDY, 0), (optimizers.FIFTH, 4)])
def test_what_a_part_leaves_out_is_reckoned(monkeypatch, size, times):
    done = subprocess.CompletedProcess([], 0, stdout=b"100.0\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: done)
    assert times * 100 <= optimizers.whole_study("any", size)() < times * 100 + 5


def test_the_case_is_the_default_study_and_names_its_sides():
    config = Config()
    assert (config.trials, config.num_seeds) == optimizers.STUDY
    assert config.optimizers == tuple(UPDATE_RULES)
    for case in optimizers.CASES:
        assert set(case.goals) < set(case.sides) - {OURS}
        assert case.whole_process
        assert case.own_clock
