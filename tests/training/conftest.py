"""A task small enough to check by hand: linear regression in memory, streamed by indices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structdl.training.task import Task


def make_regression(num_examples=48, batch_size=8) -> Task:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(num_examples, 3)).astype(np.float32)
    targets = (inputs @ np.array([1.0, 2.0, -1.0]) + 0.1).astype(np.float32)

    def squared_error(params, inputs):
        features, targets = inputs.data
        index, mask = inputs.batch
        error = jnp.square(features[index] @ params["kernel"] - targets[index])
        return jnp.sum(error * mask), jnp.sum(mask)

    def batch(step, seed):
        rng = np.random.default_rng([seed, step])
        index = rng.integers(0, 32, batch_size).astype(np.int32)
        return index, np.ones(batch_size, np.float32)

    def eval_batches(split):
        if split == "validation":
            padded = np.array([32, 33, 34, 35, 36, 0], np.int32)
            masks = np.ones((2, 3), np.float32)
            masks[1, 2] = 0
            return list(zip(padded.reshape(2, 3), masks, strict=True))
        return []

    return Task(
        data=(inputs, targets),
        init=lambda key, inputs: ({"kernel": jax.random.normal(key, (3,))}, ()),
        loss_fn=lambda params, state, inputs, key: (squared_error(params, inputs), (state, {})),
        metrics=lambda params, state, inputs, key: {"loss": squared_error(params, inputs)},
        eval_batches=eval_batches,
        batch=batch,
    )


@pytest.fixture
def regression() -> Task:
    return make_regression()
