"""The encoders that a config names, as pure functions of their parameters."""

import flax.linen as nn
import jax

from experiments.link_prediction.data import LinkData, WalkData
from experiments.link_prediction.presets import AutoEncoderConfig, SageConfig
from structdl.graphs.link_prediction import GAE, VGAE
from structdl.graphs.sage import GraphSAGE
from structdl.training.precision import apply


def make_auto_encoder(config: AutoEncoderConfig) -> GAE | VGAE:
    """The encoder of a graph auto-encoder."""
    kind = VGAE if config.variational else GAE
    return kind(config.hidden, config.features, dropout_rate=config.dropout)


def encode(
    config: AutoEncoderConfig, params, data: LinkData, weights, *, key: jax.Array | None = None
) -> tuple[jax.Array, jax.Array | None]:
    """(mean, log standard deviation) of every node's embedding; None for a GAE, which has none.

    With a key it drops as in training.
    """
    model = make_auto_encoder(config)
    found = _apply(model, params, data.features, data.layout, weights, key=key)
    return found if config.variational else (found, None)


def make_sage(config: SageConfig) -> GraphSAGE:
    """GraphSAGE without a classifier: only its `embed` is used."""
    return GraphSAGE(
        config.hidden,
        num_classes=1,
        aggregator=config.aggregator,
        normalize="last",
        dropout_rate=config.dropout,
    )


def embed(config: SageConfig, params, data: WalkData, *, key: jax.Array | None = None) -> jax.Array:
    """Every node's embedding, of length 1; with a key it drops as in training."""
    model = make_sage(config)
    return _apply(model, params, data.features, data.layout, key=key, method=GraphSAGE.embed)


def _apply(model: nn.Module, params, *args, key: jax.Array | None, method=None):
    rngs = {} if key is None else {"dropout": key}
    return apply(model, {"params": params}, *args, train=key is not None, rngs=rngs, method=method)
