"""The task of a graph auto-encoder: to predict edges that it was not shown."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.link_prediction.data import SPLITS, link_data, load
from experiments.link_prediction.model import encode, make_auto_encoder
from experiments.link_prediction.presets import Config
from structdl.core.segment import edge_list
from structdl.graphs.link_prediction import (
    inner_product_decoder,
    kl_divergence,
    reconstruction_loss,
    sample_embeddings,
)
from structdl.training.ranking import average_precision, roc_auc
from structdl.training.task import Inputs, Task


def make_auto_encoder_task(config: Config) -> Task:
    """Reconstruction of the training edges, judged by the ranking of those held out.

    A batch is the index of a split among validation and test: the graph is whole each step.
    """
    model, labelled = config.model, load(config)
    data, split = link_data(labelled, validation=model.validation, test=model.test)

    def init(key, inputs: Inputs):
        data, weights = inputs.data, inputs.seed_data.weights
        variables = make_auto_encoder(model).init(
            key, data.features, data.layout, weights, train=False
        )
        return variables["params"], ()

    def loss_fn(params, model_state, inputs: Inputs, key):
        # folded, not split: a line search evaluates the loss repeatedly with one key
        dropout_key, sample_key = (jax.random.fold_in(key, use) for use in range(2))
        data, seed = inputs.data, inputs.seed_data
        mean, log_std = encode(model, params, data, seed.weights, key=dropout_key)
        edges = edge_list(seed.senders, seed.receivers, data.layout.num_receivers)
        if log_std is None:
            loss = reconstruction_loss(mean, edges)
        else:
            sampled = sample_embeddings(sample_key, mean, log_std)
            loss = reconstruction_loss(sampled, edges) + kl_divergence(mean, log_std)
        return (loss, 1), (model_state, {})

    def metrics(params, model_state, inputs: Inputs, key):
        seed, row = inputs.seed_data, inputs.batch
        mean, _ = encode(model, params, inputs.data, seed.weights)
        pairs, is_edge, mask = seed.pairs[row], seed.is_edge[row], seed.mask[row]
        logits = inner_product_decoder(mean, pairs[:, 0], pairs[:, 1])
        losses = optax.sigmoid_binary_cross_entropy(logits, is_edge)
        # a ranking is no mean over pairs: it is of the whole split, which is one batch
        return {
            "loss": (jnp.sum(losses, where=mask), jnp.sum(mask)),
            "auc": (roc_auc(logits, is_edge, mask), 1),
            "average_precision": (average_precision(logits, is_edge, mask), 1),
        }

    def eval_batches(name: str):
        index = np.int32(SPLITS.index(name))
        return [index] if split(config.run.seed).mask[index].any() else []

    return Task(
        data=data,
        init=init,
        loss_fn=loss_fn,
        metrics=metrics,
        eval_batches=eval_batches,
        batch=lambda step, seed: np.int32(0),
        seed_data=split,
        score="auc",
    )
