"""How the parameters of gates that lie side by side start: each gate's kernel for itself."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

Initializer = Callable[..., Array]  # `(key, shape) -> array`, as those of flax.linen


def gate_kernels(init: Initializer, num_gates: int) -> Initializer:
    """An initializer of kernels [..., rows, gates * units]; axes in front are those of more such.

    The width that `init` sees is that of one gate, by which its variance goes.

    >>> count_columns = lambda key, shape: jnp.full(shape, float(shape[1]))
    >>> gate_kernels(count_columns, 2)(jax.random.key(0), (1, 6)).tolist()
    [[3.0, 3.0, 3.0, 3.0, 3.0, 3.0]]
    """

    def initialize(key: Key[Array, ""], shape: Sequence[int]) -> Float[Array, "*more rows columns"]:
        *more, rows, columns = shape
        keys = jax.random.split(key, (*more, num_gates))

        def of_gate(key):
            return init(key, (rows, columns // num_gates))

        for _ in more:
            of_gate = jax.vmap(of_gate)
        return jnp.concatenate([of_gate(keys[..., gate]) for gate in range(num_gates)], axis=-1)

    return initialize


def gate_biases(forget_bias: float) -> Initializer:
    """An initializer of an LSTM's biases [..., 4 * units]: 0, but for the forget gates'.

    >>> gate_biases(1.0)(jax.random.key(0), (8,)).tolist()
    [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """

    def initialize(key: Key[Array, ""], shape: Sequence[int]) -> Float[Array, "*more columns"]:
        units = shape[-1] // 4
        return jnp.zeros(shape).at[..., units : 2 * units].set(forget_bias)

    return initialize
