"""flax.linen's recurrent layers as their users run them."""

import flax.linen as nn

from experiments.benchmarks.sequences import Size, inputs, training_step

CELLS = {"RNN": nn.SimpleCell, "GRU": nn.GRUCell, "LSTM": nn.LSTMCell}


def recurrent_step(layer: str, size: Size):
    """A training step of flax.linen.RNN with the cell of that name; see `sequences`."""
    module = nn.RNN(CELLS[layer](size.hidden))
    return training_step(module.init, module.apply, inputs(size))
