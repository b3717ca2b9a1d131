"""One of the four models for the problem, and what it reads."""

import jax
import jax.numpy as jnp

from experiments.sequence_model import SequenceModel
from experiments.synthetic_sequences.data import PROBLEMS
from experiments.synthetic_sequences.presets import Config


def make_model(config: Config) -> SequenceModel:
    """Adding: one number after the last step; copying: the scores of 10 classes at every step."""
    problem = PROBLEMS[config.problem]
    return SequenceModel(config.model, problem.num_outputs, problem.last)


def features(config: Config, inputs: jax.Array) -> jax.Array:
    """What the model reads of sequences: [batch, time, in_features]; symbols are one-hot."""
    if config.problem == "adding":
        return inputs
    return jax.nn.one_hot(inputs, PROBLEMS["copy"].in_features, dtype=jnp.float32)
