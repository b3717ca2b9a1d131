"""The 3-LSTM of images: a grid of patches, with the network's depth as its third dimension."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from structdl.errors import InputError, require_at_least
from structdl.recurrent.grid_lstm import GridLSTM, Kind, as_state
from structdl.recurrent.grid_orders import State

# The axes of [batch, rows, columns, features] to be flipped so that a scan that begins at the first
# row and column begins at this corner. From one to the next is a quarter turn.
CORNERS = {"top left": (), "bottom left": (1,), "bottom right": (1, 2), "top right": (2,)}


def as_patches(
    images: Float[Array, "batch height width"], size: int
) -> Float[Array, "batch rows columns pixels"]:
    """Patches of size x size pixels that do not overlap; the pixels of each row by row.

    Raises:
      InputError: a size below 1, or one that does not divide the images' sides.

    >>> as_patches(jnp.arange(16.0).reshape(1, 4, 4), 2)[0, 1, 0].tolist()
    [8.0, 9.0, 12.0, 13.0]
    """
    batch, height, width = images.shape
    require_patch("size", size, height, width)
    split = images.reshape(batch, height // size, size, width // size, size)
    split = jnp.swapaxes(split, 2, 3)  # [batch, rows, columns, size, size]
    return split.reshape(batch, height // size, width // size, size * size)


def require_patch(name: str, size: int, height: int, width: int) -> None:
    """Raises InputError unless patches of size x size pixels cover an image without a rest."""
    require_at_least(name, size, 1)
    if height % size or width % size:
        raise InputError(
            f"{name} is {size}, and images have {height} x {width} pixels: give a number that "
            "divides both"
        )


def seen_from(state: State, corner: str) -> State:
    """States [batch, rows, columns, features] with the patch at this corner first.

    Twice is once there and back.

    >>> places = jnp.arange(4.0).reshape(1, 2, 2, 1)
    >>> seen_from(State(places, places), "bottom left").hidden.ravel().tolist()
    [2.0, 3.0, 0.0, 1.0]
    """
    return jax.tree.map(lambda leaf: jnp.flip(leaf, CORNERS[corner]), state)


class ThreeLSTM(nn.Module):
    """A 3-LSTM over the rows, the columns and the depth of a grid of patches.

    A patch's projection enters along depth as hidden and memory. A layer is a `GridLSTM` of depth
    1; it begins at one corner of the image with zeros along rows and columns and ends at the
    opposite one, and the layers take the four corners in turn (`CORNERS`). After four layers what
    leaves along depth at any patch depends on all patches.

    Attributes:
      features: the width of all three dimensions.
      num_layers: the extent of depth; each layer has weights of its own (the paper's untied).
      depth: "lstm", or "relu" or "identity" for a dimension without memory.
      squash_memory, forget_bias, order, rematerialize: see `GridLSTM`.

    Parameters: `projection/kernel`, `projection/bias` and those of `layer_0` and on, GridLSTMs.

    Raises:
      InputError: no features or no layers; see also `GridLSTM`.

    Reference: Kalchbrenner, Danihelka, Graves (2015), "Grid long short-term memory",
    arXiv:1507.01526, sections 3.4 and 4.6.
    """

    features: int
    num_layers: int = 4
    depth: Kind = "lstm"
    squash_memory: bool = False
    forget_bias: float = 1.0
    order: str = "auto"
    rematerialize: bool = False

    @nn.compact
    def __call__(self, patches: Float[Array, "batch rows columns in_features"]) -> State:
        """What leaves along depth at the top, leaves [batch, rows, columns, features]."""
        for name in ("features", "num_layers"):
            require_at_least(name, getattr(self, name), 1)
        with_memory = self.depth == "lstm"
        projected = nn.Dense((1 + with_memory) * self.features, name="projection")(patches)
        state = as_state(projected, with_memory=with_memory)
        corners = list(CORNERS)
        for number in range(self.num_layers):
            corner = corners[number % len(corners)]
            layer = GridLSTM(
                extents=(*patches.shape[1:3], 1),
                features=(self.features,) * 3,
                kinds=("lstm", "lstm", self.depth),
                squash_memory=self.squash_memory,
                forget_bias=self.forget_bias,
                order=self.order,
                rematerialize=self.rematerialize,
                name=f"layer_{number}",
            )
            *_, state = layer([None, None, seen_from(state, corner)])
            state = seen_from(state, corner)
        return state
