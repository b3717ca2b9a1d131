"""The task of unsupervised GraphSAGE: nodes that meet on walks are alike; a classifier judges."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.link_prediction.data import SPLITS, WalkData, load, walk_data
from experiments.link_prediction.model import embed, make_sage
from experiments.link_prediction.presets import Config, SageConfig
from structdl.graphs.sage import GraphSAGE
from structdl.graphs.walks import random_walks, sample_negatives, skip_gram_loss
from structdl.training.linear_classifier import fit_linear_classifier
from structdl.training.task import Inputs, Task

PENALTIES = (1e-4, 1e-3, 1e-2)  # the classifier's, of which validation chooses


def make_walk_task(config: Config) -> Task:
    """The loss of walks from all nodes, and the accuracy of a classifier of the embeddings.

    A batch is the index of a split of the nodes among validation and test.
    """
    model = config.model
    labelled = load(config)

    def init(key, inputs: Inputs):
        data, method = inputs.data, GraphSAGE.embed
        variables = make_sage(model).init(
            key, data.features, data.layout, train=False, method=method
        )
        return variables["params"], ()

    def loss_fn(params, model_state, inputs: Inputs, key):
        # folded, not split: a line search evaluates the loss repeatedly with one key
        dropout_key, walk_key = (jax.random.fold_in(key, use) for use in range(2))
        embeddings = embed(model, params, inputs.data, key=dropout_key)
        return walk_loss(model, walk_key, embeddings, inputs.data), (model_state, {})

    def metrics(params, model_state, inputs: Inputs, key):
        embeddings = embed(model, params, inputs.data)
        correct = classify(embeddings, inputs.data, labelled.num_classes)
        mask = inputs.data.masks[inputs.batch]
        return {
            "loss": walk_loss(model, key, embeddings, inputs.data),
            "accuracy": (jnp.sum(correct, where=mask), jnp.sum(mask)),
        }

    return Task(
        data=walk_data(labelled),
        init=init,
        loss_fn=loss_fn,
        metrics=metrics,
        eval_batches=lambda name: [np.int32(SPLITS.index(name))],
        batch=lambda step, seed: np.int32(0),
        score="accuracy",
    )


def walk_loss(config: SageConfig, key, embeddings, data: WalkData):
    """(total, count) over the pairs of a node with those that its walk meets, but for itself."""
    walk_key, negative_key = jax.random.split(key)
    num_nodes, features = embeddings.shape
    starts = jnp.arange(num_nodes)
    met = random_walks(walk_key, data.neighbours, starts, config.walk_length)[:, 1:]
    shape = (num_nodes, config.walk_length, features)
    centres = jnp.broadcast_to(embeddings[:, None], shape)
    negatives = sample_negatives(negative_key, data.negatives, (config.num_negatives,))
    return skip_gram_loss(
        centres.reshape(-1, features),
        embeddings[met.reshape(-1)],
        embeddings[negatives],
        (met != starts[:, None]).reshape(-1),
        negative_weight=config.negative_weight,
    )


def classify(embeddings, data: WalkData, num_classes: int):
    """Which nodes a linear classifier of the training nodes' embeddings gets right.

    Its penalty is the one that does best on the validation nodes.
    """
    shown, labels = embeddings[data.train], data.labels[data.train]
    everyone = jnp.ones(len(labels), bool)

    def correct(penalty):
        classifier = fit_linear_classifier(shown, labels, everyone, num_classes, l2=penalty)
        return jnp.argmax(classifier.logits(embeddings), axis=-1) == data.labels

    found = jax.vmap(correct)(jnp.array(PENALTIES))
    validation = data.masks[SPLITS.index("validation")]
    return found[jnp.argmax(jnp.sum(found & validation[None], axis=1))]
