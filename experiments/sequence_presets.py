"""What the presets of the sequence experiments share: names, runs, and the check of a model."""

import bisect
import dataclasses

import jax
import jax.numpy as jnp

from experiments.sequence_model import (
    GridLSTMConfig,
    GRUConfig,
    LSTMConfig,
    RNNConfig,
    SequenceConfig,
    SequenceModel,
    TCNConfig,
)
from structdl.errors import InputError
from structdl.temporal.receptive_field import require_reach
from structdl.training.run import Run

BAI = "Bai et al. 2018, table 1"
NAMES = {"gru": "GRU", "rnn": "tanh RNN", "lstm": "LSTM", "tcn": "TCN"}
TOLERANCE = 0.05  # by which the sizes of compared models may differ


def system_of(config: SequenceConfig) -> str:
    """What the ledger calls a model.

    >>> system_of(GRUConfig(46)), system_of(TCNConfig(16, num_levels=4))
    ('GRU, 46 units', 'TCN, 4 x 16 channels')
    """
    match config:
        case TCNConfig():
            return f"TCN, {config.num_levels} x {config.channels} channels"
        case RNNConfig():
            name = "tanh RNN"
        case GRUConfig():
            name = "GRU"
        case LSTMConfig():
            name = "LSTM"
        case GridLSTMConfig():
            name = f"{'tied' if config.tied else 'untied'} 2-LSTM"
    layers = f"{config.num_layers} x " if config.num_layers > 1 else ""
    return f"{name}, {layers}{config.hidden} units"


def run_of(
    config: SequenceConfig,
    num_steps: int,
    *,
    eval_every: int,
    patience: int,
    log_every: int | None = None,
) -> Run:
    """One seed after another; the parameters of the best validation are tested."""
    log_every = log_every or eval_every
    return Run(
        num_steps=num_steps,
        eval_every=eval_every,
        # a convolution in a compiled loop takes 18 times as long on CPU
        steps_per_call=1 if isinstance(config, TCNConfig) else log_every,
        log_every=log_every,
        seed_mode="loop",
        stopping="patience",
        stopping_size=patience,
        checkpoint_every=5 * eval_every,
    )


def encoder_size(config: SequenceConfig, time: int, in_features: int) -> int:
    """How many parameters a model has, its read-out not counted."""
    x = jax.ShapeDtypeStruct((1, time, in_features), jnp.float32)

    def init(x):
        return SequenceModel(config, 1).init(jax.random.key(0), x, train=False)["params"]

    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(init, x)["encoder"]))


def check_model(
    config: SequenceConfig, time: int, in_features: int, wanted: int, *, reach: int = 1
) -> None:
    """Prints a model's size, its read-out not counted, and refuses what cannot be meant.

    Args:
      config: of the model.
      time, in_features: of the sequences that it reads.
      wanted: its size within TOLERANCE; 0 for any.
      reach: how many inputs the task asks a model to see, the present one included.

    Raises:
      InputError: a TCN that does not reach far enough; a size further from what is wanted, with
        the width that would do.
    """
    if isinstance(config, TCNConfig):
        require_reach(config.kernel_size, config.num_levels, reach)
    found = encoder_size(config, time, in_features)
    if not wanted:
        print(f"{found} parameters without the read-out")
        return
    print(f"{found} parameters without the read-out, {found / wanted - 1:+.1%} of {wanted}")
    if abs(found - wanted) > TOLERANCE * wanted:
        raise InputError(
            f"the model has {found} parameters without its read-out, and --parameters asks for "
            f"{wanted} within {TOLERANCE:.0%}: "
            + _advice(config, time, in_features, wanted)
            + "give --parameters 0 for any number."
        )


def _advice(config: SequenceConfig, time: int, in_features: int, wanted: int) -> str:
    """The width that has the wanted size, for an error message; none has too small a one."""
    name = "channels" if isinstance(config, TCNConfig) else "hidden"

    def size(width: int) -> int:
        return encoder_size(dataclasses.replace(config, **{name: width}), time, in_features)

    at_least = bisect.bisect_left(range(1 << 20), wanted, lo=1, key=size)
    best = min(max(1, at_least - 1), at_least, key=lambda width: abs(size(width) - wanted))
    fits = abs(size(best) - wanted) <= TOLERANCE * wanted
    return f"give --model.{name} {best}, or " if fits else ""
