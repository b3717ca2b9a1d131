"""The model that a config names."""

from experiments.inductive.presets import Config
from structdl.errors import InputError
from structdl.graphs.sage import GraphSAGE


def make_model(config: Config, num_logits: int) -> GraphSAGE:
    """The GraphSAGE of a config.

    Raises:
      InputError: not as many fan-outs as layers.
    """
    its = config.model
    if len(its.fan_outs) != len(its.hidden):
        raise InputError(
            f"--model.fan-outs is {its.fan_outs}: give one number for each of the "
            f"{len(its.hidden)} layers."
        )
    return GraphSAGE(
        hidden=its.hidden,
        num_classes=num_logits,
        aggregator=its.aggregator,
        normalize=its.normalize,
        dropout_rate=its.dropout,
        aggregator_features=its.aggregator_features,
    )
