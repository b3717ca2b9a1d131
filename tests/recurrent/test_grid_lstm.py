"""Grid LSTM against a loop over blocks in NumPy; the two orders against each other."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structdl.errors import InputError
from structdl.recurrent.grid_lstm import default_order, grid_block, grid_lstm
from structdl.recurrent.grid_orders import State, Transform

BATCH = 3
GRIDS = {
    "1, tied": ((5,), (3,), ("lstm",), (True,)),
    "1, untied": ((4,), (3,), ("lstm",), (False,)),
    "2, shared": ((4, 3), (3, 2), ("lstm", "lstm"), (True, True)),
    "2, depth of its own": ((3, 5), (3, 2), ("lstm", "relu"), (True, False)),
    "3, identity": ((3, 2, 4), (2, 3, 2), ("lstm", "lstm", "identity"), (True, True, False)),
    "3, unshared along the longest": ((2, 4, 3), (2, 3, 2), ("lstm",) * 3, (True, False, True)),
    "3, two unshared": ((3, 2, 4), (2, 1, 2), ("lstm",) * 3, (False, True, False)),
    "4": ((2, 1, 3, 2), (2, 2, 1, 3), ("lstm",) * 4, (True, False, True, True)),
}


def make(grid, seed=0):
    """Random transforms and edges of one of GRIDS."""
    extents, features, kinds, shared = grid
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(0.5 * rng.normal(size=shape), jnp.float32)

    unshared = [extent for extent, same in zip(extents, shared, strict=True) if not same]
    gates = [
        width * (4 if kind == "lstm" else 1) for width, kind in zip(features, kinds, strict=True)
    ]
    transforms = [
        Transform(draw(*unshared, sum(features), number), draw(*unshared, number))
        for number in gates
    ]
    edges = []
    for d, (width, kind) in enumerate(zip(features, kinds, strict=True)):
        others = [extent for j, extent in enumerate(extents) if j != d]
        memory = width if kind == "lstm" else 0
        edges.append(State(draw(BATCH, *others, width), draw(BATCH, *others, memory)))
    return transforms, edges


def block_by_hand(transforms, states, kinds, priority):
    """A block in NumPy, dimension by dimension: [(hidden, memory), ...]."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    hiddens, found = [np.asarray(hidden) for hidden, _ in states], {}

    def compute(d, joined):
        kernel, bias = map(np.asarray, transforms[d])
        gates = joined @ kernel + bias
        if kinds[d] != "lstm":
            return (np.maximum(gates, 0) if kinds[d] == "relu" else gates), states[d][1]
        enter, forget, candidate, leave = np.split(gates, 4, axis=-1)
        memory = sigmoid(forget) * states[d][1] + sigmoid(enter) * np.tanh(candidate)
        return np.tanh(sigmoid(leave) * memory), memory

    before = np.concatenate(hiddens, axis=-1)
    for d in range(len(states)):
        if d not in priority:
            found[d] = compute(d, before)
            hiddens[d] = found[d][0]
    for d in priority:
        found[d] = compute(d, np.concatenate(hiddens, axis=-1))
        hiddens[d] = found[d][0]
    return [found[d] for d in range(len(states))]


def grid_by_hand(transforms, edges, grid, lengths=None, priority=()):
    """Block after block; the far edges as `grid_lstm` returns them."""
    extents, _, kinds, shared = grid
    number = len(extents)
    far = [State(*(np.array(leaf) for leaf in edge)) for edge in edges]  # overwritten on the way
    for place in itertools.product(*map(range, extents)):
        own = tuple(at for at, same in zip(place, shared, strict=True) if not same)
        rows = [(slice(None), *place[:d], *place[d + 1 :]) for d in range(number)]
        states = [
            (far[d].hidden[rows[d]].copy(), far[d].memory[rows[d]].copy()) for d in range(number)
        ]
        weights = [(kernel[own], bias[own]) for kernel, bias in transforms]
        within = np.ones(BATCH, bool)
        for d, length in enumerate(lengths or [None] * number):
            if length is not None:
                within &= place[d] < np.asarray(length)
        for d, (hidden, memory) in enumerate(block_by_hand(weights, states, kinds, priority)):
            far[d].hidden[rows[d]] = np.where(within[:, None], hidden, states[d][0])
            far[d].memory[rows[d]] = np.where(within[:, None], memory, states[d][1])
    return far


def run(transforms, edges, grid, order, **options):
    extents, _, kinds, shared = grid
    return grid_lstm(transforms, edges, extents, kinds=kinds, shared=shared, order=order, **options)


def assert_close(found, expected, atol=1e-6):
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("order", ["nested", "wavefront"])
@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_is_its_blocks_one_after_another(name, order):
    grid = GRIDS[name]
    transforms, edges = make(grid)
    assert_close(run(transforms, edges, grid, order), grid_by_hand(transforms, edges, grid))


@pytest.mark.parametrize("order", ["nested", "wavefront"])
def test_lengths_and_a_priority_dimension(order):
    grid = GRIDS["3, unshared along the longest"]
    transforms, edges = make(grid)
    options = {"lengths": [jnp.array([2, 1, 0]), jnp.array([4, 3, 2]), None], "priority": (2,)}
    found = run(transforms, edges, grid, order, **options)
    assert_close(found, grid_by_hand(transforms, edges, grid, **options))
    for leaf, edge in zip(jax.tree.leaves(found[:1]), jax.tree.leaves(edges[:1]), strict=True):
        np.testing.assert_array_equal(leaf[2], edge[2])  # of no length at all


@pytest.mark.parametrize("name", ["1, untied", "2, shared", "3, two unshared"])
def test_orders_agree_in_value_and_gradient(name):
    grid = GRIDS[name]
    args = make(grid)
    lengths = [jnp.array([grid[0][0], 1, 2]), *[None] * (len(grid[0]) - 1)]

    def loss(args, order, rematerialize):
        far = run(*args, grid, order, lengths=lengths, rematerialize=rematerialize)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(far))

    results = [
        jax.jit(jax.value_and_grad(loss), static_argnums=(1, 2))(args, order, rematerialize)
        for order in ("nested", "wavefront")
        for rematerialize in (False, True)
    ]
    for other in results[1:]:
        assert_close(other, results[0])
    assert (
        min(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(results[0][1]) if leaf.size) > 0
    )


@pytest.mark.parametrize("order", ["nested", "wavefront"])
def test_what_stands_in_the_padding_changes_no_bit(order):
    """A sequence of length 2 along the second dimension does not see its edge beyond."""
    grid = GRIDS["2, shared"]
    transforms, edges = make(grid)
    lengths = [None, jnp.array([2, 3, 3])]
    other = State(*(leaf.at[0, 2].set(7.0) for leaf in edges[0]))  # enters at its place 2
    first, second = (
        run(transforms, [edge, edges[1]], grid, order, lengths=lengths)
        for edge in (edges[0], other)
    )
    for left, right in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(left[1:], right[1:])
    np.testing.assert_array_equal(first[1].hidden[0], second[1].hidden[0])
    np.testing.assert_array_equal(first[0].hidden[0, :2], second[0].hidden[0, :2])


def test_two_forms_of_the_output():
    """A candidate that is wide open: memory 1 / 2 + tanh(1) / 2, of gates of a half."""
    transform = Transform(jnp.zeros((1, 4)), jnp.array([0.0, 0.0, 1.0, 0.0]))
    state = State(jnp.zeros(1), jnp.ones(1))
    memory = 0.5 + 0.5 * np.tanh(1.0)
    for squash, expected in ((False, np.tanh(memory / 2)), (True, np.tanh(memory) / 2)):
        (found,) = grid_block([transform], [state], squash_memory=squash)
        np.testing.assert_allclose(found.memory, [memory], rtol=1e-6)
        np.testing.assert_allclose(found.hidden, [expected], rtol=1e-6)


def num_steps(args, grid, order):
    """The length of the longest loop, of the outermost."""
    jaxpr = jax.make_jaxpr(lambda args: run(*args, grid, order))(args)
    return max(eqn.params["length"] for eqn in jaxpr.eqns if eqn.primitive.name == "scan")


def test_a_wavefront_takes_as_many_steps_as_there_are_diagonals():
    grid = ((6, 4), (2, 2), ("lstm", "lstm"), (True, True))
    args = make(grid)
    lengths = {order: num_steps(args, grid, order) for order in ("nested", "wavefront")}
    assert lengths == {"nested": 6, "wavefront": 9}


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_the_order_by_default_is_that_of_the_platform(monkeypatch, platform):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    expected = "nested" if platform == "cpu" else "wavefront"
    grid = GRIDS["2, shared"]  # 4 x 3, of which a wavefront computes 6 x 3
    args = make(grid)
    assert default_order(args[0], (4, 3)) == expected
    assert default_order(args[0], (40, 3)) == "wavefront", "42 x 3 are but a little more"
    assert num_steps(args, grid, "auto") == num_steps(args, grid, expected)
    wide = Transform(jnp.zeros((800, 1600)), jnp.zeros(1600))
    assert default_order([args[0][0], wide], (4, 3)) == "wavefront"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extents": (0, 3)}, r"extents\[0\] is 0"),
        ({"extents": (4,)}, "2 transforms for 1 dimensions"),
        ({"extents": (4, 5)}, r"edges\[0\].hidden has shape \(3, 3, 3\)"),
        ({"kinds": ("lstm", "gru")}, r"kinds\[1\] 'gru'"),
        ({"kinds": ("lstm", "relu")}, r"edges\[1\].memory has shape \(3, 4, 2\): it must be"),
        ({"shared": (True, False)}, r"transforms\[0\].kernel has shape"),
        ({"order": "diagonal"}, "unknown order 'diagonal'"),
        ({"lengths": [jnp.array([9, 1, 1]), None]}, r"lengths\[0\]\[0\] = 9"),
        ({"lengths": [jnp.array([4, 1, 1])]}, "1 lengths for 2 dimensions"),
        ({"lengths": [None, jnp.array([1])]}, r"lengths\[1\] has shape \(1,\) .* \(3,\)"),
        ({"priority": (2,)}, r"priority is \(2,\): give dimensions, 0 to 1"),
        ({"priority": (-1,)}, r"priority is \(-1,\)"),
        ({"priority": (1, 1)}, r"priority is \(1, 1\)"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    transforms, edges = make(GRIDS["2, shared"])
    options = {"extents": (4, 3)} | change
    with pytest.raises(InputError, match=message):
        grid_lstm(transforms, edges, options.pop("extents"), **options)
