"""The four ways to find edges, each as the pure functions that a task and a score are made of."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from experiments.relational_inference.presets import (
    CorrelationConfig,
    LSTMConfig,
    ModelConfig,
    NRIConfig,
    SupervisedConfig,
    system_of,
)
from structdl.core.distributions import (
    gaussian_log_prob,
    gumbel_softmax,
    laplace_log_prob,
    log_probabilities,
)
from structdl.datasets.simulate_particles import Trajectories
from structdl.errors import InputError
from structdl.graphs.nri import (
    between_objects,
    drawn_stretches,
    edge_accuracy,
    edge_confusion,
    negative_elbo,
)
from structdl.graphs.nri_decoders import MarkovDecoder, RecurrentDecoder
from structdl.graphs.nri_encoders import CNNEncoder, MLPEncoder
from structdl.recurrent.stacked import LSTM
from structdl.training.metrics import class_totals
from structdl.training.precision import apply


class Approach(NamedTuple):
    """How edges are learned and found.

    Fields:
      init: `(key, states) -> (params, model_state)`.
      totals: `(params, model_state, systems, mask, key) -> ({name: (total, count)}, model_state)`,
        "loss" among them, over the systems that the mask, [batch], counts; in training mode where
        there is a key.
      find: `(params, model_state, states) -> edges`: logits of their types, [batch, objects,
        objects, types], or, where there are no types, correlations, [batch, objects, objects].
      predict: `(params, model_state, states, *, num_steps) -> predictions` of states 1 to time - 1
        with a true state for every num_steps-th; None where no dynamics are learned.
    """

    init: Callable
    totals: Callable
    find: Callable
    predict: Callable | None = None


def make_approach(config: ModelConfig, *, edges_are_known: bool = True) -> Approach:
    """The functions of a config.

    Args:
      config: which approach.
      edges_are_known: whether what is found can be held against true edges, which all but NRI need.

    Raises:
      InputError: options that exclude each other, or an approach that needs edges where there
        are none.
    """
    if not edges_are_known and not isinstance(config, NRIConfig):
        raise InputError(f"{system_of(config)} needs true edges, and here none are known: take NRI")
    match config:
        case NRIConfig():
            return _inferred(config, edges_are_known)
        case SupervisedConfig():
            return _supervised(config)
        case LSTMConfig():
            return _separately_predicted(config)
        case CorrelationConfig():
            return _correlated()


def _inferred(config: NRIConfig, edges_are_known: bool) -> Approach:
    """A variational autoencoder whose latent variable is the graph."""
    _check(config)
    log_prior = log_probabilities("--model.prior", config.prior) if config.prior else None
    log_prob = {"normal": gaussian_log_prob, "laplace": laplace_log_prob}[config.likelihood]
    encoder = _encoder(config.encoder, config.encoder_hidden, config.num_types)
    decoder_class = {"markov": MarkovDecoder, "recurrent": RecurrentDecoder}[config.decoder]
    decoder = decoder_class(config.decoder_hidden, config.num_types, config.skip_first)
    burn_in = {"burn_in": config.burn_in} if config.decoder == "recurrent" else {}

    def init(key, states):
        encoder_key, decoder_key = jax.random.split(key)
        encoder_params, model_state = _init(encoder, encoder_key, states)
        edges = jnp.zeros((*_pairs(states), config.num_types))
        decoder_params = decoder.init(decoder_key, states, edges, prediction_steps=1)["params"]
        return {"encoder": encoder_params, "decoder": decoder_params}, model_state

    def decode(params, states, edges, num_steps):
        variables = {"params": params["decoder"]}
        return apply(decoder, variables, states, edges, prediction_steps=num_steps, **burn_in)

    def totals(params, model_state, systems: Trajectories, mask, key):
        states, num_predicted = systems.states, systems.states.shape[1] - 1
        logits, model_state = _encode(encoder, params["encoder"], model_state, states, key)
        edges, targets = _most_likely(logits), states[:, 1:]
        if key is not None:
            if config.stretches:
                key, drawn = jax.random.split(key)
                states, targets = drawn_stretches(
                    drawn,
                    states,
                    num_stretches=config.stretches,
                    prediction_steps=config.prediction_steps,
                )
            edges = gumbel_softmax(key, logits, config.temperature, hard=config.hard)
        predictions = decode(params, states, edges, config.prediction_steps)
        errors, divergences = negative_elbo(
            predictions,
            targets,
            logits,
            variance=config.variance,
            log_prior=log_prior,
            log_prob=log_prob,
        )
        errors *= num_predicted / targets.shape[1]  # as of whole trajectories
        squares = jnp.mean((predictions - targets) ** 2, axis=(1, 2, 3))
        values = {"loss": errors + divergences, "kl": divergences, "squared_error": squares}
        found = _masked(values, mask)
        if edges_are_known:
            found["edge_accuracy"] = _batch_accuracy(logits, systems.edges, mask)
        return found, model_state

    def find(params, model_state, states):
        return _encode(encoder, params["encoder"], model_state, states, None)[0]

    def predict(params, model_state, states, *, num_steps: int):
        edges = _most_likely(find(params, model_state, states))
        return decode(params, states, edges, num_steps)

    return Approach(init, totals, find, predict)


def _supervised(config: SupervisedConfig) -> Approach:
    """The encoder, told the true types of the edges."""
    encoder = _encoder(config.encoder, config.hidden, 2)

    def totals(params, model_state, systems: Trajectories, mask, key):
        logits, model_state = _encode(encoder, params, model_state, systems.states, key)
        counted = mask[:, None, None] & between_objects(logits.shape[1])[None]
        found = class_totals(logits, systems.edges, counted)
        return found | {"edge_accuracy": found.pop("accuracy")}, model_state

    def find(params, model_state, states):
        return _encode(encoder, params, model_state, states, None)[0]

    return Approach(lambda key, states: _init(encoder, key, states), totals, find)


class _Separately(nn.Module):
    """Predicts the next state of every object from its own past; returns its last hidden too."""

    hidden: int

    @nn.compact
    def __call__(self, states: Float[Array, "batch time objects features"]):
        batch, _, objects, features = states.shape
        paths = jnp.swapaxes(states, 1, 2).reshape(batch * objects, -1, features)
        outputs, _ = LSTM(self.hidden, name="lstm")(paths, train=False)
        changes = nn.Dense(features, name="readout")(outputs)
        predictions = (paths + changes).reshape(batch, objects, -1, features)
        return jnp.swapaxes(predictions, 1, 2), outputs[:, -1].reshape(batch, objects, -1)


def _separately_predicted(config: LSTMConfig) -> Approach:
    """Correlations between the last hidden states of an LSTM that knows of one object at a time."""
    model = _Separately(config.hidden)

    def run(params, states):
        return apply(model, {"params": params}, states)

    def totals(params, model_state, systems: Trajectories, mask, key):
        predictions, _ = run(params, systems.states[:, :-1])
        squares = jnp.mean((predictions - systems.states[:, 1:]) ** 2, axis=(1, 2, 3))
        return _masked({"loss": squares}, mask), model_state

    return Approach(
        lambda key, states: (model.init(key, states)["params"], ()),
        totals,
        lambda params, model_state, states: correlations(run(params, states)[1]),
    )


def _correlated() -> Approach:
    """Correlations between trajectories as they are; nothing is learned, and nothing lost."""

    def totals(params, model_state, systems: Trajectories, mask, key):
        return _masked({"loss": jnp.zeros(len(mask))}, mask), model_state

    def find(params, model_state, states):
        batch, _, objects, _ = states.shape
        return correlations(jnp.swapaxes(states, 1, 2).reshape(batch, objects, -1))

    return Approach(lambda key, states: ({}, ()), totals, find)


def correlations(
    vectors: Float[Array, "batch objects features"],
) -> Float[Array, "batch objects objects"]:
    """Pearson's coefficients of every pair of vectors; 0 where one of them does not vary."""
    centred = vectors - jnp.mean(vectors, axis=-1, keepdims=True)
    lengths = jnp.linalg.norm(centred, axis=-1, keepdims=True)
    unit = centred / jnp.where(lengths == 0, 1, lengths)
    return jnp.einsum("bif,bjf->bij", unit, unit)


def _encoder(name: str, hidden: int, num_types: int) -> nn.Module:
    return {"mlp": MLPEncoder, "cnn": CNNEncoder}[name](hidden, num_types)


def _init(encoder: nn.Module, key, states):
    variables = dict(encoder.init(key, states, train=False))
    return variables.pop("params"), variables


def _encode(encoder: nn.Module, params, model_state, states, key):
    """Logits and the statistics of batches, which change in training: where there is a key."""
    variables = {"params": params, **model_state}
    if key is None:
        return apply(encoder, variables, states, train=False), model_state
    return apply(encoder, variables, states, train=True, mutable=list(model_state))


def _most_likely(logits: Float[Array, "*batch types"]) -> Float[Array, "*batch types"]:
    return jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])


def _batch_accuracy(logits, edges, mask):
    """How many edges got their type, by the naming that fits this batch best."""
    blank = jnp.where(mask[:, None, None], edges, -1)  # one-hot it is no type
    return edge_accuracy(edge_confusion(logits, blank))


def _pairs(states) -> tuple[int, int, int]:
    batch, _, objects, _ = states.shape
    return batch, objects, objects


def _masked(values: dict[str, Float[Array, " batch"]], mask: Bool[Array, " batch"]):
    count = jnp.sum(mask)
    return {name: (jnp.sum(value, where=mask), count) for name, value in values.items()}


def _check(config: NRIConfig) -> None:
    if config.stretches and config.decoder == "recurrent":
        raise InputError(
            "--model.stretches cuts out what a recurrent decoder remembers: leave it at 0"
        )
    if config.prior and len(config.prior) != config.num_types:
        raise InputError(
            f"--model.prior has {len(config.prior)} numbers, and --model.num-types is "
            f"{config.num_types}: give one for each type"
        )
