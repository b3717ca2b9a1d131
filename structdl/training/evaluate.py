"""Metrics over a split: the same sums inside the compiled loop and at a run's end."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from structdl.training.metrics import add_totals, means
from structdl.training.seeds import over_seeds, stack
from structdl.training.task import Inputs, Task, TotalAndCount


def evaluation_key(key: jax.Array) -> jax.Array:
    """A key that no training step uses: steps are folded in from 0 upwards."""
    return jax.random.fold_in(key, np.uint32(2**32 - 1))


def number_batches(batches: Sequence[Any]) -> tuple[np.ndarray, Any] | None:
    """(numbers, batches) stacked, or None without batches; a batch may be without any array."""
    return stack(list(enumerate(batches))) if len(batches) else None


def metric_totals(
    task: Task, selected, data, seed_data, numbered_batches, key
) -> dict[str, TotalAndCount]:
    """Sums a task's metrics over batches stacked by `number_batches`, for one seed, traced."""
    num_batches = numbered_batches[0].shape[0]

    def of_batch(index):
        _, batch = jax.tree.map(lambda leaf: leaf[index], numbered_batches)
        batch_key = jax.random.fold_in(key, index)
        return task.metrics(*selected, Inputs(data, seed_data, batch), batch_key)

    def add_batch(totals, index):
        return add_totals([totals, of_batch(index)]), None

    first = of_batch(0)
    if num_batches == 1:
        return first
    # weak types would make the carry's type differ from the sum's
    first = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), first)
    return jax.lax.scan(add_batch, first, jnp.arange(1, num_batches))[0]


def make_evaluate(task: Task, compiler_options: Mapping[str, Any] | None = None):
    """Returns `evaluate(selected, keys, seeds, split) -> {name: [num_seeds]}`, for a split's means.

    Batches are streamed one by one, so that a test set need not fit on the device; the program is
    compiled once for all groups of seeds of a size. An absent split gives {}.
    """

    def totals_of_batch(selected, key, seed_data, data, batch, index):
        batch_key = jax.random.fold_in(evaluation_key(key), index)
        return task.metrics(*selected, Inputs(data, seed_data, batch), batch_key)

    compiled = jax.jit(
        over_seeds(totals_of_batch, (0, 0, 0, None, None, None)), compiler_options=compiler_options
    )

    def evaluate(selected, keys, seeds, split: str) -> dict[str, np.ndarray]:
        seed_data = stack([task.seed_data(seed) for seed in seeds])
        of_batch = partial(compiled, selected, keys, seed_data, task.data)
        parts = [of_batch(batch, i) for i, batch in enumerate(task.eval_batches(split))]
        return means(jax.device_get(add_totals(parts))) if parts else {}

    return evaluate
