"""The networks that a config names, on a batch of padded graphs."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.algorithmic_graphs.data import PaddedGraphs
from experiments.algorithmic_graphs.presets import Config, GCNConfig
from structdl.core.segment import edge_list
from structdl.errors import InputError
from structdl.graphs.gcn import GCN, symmetric_normalization
from structdl.graphs.ggnn import GGNN, typed_edge_list


class Answerer(nn.Module):
    """A network of a config: the scores of a batch's answers.

    Attributes:
      config: decides the network.
      output: "nodes", "node" or "graph", what is asked.
      num_edge_types: of the graphs.
    """

    config: Config
    output: str
    num_edge_types: int

    @nn.compact
    def __call__(self, graphs: PaddedGraphs, *, train: bool) -> jax.Array:
        """[num_graphs, nodes]: a logit of each node, or its score; [num_graphs]: a logit of each.

        Graphs of a batch are one graph of all their nodes, in which no edge joins two of them.
        """
        graphs = jax.tree.map(jnp.asarray, graphs)
        num_graphs, per_graph, _ = graphs.annotations.shape
        num_nodes = num_graphs * per_graph
        nodes = graphs.annotations.reshape(num_nodes, -1)
        first = per_graph * jnp.arange(num_graphs)[:, None]
        ends = [(first + of).ravel() for of in (graphs.senders, graphs.receivers)]
        if isinstance(self.config.model, GCNConfig):
            logits = self._gcn(nodes, *ends, train=train)
            return logits.reshape(num_graphs, per_graph)
        model = GGNN(
            self.config.model.hidden,
            self.config.layers,
            num_edge_types=self.num_edge_types,
            head=self.config.model.head,
            name="ggnn",
        )
        types = graphs.edge_types.ravel()
        layout = typed_edge_list(*ends, types, num_nodes, self.num_edge_types)
        if self.output == "graph":
            ids = jnp.repeat(jnp.arange(num_graphs), per_graph)
            mask = graphs.node_mask.ravel()
            logits = model.graph_logits(nodes, layout, ids, num_graphs, train=train, mask=mask)
            return logits[:, 0]
        if self.output == "node":
            scores = model.node_scores(nodes, layout, train=train)
        else:
            scores = model(nodes, layout, train=train)
        return scores.reshape(num_graphs, per_graph)

    def _gcn(self, nodes, senders, receivers, *, train):
        loops = jnp.arange(len(nodes))
        senders, receivers = jnp.append(senders, loops), jnp.append(receivers, loops)
        layout = edge_list(senders, receivers, len(nodes))
        hidden = (self.config.model.hidden,) * self.config.layers
        model = GCN(hidden, 1, use_bias=True, dense_head=True, name="gcn")
        return model(nodes, layout, symmetric_normalization(layout), train=train)


def make_model(config: Config, task) -> Answerer:
    """The network of a config.

    Raises:
      InputError: too narrow a model, or a GCN on a task that it has no output for.
    """
    if config.model.hidden < task.num_annotations:
        raise InputError(
            f"--model.hidden is {config.model.hidden}: the annotations of {config.graphs} are "
            f"where states start, so give {task.num_annotations} or more."
        )
    if isinstance(config.model, GCNConfig) and (task.output, task.num_edge_types) != ("nodes", 1):
        raise InputError(
            f"--graphs {config.graphs}: the GCN here knows one type of edges and answers at every "
            "node; choose far_colour, shortest_path or euler_circuit, or the GGNN."
        )
    return Answerer(config, task.output, task.num_edge_types)


def keep_state(params, config: Config):
    """The parameters of a GGNN with the update gate's bias where the config starts it."""
    if isinstance(config.model, GCNConfig):
        return params
    width = config.model.hidden

    def start(path, leaf):
        # the gates are reset, update, candidate
        is_bias = path[-1].key == "input_bias"
        return leaf.at[width : 2 * width].set(config.model.keep) if is_bias else leaf

    return jax.tree_util.tree_map_with_path(start, params)
