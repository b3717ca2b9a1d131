"""Each rule against the loop of the authors' own description, on random validation curves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structdl.errors import InputError
from structdl.training.stopping import Validation, patience, solved, stopping_rule, window_mean


def run_rule(rule, values, scores, reads="cost"):
    """(number of validations until the rule stops, the parameters it tests).

    The values are costs, with the penalty, or losses, without; what is not read is noise.
    """
    update = jax.jit(rule.update)
    state = rule.init(jnp.float32(-1))
    noise = np.random.default_rng(0).normal(size=len(values))
    for index, (value, score) in enumerate(zip(values, scores, strict=True)):
        other = "loss" if reads == "cost" else "cost"
        numbers = {reads: value, other: noise[index], "score": score}
        validation = Validation(**jax.tree.map(jnp.float32, numbers))
        state, stop = update(state, jnp.float32(index), validation)
        if stop:
            break
    return index + 1, float(rule.final(state, jnp.float32(index)))


def window_mean_by_hand(costs, size):
    for epoch in range(len(costs)):
        if epoch > size and costs[epoch] > np.mean(costs[epoch - size : epoch]):
            return epoch + 1
    return len(costs)


def patience_by_hand(costs, scores, size):
    best_cost, best_score, waited, best = np.inf, -np.inf, 0, -1
    for epoch, (cost, score) in enumerate(zip(costs, scores, strict=True)):
        if score >= best_score or cost <= best_cost:
            if score >= best_score and cost <= best_cost:
                best = epoch
            best_score, best_cost = max(best_score, score), min(best_cost, cost)
            waited = 0
        else:
            waited += 1
            if waited == size:
                return epoch + 1, best
    return len(costs), best


@pytest.mark.parametrize("seed", range(8))
def test_rules_equal_the_authors_loops(seed):
    rng = np.random.default_rng(seed)
    costs = (np.cumsum(rng.normal(-0.05, 0.3, 40)) + 5).astype(np.float32)
    scores = rng.integers(0, 6, 40) / 5
    steps, tested = run_rule(window_mean(4), costs, scores)
    assert steps == window_mean_by_hand(costs, 4)
    assert tested == steps - 1, "the last parameters are tested"
    assert run_rule(patience(5), costs, scores, "loss") == patience_by_hand(costs, scores, 5)


def test_window_mean_does_not_judge_before_its_window_is_full():
    rising = np.arange(20.0)
    assert run_rule(window_mean(10), rising, rising)[0] == 12


def test_none_never_stops_and_tests_the_last():
    assert run_rule(stopping_rule("none", 1), np.arange(9.0), np.zeros(9)) == (9, 8.0)


def test_solved_stops_where_the_score_is_reached_first_and_tests_that():
    scores = np.array([0.5, 0.98, 0.995, 0.2, 1.0])
    assert run_rule(solved(0.99), np.ones(5), scores) == (3, 2.0)
    assert run_rule(stopping_rule("solved", 1), np.ones(5), scores) == (5, 4.0), "1 by default"
    assert run_rule(solved(1.1), np.ones(5), scores) == (5, 4.0), "never"


def test_a_size_below_one_is_refused():
    with pytest.raises(InputError, match="stopping-size is 0"):
        stopping_rule("patience", 0)


@pytest.mark.parametrize("name", ["none", "window_mean", "patience", "solved"])
def test_a_validation_changes_no_type_of_the_state(name):
    """Not even a weak one, for which the loop's call would be compiled a second time."""
    rule, selected = stopping_rule(name, 3), jnp.float32(0)
    before = rule.init(selected)
    validation = Validation(*map(jnp.float32, (1, 2, 3)))
    after, _ = jax.eval_shape(rule.update, before, selected, validation)

    def types(state):
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), state)

    assert types(before) == types(after)
