"""Which hyperparameters are searched, between which bounds, and the trials that are made there."""

import dataclasses
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import qmc

from structdl.errors import InputError, require_known
from structdl.training.optimizers import OptimizerConfig, available_optimizers, make_optimizer
from structdl.training.update_rules import UPDATE_RULES

RATE = "learning_rate"
_RANGE = re.compile(r"(?P<optimizer>\w+)\.(?P<name>\w+)=(?P<low>[^:]+):(?P<high>[^:]+)")


class Range(NamedTuple):
    """The bounds of a hyperparameter, whose logarithm is drawn uniformly between them."""

    low: float
    high: float


Space = dict[str, Range]  # by hyperparameter

# one space for all, so that none is helped by what is known of its learning rates
DEFAULT_SPACE: Space = {RATE: Range(1e-5, 10.0)}


def optimizer_config(name: str, base: OptimizerConfig | None = None) -> OptimizerConfig:
    """An optimizer in place of a preset's, whose schedule, clipping and averaging are kept.

    The five update rules have the options of their equations, others those of optax.

    Raises:
      InputError: an optimizer that optax does not have, with the nearest names.
    """
    require_known("optimizer", name, available_optimizers())
    rule = UPDATE_RULES.get(name, OptimizerConfig(name))
    base = base or OptimizerConfig()
    return dataclasses.replace(base, name=rule.name, kwargs=rule.kwargs, learning_rate=None)


def with_hyperparams(config: OptimizerConfig, values: Mapping[str, float]) -> OptimizerConfig:
    """A config with these values, whatever an optimizer calls its learning rate."""
    kwargs = dict(config.kwargs) | {name: values[name] for name in values if name != RATE}
    return dataclasses.replace(config, learning_rate=values.get(RATE), kwargs=kwargs)


def parse_spaces(optimizers: Sequence[str], ranges: Sequence[str]) -> dict[str, Space]:
    """The space of every optimizer, from words such as adam.learning_rate=1e-4:1.

    Words replace ranges of DEFAULT_SPACE, or add a hyperparameter to it.

    Raises:
      InputError: no optimizers; an unknown one; a word that is none, of another optimizer, of a
        hyperparameter that the optimizer does not take or that is no number, or of a range without
        anything in it.
    """
    if not optimizers:
        raise InputError("there is no optimizer to compare: name some after --optimizers.")
    found: dict[str, Space] = {}
    for word in ranges:
        match = _RANGE.fullmatch(word)
        if match is None:
            raise InputError(
                f"--search has {word!r}, which is not of the form OPTIMIZER.HYPERPARAMETER=LOW:HIGH"
            )
        require_known("optimizer in --search", match["optimizer"], optimizers)
        found.setdefault(match["optimizer"], {})[match["name"]] = _range(word, match)
    spaces = {name: DEFAULT_SPACE | found.get(name, {}) for name in optimizers}
    for name, space in spaces.items():
        lows = {each: range_.low for each, range_ in space.items()}
        config = with_hyperparams(optimizer_config(name), lows)
        make_optimizer(config)
        _require_numbers(name, config)
    return spaces


def _require_numbers(name: str, config: OptimizerConfig) -> None:
    """optax would take a number for a switch, until it is traced."""
    parameters = inspect.signature(available_optimizers()[config.name]).parameters
    for each, value in config.kwargs.items():
        if isinstance(parameters[each].default, bool) and not isinstance(value, bool):
            raise InputError(
                f"--search has {name}.{each}, which is on or off: only numbers are searched."
            )


def _range(word: str, match: re.Match) -> Range:
    try:
        low, high = float(match["low"]), float(match["high"])
    except ValueError:
        raise InputError(f"--search has {word!r}, whose bounds are not numbers.") from None
    if not 0 < low <= high < float("inf"):
        raise InputError(
            f"--search has {word!r}, in which there is nothing to search: bounds are positive and "
            "finite, since logarithms are drawn, the lower one first."
        )
    return Range(low, high)


def quasi_random(space: Space, num_trials: int, seed: int) -> list[dict[str, float]]:
    """Points of a scrambled Halton sequence, spread evenly over the space.

    The first n of them do not change when more are asked for. Two spaces with as many
    hyperparameters have trials at the same places between their bounds.

    Raises:
      InputError: no trials.

    >>> rates = [trial["lr"] for trial in quasi_random({"lr": Range(1e-4, 1.0)}, 4, seed=0)]
    >>> [f"{rate:.1e}" for rate in sorted(rates)]
    ['6.7e-04', '6.7e-03', '6.7e-02', '6.7e-01']

    Reference: Halton (1960), "On the efficiency of certain quasi-random sequences of points in
    evaluating multi-dimensional integrals".
    """
    if num_trials < 1:
        raise InputError(f"--trials is {num_trials}: give 1 or more of each optimizer.")
    places = qmc.Halton(len(space), rng=np.random.default_rng(seed)).random(num_trials)
    low, high = np.log(np.array([[each.low, each.high] for each in space.values()])).T
    values = np.exp(low + places * (high - low))
    return [dict(zip(space, map(float, row), strict=True)) for row in values]
