"""The karate club learned from four labels in plain JAX and optax: the library composes by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from structdl.core.masks import masked_mean
from structdl.core.segment import edge_layout
from structdl.graphs.gcn import GCN, symmetric_normalization
from structdl.graphs.graph import add_self_loops, graph_from_edges, symmetrize

NUM_SEEDS = 10


@pytest.fixture(scope="module")
def karate(tmp_path_factory):
    from structdl.datasets.karate_club import load

    club = load(data_dir=tmp_path_factory.mktemp("data"))
    graph = add_self_loops(symmetrize(graph_from_edges(*club.edges.T, 34)))
    layout = edge_layout(graph.senders, graph.receivers, graph.num_nodes)
    labels = club.modularity_class
    labelled = np.isin(np.arange(34), np.unique(labels, return_index=True)[1])
    return layout, jnp.asarray(labels), jnp.asarray(labelled)


def test_four_labels_teach_the_club(karate):
    layout, labels, labelled = karate
    weights = symmetric_normalization(layout)
    model = GCN((4, 4, 2), 4, jnp.tanh, dense_head=True)
    optimizer = optax.adam(0.01)

    def loss_fn(params):
        logits = model.apply(params, None, layout, weights, train=True)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return masked_mean(losses, labelled)

    def accuracy(params):
        logits = model.apply(params, None, layout, weights, train=False)
        return masked_mean((jnp.argmax(logits, -1) == labels).astype(jnp.float32), ~labelled)

    def train(seed):
        initial = model.init(jax.random.key(seed), None, layout, weights, train=False)

        def step(state, _):
            params, opt_state = state
            loss, grads = jax.value_and_grad(loss_fn)(params)
            updates, opt_state = optimizer.update(grads, opt_state)
            return (optax.apply_updates(params, updates), opt_state), loss

        state = (initial, optimizer.init(initial))
        (params, _), losses = jax.lax.scan(step, state, length=300)
        return losses, accuracy(initial), accuracy(params)

    losses, before, after = jax.jit(jax.vmap(train))(jnp.arange(NUM_SEEDS))
    assert int(labelled.sum()) == 4
    # a guess is right for a quarter; untrained weights reach 0.4 at best among these seeds
    assert before.max() < 0.5
    assert after.min() > 0.6
    assert after.mean() > 0.75
    assert (losses[:, -1] < 0.5 * losses[:, 0]).all()
