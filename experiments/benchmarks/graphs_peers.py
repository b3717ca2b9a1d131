"""The peers of graphs.py: torch and PyTorch Geometric (extra [peers]), on the same data.

Run as a module it is a peer's whole run, `python -m experiments.benchmarks.graphs_peers MODEL
FILE`: 200 epochs of that model on the arrays in FILE, with a validation after each.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

PYG = "PyTorch Geometric, dense features"
PYG_DROPOUT = "PyTorch Geometric, dense features, dropped out as in the paper"
TORCH = "torch, sparse features"
TORCH_TRANSPOSED = "torch, sparse features, transposes kept"
GCN = {PYG: "pyg", PYG_DROPOUT: "pyg-dropout", TORCH: "torch", TORCH_TRANSPOSED: "torch-transposed"}

HIDDEN, DROPOUT, WEIGHT_DECAY, LEARNING_RATE, EPOCHS = 16, 0.5, 5e-4, 0.01, 200


class Cora(NamedTuple):
    """Tensors of the Planetoid split."""

    rows: object  # [num_nonzeros], of the features
    columns: object
    values: object
    shape: tuple[int, int]
    edges: object  # [2, num_edges], both directions, no self-loops
    labels: object  # [num_nodes]
    train: object  # [140], node numbers
    validation: object  # [500]


def load_cora() -> Cora:
    import numpy as np
    import torch

    from structdl.core.sparse import normalize_rows
    from structdl.datasets import planetoid

    paper = planetoid.load("cora")
    features = normalize_rows(paper.features).tocoo()
    ends = np.concatenate([paper.edges, paper.edges[:, ::-1]]).T
    return Cora(
        torch.tensor(features.row, dtype=torch.int64),
        torch.tensor(features.col, dtype=torch.int64),
        torch.tensor(features.data, dtype=torch.float32),
        features.shape,
        torch.tensor(ends, dtype=torch.int64),
        torch.tensor(paper.labels, dtype=torch.int64),
        torch.tensor(paper.train, dtype=torch.int64),
        torch.tensor(paper.validation, dtype=torch.int64),
    )


def pyg_model(cora: Cora, drop_features: bool):
    """The model of PyTorch Geometric's benchmark/citation/gcn.py: (module, its inputs).

    Its features are dense, and are not dropped out: less work than the paper's model has, which
    is that of `drop_features`.
    """
    import torch
    from torch_geometric.nn import GCNConv

    dropout = torch.nn.functional.dropout

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = GCNConv(cora.shape[1], HIDDEN)
            self.second = GCNConv(HIDDEN, 7)

        def forward(self, nodes, edges):
            if drop_features:
                nodes = dropout(nodes, DROPOUT, self.training)
            hidden = dropout(torch.relu(self.first(nodes, edges)), DROPOUT, self.training)
            return torch.log_softmax(self.second(hidden, edges), dim=1)

    dense = torch.zeros(cora.shape)
    dense[cora.rows, cora.columns] = cora.values
    return Network(), (dense, cora.edges)


def torch_model(cora: Cora, keep_transpose: bool):
    """The paper's model on sparse features, as structdl has it: (module, its inputs)."""
    import torch

    dropout = torch.nn.functional.dropout
    features = Csr(cora.rows, cora.columns, cora.shape, keep_transpose)
    loops = torch.arange(cora.shape[0])
    ends = torch.cat([cora.edges, torch.stack([loops, loops])], dim=1)
    roots = torch.bincount(ends[1]).float().rsqrt()
    adjacency = Csr(ends[1], ends[0], (cora.shape[0],) * 2, keep_transpose)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Parameter(torch.empty(cora.shape[1], HIDDEN))
            self.second = torch.nn.Parameter(torch.empty(HIDDEN, 7))
            for kernel in self.parameters():
                torch.nn.init.xavier_uniform_(kernel)

        def forward(self, values, weights):
            kept = dropout(values, DROPOUT, self.training)
            hidden = adjacency.product(weights, features.product(kept, self.first))
            hidden = dropout(torch.relu(hidden), DROPOUT, self.training)
            logits = adjacency.product(weights, hidden @ self.second)
            return torch.log_softmax(logits, dim=1)

    weights = roots[ends[0]] * roots[ends[1]]
    return Network(), (features.sort(cora.values), adjacency.sort(weights))


class Csr:
    """A fixed pattern of nonzeros with values that change: products, and their gradients.

    torch's own backward of a CSR product transposes the matrix each time. With `keep_transpose`
    the transposed pattern is kept, which is the best that torch can do.
    """

    def __init__(self, rows, columns, shape, keep_transpose: bool = False):
        import torch

        order = torch.argsort(rows * shape[1] + columns)
        self._order, self._shape = order, shape
        self._starts = _starts(rows, shape[0])
        self._columns = columns[order]
        # from the sorted values to those of the transpose
        self._back = torch.argsort(columns[order] * shape[0] + rows[order])
        self._back_starts = _starts(columns, shape[1])
        self._rows = rows[order][self._back]
        self._product = _kept_product(self) if keep_transpose else None

    def sort(self, values):
        """The values in the order that `product` wants them."""
        return values[self._order]

    def matrix(self, values):
        import torch

        return torch.sparse_csr_tensor(
            self._starts, self._columns, values, self._shape, check_invariants=False
        )

    def transposed(self, values):
        import torch

        return torch.sparse_csr_tensor(
            self._back_starts,
            self._rows,
            values[self._back],
            self._shape[::-1],
            check_invariants=False,
        )

    def product(self, values, dense):
        if self._product:
            return self._product.apply(values, dense)
        return self.matrix(values) @ dense


def _starts(indices, size):
    import torch

    return torch.cat(
        [torch.zeros(1, dtype=torch.int64), torch.bincount(indices, minlength=size).cumsum(0)]
    )


def _kept_product(csr: Csr):
    import torch

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(context, values, dense):
            context.save_for_backward(values)
            return csr.matrix(values) @ dense

        @staticmethod
        def backward(context, gradient):
            return None, csr.transposed(*context.saved_tensors) @ gradient

    return Product


def make_model(name: str, cora: Cora):
    if name in ("pyg", "pyg-dropout"):
        return pyg_model(cora, drop_features=name == "pyg-dropout")
    return torch_model(cora, keep_transpose=name == "torch-transposed")


def make_step(model, inputs, cora: Cora):
    """One training step: loss over the labelled nodes, Adam."""
    import torch

    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    labels = cora.labels[cora.train]

    def step():
        model.train()
        optimizer.zero_grad()
        loss = torch.nn.functional.nll_loss(model(*inputs)[cora.train], labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


def training_step(name: str):
    cora = load_cora()
    model, inputs = make_model(name, cora)
    return make_step(model, inputs, cora)


def whole_run(name: str):
    """A process that reads the prepared arrays and trains; reading is what its users do too."""
    import torch

    folder = tempfile.TemporaryDirectory()
    torch.save(tuple(load_cora()), Path(folder.name) / "cora.pt")

    def run():
        file = str(Path(folder.name) / "cora.pt")  # `folder` is removed when `run` is
        command = [sys.executable, "-m", "experiments.benchmarks.graphs_peers", name, file]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)

    run()
    return run


def csr_product(edges, backward: bool):
    """The sum over weighted edges as a sparse product."""
    import torch

    senders, receivers, weights, nodes = map(torch.tensor, edges())
    csr = Csr(receivers, senders, (len(nodes), len(nodes)))
    matrix = csr.matrix(csr.sort(weights))
    return _with_backward(lambda nodes: matrix @ nodes, nodes, backward)


def csr_product_with_transpose(edges, backward: bool):
    """The same; both matrices are made before, and the gradient is the product with the other."""
    import torch

    senders, receivers, weights, nodes = map(torch.tensor, edges())
    csr = Csr(receivers, senders, (len(nodes), len(nodes)))
    values = csr.sort(weights)
    matrix, transposed = csr.matrix(values), csr.transposed(values)

    def both():
        out = matrix @ nodes
        return out, transposed @ out

    return both if backward else lambda: matrix @ nodes


def index_add(edges, backward: bool):
    """The sum over weighted edges by way of an array of edges x features."""
    import torch

    senders, receivers, weights, nodes = map(torch.tensor, edges())

    def output(nodes):
        messages = nodes[senders] * weights[:, None]
        return torch.zeros_like(nodes).index_add(0, receivers, messages)

    return _with_backward(output, nodes, backward)


def _with_backward(output, nodes, backward: bool):
    """Timed: the output, or the output and the gradient of half its square by the nodes."""
    import torch

    def forward_only():
        with torch.no_grad():
            return output(nodes)

    def both():
        leaf = nodes.detach().requires_grad_()
        out = output(leaf)
        out.backward(out.detach())
        return out.detach(), leaf.grad

    return both if backward else forward_only


def main() -> None:
    import torch

    name, file = sys.argv[1:]
    cora = Cora(*torch.load(file))
    model, inputs = make_model(name, cora)
    step = make_step(model, inputs, cora)
    labels = cora.labels[cora.validation]
    for _ in range(EPOCHS):
        step()
        model.eval()
        with torch.no_grad():
            log_chances = model(*inputs)[cora.validation]
        loss = torch.nn.functional.nll_loss(log_chances, labels).item()
        accuracy = (log_chances.argmax(dim=1) == labels).float().mean().item()
    print(f"validation loss {loss:.4f}, accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
