"""torch's sparse products (extra [peers]), as its users write them and at their best."""

import torch


class Csr:
    """A fixed pattern of nonzeros with values that change: products, and their gradients.

    torch's own backward of a CSR product transposes the matrix each time. With `keep_transpose`
    the transposed pattern is kept, which is the best that torch can do.
    """

    def __init__(self, rows, columns, shape: tuple[int, int], keep_transpose: bool = False):
        order = torch.argsort(rows * shape[1] + columns)
        self._order, self._shape = order, shape
        self._starts = _starts(rows, shape[0])
        self._columns = columns[order]
        # from the sorted values to those of the transpose
        self._back = torch.argsort(columns[order] * shape[0] + rows[order])
        self._back_starts = _starts(columns, shape[1])
        self._rows = rows[order][self._back]
        self._keep_transpose = keep_transpose

    def sort(self, values: torch.Tensor) -> torch.Tensor:
        """The values in the order that `product` wants them."""
        return values[self._order]

    def matrix(self, values: torch.Tensor) -> torch.Tensor:
        return _csr(self._starts, self._columns, values, self._shape)

    def transposed(self, values: torch.Tensor) -> torch.Tensor:
        return _csr(self._back_starts, self._rows, values[self._back], self._shape[::-1])

    def product(self, values: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
        """The matrix of these values times a dense one; the gradient is the dense one's."""
        if self._keep_transpose:
            return _Product.apply(self, values, dense)
        return self.matrix(values) @ dense


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(context, csr: Csr, values, dense):
        context.csr = csr
        context.save_for_backward(values)
        return csr.matrix(values) @ dense

    @staticmethod
    def backward(context, gradient):
        return None, None, context.csr.transposed(*context.saved_tensors) @ gradient


def _starts(indices, size: int):
    counts = torch.bincount(indices, minlength=size)
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0))


def _csr(starts, columns, values, shape):
    return torch.sparse_csr_tensor(starts, columns, values, shape, check_invariants=False)


def csr_product(edges, backward: bool):
    """The sum over weighted edges as a sparse product; see `graphs.aggregation`."""
    senders, receivers, weights, nodes = map(torch.tensor, edges())
    csr = Csr(receivers, senders, (len(nodes), len(nodes)))
    matrix = csr.matrix(csr.sort(weights))
    return _with_backward(lambda nodes: matrix @ nodes, nodes, backward)


def csr_product_with_transpose(edges, backward: bool):
    """The same; both matrices are made before, and the gradient is the product with the other."""
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
    senders, receivers, weights, nodes = map(torch.tensor, edges())

    def output(nodes):
        messages = nodes[senders] * weights[:, None]
        return torch.zeros_like(nodes).index_add(0, receivers, messages)

    return _with_backward(output, nodes, backward)


def _with_backward(output, nodes, backward: bool):
    """Timed: the output, or the output and the gradient of half its square by the nodes."""

    def forward_only():
        with torch.no_grad():
            return output(nodes)

    def both():
        leaf = nodes.detach().requires_grad_()
        out = output(leaf)
        out.backward(out.detach())
        return out.detach(), leaf.grad

    return both if backward else forward_only
