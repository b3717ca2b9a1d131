"""Simulated systems against NumPy and SciPy integrators, with their energies and their walls."""

import jax
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from structdl.datasets.particles import FEATURES, SIMULATORS, load
from structdl.datasets.simulate_particles import (
    simulate_charged,
    simulate_kuramoto,
    simulate_springs,
)
from structdl.errors import InputError

SIMULATIONS = [simulate_springs, simulate_charged, simulate_kuramoto]
SHORT = {"num": 8, "num_frames": 5, "steps_per_frame": 10}
MANY = {"num": 1000, "num_frames": 5}  # few sizes, since every size is compiled


def arrays(simulate, seed=0, **changes):
    return [np.asarray(array) for array in simulate(jax.random.key(seed), **SHORT | changes)]


def spring_force(edges, positions):
    force = np.zeros_like(positions)
    for i in range(len(positions)):
        for j in range(len(positions)):
            force[i] -= 0.1 * edges[i, j] * (positions[i] - positions[j])
    return force


def charge_force(edges, positions):
    force = np.zeros_like(positions)
    for i in range(len(positions)):
        for j in range(len(positions)):
            if i != j:
                offset = positions[i] - positions[j]
                sign = 1 if edges[i, j] else -1
                force[i] += sign * offset / np.linalg.norm(offset) ** 3
    return force


def leap_frog(force, edges, state, num_steps, step_size=0.001, box=5.0, max_force=100.0):
    """The plain rule, particle by particle."""
    positions, velocities = state[:, :2].copy(), state[:, 2:].copy()
    for _ in range(num_steps):
        velocities += step_size / 2 * np.clip(force(edges, positions), -max_force, max_force)
        positions += step_size * velocities
        for place in np.argwhere(np.abs(positions) > box):
            number, axis = place
            wall = np.sign(positions[number, axis]) * box
            positions[number, axis] = 2 * wall - positions[number, axis]
            velocities[number, axis] *= -1
        velocities += step_size / 2 * np.clip(force(edges, positions), -max_force, max_force)
    return np.concatenate([positions, velocities], axis=1)


@pytest.mark.parametrize(
    ("simulate", "force"), [(simulate_springs, spring_force), (simulate_charged, charge_force)]
)
def test_particles_equal_a_numpy_leap_frog(simulate, force):
    with jax.enable_x64(True):
        states, edges = arrays(simulate, steps_per_frame=50)
    for system in range(3):
        for frame in range(4):
            expected = leap_frog(force, edges[system], states[system, frame], 50)
            np.testing.assert_allclose(states[system, frame + 1], expected, rtol=1e-9, atol=1e-9)
    assert np.abs(states[:, -1] - states[:, 0]).max() > 0.05
    single, same_edges = arrays(simulate, steps_per_frame=50)
    assert single.dtype == np.float32
    assert same_edges.dtype == np.int32


def test_walls_equal_a_numpy_leap_frog():
    # fast particles in a small box: most of them are reflected
    fast = {"box": 1.0, "speed": 20.0, "steps_per_frame": 40}
    with jax.enable_x64(True):
        states, edges = arrays(simulate_springs, **fast)
        free, _ = arrays(simulate_springs, **fast | {"box": np.inf})
    assert np.abs(free[..., :2]).max() > 3
    assert np.abs(states[..., :2]).max() <= 1
    for frame in range(4):
        expected = leap_frog(spring_force, edges[0], states[0, frame], 40, box=1.0)
        np.testing.assert_allclose(states[0, frame + 1], expected, rtol=1e-9, atol=1e-9)
    # nobody is outside at first either, and walls take no energy from those without springs
    states, _ = arrays(simulate_springs, **fast | {"edge_probability": 0.0, "position_std": 3.0})
    assert np.abs(states[..., :2]).max() <= 1
    speeds = np.linalg.norm(states[..., 2:], axis=-1)
    np.testing.assert_allclose(speeds, 20, rtol=1e-5)


@pytest.mark.parametrize("simulate", [simulate_springs, simulate_charged])
def test_energy_is_conserved(simulate):
    is_charged = simulate is simulate_charged
    # far apart, so that in many systems no two charges meet
    changes = {"position_std": 3.0, "box": np.inf, "strength": 0.2} if is_charged else {}
    states, edges = arrays(simulate, **MANY, steps_per_frame=100, **changes)
    positions, velocities = states[..., :2].astype(float), states[..., 2:].astype(float)
    offsets = positions[:, :, :, None] - positions[:, :, None]
    distances = np.linalg.norm(offsets, axis=-1)
    i, j = np.triu_indices(5, 1)
    pairs = distances[:, :, i, j]
    types = edges[:, None, i, j]
    potential = 0.2 * (2 * types - 1) / pairs if is_charged else 0.1 * types * pairs**2 / 2
    energy = (velocities**2).sum(axis=(2, 3)) / 2 + potential.sum(axis=2)
    calm = pairs.min(axis=(1, 2)) > 0.5 if is_charged else np.ones(1000, bool)
    assert calm.sum() >= 500
    drift = np.abs(energy - energy[:, :1])[calm]
    assert drift.max() < 1e-3
    kinetic = (velocities**2).sum(axis=(2, 3)) / 2
    assert np.abs(kinetic - kinetic[:, :1]).max() > 20 * drift.max()


def test_forces_of_charges_that_meet_are_clipped():
    states, _ = arrays(simulate_charged, position_std=0.05, max_force=10.0, speed=0.0)
    assert np.isfinite(states).all()
    change = np.abs(np.diff(states[..., 2:], axis=1))
    bound = 10 * 0.001 * 10  # force, time of a step, steps
    # a wall turns velocities round, but none is reached here
    assert np.abs(states[..., :2]).max() < 5
    assert 0.99 * bound < change.max() < 1.001 * bound
    at_one_place, _ = arrays(simulate_charged, position_std=0.0, speed=0.0)
    np.testing.assert_array_equal(at_one_place, 0)


def test_initial_states():
    for simulate in (simulate_springs, simulate_charged):
        states = arrays(simulate, **MANY)[0][:, :1]
        assert states[..., :2].std() == pytest.approx(0.5, rel=0.02)
        assert np.abs(states[..., :2].mean(axis=(0, 1, 2))).max() < 0.02
        np.testing.assert_allclose(np.linalg.norm(states[..., 2:], axis=-1), 0.5, rtol=1e-5)
        assert np.abs(states[..., 2:].mean(axis=(0, 1, 2))).max() < 0.02
    states = arrays(simulate_kuramoto, **MANY)[0][:, :1]
    assert states.shape == (1000, 1, 5, 3)
    frequencies = states[..., 2]
    assert 1 <= frequencies.min() < 1.01
    assert 9.99 < frequencies.max() < 10
    assert frequencies.mean() == pytest.approx(5.5, abs=0.1)
    # sines of uniform phases have mean 0 and variance 1/2
    assert abs(states[..., 1].mean()) < 0.02
    assert states[..., 1].var() == pytest.approx(0.5, abs=0.02)


def test_oscillators_equal_scipy():
    with jax.enable_x64(True):
        states, edges = arrays(simulate_kuramoto, num_frames=12)
    assert edges.sum() > 0
    for system in range(8):
        rates, sines, frequencies = states[system].transpose(2, 0, 1)
        np.testing.assert_array_equal(frequencies, np.broadcast_to(frequencies[:1], (12, 5)))

        def derivative(_, phases, frequencies=frequencies[0], edges=edges[system]):
            differences = phases[:, None] - phases[None]
            return frequencies + (edges * np.sin(differences)).sum(axis=1)

        # the sine leaves two phases for each oscillator; the rates say which of them it is
        acute = np.arcsin(sines[0])
        options = np.stack([acute, np.pi - acute])
        choices = np.stack(np.meshgrid(*[[0, 1]] * 5, indexing="ij"), -1).reshape(-1, 5)
        errors = [
            np.abs(derivative(0, options[choice, np.arange(5)]) - rates[0]).max()
            for choice in choices
        ]
        initial = options[choices[np.argmin(errors)], np.arange(5)]
        assert min(errors) < 1e-9
        times = 0.1 * np.arange(12)
        tight = {"rtol": 1e-10, "atol": 1e-10, "t_eval": times}
        if edges[system].any(axis=1).all():  # else the phase of a lone oscillator is open
            phases = solve_ivp(derivative, (0, times[-1]), initial, **tight).y.T
            np.testing.assert_allclose(sines, np.sin(phases), atol=1e-5)
            expected = [derivative(0, phase) for phase in phases]
            np.testing.assert_allclose(rates, expected, atol=1e-5)


def test_a_lone_oscillator_keeps_its_frequency():
    states, edges = arrays(simulate_kuramoto, edge_probability=0.0, num_frames=49)
    rates, sines, frequencies = np.moveaxis(states, -1, 0)
    assert not edges.any()
    np.testing.assert_allclose(rates, frequencies, rtol=1e-6)
    # a sine of frequency w, sampled: s(t+1) + s(t-1) = 2 cos(w / 10) s(t)
    middle = 2 * np.cos(0.1 * frequencies[:, 1:-1]) * sines[:, 1:-1]
    np.testing.assert_allclose(sines[:, 2:] + sines[:, :-2], middle, atol=2e-5)


@pytest.mark.parametrize("simulate", SIMULATIONS)
def test_edges(simulate):
    _, edges = arrays(simulate, **MANY)
    assert edges.shape == (1000, 5, 5)
    assert set(np.unique(edges)) == {0, 1}
    np.testing.assert_array_equal(edges, edges.transpose(0, 2, 1))
    assert not np.einsum("nii->ni", edges).any()
    i, j = np.triu_indices(5, 1)
    assert edges[:, i, j].mean(axis=0) == pytest.approx(np.full(10, 0.5), abs=0.07)
    if simulate is simulate_charged:  # friends of friends are friends, and so are foes of foes
        signs = 2 * edges + np.eye(5, dtype=int) * 2 - 1
        for one, two in zip(signs[:50], signs[:50, :1], strict=True):
            np.testing.assert_array_equal(one, two.T * two)
    else:
        assert not arrays(simulate, edge_probability=0.0)[1].any()
        assert (arrays(simulate, edge_probability=1.0)[1].sum(axis=(1, 2)) == 20).all()


@pytest.mark.parametrize("simulate", SIMULATIONS)
def test_the_key_decides_each_system_alone(simulate):
    one, again = arrays(simulate, 3), arrays(simulate, 3)
    more, longer = arrays(simulate, 3, **MANY), arrays(simulate, 3, num_frames=9)
    other = arrays(simulate, 4)
    for first, second in zip(one, again, strict=True):
        np.testing.assert_array_equal(first, second)
    for first, second in zip(one, more, strict=True):
        np.testing.assert_allclose(first, second[:8], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(one[0], longer[0][:, :5], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(one[1], longer[1])
    assert not np.allclose(one[0], other[0])
    assert not np.allclose(one[0][0], one[0][1])


@pytest.mark.parametrize(
    ("simulate", "name", "value", "words"),
    [
        *[(simulate, "num", 0, "at least 1") for simulate in SIMULATIONS],
        *[(simulate, "objects", 1, "at least 2") for simulate in SIMULATIONS],
        *[(simulate, "num_frames", 0, "at least 1") for simulate in SIMULATIONS],
        *[(simulate, "steps_per_frame", 0, "at least 1") for simulate in SIMULATIONS],
        *[(simulate, "step_size", 0.0, "above 0") for simulate in SIMULATIONS],
        *[(simulate, "strength", np.nan, "0 or more") for simulate in SIMULATIONS],
        (simulate_springs, "edge_probability", 1.1, "0 to 1"),
        (simulate_kuramoto, "edge_probability", -0.1, "0 to 1"),
        (simulate_springs, "position_std", -1.0, "0 or more"),
        (simulate_charged, "speed", np.inf, "0 or more"),
        (simulate_charged, "box", 0.0, "above 0, or inf for no walls"),
        (simulate_charged, "max_force", 0.0, "above 0"),
    ],
)
def test_values_out_of_range(simulate, name, value, words):
    with pytest.raises(InputError, match=f"{name} is {value}: it must be {words}"):
        arrays(simulate, **{name: value})


SIZES = {"num_frames": 5, "num_train": 6, "num_validation": 3, "num_test": 4}


@pytest.mark.parametrize("kind", SIMULATORS)
def test_the_set_is_what_the_simulator_gives(kind, tmp_path):
    splits = load(kind, objects=3, seed=7, data_dir=tmp_path, **SIZES)
    for number, (split, num) in enumerate(zip(splits, (6, 3, 4), strict=True)):
        key = jax.random.fold_in(jax.random.key(7), number)
        states, edges = SIMULATORS[kind](key, num=num, objects=3, num_frames=5)
        np.testing.assert_array_equal(split.states, states)
        np.testing.assert_array_equal(split.edges, edges)
        assert split.states.shape == (num, 5, 3, len(FEATURES[kind]))


def test_the_set_does_not_depend_on_what_a_program_computes_in(tmp_path):
    single = load("springs", objects=3, data_dir=tmp_path / "single", **SIZES)
    with jax.enable_x64(True):
        double = load("springs", objects=3, data_dir=tmp_path / "double", **SIZES)
    jax.tree.map(np.testing.assert_array_equal, double, single)
    assert double.train.states.dtype == np.float32


def test_fewer_systems_are_the_first_of_more_and_lie_in_stretches(tmp_path, monkeypatch):
    monkeypatch.setattr("structdl.datasets.particles.VALUES_PER_EXAMPLE", 100)  # two systems
    more = load("springs", objects=3, data_dir=tmp_path, **SIZES)
    fewer = load("springs", objects=3, data_dir=tmp_path, **SIZES | {"num_train": 2})
    np.testing.assert_array_equal(fewer.train.states, more.train.states[:2])
    np.testing.assert_array_equal(fewer.test.edges, more.test.edges)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_test": 0}, "num_test is 0: it must be at least 1"),
        ({"objects": 1}, "objects is 1: it must be at least 2"),
        ({"seed": -1}, "seed is -1: it must be at least 0"),
    ],
)
def test_sizes_that_are_no_set(changes, message, tmp_path):
    with pytest.raises(InputError, match=message):
        load("springs", data_dir=tmp_path, **{"objects": 3} | SIZES | changes)
    with pytest.raises(InputError, match="unknown system of particles 'spring'"):
        load("spring", data_dir=tmp_path)
