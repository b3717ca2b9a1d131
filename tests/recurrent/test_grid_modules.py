"""GridLSTM and TwoLSTM: their parameters, and what they compute with them."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from structdl.errors import InputError
from structdl.recurrent.grid_lstm import GridLSTM, as_state, as_values, grid_lstm
from structdl.recurrent.grid_orders import State, Transform
from structdl.recurrent.two_lstm import TwoLSTM

EXTENTS, FEATURES, KINDS = (3, 4, 2), (5, 5, 2), ("lstm", "lstm", "relu")


def shapes(params) -> dict:
    flat = traverse_util.flatten_dict(params, sep="/")
    return {name: leaf.shape for name, leaf in flat.items()}


def noisy(params, seed=0):
    """Parameters of which none is 0, so that none can be forgotten."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    noise = [
        0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)
    ]
    return structure.unflatten(leaf + more for leaf, more in zip(leaves, noise, strict=True))


def edge(key, *shape):
    first, second = jax.random.split(key)
    return State(jax.random.normal(first, shape), jax.random.normal(second, shape))


def test_the_module_is_the_function_of_its_parameters():
    grid = GridLSTM(EXTENTS, FEATURES, KINDS, (True, False, True), (0, 0, 2), priority=(2,))
    entering = [edge(jax.random.key(1), 2, 4, 2, 5), None, None]
    params = noisy(grid.init(jax.random.key(0), entering)["params"])
    assert shapes(params) == {
        "kernel_0": (4, 12, 20),
        "bias_0": (4, 20),
        "kernel_2": (4, 12, 2),
        "bias_2": (4, 2),
    }
    first = Transform(params["kernel_0"], params["bias_0"])
    zeros = State(jnp.zeros((2, 3, 2, 5)), jnp.zeros((2, 3, 2, 5)))
    depth = State(jnp.zeros((2, 3, 4, 2)), jnp.zeros((2, 3, 4, 0)))
    expected = grid_lstm(
        [first, first, Transform(params["kernel_2"], params["bias_2"])],
        [entering[0], zeros, depth],
        EXTENTS,
        kinds=KINDS,
        shared=(True, False, True),
        priority=(2,),
    )
    found = grid.apply({"params": params}, entering)
    chex.assert_trees_all_close(found, expected, rtol=1e-6)
    assert jnp.abs(as_values(found[2])).max() > 0


def test_forget_gates_start_open_and_each_gate_for_itself():
    grid = GridLSTM((2,), (200,), shared=(False,))
    params = grid.init(jax.random.key(0), [edge(jax.random.key(1), 1, 200)])["params"]
    enter, forget, *others = np.split(np.asarray(params["bias_0"]), 4, axis=1)
    assert (np.unique(forget).tolist(), np.unique([enter, *others]).tolist()) == ([1.0], [0.0])
    kernel = np.asarray(params["kernel_0"])
    # Glorot's deviation is that of a gate's [200, 200], not of [200, 800]
    np.testing.assert_allclose(kernel.std(axis=(1, 2)), np.sqrt(2 / 400), rtol=0.02)
    assert np.abs(np.corrcoef(kernel.reshape(2, -1))[0, 1]) < 0.02, "layers start different"


@pytest.mark.parametrize(
    ("options", "edges", "message"),
    [
        ({"weights_of": (0, 0)}, 2, "dimensions 1 and 0 share weights, and their features are 3"),
        ({"kinds": ("lstm", "relu"), "features": (2, 2), "weights_of": (0, 0)}, 2, "their kinds"),
        ({"weights_of": (1, 0)}, 2, r"weights_of\[0\] is 1: name a dimension that has"),
        ({"weights_of": (0, 7)}, 2, r"weights_of\[1\] is 7"),
        ({"features": (2, 0)}, 2, r"features\[1\] is 0"),
        ({"extents": (2, 0)}, 2, r"extents\[1\] is 0"),
        ({"features": (2,)}, 2, "1 features for 2 dimensions"),
        ({"shared": (True,)}, 2, "1 shared for 2 dimensions"),
        ({}, 1, "1 edges for 2 dimensions"),
        ({}, 0, "no edge is given"),
    ],
)
def test_what_no_grid_can_be_is_refused(options, edges, message):
    options = {"extents": (3, 3), "features": (2, 3)} | options
    entering = [edge(jax.random.key(0), 1, 3, options["features"][0]), None][:edges] or [None, None]
    with pytest.raises(InputError, match=message):
        GridLSTM(**options).init(jax.random.key(0), entering)


@pytest.mark.parametrize(("tied", "depth"), [(True, "lstm"), (False, "relu"), (True, "identity")])
def test_a_two_lstm_is_its_grid_between_a_projection_and_an_output(tied, depth):
    model = TwoLSTM(3, num_layers=2, tied=tied, depth=depth)
    xs = jax.random.normal(jax.random.key(1), (2, 5, 4))
    params = noisy(model.init(jax.random.key(0), xs)["params"])
    own, wide = () if tied else (2,), depth == "lstm"
    assert shapes(params) == {
        "projection/kernel": (4, 6 if wide else 3),
        "projection/bias": (6 if wide else 3,),
        "grid/kernel_0": (*own, 6, 12),
        "grid/bias_0": (*own, 12),
        "grid/kernel_1": (*own, 6, 12 if wide else 3),
        "grid/bias_1": (*own, 12 if wide else 3),
    }
    outputs, last = model.apply({"params": params}, xs)
    projected = xs @ params["projection"]["kernel"] + params["projection"]["bias"].reshape(1, 1, -1)
    entering = as_state(projected) if wide else State(projected, projected[..., :0])
    grid = params["grid"]
    zeros = State(jnp.zeros((2, 2, 3)), jnp.zeros((2, 2, 3)))
    time, top = grid_lstm(
        [Transform(grid[f"kernel_{d}"], grid[f"bias_{d}"]) for d in range(2)],
        [zeros, entering],
        (5, 2),
        kinds=("lstm", depth),
        shared=(True, tied),
    )
    chex.assert_trees_all_close((outputs, last), (as_values(top), time), rtol=1e-6)


def test_a_carry_goes_on_where_a_sequence_was_cut_and_lengths_end_it():
    model = TwoLSTM(3, num_layers=2)
    xs = jax.random.normal(jax.random.key(1), (2, 7, 4))
    params = noisy(model.init(jax.random.key(0), xs)["params"])
    outputs, last = model.apply({"params": params}, xs)
    before, carry = model.apply({"params": params}, xs[:, :4])
    after, end = model.apply({"params": params}, xs[:, 4:], carry=carry)
    together = jnp.concatenate([before, after], axis=1)
    chex.assert_trees_all_close((together, end), (outputs, last), rtol=1e-5, atol=1e-6)
    _, short = model.apply({"params": params}, xs, lengths=jnp.array([7, 4]))
    for ended, whole, cut in zip(short, last, carry, strict=True):
        np.testing.assert_allclose(ended[0], whole[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ended[1], cut[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 0}, "features is 0"),
        ({"num_layers": 0}, r"extents\[1\] is 0"),
        ({"lengths": [6, 1]}, r"lengths\[0\] = 6"),
        ({"time": 0, "lengths": [0, 0]}, r"extents\[0\] is 0"),
    ],
)
def test_what_no_two_lstm_can_be_is_refused(options, message):
    options = {"features": 3, "num_layers": 2, "lengths": [5, 1], "time": 5} | options
    xs, lengths = jnp.zeros((2, options.pop("time"), 4)), jnp.array(options.pop("lengths"))
    with pytest.raises(InputError, match=message):
        TwoLSTM(**options).init(jax.random.key(0), xs, lengths=lengths)
