"""The Reencoder: a 3-LSTM over a source sentence, a target sentence and depth.

A layer is a grid of blocks [source, target, 1]. Along `target` enters what each source symbol is
projected to, along `source` what each previous target word is, so that the row of target place j
reads the whole source once more, knowing the target words before j. What leaves the row along
`source`, at the end of the sentence, tells word j. Depth carries a vector of each block to that of
the next layer, which scans the source from the other end.

Reference: Kalchbrenner, Danihelka, Graves (2015), "Grid long short-term memory", arXiv:1507.01526,
section 4.5.
Differs from the paper: where it is silent, each layer has its own projections of both sentences,
and what enters the first one along depth is zeros.
"""

from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from structdl.core.masks import length_mask, select
from structdl.core.scan import check_lengths, reverse_within
from structdl.errors import require_at_least
from structdl.recurrent.gates import gate_biases, gate_kernels
from structdl.recurrent.grid_lstm import as_state, as_values, grid_lstm
from structdl.recurrent.grid_orders import State, Transform

glorot = nn.initializers.glorot_uniform()


def reencode(
    layers: Sequence[Callable[..., tuple[State, ...]]],
    sources: Sequence[State],
    targets: Sequence[State],
    lengths: Int[Array, " batch"],
    depth_features: int,
) -> tuple[Float[Array, "batch target outputs"], list[State]]:
    """Rows of the Reencoder: what tells the word of each, and what enters the next row.

    All rows of a sentence may be run at once, or one after another, each from what the one before
    has left.

    Args:
      layers: of each one `(edges, lengths=lengths) -> states`, a `grid_lstm` of extents (source,
        target, 1) with its transforms bound.
      sources: of each layer what enters along `target`, leaves [batch, source, features]; layers
        1, 3 and on have it in reverse order, see `reverse_within`.
      targets: of each layer what enters along `source`, leaves [batch, target, features].
      lengths: of the source sentences.
      depth_features: the width of depth.

    Returns hidden and memory of all layers side by side, and the sources of the row that follows.
    """
    batch, extent = sources[0].hidden.shape[:2]
    rows = targets[0].hidden.shape[1]
    shape = (batch, extent, rows, depth_features)
    # XLA would compute at compile time, slowly, what becomes of so many zeros
    deep = jax.lax.optimization_barrier(jnp.zeros(shape, sources[0].hidden.dtype))
    outputs, following = [], []
    for place, (layer, source, target) in enumerate(zip(layers, sources, targets, strict=True)):
        if place > 0:
            deep = reverse_within(deep, lengths)
        along = [jax.tree.map(lambda leaf: leaf[:, :, None], edge) for edge in (target, source)]
        far = layer([*along, as_state(deep, with_memory=False)], lengths=[lengths, None, None])
        deep = far[2].hidden
        outputs.append(as_values(far[0])[:, :, 0])
        following.append(jax.tree.map(lambda leaf: leaf[:, :, 0], far[1]))
    return jnp.concatenate(outputs, axis=-1), following


class Reencoder(nn.Module):
    """The Reencoder of embedded sentences; see `reencode`.

    `enter` projects source sentences, `rows` reads target words against what that gives, any
    number at a time, and gives what enters the next row.

    Attributes:
      features: the width of the source and of the target dimension, which share their weights.
      depth_features: the width of depth, which has no memory and no nonlinearity.
      num_layers: the extent of depth; each layer has its own weights.
      forget_bias: at which the forget gates' biases start; the others start at 0.
      order, rematerialize: see `grid_lstm`.

    Parameters of each layer i: `source_i` and `target_i`, projections to hidden and memory;
    `kernel_i` and `bias_i`, as in `Transform`, of both dimensions, and, but for the last layer,
    `depth_kernel_i` and `depth_bias_i`.

    Raises:
      InputError: a width or num_layers below 1; see also `grid_lstm`.
    """

    features: int
    depth_features: int
    num_layers: int = 2
    forget_bias: float = 1.0
    order: str = "auto"
    rematerialize: bool = False

    def setup(self):
        for name in ("features", "depth_features", "num_layers"):
            require_at_least(name, getattr(self, name), 1)
        self.source_projections, self.target_projections = (
            [
                nn.Dense(2 * self.features, name=f"{side}_{place}")
                for place in range(self.num_layers)
            ]
            for side in ("source", "target")
        )
        self.transforms = [self._transforms(place) for place in range(self.num_layers)]

    def enter(
        self, source: Float[Array, "batch source embedding"], lengths: Int[Array, " batch"]
    ) -> list[State]:
        """What enters the first row, of each layer in its own direction.

        Raises:
          InputError: the lengths are not those of the sentences; see `check_lengths`.
        """
        check_lengths(lengths, batch=source.shape[0], time=source.shape[1])
        # what stands in the padding changes no gradient
        source = select(length_mask(lengths, source.shape[1]), source, 0)
        states = [as_state(project(source)) for project in self.source_projections]
        return [
            jax.tree.map(lambda leaf: reverse_within(leaf, lengths), state) if place % 2 else state
            for place, state in enumerate(states)
        ]

    def rows(
        self,
        sources: Sequence[State],
        targets: Float[Array, "batch target embedding"],
        lengths: Int[Array, " batch"],
    ) -> tuple[Float[Array, "batch target outputs"], list[State]]:
        """What tells the word after each target word, and what enters the row that follows."""
        layers = [
            partial(
                grid_lstm,
                transforms,
                extents=(sources[0].hidden.shape[1], targets.shape[1], 1),
                kinds=("lstm", "lstm", "identity"),
                order=self.order,
                rematerialize=self.rematerialize,
            )
            for transforms in self.transforms
        ]
        entering = [as_state(project(targets)) for project in self.target_projections]
        return reencode(layers, sources, entering, lengths, self.depth_features)

    def __call__(
        self,
        source: Float[Array, "batch source embedding"],
        lengths: Int[Array, " batch"],
        targets: Float[Array, "batch target embedding"],
    ) -> Float[Array, "batch target outputs"]:
        """What tells the word after each target word, all rows at once."""
        return self.rows(self.enter(source, lengths), targets, lengths)[0]

    def _transforms(self, place: int) -> tuple[Transform, Transform, Transform]:
        """Those of source, target and depth."""
        joined, width = 2 * self.features + self.depth_features, self.depth_features
        both = Transform(
            self.param(f"kernel_{place}", gate_kernels(glorot, 4), (joined, 4 * self.features)),
            self.param(f"bias_{place}", gate_biases(self.forget_bias), (4 * self.features,)),
        )
        if place == self.num_layers - 1:  # nobody reads what leaves it along depth
            shapes = ((joined, width), (width,))
            return both, both, Transform(*(jnp.zeros(shape, both.bias.dtype) for shape in shapes))
        kernel = self.param(f"depth_kernel_{place}", glorot, (joined, width))
        bias = self.param(f"depth_bias_{place}", nn.initializers.zeros, (width,))
        return both, both, Transform(kernel, bias)
