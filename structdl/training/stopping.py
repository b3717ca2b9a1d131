"""When a seed stops, and which parameters are tested: none, window_mean, patience, solved."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from structdl.errors import InputError

StoppingName = Literal["none", "window_mean", "patience", "solved"]


class Validation(NamedTuple):
    """What a rule judges by."""

    loss: jax.Array  # (), without the penalty
    cost: jax.Array  # (), with it
    score: jax.Array  # (), the task's metric to maximise; minus the loss where it has none


class StoppingRule(NamedTuple):
    """Three pure functions; `selected` is (params, model_state), as they would be evaluated.

    Fields:
      init: `selected -> rule state`.
      update: `(rule state, selected, validation) -> (rule state, stop)`, after each validation.
      final: `(rule state, selected) -> selected`: what is tested at the end.
    """

    init: Callable[[Any], Any]
    update: Callable[..., tuple[Any, jax.Array]]
    final: Callable[[Any, Any], Any]


def never() -> StoppingRule:
    """Runs all steps; the last parameters are tested."""
    return StoppingRule(
        init=lambda selected: (),
        update=lambda state, selected, validation: (state, jnp.zeros((), bool)),
        final=lambda state, selected: selected,
    )


class Window(NamedTuple):
    """The last costs, oldest first, and how many validations there have been."""

    costs: jax.Array  # [size]
    count: jax.Array  # (), int32


def window_mean(size: int) -> StoppingRule:
    """Stops when the cost exceeds the mean of the `size` costs before it; tests the last params.

    As in the authors' code, the first comparison is made at validation number size + 2.

    Reference: Kipf, Welling (2017), "Semi-supervised classification with graph convolutional
    networks", arXiv:1609.02907, section 5.2.
    """

    def update(state, selected, validation):
        stop = (state.count > size) & (validation.cost > jnp.mean(state.costs))
        costs = jnp.roll(state.costs, -1).at[-1].set(validation.cost)
        return Window(costs, state.count + 1), stop

    return StoppingRule(
        init=lambda selected: Window(jnp.zeros(size), jnp.zeros((), jnp.int32)),
        update=update,
        final=lambda state, selected: selected,
    )


class Best(NamedTuple):
    """The best values so far, the parameters to restore, and validations without improvement."""

    loss: jax.Array  # (), lowest
    score: jax.Array  # (), highest
    selected: Any
    waited: jax.Array  # (), int32


def patience(size: int) -> StoppingRule:
    """Stops after `size` validations in a row that improve neither loss nor score.

    The parameters of the last validation that was at least as good as all before it in both are
    restored and tested. A task without a score is judged by its loss alone. As in the authors'
    code the loss is without the penalty.

    Reference: Velickovic et al. (2018), "Graph attention networks", arXiv:1710.10903, section 3.3.
    """

    def init(selected):
        # a weak type would change with the first validation, and compile the call twice
        worst = jnp.full((), jnp.inf, float)
        return Best(worst, -worst, selected, jnp.zeros((), jnp.int32))

    def update(state, selected, validation):
        loss, score = validation.loss, validation.score
        loss_improves, score_improves = loss <= state.loss, score >= state.score
        both, either = loss_improves & score_improves, loss_improves | score_improves
        waited = jnp.where(either, 0, state.waited + 1)
        best = jax.tree.map(lambda new, old: jnp.where(both, new, old), selected, state.selected)
        state = Best(jnp.minimum(loss, state.loss), jnp.maximum(score, state.score), best, waited)
        return state, waited >= size

    def final(state, selected):
        """Before the first validation there is no best: the last are tested."""
        seen = jnp.isfinite(state.loss)
        return jax.tree.map(
            lambda best, last: jnp.where(seen, best, last), state.selected, selected
        )

    return StoppingRule(init, update, final)


def solved(score: float) -> StoppingRule:
    """Stops at the first validation whose score is at least this; the last parameters are tested.

    How many steps that took is what is compared. A task without a score has minus its loss.
    """
    return never()._replace(
        update=lambda state, selected, validation: (state, validation.score >= score)
    )


def stopping_rule(name: StoppingName, size: int, score: float = 1.0) -> StoppingRule:
    """The rule of that name; `size` is its window or its patience, in validations.

    Raises:
      InputError: a size below 1.
    """
    if size < 1:
        raise InputError(f"--stopping-size is {size}; it counts validations: give 1 or more.")
    match name:
        case "none":
            return never()
        case "window_mean":
            return window_mean(size)
        case "patience":
            return patience(size)
        case "solved":
            return solved(score)
