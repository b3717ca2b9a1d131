"""The loss over whole walks against the loss over their pairs."""

import chex
import jax
import jax.numpy as jnp
import pytest

from structdl.graphs.deepwalk import walk_loss
from structdl.graphs.walks import skip_gram_loss, skip_gram_pairs


@pytest.mark.parametrize("window", [1, 3, 9])
def test_equals_the_loss_over_pairs(window):
    keys = jax.random.split(jax.random.key(0), 4)
    walks = jax.random.randint(keys[0], (4, 6), 0, 11)
    tables = [jax.random.normal(key, (11, 3)) for key in keys[1:3]]
    drawn = jax.random.randint(keys[3], (7,), 0, 11)

    def by_walks(nodes, contexts):
        return walk_loss(nodes[walks], contexts[walks], contexts[drawn], window)

    def by_pairs(nodes, contexts):
        centres, others, mask = map(jnp.ravel, skip_gram_pairs(walks, window))
        ends = nodes[centres], contexts[others], contexts[drawn]
        return skip_gram_loss(*ends, mask, negative_weight=5.0)

    found, expected = [
        jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(*tables)
        for loss in (by_walks, by_pairs)
    ]
    chex.assert_trees_all_close(found, expected, rtol=1e-4)
    assert found[0][1] == 4 * sum(max(6 - step, 0) * 2 for step in range(1, window + 1))
