"""Baselines that read no features: label propagation, and DeepWalk with a linear classifier."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.node_classification.data import SPLITS, Nodes
from experiments.node_classification.model import DeepWalkConfig, LabelPropagationConfig
from structdl.core.segment import EdgeLayout, edge_layout
from structdl.core.sparse import lookup
from structdl.graphs.deepwalk import walk_loss
from structdl.graphs.label_propagation import normalize_class_mass, propagate_labels
from structdl.graphs.sampling import NeighbourLists, neighbour_lists
from structdl.graphs.walks import NegativeTable, negative_table, random_walks, sample_negatives
from structdl.training.linear_classifier import fit_linear_classifier
from structdl.training.metrics import class_totals
from structdl.training.task import Inputs, Task

TRAIN = SPLITS.index("train")
SHARED_NEGATIVES = 256  # drawn each step, and set against every pair


class Labelled(NamedTuple):
    """A graph whose labels spread, on the device."""

    layout: EdgeLayout
    labels: jax.Array  # [num_nodes], int32; -1: none


def label_propagation(config: LabelPropagationConfig, nodes: Nodes) -> Task:
    """Nothing is trained: a task without parameters, for runs of no steps."""
    graph = nodes.graph
    layout = edge_layout(graph.senders, graph.receivers, graph.num_nodes)

    def metrics(params, model_state, inputs: Inputs, key):
        data, masks = inputs.data, inputs.seed_data
        one_hot = jax.nn.one_hot(data.labels, nodes.num_classes)
        scores = propagate_labels(
            one_hot, masks[TRAIN], data.layout, num_iterations=config.num_iterations
        )
        if config.class_mass:
            priors = jnp.mean(one_hot, axis=0, where=masks[TRAIN][:, None])
            scores = normalize_class_mass(scores, masks[TRAIN], priors)
        chances = scores / jnp.maximum(jnp.sum(scores, axis=1, keepdims=True), 1e-9)
        return class_totals(jnp.log(chances + 1e-9), data.labels, masks[inputs.batch])

    return Task(
        data=Labelled(layout, nodes.labels),
        init=lambda key, inputs: ((), ()),
        loss_fn=lambda params, state, inputs, key: ((jnp.zeros(()), jnp.ones(())), (state, {})),
        metrics=metrics,
    )


class Walked(NamedTuple):
    """A graph to walk on, on the device."""

    lists: NeighbourLists
    negatives: NegativeTable
    labels: jax.Array  # [num_nodes], int32; -1: none


def deepwalk(config: DeepWalkConfig, nodes: Nodes) -> Task:
    """Skip-gram with negative samples over walks from nodes drawn by chance.

    The labels play no part in training; a classifier of the embeddings is fitted to the training
    nodes at each evaluation.
    """
    graph = nodes.graph
    lists = neighbour_lists(graph.senders, graph.receivers, graph.num_nodes)
    degrees = np.bincount(graph.receivers, minlength=graph.num_nodes)

    def init(key, inputs: Inputs):
        # as word2vec starts them
        shape = (graph.num_nodes, config.features)
        nodes = jax.random.uniform(key, shape, minval=-0.5, maxval=0.5) / config.features
        return {"nodes": nodes, "contexts": jnp.zeros(shape)}, ()

    def loss_fn(params, model_state, inputs: Inputs, key):
        start_key, walk_key, negative_key = jax.random.split(key, 3)
        starts = jax.random.randint(start_key, (config.num_walks,), 0, graph.num_nodes)
        walks = random_walks(walk_key, inputs.data.lists, starts, config.length)
        negatives = sample_negatives(negative_key, inputs.data.negatives, (SHARED_NEGATIVES,))
        contexts = params["contexts"]
        loss = walk_loss(
            lookup(params["nodes"], walks),
            lookup(contexts, walks),
            lookup(contexts, negatives),
            config.window,
            negative_weight=float(config.num_negatives),
        )
        return loss, (model_state, {})

    def metrics(params, model_state, inputs: Inputs, key):
        data, masks = inputs.data, inputs.seed_data
        nodes_of_walks = params["nodes"].astype(float)  # the classifier's own precision
        lengths = jnp.linalg.norm(nodes_of_walks, axis=1, keepdims=True)
        features = nodes_of_walks / jnp.maximum(lengths, 1e-9)
        classifier = fit_linear_classifier(
            features, data.labels, masks[TRAIN], nodes.num_classes, l2=config.classifier_l2
        )
        return class_totals(classifier.logits(features), data.labels, masks[inputs.batch])

    return Task(
        data=Walked(lists, negative_table(degrees), nodes.labels),
        init=init,
        loss_fn=loss_fn,
        metrics=metrics,
    )
