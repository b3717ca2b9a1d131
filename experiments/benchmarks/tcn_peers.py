"""A temporal convolution network by torch (extra [peers]), and its training step.

The architecture is that of Bai et al. (2018): Conv1d with weight normalisation in residual blocks.
"""

import torch
from torch.nn.functional import cross_entropy, mse_loss, pad
from torch.nn.utils.parametrizations import weight_norm

from experiments.benchmarks.tcn_cases import LEARNING_RATE, Size, make_batch


class CausalConvolution(torch.nn.Module):
    """A normalised Conv1d that sees no future.

    Args:
      pad_left: whether zeros go before the sequence only. Else, as the authors have it, both ends
        are padded and what the end's padding gave is cut off, which costs outputs that nobody
        sees: as many as the sequence has where the dilation is largest.
    """

    def __init__(self, in_features, features, kernel_size, dilation, pad_left: bool):
        super().__init__()
        self.past, self.pad_left = (kernel_size - 1) * dilation, pad_left
        padding = 0 if pad_left else self.past
        self.convolution = weight_norm(
            torch.nn.Conv1d(in_features, features, kernel_size, padding=padding, dilation=dilation)
        )

    def forward(self, x):
        if self.pad_left:
            return self.convolution(pad(x, (self.past, 0)))
        x = self.convolution(x)
        return x[:, :, : x.shape[2] - self.past].contiguous()


class Block(torch.nn.Module):
    """Two convolutions, each with relu and dropout, beside the identity or a 1x1 convolution."""

    def __init__(self, in_features, features, kernel_size, dilation, rate, pad_left: bool):
        super().__init__()
        layers = []
        for width in (in_features, features):
            layers += [
                CausalConvolution(width, features, kernel_size, dilation, pad_left),
                torch.nn.ReLU(),
                torch.nn.Dropout(rate),
            ]
        self.layers = torch.nn.Sequential(*layers)
        differs = in_features != features
        self.residual = torch.nn.Conv1d(in_features, features, 1) if differs else None

    def forward(self, x):
        residual = x if self.residual is None else self.residual(x)
        return torch.relu(self.layers(x) + residual)


class Network(torch.nn.Module):
    """Blocks whose dilations double, and a linear head; time is the last axis inside, as Conv1d
    wants it, and the second one outside."""

    def __init__(self, size: Size, pad_left: bool):
        super().__init__()
        widths = [size.in_features] + [size.width] * size.levels
        self.blocks = torch.nn.Sequential(
            *(
                Block(widths[i], size.width, size.kernel_size, 2**i, size.dropout_rate, pad_left)
                for i in range(size.levels)
            )
        )
        self.head = torch.nn.Linear(size.width, size.num_outputs)
        self.every_step = size.every_step

    def forward(self, x):
        hidden = self.blocks(x.transpose(1, 2)).transpose(1, 2)
        return self.head(hidden if self.every_step else hidden[:, -1])


def training_step(size: Size, pad_left: bool):
    torch.manual_seed(0)
    network = Network(size, pad_left)
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    x, labels = (torch.from_numpy(array) for array in make_batch(size))

    def step():
        optimizer.zero_grad()
        outputs = network(x)
        if size.num_outputs == 1:
            loss = mse_loss(outputs, labels)
        else:
            loss = cross_entropy(outputs.flatten(0, -2), labels.long().flatten())
        loss.backward()
        optimizer.step()
        return loss

    return step
