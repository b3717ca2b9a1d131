"""The model that a config names."""

from experiments.inductive.presets import Config
from structdl.errors import InputError
from structdl.graphs.sage import GraphSAGE


def make_model(config: Config, num_logits: int) -> GraphSAGE:
    """The GraphSAGE of a config.

    Raises:
      InputError: a width or a fan-out below 1, or not as many fan-outs as layers.
    """
    its = config.model
    if not its.hidden or min(its.hidden) < 1:
        raise InputError(f"--model.hidden is {its.hidden}: give one width or more.")
    if len(its.fan_outs) != len(its.hidden) or min(its.fan_outs) < 1:
        raise InputError(
            f"--model.fan-outs is {its.fan_outs}: give one number, 1 or more, for each of the "
            f"{len(its.hidden)} layers."
        )
    if its.aggregator_features < 1:
        raise InputError(
            f"--model.aggregator-features is {its.aggregator_features}: give 1 or more."
        )
    return GraphSAGE(
        hidden=its.hidden,
        num_classes=num_logits,
        aggregator=its.aggregator,
        normalize=its.normalize,
        dropout_rate=its.dropout,
        aggregator_features=its.aggregator_features,
    )
