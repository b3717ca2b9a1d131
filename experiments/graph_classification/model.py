"""The model that a config names: an encoder of nodes, a readout, a linear classifier."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.graph_classification.data import GraphSet
from experiments.graph_classification.presets import Config, GCNConfig, GGNNConfig, GINConfig
from structdl.core.segment import edge_list
from structdl.graphs.gcn import GCN, symmetric_normalization
from structdl.graphs.ggnn import GGNN, typed_edge_list
from structdl.graphs.gin import GIN
from structdl.graphs.graph import Graph, node_graph_ids, node_mask
from structdl.graphs.readout import GatedReadout, graph_max, graph_mean, graph_sum

READOUTS = {"sum": graph_sum, "mean": graph_mean, "max": graph_max, "virtual": graph_sum}


def make_model(config: Config, data: GraphSet) -> "Classifier":
    """The classifier of a config for a set's graphs and labels."""
    return Classifier(config.model, config.readout, data.num_outputs, data.num_edge_types)


class Classifier(nn.Module):
    """Logits of the graphs in a padded batch, whose nodes are [counted, features...].

    Where several layers are read out, each has a linear classifier, and their logits are added.
    """

    model: GINConfig | GCNConfig | GGNNConfig
    readout: str
    num_outputs: int
    num_edge_types: int

    @nn.compact
    def __call__(self, graph: Graph, *, train: bool):
        counted, features = graph.nodes[:, 0] == 1, graph.nodes[:, 1:]
        ids, num_graphs = node_graph_ids(graph), graph.num_graphs
        logits = jnp.zeros((num_graphs, self.num_outputs))
        for states in self._encode(graph, features, train):
            if self.readout == "gated":
                readout = GatedReadout(states.shape[1])
                vectors = readout(states, features, ids, num_graphs, mask=counted)
            else:
                vectors = READOUTS[self.readout](states, ids, num_graphs, mask=counted)
            vectors = nn.Dropout(self.model.dropout, deterministic=not train)(vectors)
            logits += nn.Dense(self.num_outputs)(vectors)
        return logits

    def _encode(self, graph: Graph, features: jax.Array, train: bool) -> list[jax.Array]:
        """The node states that are read out."""
        model, ends = self.model, (graph.senders, graph.receivers)
        if isinstance(model, GGNNConfig):
            types = jnp.zeros_like(graph.senders) if graph.edges is None else graph.edges
            layout = typed_edge_list(*ends, types, graph.num_nodes, self.num_edge_types)
            encoder = GGNN(
                model.hidden,
                model.num_steps,
                num_edge_types=self.num_edge_types,
                project=True,
                dropout_rate=model.dropout,
            )
            return [encoder.embed(features, layout, train=train)[0]]
        layout = edge_list(*ends, graph.num_nodes)
        if isinstance(model, GCNConfig):
            encoder = GCN(model.hidden, 1, dropout_rate=model.dropout, dense_head=True)
            weights = symmetric_normalization(layout)
            return [encoder.embed(features, layout, weights, train=train)]
        encoder = GIN(
            model.hidden,
            model.num_layers,
            model.mlp_layers,
            train_epsilon=model.train_epsilon,
            batch_norm=model.batch_norm,
        )
        return encoder(features, layout, train=train, mask=node_mask(graph))
