"""A function with hand-written transposes against the same function with JAX's derivatives."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from structdl.core.linear import multilinear


def scaled_rows(linear, rows, factor):
    """Bilinear in the table and the weights, with an integer residual and a static factor."""
    table, weights = linear
    return factor * weights * table[rows]


def to_table(cotangent, linear, rows, factor):
    total = factor * linear[1] * cotangent
    return multilinear(scattered, (from_scattered,), (total,), rows, (4,))


def to_weights(cotangent, linear, rows, factor):
    return multilinear(scaled_rows, (to_table, to_weights), (linear[0], cotangent), rows, (factor,))


def scattered(linear, rows, count):
    return jnp.zeros(count, linear[0].dtype).at[rows].add(linear[0])


def from_scattered(cotangent, _, rows, count):
    ones = jnp.ones(rows.shape, cotangent.dtype)
    return multilinear(scaled_rows, (to_table, to_weights), (cotangent, ones), rows, (1,))


def by_hand(table, weights, rows):
    return multilinear(scaled_rows, (to_table, to_weights), (table, weights), rows, (3,))


def by_jax(table, weights, rows):
    return 3 * weights * table[rows]


ROWS = jnp.array([1, 1, 3, 0, 1])


def loss(function, table, weights, rows):
    """A recurrence, whose second derivatives `jax.custom_vjp` does not have: rows are integers."""

    def step(table, _):
        out = jnp.sin(function(table, weights, rows))
        return table + out[:4] * table, out

    table, outs = jax.lax.scan(step, table, length=2)
    return jnp.sum(table**2) + jnp.sum(outs**3)


def hessian_vector_products(function, table, weights, rows):
    def gradient(table, weights):
        return jax.grad(loss, argnums=(1, 2))(function, table, weights, rows)

    tangents = jnp.cos(table), jnp.cos(weights)
    backwards = jax.vjp(gradient, table, weights)[1](tangents)
    remade = jax.checkpoint(lambda *args: loss(function, *args, rows))
    return {
        "forward": jax.jvp(gradient, (table, weights), tangents)[1],
        "backward": backwards,
        "remade": jax.jvp(jax.grad(remade, (0, 1)), (table, weights), tangents)[1],
        "value and tangent": jax.jvp(
            lambda *args: function(*args, rows), (table, weights), tangents
        ),
    }


def assert_close(actual, expected):
    jax.tree.map(lambda *pair: np.testing.assert_allclose(*pair, rtol=1e-9), actual, expected)


def test_derivatives_in_scan_equal_those_of_jax():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        arrays = jnp.asarray(rng.normal(size=4)), jnp.asarray(rng.normal(size=5))
        actual, expected = (
            jax.jit(hessian_vector_products, static_argnums=0)(function, *arrays, ROWS)
            for function in (by_hand, by_jax)
        )
        assert_close(actual, expected)


def test_derivatives_under_vmap_equal_those_of_jax():
    """With a shared table, weights whose axis is the last, and a row of indices for each."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        arrays = jnp.asarray(rng.normal(size=4)), jnp.asarray(rng.normal(size=(5, 3)))
        rows = jnp.stack([ROWS, ROWS[::-1], 0 * ROWS])
        actual, expected = (
            jax.jit(jax.vmap(partial(hessian_vector_products, function), (None, 1, 0)))(
                *arrays, rows
            )
            for function in (by_hand, by_jax)
        )
        assert_close(actual, expected)


def test_a_shared_argument_of_vmap_gets_the_sum_of_the_cotangents():
    table, weights = jnp.arange(4.0), jnp.arange(15.0).reshape(3, 5)

    def gradient(function):
        mapped = jax.vmap(function, (None, 0, None))
        return jax.grad(lambda table: jnp.sum(mapped(table, weights, ROWS) ** 2))(table)

    assert_close(gradient(by_hand), gradient(by_jax))


def test_inside_shard_map_a_shared_argument_gets_the_sum_over_the_mesh():
    mesh = jax.make_mesh((1,), ("part",), axis_types=(jax.sharding.AxisType.Auto,))
    parts = jax.sharding.PartitionSpec("part")
    table, weights = jnp.arange(4.0), jnp.arange(5.0)

    def gradient(function):
        mapped = jax.shard_map(
            lambda *args: function(*args),
            mesh=mesh,
            in_specs=(jax.sharding.PartitionSpec(), parts, parts),
            out_specs=parts,
        )
        return jax.grad(lambda table: jnp.sum(mapped(table, weights, ROWS) ** 2))(table)

    assert_close(gradient(by_hand), gradient(by_jax))
