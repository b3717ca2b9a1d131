"""torch's recurrent layers (extra [peers]) as their users run them."""

import torch

from experiments.benchmarks.sequences import Size, inputs


def recurrent_step(layer: str, size: Size):
    """A training step of torch.nn.RNN, GRU or LSTM; see `sequences`."""
    module = getattr(torch.nn, layer)(size.in_features, size.hidden, batch_first=True)
    return training_step(lambda xs: module(xs)[0], module, inputs(size))


def training_step(outputs, module: torch.nn.Module, xs):
    """Forward and backward of the sum of squares of the outputs."""
    xs = torch.tensor(xs, requires_grad=True)

    def step():
        module.zero_grad()
        xs.grad = None
        torch.sum(outputs(xs) ** 2).backward()

    return step
