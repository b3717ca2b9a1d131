"""Networks on Cora by torch and PyTorch Geometric (extra [peers]), and their training step.

Run as a module it is a peer's whole run, `python -m experiments.benchmarks.cora_peers LAYER PEER
FILE`: 200 epochs of that network on the arrays in FILE, with a validation after each.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch_geometric.nn as pyg
from torch.nn.functional import dropout, elu, leaky_relu, log_softmax, nll_loss

from experiments.benchmarks.csr_peers import Csr

HIDDEN, NUM_CLASSES, EPOCHS = 16, 7, 200
WEIGHT_DECAY, LEARNING_RATE = 5e-4, 0.01
HEADS, HEAD_FEATURES, ATTENTION_DROPOUT = 8, 8, 0.6
NUM_TERMS = 3  # of a Chebyshev filter: powers 0, 1 and 2


class Cora(NamedTuple):
    """Tensors of the Planetoid split."""

    rows: torch.Tensor  # [num_nonzeros], of the features
    columns: torch.Tensor
    values: torch.Tensor
    shape: tuple[int, int]
    edges: torch.Tensor  # [2, num_edges], both directions, no self-loops
    labels: torch.Tensor  # [num_nodes]
    train: torch.Tensor  # [140], node numbers
    validation: torch.Tensor  # [500]


def load_cora() -> Cora:
    from structdl.core.sparse import normalize_rows
    from structdl.datasets import planetoid

    paper = planetoid.load("cora")
    features = normalize_rows(paper.features).tocoo()
    ends = np.concatenate([paper.edges, paper.edges[:, ::-1]]).T
    integers = (features.row, features.col, ends, paper.labels, paper.train, paper.validation)
    rows, columns, edges, labels, train, validation = (
        torch.tensor(array, dtype=torch.int64) for array in integers
    )
    values = torch.tensor(features.data, dtype=torch.float32)
    return Cora(rows, columns, values, features.shape, edges, labels, train, validation)


class PyGNetwork(torch.nn.Module):
    """Two layers of PyTorch Geometric on dense features, as in its benchmark/citation."""

    def __init__(self, first, second, activation, rate: float, drop_features: bool):
        super().__init__()
        self.first, self.second, self.activation = first, second, activation
        self.rate, self.drop_features = rate, drop_features

    def forward(self, nodes, edges):
        if self.drop_features:
            nodes = dropout(nodes, self.rate, self.training)
        hidden = self.activation(self.first(nodes, edges))
        hidden = dropout(hidden, self.rate, self.training)
        return log_softmax(self.second(hidden, edges), dim=1)


def pyg_network(layer: str, cora: Cora, drop_features: bool) -> tuple[torch.nn.Module, tuple]:
    """The network and its inputs.

    Its scripts for GCN and Chebyshev filters do not drop the features out, which is less work than
    the paper's model has; that for GAT does.
    """
    width = cora.shape[1]
    relu, rate = torch.relu, 0.5
    match layer:
        case "gcn":
            layers = pyg.GCNConv(width, HIDDEN), pyg.GCNConv(HIDDEN, NUM_CLASSES), relu
        case "chebyshev":
            layers = (
                pyg.ChebConv(width, HIDDEN, NUM_TERMS),
                pyg.ChebConv(HIDDEN, NUM_CLASSES, NUM_TERMS),
                relu,
            )
        case "sage":
            layers = pyg.SAGEConv(width, HIDDEN), pyg.SAGEConv(HIDDEN, NUM_CLASSES), relu
        case "gat":
            rate = ATTENTION_DROPOUT
            layers = (
                pyg.GATConv(width, HEAD_FEATURES, HEADS, dropout=rate),
                pyg.GATConv(HEADS * HEAD_FEATURES, NUM_CLASSES, 1, False, dropout=rate),
                elu,
            )
    dense = torch.zeros(cora.shape)
    dense[cora.rows, cora.columns] = cora.values
    return PyGNetwork(*layers, rate, drop_features or layer == "gat"), (dense, cora.edges)


class TorchNetwork(torch.nn.Module):
    """The same two layers in plain torch, on the nonzeros of the features, which are dropped out.

    Args:
      first: `(values of the features, kernel) -> hidden`.
      second: `(hidden, kernel) -> logits`.
      kernels: the shapes of the two kernels, and of what else each layer has.
    """

    def __init__(self, cora: Cora, layer, widths, activation, rate: float, keep_transpose: bool):
        super().__init__()
        self.features = Csr(cora.rows, cora.columns, cora.shape, keep_transpose)
        self.layer, self.activation, self.rate = layer, activation, rate
        shapes = (cora.shape[1], widths[0]), (widths[1], widths[2])
        self.kernels = torch.nn.ParameterList(
            torch.nn.init.xavier_uniform_(torch.empty(shape)) for shape in shapes
        )

    def forward(self, values):
        values = dropout(values, self.rate, self.training)
        hidden = self.activation(self.layer(self.features.product(values, self.kernels[0]), 0))
        hidden = dropout(hidden, self.rate, self.training)
        return log_softmax(self.layer(hidden @ self.kernels[1], 1), dim=1)


def torch_network(layer: str, cora: Cora, keep_transpose: bool) -> tuple[torch.nn.Module, tuple]:
    """The network and its inputs; each layer multiplies with its kernel first, as structdl does."""
    senders, receivers = cora.edges
    degrees = torch.bincount(receivers).float()
    square = (cora.shape[0],) * 2
    activation, rate = torch.relu, 0.5
    match layer:
        case "gcn":
            loops = torch.arange(cora.shape[0])
            ends = torch.cat([cora.edges, torch.stack([loops, loops])], dim=1)
            roots = (degrees + 1).rsqrt()
            adjacency = Csr(ends[1], ends[0], square, keep_transpose)
            weights = adjacency.sort(roots[ends[0]] * roots[ends[1]])
            widths = HIDDEN, HIDDEN, NUM_CLASSES

            def apply(products, place):
                return adjacency.product(weights, products)

        case "chebyshev":
            roots = degrees.rsqrt()
            laplacian = Csr(receivers, senders, square, keep_transpose)
            weights = laplacian.sort(-roots[senders] * roots[receivers])
            widths = NUM_TERMS * HIDDEN, HIDDEN, NUM_TERMS * NUM_CLASSES

            def apply(products, place):
                constant, linear, quadratic = products.tensor_split(NUM_TERMS, dim=1)
                inner = linear + 2 * laplacian.product(weights, quadratic)
                return constant + laplacian.product(weights, inner) - quadratic

        case "sage":
            adjacency = Csr(receivers, senders, square, keep_transpose)
            weights = adjacency.sort(1 / degrees[receivers])
            widths = 2 * HIDDEN, HIDDEN, 2 * NUM_CLASSES

            def apply(products, place):
                own, neighbours = products.tensor_split(2, dim=1)
                return own + adjacency.product(weights, neighbours)

        case "gat":
            activation, rate = elu, ATTENTION_DROPOUT
            apply = TorchAttention(cora)
            widths = HEADS * HEAD_FEATURES, HEADS * HEAD_FEATURES, NUM_CLASSES
    network = TorchNetwork(cora, apply, widths, activation, rate, keep_transpose)
    return network, (network.features.sort(cora.values),)


class TorchAttention(torch.nn.Module):
    """Attention over an edge list: softmax by receiver, then a sum by index_add."""

    def __init__(self, cora: Cora):
        super().__init__()
        loops = torch.arange(cora.shape[0])
        self.ends = torch.cat([cora.edges, torch.stack([loops, loops])], dim=1)
        shapes = (HEADS, HEAD_FEATURES), (1, NUM_CLASSES)
        self.vectors = torch.nn.ParameterList(
            torch.nn.init.xavier_uniform_(torch.empty(2 * shape[0], shape[1])) for shape in shapes
        )

    def forward(self, products, place: int):
        senders, receivers = self.ends
        vectors = self.vectors[place]
        heads = len(vectors) // 2
        nodes = products.view(len(products), heads, -1)
        by_sender, by_receiver = (
            (nodes * each[None]).sum(dim=2) for each in vectors.tensor_split(2)
        )
        logits = leaky_relu(by_sender[senders] + by_receiver[receivers], 0.2)
        index = receivers[:, None].expand_as(logits)
        largest = torch.zeros_like(by_sender).scatter_reduce(
            0, index, logits.detach(), "amax", include_self=False
        )
        scaled = (logits - largest[receivers]).exp()
        sums = torch.zeros_like(by_sender).index_add(0, receivers, scaled)
        weights = dropout(scaled / sums[receivers], ATTENTION_DROPOUT, self.training)
        messages = weights[:, :, None] * nodes[senders]
        return torch.zeros_like(nodes).index_add(0, receivers, messages).flatten(1)


def make_network(layer: str, peer: str, cora: Cora) -> tuple[torch.nn.Module, tuple]:
    """The network of a layer by one of graphs.CORA_PEERS, and its inputs."""
    if peer.startswith("pyg"):
        return pyg_network(layer, cora, drop_features=peer == "pyg-dropout")
    return torch_network(layer, cora, keep_transpose=peer == "torch-transposed")


def make_step(network, inputs, cora: Cora):
    """One training step: loss over the labelled nodes, Adam."""
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    labels = cora.labels[cora.train]

    def step():
        network.train()
        optimizer.zero_grad()
        loss = nll_loss(network(*inputs)[cora.train], labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


def training_step(layer: str, peer: str):
    cora = load_cora()
    return make_step(*make_network(layer, peer, cora), cora)


def whole_run(layer: str, peer: str):
    """A process that reads the prepared arrays and trains; reading is what its users do too."""
    folder = tempfile.TemporaryDirectory()
    torch.save(tuple(load_cora()), Path(folder.name) / "cora.pt")

    def run():
        file = str(Path(folder.name) / "cora.pt")  # `folder` is removed when `run` is
        words = ["-m", "experiments.benchmarks.cora_peers", layer, peer, file]
        subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)

    run()
    return run


def main() -> None:
    layer, peer, file = sys.argv[1:]
    cora = Cora(*torch.load(file))
    network, inputs = make_network(layer, peer, cora)
    step = make_step(network, inputs, cora)
    labels = cora.labels[cora.validation]
    for _ in range(EPOCHS):
        step()
        network.eval()
        with torch.no_grad():
            log_chances = network(*inputs)[cora.validation]
        loss = nll_loss(log_chances, labels).item()
        accuracy = (log_chances.argmax(dim=1) == labels).float().mean().item()
    print(f"validation loss {loss:.4f}, accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
