"""Landscapes against other people's formulas, and descents against what is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from experiments.optimizer_comparison.descent import descend
from experiments.optimizer_comparison.landscapes import (
    ESCAPED,
    LANDSCAPES,
    gaussians,
    height,
    number_of,
    quadratic,
    rosenbrock,
    saddle,
)
from structdl.training.optimizers import OptimizerConfig, make_optimizer
from structdl.training.update_rules import UPDATE_RULES

QUIET = [name for name in LANDSCAPES if not name.endswith("noise")]


def optimizer(name, rate, **kwargs):
    rule = UPDATE_RULES[name]
    return make_optimizer(OptimizerConfig(rule.name, rate, dict(rule.kwargs) | kwargs))


def down(function, its, start, num_steps, seed=0, **kwargs):
    key = jax.random.key(seed)
    run = jax.jit(
        lambda: descend(function, its, jnp.array(start), key, num_steps=num_steps, **kwargs)
    )
    return jax.device_get(run())


@pytest.mark.parametrize(
    ("name", "point", "expected"),
    [
        ("quadratic 1e2", (10.0, 2.0), 2.5),
        ("saddle", (2.0, 3.0), -5.0),
        ("monkey saddle", (2.0, 1.0), 2.0),
        ("Beale", (0.0, 0.0), 1.5**2 + 2.25**2 + 2.625**2),
        ("Beale", (1.0, 2.0), 2.5**2 + 5.25**2 + 9.625**2),
        ("Branin", (0.0, 0.0), 36 + 10 * (1 - 1 / (8 * np.pi)) + 10),
    ],
)
def test_values_by_hand(name, point, expected):
    found = LANDSCAPES[name].function(jnp.array(point))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_values_of_other_libraries():
    points = np.random.default_rng(0).uniform(-1.5, 1.5, (50, 2))
    normals = [((-0.5, -0.8), 0.35), ((1, -0.5), 0.2), ((-1, 0.5), 0.2), ((-0.5, -0.8), 0.2)]
    expected = -sum(
        stats.multivariate_normal(*each[:1], each[1] ** 2).pdf(points) for each in normals
    )
    found = jax.vmap(gaussians)(jnp.asarray(points))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    found = jax.vmap(rosenbrock)(jnp.asarray(points))
    np.testing.assert_allclose(found, optimize.rosen(points.T), rtol=1e-4)


@pytest.mark.parametrize("name", QUIET)
def test_targets_are_flat_and_where_a_search_ends(name):
    its = LANDSCAPES[name]
    for target in its.targets:
        point = jnp.array(target)
        assert jnp.linalg.norm(jax.grad(its.function)(point)) < 1e-4
        if its.is_saddle:
            assert its.function(point) == 0.0
            continue
        np.testing.assert_allclose(its.function(point), its.lowest, atol=1e-5)
        near = optimize.minimize(
            lambda x: float(its.function(jnp.array(x))), target, method="Nelder-Mead"
        )
        np.testing.assert_allclose(near.fun, its.lowest, atol=1e-5)


def test_every_landscape_comes_with_noise_too():
    assert list(LANDSCAPES) == QUIET + [f"{name}, noise" for name in QUIET]
    for name in QUIET:
        noisy = LANDSCAPES[f"{name}, noise"]
        assert LANDSCAPES[name].noise == 0.0 < noisy.noise
        assert noisy._replace(noise=0.0) == LANDSCAPES[name]
        assert number_of(f"{name}, noise") == number_of(name)


@pytest.mark.parametrize("name", QUIET)
def test_one_program_goes_down_each(name):
    number = number_of(name)
    points = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (5, 2)), jnp.float32)
    numbers = jnp.full(5, number)
    chosen = jax.vmap(jax.value_and_grad(height, argnums=1))(numbers, points)
    alone = jax.vmap(jax.value_and_grad(LANDSCAPES[name].function))(points)
    for found, expected in zip(chosen, alone, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_landscape_that_overflows_spoils_no_other():
    """Beale's value is infinite at 1e10, where the bowl's is 1e20."""
    far = jnp.array([[1e10, 1e10]])
    value, slope = jax.vmap(jax.value_and_grad(height, argnums=1))(jnp.array([0]), far)
    np.testing.assert_allclose(value, [1e20], rtol=1e-6)
    np.testing.assert_allclose(slope, far, rtol=1e-6)


def test_gradient_descent_contracts_a_bowl_by_its_rate():
    """Each step multiplies x by 1 - rate / condition, y by 1 - rate."""
    found = down(lambda point: quadratic(point, 10.0), optimizer("sgd", 0.5), (3.0, 1.0), 30)
    powers = np.arange(31)[:, None]
    expected = np.array([3.0, 1.0]) * (1 - 0.5 * np.array([0.1, 1.0])) ** powers
    np.testing.assert_allclose(found.points, expected, rtol=1e-4)
    np.testing.assert_allclose(
        found.heights, (expected[:, 0] ** 2 / 10 + expected[:, 1] ** 2) / 2, rtol=1e-4
    )
    best = 2 / (1 + 1 / 100)  # of a condition of 100: both directions contract equally
    found = down(lambda point: quadratic(point, 100.0), optimizer("sgd", best), (10.0, 1.0), 200)
    ratios = np.linalg.norm(found.points[1:] / [10, 1], axis=1)
    ratios = ratios[150] / ratios[149]
    np.testing.assert_allclose(ratios, 1 - 2 / 101, rtol=1e-3)


def test_heavy_ball_contracts_by_the_root_of_the_condition():
    """Polyak's rate and momentum make it (sqrt(k) - 1) / (sqrt(k) + 1)."""
    condition = 100.0
    root = np.sqrt(condition)
    rate, momentum = 4 / (1 + 1 / root) ** 2, ((root - 1) / (root + 1)) ** 2
    its = optimizer("momentum", float(rate), momentum=float(momentum))
    found = down(lambda point: quadratic(point, condition), its, (10.0, 1.0), 120)
    sizes = np.linalg.norm(found.points / [10, 1], axis=1)
    per_step = (sizes[120] / sizes[40]) ** (1 / 80)  # powers of the rate, times the step's number
    assert (root - 1) / (root + 1) < per_step < (root - 1) / (root + 1) + 0.03


def test_adagrad_walks_down_a_slope_by_rates_over_the_root_of_t():
    found = down(
        lambda point: jnp.dot(point, jnp.array([2.0, -0.5])),
        optimizer("adagrad", 0.3),
        (0.0, 0.0),
        100,
    )
    moves = np.diff(found.points, axis=0)
    expected = 0.3 / np.sqrt(np.arange(1, 101))
    np.testing.assert_allclose(moves, np.outer(expected, [-1, 1]), rtol=1e-3)


@pytest.mark.parametrize("name", UPDATE_RULES)
def test_nobody_leaves_the_ridge_without_noise(name):
    its = optimizer(name, 0.05)
    still = down(saddle, its, (1.0, 0.0), 300)
    assert np.all(still.points[:, 1] == 0.0)
    assert np.all(still.heights >= 0)
    shaken = down(saddle, its, (1.0, 0.0), 300, noise=1e-3, lowest=ESCAPED)
    assert shaken.heights[-1] < ESCAPED
    assert abs(shaken.points[-1, 1]) > 1


def test_noise_is_on_the_gradient_alone_and_drawn_anew():
    its, deviation = optimizer("sgd", 1.0), 0.25
    found = down(
        lambda point: jnp.dot(point, jnp.array([1.0, 2.0])), its, (0.0, 0.0), 4000, noise=deviation
    )
    moves = np.diff(found.points, axis=0)
    np.testing.assert_allclose(moves.mean(axis=0), [-1, -2], atol=4 * deviation / np.sqrt(4000))
    np.testing.assert_allclose(moves.std(axis=0), deviation, rtol=0.05)
    assert abs(np.corrcoef(moves[:-1, 0], moves[1:, 0])[0, 1]) < 0.1
    np.testing.assert_allclose(found.heights, found.points @ [1, 2], rtol=1e-3, atol=1e-3)
    same, other = (down(quadratic, its, (1.0, 1.0), 5, seed=n, noise=0.1).points for n in (0, 1))
    repeated = down(quadratic, its, (1.0, 1.0), 5, seed=0, noise=0.1).points
    np.testing.assert_array_equal(same, repeated)
    assert np.all(same[1:] != other[1:])


def test_a_descent_that_diverges_keeps_its_last_point():
    found = down(quadratic, optimizer("sgd", 50.0), (1.0, 1.0), 100)
    assert found.diverged
    assert np.isfinite(found.points).all()
    assert found.taken < 100
    np.testing.assert_array_equal(
        found.points[found.taken :], found.points[-1:].repeat(101 - found.taken, 0)
    )


def test_a_descent_ends_below_the_lowest_height():
    found = down(saddle, optimizer("sgd", 0.1), (1.0, 0.1), 100, lowest=ESCAPED)
    assert not found.diverged
    first = int(np.argmax(found.heights < ESCAPED))
    assert 0 < first == found.taken < 100
    assert np.all(found.heights[first:] == found.heights[-1])


def test_hyperparameters_are_arrays():
    its, traces = optimizer("sgd", 0.1), []

    @jax.jit
    def run(rate):
        traces.append(rate)
        return descend(
            quadratic,
            its,
            jnp.ones(2),
            jax.random.key(0),
            num_steps=3,
            hyperparams={"learning_rate": rate},
        ).points[-1]

    np.testing.assert_allclose(run(0.5), [0.125, 0.125])
    np.testing.assert_allclose(run(0.25), [0.75**3] * 2)
    assert len(traces) == 1
