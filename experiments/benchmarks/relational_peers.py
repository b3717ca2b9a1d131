"""Neural relational inference in torch (extra [peers]), as it is published and with gathers.

Both have a row for each ordered pair of different objects. As published, one-hot matrices bring
nodes to pairs and pairs to nodes by products; with gathers, pairs index their nodes, and
`index_add` sums what nodes receive. Means are over N - 1 pairs, as structdl's are.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import elu, log_softmax, one_hot, relu, softmax

from experiments.benchmarks.grid_lstm_peers import device
from experiments.benchmarks.relational import PREDICTION_STEPS, TEMPERATURE, VARIANCE, Arrays


class Pairs(NamedTuple):
    """How nodes and pairs of them hear of each other."""

    of_nodes: Callable[[torch.Tensor], torch.Tensor]  # sender and receiver of each, side by side
    received: Callable[[torch.Tensor], torch.Tensor]  # the sum of what nodes receive


def make_pairs(kind: str, num_nodes: int) -> Pairs:
    """Pairs in rows, [..., N (N - 1), features], by products ("dense") or by "gathers"."""
    everyone = torch.arange(num_nodes, device=device())
    senders, receivers = torch.cartesian_prod(everyone, everyone).T
    senders, receivers = (ends[senders != receivers] for ends in (senders, receivers))
    if kind == "dense":
        by_sender, by_receiver = (one_hot(ends, num_nodes).float() for ends in (senders, receivers))
        return Pairs(
            lambda nodes: torch.cat([by_sender @ nodes, by_receiver @ nodes], dim=-1),
            lambda pairs: by_receiver.T @ pairs,
        )

    def received(pairs: torch.Tensor) -> torch.Tensor:
        shape = (*pairs.shape[:-2], num_nodes, pairs.shape[-1])
        return pairs.new_zeros(shape).index_add(-2, receivers, pairs)

    return Pairs(
        lambda nodes: torch.cat(
            [nodes.index_select(-2, senders), nodes.index_select(-2, receivers)], dim=-1
        ),
        received,
    )


class Perceptron(torch.nn.Module):
    """Two layers with elu after both, then batch normalisation."""

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.first, self.second = torch.nn.Linear(inputs, hidden), torch.nn.Linear(hidden, hidden)
        self.norm = torch.nn.BatchNorm1d(hidden)

    def forward(self, x):
        x = elu(self.second(elu(self.first(x))))
        return self.norm(x.flatten(0, -2)).view_as(x)


class Encoder(torch.nn.Module):
    """From trajectories, [batch, nodes, time * features], to logits of pairs."""

    def __init__(self, inputs: int, hidden: int, types: int):
        super().__init__()
        self.nodes = Perceptron(inputs, hidden)
        self.pairs = Perceptron(2 * hidden, hidden)
        self.nodes_again = Perceptron(hidden, hidden)
        self.pairs_again = Perceptron(3 * hidden, hidden)
        self.logits = torch.nn.Linear(hidden, types)

    def forward(self, trajectories, pairs: Pairs):
        first = self.pairs(pairs.of_nodes(self.nodes(trajectories)))
        mean = pairs.received(first) / (trajectories.shape[1] - 1)
        again = pairs.of_nodes(self.nodes_again(mean))
        return self.logits(self.pairs_again(torch.cat([again, first], dim=-1)))


class Decoder(torch.nn.Module):
    """The next states of nodes, [..., nodes, features], by a message network of each type."""

    def __init__(self, features: int, hidden: int, types: int):
        super().__init__()
        linear = torch.nn.Linear
        self.hidden = torch.nn.ModuleList(linear(2 * features, hidden) for _ in range(types))
        self.messages = torch.nn.ModuleList(linear(hidden, hidden) for _ in range(types))
        widths = (features + hidden, hidden, hidden, features)
        self.output = torch.nn.ModuleList(map(linear, widths, widths[1:]))

    def step(self, nodes, edges, pairs: Pairs):
        both = pairs.of_nodes(nodes)
        sent = 0.0
        for number, (first, second) in enumerate(zip(self.hidden, self.messages, strict=True)):
            sent = sent + relu(second(relu(first(both)))) * edges[..., number : number + 1]
        x = torch.cat([nodes, pairs.received(sent)], dim=-1)
        for layer in self.output[:-1]:
            x = relu(layer(x))
        return nodes + self.output[-1](x)

    def forward(self, states, edges, pairs: Pairs):
        """Predictions of states 1 to time - 1, with a true state every few steps."""
        batch, time, *rest = states.shape
        nodes, predictions = states[:, : time - 1 : PREDICTION_STEPS], []
        edges = edges[:, None].expand(-1, nodes.shape[1], -1, -1)
        for _ in range(PREDICTION_STEPS):
            nodes = self.step(nodes, edges, pairs)
            predictions.append(nodes)
        return torch.stack(predictions, dim=2).reshape(batch, -1, *rest)[:, : time - 1]


def state_dicts(encoder: dict[str, Any], decoder: dict[str, Any]) -> list[dict[str, np.ndarray]]:
    """structdl's parameters, or gradients by them, under torch's names: encoder and decoder."""
    again = encoder["_SecondRound_0"]
    skipped = again["_PairDense_0"]["kernel"], again["Dense_1"]["kernel"]
    joined = again["_PairDense_0"] | {"kernel": np.concatenate(skipped)}
    ours = {
        "nodes": _perceptron(encoder["Dense_0"], encoder["_AfterFirst_0"]),
        "pairs": _perceptron(encoder["_PairDense_0"], encoder["_AfterFirst_1"]),
        "nodes_again": _perceptron(again["Dense_0"], again["_AfterFirst_0"]),
        "pairs_again": _perceptron(joined, again["_AfterFirst_1"]),
        "logits": _linear(again["Dense_2"]),
    }
    layers = {
        **_layers("hidden", decoder["pair_kernels"], decoder["pair_biases"]),
        **_layers("messages", decoder["message_kernels"], decoder["message_biases"]),
        **_layers(
            "output",
            [decoder[f"output_kernel_{number}"] for number in range(3)],
            [decoder[f"output_bias_{number}"] for number in range(3)],
        ),
    }
    return [_flat(ours), _flat(layers)]


def _linear(layer: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"weight": layer["kernel"].T, "bias": layer["bias"]}


def _layers(name: str, kernels, biases) -> dict[str, dict[str, np.ndarray]]:
    """Of a module list."""
    return {
        f"{name}.{number}": _linear({"kernel": kernel, "bias": bias})
        for number, (kernel, bias) in enumerate(zip(kernels, biases, strict=True))
    }


def _perceptron(first, rest) -> dict[str, np.ndarray]:
    norm = rest["BatchNorm_0"]
    parts = {
        "first": _linear(first),
        "second": _linear(rest["Dense_0"]),
        "norm": {"weight": norm["scale"], "bias": norm["bias"]},
    }
    return _flat(parts)


def _flat(tree: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {
        f"{outer}.{inner}": leaf for outer, leaves in tree.items() for inner, leaf in leaves.items()
    }


def networks(arrays: Arrays) -> list[torch.nn.Module]:
    """The encoder and the decoder, with structdl's weights."""
    hidden, types = arrays.decoder["pair_kernels"].shape[-1], arrays.noise.shape[-1]
    _, time, _, features = arrays.states.shape
    width = len(arrays.encoder["Dense_0"]["bias"])
    both = [Encoder(time * features, width, types), Decoder(features, hidden, types)]
    for network, weights in zip(both, state_dicts(arrays.encoder, arrays.decoder), strict=True):
        tensors = {name: torch.tensor(np.asarray(leaf)) for name, leaf in weights.items()}
        found = network.load_state_dict(tensors, strict=False)
        assert not found.unexpected_keys
        assert all("running" in key or "tracked" in key for key in found.missing_keys)
        network.to(device()).train()
    return both


def training_step(kind: str, arrays: Arrays):
    """The loss of `relational`, and its gradients under torch's names."""
    encoder, decoder = both = networks(arrays)
    num_nodes = arrays.states.shape[2]
    pairs = make_pairs(kind, num_nodes)
    states = torch.tensor(arrays.states, device=device())
    is_pair = ~np.eye(num_nodes, dtype=bool)
    noise = torch.tensor(arrays.noise[:, is_pair], device=device())
    types = noise.shape[-1]

    def step():
        for network in both:
            network.zero_grad()
        logits = encoder(states.transpose(1, 2).flatten(2), pairs)
        edges = softmax((logits + noise) / TEMPERATURE, dim=-1)
        errors = decoder(states, edges, pairs) - states[:, 1:]
        log_q = log_softmax(logits, dim=-1)
        divergence = log_q.exp() * (log_q + math.log(types))
        constant = math.log(2 * math.pi * VARIANCE) / 2 * errors.numel()
        loss = (torch.sum(errors**2) / (2 * VARIANCE) + constant + divergence.sum()) / len(states)
        loss.backward()
        if device().type == "cuda":
            torch.cuda.synchronize()
        return loss.detach(), [dict(_gradients(network)) for network in both]

    return step


def _gradients(network: torch.nn.Module):
    return ((name, parameter.grad) for name, parameter in network.named_parameters())
