"""The 3-LSTM of images against a loop over patches and layers in NumPy, and what sees what."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structdl.errors import InputError
from structdl.recurrent.grid_lstm_images import ThreeLSTM, as_patches

BATCH, FEATURES = 2, 3
# of each layer in turn, the steps from one patch to the next along rows and along columns
DIRECTIONS = [(1, 1), (-1, 1), (-1, -1), (1, -1)]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def patches_by_hand(images, size):
    """Patch after patch."""
    _, height, width = images.shape
    rows = [
        [
            [images[:, top + y, left + x] for y in range(size) for x in range(size)]
            for left in range(0, width, size)
        ]
        for top in range(0, height, size)
    ]
    return np.moveaxis(np.array(rows), -1, 0)  # [batch, rows, columns, size * size]


def three_lstm_by_hand(params, patches, num_layers, depth):
    """Layer after layer, patch after patch from the layer's corner on: (hidden, memory)."""
    batch, rows, columns, _ = patches.shape
    entering = patches @ params["projection"]["kernel"] + params["projection"]["bias"]
    hidden, memory = entering[..., :FEATURES].copy(), entering[..., FEATURES:].copy()
    for layer in range(num_layers):
        its = params[f"layer_{layer}"]
        down, right = DIRECTIONS[layer % 4]
        from_row = {column: (np.zeros((batch, FEATURES)),) * 2 for column in range(columns)}
        for row in range(rows)[::down]:
            from_column = (np.zeros((batch, FEATURES)),) * 2
            for column in range(columns)[::right]:
                own = hidden[:, row, column], memory[:, row, column]
                states = [from_row[column], from_column, own]
                joined = np.concatenate([state[0] for state in states], axis=1)
                left = []
                for d, (_, old) in enumerate(states):
                    gates = joined @ its[f"kernel_{d}"] + its[f"bias_{d}"]
                    if d == 2 and depth == "relu":
                        left.append((np.maximum(gates, 0), old))
                        continue
                    enter, forget, candidate, leave = np.split(gates, 4, axis=1)
                    new = sigmoid(forget) * old + sigmoid(enter) * np.tanh(candidate)
                    left.append((np.tanh(sigmoid(leave) * new), new))
                from_row[column], from_column = left[0], left[1]
                hidden[:, row, column], memory[:, row, column] = left[2]
    return hidden, memory


def make(num_layers, depth, order="auto", rows=3, columns=2, in_features=4):
    """A model, parameters of which none is 0, and patches."""
    model = ThreeLSTM(FEATURES, num_layers, depth, order=order)
    rng = np.random.default_rng(0)
    patches = jnp.asarray(rng.normal(size=(BATCH, rows, columns, in_features)), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), patches)["params"]
    params = jax.tree.map(
        lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), jnp.float32), params
    )
    return model, params, patches


@pytest.mark.parametrize("size", [1, 2, 4])
def test_patches_are_cut_row_by_row(size):
    images = np.random.default_rng(0).normal(size=(3, 8, 12)).astype(np.float32)
    found = as_patches(jnp.asarray(images), size)
    np.testing.assert_array_equal(found, patches_by_hand(images, size))


@pytest.mark.parametrize("order", ["nested", "wavefront"])
@pytest.mark.parametrize("depth", ["lstm", "relu"])
def test_a_three_lstm_is_its_blocks_from_corner_to_corner(depth, order):
    model, params, patches = make(5, depth, order)  # the fifth begins where the first did
    found = jax.jit(model.apply)({"params": params}, patches)
    host = jax.tree.map(np.asarray, params)
    hidden, memory = three_lstm_by_hand(host, np.asarray(patches), 5, depth)
    np.testing.assert_allclose(found.hidden, hidden, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.memory, memory, rtol=1e-5, atol=1e-6)


@partial(jax.jit, static_argnums=0)  # compiled once for the tests of one model
def jacobian_of(model, params, patches):
    def hidden(patches):
        return model.apply({"params": params}, patches[None]).hidden[0].sum(axis=-1)

    return jax.jacobian(hidden)(patches[0])  # [rows, columns, rows, columns, in_features]


def sees(model, params, patches):
    """[rows, columns, rows, columns]: whether what leaves at a patch depends on another one."""
    return np.abs(np.asarray(jacobian_of(model, params, patches))).max(axis=-1) > 0


def test_one_layer_sees_what_lies_towards_its_corner():
    model, params, patches = make(1, "lstm", rows=3, columns=4)
    row, column, other_row, other_column = np.indices((3, 4, 3, 4))
    expected = (other_row <= row) & (other_column <= column)
    np.testing.assert_array_equal(sees(model, params, patches), expected)


@pytest.mark.parametrize("layer", range(4))
def test_each_layer_begins_at_a_corner_of_its_own(layer):
    """A layer whose gates towards rows and columns are cut off sees its own patch alone."""
    model, params, patches = make(4, "lstm", rows=3, columns=4)
    for other in {0, 1, 2, 3} - {layer}:
        its = params[f"layer_{other}"]
        its["kernel_2"] = its["kernel_2"].at[: 2 * FEATURES].set(0)
    down, right = DIRECTIONS[layer]
    row, column, other_row, other_column = np.indices((3, 4, 3, 4))
    expected = (down * (row - other_row) >= 0) & (right * (column - other_column) >= 0)
    np.testing.assert_array_equal(sees(model, params, patches), expected)


def test_four_layers_see_everything():
    assert sees(*make(4, "lstm", rows=3, columns=4)).all()


@pytest.mark.parametrize(
    ("size", "message"),
    [(3, "size is 3, and images have 4 x 6 pixels"), (0, "size is 0"), (4, "4 x 6 pixels")],
)
def test_patches_that_do_not_cover_an_image_are_refused(size, message):
    with pytest.raises(InputError, match=message):
        as_patches(jnp.zeros((1, 4, 6)), size)


@pytest.mark.parametrize(("sizes", "name"), [((2, 0), "num_layers"), ((0, 2), "features")])
def test_no_layers_and_no_features_are_refused(sizes, name):
    with pytest.raises(InputError, match=f"{name} is 0"):
        ThreeLSTM(*sizes).init(jax.random.key(0), jnp.zeros((1, 2, 2, 1)))
