"""The sequence models with a read-out that says a mixture of Gaussians."""

from experiments.raw_audio.data import TARGETS
from experiments.raw_audio.mixture import num_outputs
from experiments.raw_audio.presets import Config
from experiments.sequence_model import SequenceModel


def make_model(config: Config) -> SequenceModel:
    """The model of a config."""
    return SequenceModel(config.model, num_outputs(config.components, TARGETS))
