"""Going down a landscape with torch.optim and autograd (extra [peers]) as its users run them."""

import functools
import math

import numpy as np
import torch

from experiments.benchmarks.one_by_one import Descend
from experiments.optimizer_comparison.landscapes import LANDSCAPES

# epsilon stands outside of the root here, and is torch's own
OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "momentum": functools.partial(torch.optim.SGD, momentum=0.9),
    "adagrad": torch.optim.Adagrad,
    "rmsprop": functools.partial(torch.optim.RMSprop, alpha=0.9),
    "adam": torch.optim.Adam,
}


def quadratic(point, condition: float):
    x, y = point
    return (x**2 / condition + y**2) / 2


def saddle(point):
    x, y = point
    return x**2 - y**2


def monkey_saddle(point):
    x, y = point
    return x**3 - 3 * x * y**2


OFFSETS = torch.tensor([1.5, 2.25, 2.625])


def beale(point):
    x, y = point
    return ((OFFSETS - x + x * torch.stack([y, y**2, y**3])) ** 2).sum()


def rosenbrock(point):
    x, y = point
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def branin(point):
    x, y = point
    parabola = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return parabola**2 + 10 * (1 - 1 / (8 * math.pi)) * torch.cos(x) + 10


CENTRES = torch.tensor([(-0.5, -0.8), (1.0, -0.5), (-1.0, 0.5), (-0.5, -0.8)])
VARIANCES = torch.tensor([0.35, 0.2, 0.2, 0.2]) ** 2


def gaussians(point):
    distances = ((point - CENTRES) ** 2).sum(dim=1)
    return -(torch.exp(-distances / (2 * VARIANCES)) / (2 * math.pi * VARIANCES)).sum()


FUNCTIONS = {
    "quadratic 1": functools.partial(quadratic, condition=1.0),
    "quadratic 1e2": functools.partial(quadratic, condition=1e2),
    "quadratic 1e4": functools.partial(quadratic, condition=1e4),
    "saddle": saddle,
    "monkey saddle": monkey_saddle,
    "Beale": beale,
    "Rosenbrock": rosenbrock,
    "Branin": branin,
    "Gaussians": gaussians,
}


def python_loop(optimizer: str, landscape: str, num_steps: int) -> Descend:
    """The usual five lines, again and again."""
    its, function = LANDSCAPES[landscape], FUNCTIONS[landscape.removesuffix(", noise")]

    def descend(rate: float, seed: int) -> np.ndarray:
        torch.manual_seed(seed)
        point = torch.tensor(its.start, requires_grad=True)
        rule, heights = OPTIMIZERS[optimizer]([point], lr=rate), []
        for _ in range(num_steps):
            rule.zero_grad()
            height = function(point)
            heights.append(height.item())
            if not its.lowest <= heights[-1] < math.inf:
                return np.array(heights)
            height.backward()
            if its.noise:
                point.grad += its.noise * torch.randn(2)
            rule.step()
        with torch.no_grad():
            return np.array([*heights, function(point).item()])

    return descend
