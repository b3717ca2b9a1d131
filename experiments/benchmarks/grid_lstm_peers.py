"""A Grid LSTM in torch (extra [peers]) as its users write one: a loop over the blocks."""

import itertools
import os
from collections.abc import Sequence

import torch


class GridLSTM(torch.nn.Module):
    """A grid of LSTM blocks; all along a dimension share its weights."""

    def __init__(self, extents: Sequence[int], hidden: int):
        super().__init__()
        self.extents = extents
        joined = len(extents) * hidden
        self.gates = torch.nn.ModuleList(torch.nn.Linear(joined, 4 * hidden) for _ in extents)

    def forward(self, edges):
        """Of each dimension what leaves: {place along the others: (hidden, memory)}.

        Args:
          edges: of each dimension what enters, by place as well.
        """
        states = [dict(edge) for edge in edges]
        for place in itertools.product(*map(range, self.extents)):
            keys = [place[:d] + place[d + 1 :] for d in range(len(place))]
            here = [states[d][key] for d, key in enumerate(keys)]
            joined = torch.cat([hidden for hidden, _ in here], dim=-1)
            for d, (key, (_, memory)) in enumerate(zip(keys, here, strict=True)):
                enter, forget, candidate, leave = self.gates[d](joined).chunk(4, dim=-1)
                memory = forget.sigmoid() * memory + enter.sigmoid() * candidate.tanh()
                states[d][key] = ((leave.sigmoid() * memory).tanh(), memory)
        return states


def device() -> torch.device:
    """A GPU where JAX would take it too."""
    on_gpu = torch.cuda.is_available() and os.environ.get("JAX_PLATFORMS") != "cpu"
    return torch.device("cuda" if on_gpu else "cpu")


def training_step(extents: Sequence[int], arrays):
    """Forward and backward of the sum of squares of all that leaves; see `grid_lstm`.

    Returns the loss and the gradients, as structdl's step does.
    """
    weights, edges = arrays
    network = GridLSTM(extents, edges[0].hidden.shape[-1])
    with torch.no_grad():
        for linear, (kernel, bias) in zip(network.gates, weights, strict=True):
            linear.weight.copy_(torch.tensor(kernel.T))
            linear.bias.copy_(torch.tensor(bias))
    network.to(device())
    leaves = [
        tuple(torch.tensor(leaf, device=device(), requires_grad=True) for leaf in edge)
        for edge in edges
    ]

    def step():
        network.zero_grad()
        for leaf in itertools.chain(*leaves):
            leaf.grad = None
        entering = [_by_place(hidden, memory) for hidden, memory in leaves]
        loss = sum(
            torch.sum(hidden**2) + torch.sum(memory**2)
            for states in network(entering)
            for hidden, memory in states.values()
        )
        loss.backward()
        if device().type == "cuda":
            torch.cuda.synchronize()
        gradients = [(linear.weight.grad.T, linear.bias.grad) for linear in network.gates]
        return loss.detach(), (gradients, [tuple(leaf.grad for leaf in edge) for edge in leaves])

    return step


def _by_place(hidden, memory):
    """An edge, [batch, *extents of the other dimensions, hidden], by the place along these."""
    places = itertools.product(*map(range, hidden.shape[1:-1]))
    flat = (leaf.flatten(1, -2).unbind(1) for leaf in (hidden, memory))
    return {place: state for place, *state in zip(places, *flat, strict=True)}
