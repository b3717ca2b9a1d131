"""Link prediction: the tasks by their model, and main."""

from pathlib import Path

from experiments.link_prediction.auto_encoder import make_auto_encoder_task
from experiments.link_prediction.figures import draw
from experiments.link_prediction.presets import PRESETS, Config, SageConfig
from experiments.link_prediction.walks import make_walk_task
from structdl.training import cli
from structdl.training.experiment import Experiment
from structdl.training.task import Task


def make_task(config: Config) -> Task:
    """The task of a config's model."""
    if isinstance(config.model, SageConfig):
        return make_walk_task(config)
    return make_auto_encoder_task(config)


EXPERIMENT = Experiment("link_prediction", Path(__file__).parent, PRESETS, make_task, draw)


def main(argv: list[str] | None = None) -> None:
    cli.main(EXPERIMENT, argv)
