"""Which hyperparameters a comparison of optimizers tries."""

import numpy as np
import pytest

import experiments
from experiments.optimizer_comparison.search import (
    DEFAULT_SPACE,
    Range,
    optimizer_config,
    parse_spaces,
    quasi_random,
    with_hyperparams,
)
from structdl.errors import InputError
from structdl.training.optimizers import make_optimizer


def test_trials_are_spread_evenly_over_the_logarithms():
    trials = quasi_random({"a": Range(1e-4, 1.0), "b": Range(0.1, 0.9)}, 16, seed=3)
    places = np.log10([trial["a"] for trial in trials])
    assert np.all((places >= -4) & (places <= 0))
    assert set(np.histogram(places, bins=4, range=(-4, 0))[0]) == {4}
    assert all(0.1 <= trial["b"] <= 0.9 for trial in trials)
    assert quasi_random({"a": Range(1e-4, 1.0), "b": Range(0.1, 0.9)}, 5, seed=3) == trials[:5]
    assert quasi_random(DEFAULT_SPACE, 5, seed=1) != quasi_random(DEFAULT_SPACE, 5, seed=2)


def test_words_replace_and_add_ranges():
    words = ["sgd.momentum=0.5:0.99", "adam.learning_rate=1e-4:0.1"]
    spaces = parse_spaces(["sgd", "adam", "lion"], words)
    assert spaces["sgd"] == DEFAULT_SPACE | {"momentum": Range(0.5, 0.99)}
    assert spaces["adam"] == {"learning_rate": Range(1e-4, 0.1)}
    assert spaces["lion"] == DEFAULT_SPACE


def test_a_rule_takes_the_place_of_a_presets_optimizer_alone():
    base = experiments.get("polyphonic_music").presets["gru-jsb"].config.optimizer
    found = optimizer_config("momentum", base)
    assert (found.name, found.kwargs) == ("sgd", {"momentum": 0.9})
    assert (found.clip_norm, found.schedule) == (base.clip_norm, base.schedule)
    found = with_hyperparams(found, {"learning_rate": 0.5, "momentum": 0.7})
    assert make_optimizer(found).hyperparams == {"learning_rate": 0.5, "momentum": 0.7}


@pytest.mark.parametrize(
    ("optimizers", "words", "message"),
    [
        (["adm"], [], "did you mean 'adam'"),
        ([], [], "no optimizer"),
        (["sgd"], ["sgd.momentun=0.1:0.9"], "its arguments are learning_rate, momentum=None"),
        (["sgd"], ["adam.learning_rate=0.1:1"], "unknown optimizer in --search 'adam'"),
        (["adam"], ["adam.nesterov=0.1:1"], "adam.nesterov, which is on or off"),
        (["sgd"], ["sgd.learning_rate=1:0.1"], "nothing to search"),
        (["sgd"], ["sgd.learning_rate=0:1"], "nothing to search"),
        (["sgd"], ["sgd.learning_rate=a:1"], "not numbers"),
        (["sgd"], ["learning_rate"], "OPTIMIZER.HYPERPARAMETER=LOW:HIGH"),
    ],
)
def test_refusals(optimizers, words, message):
    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        parse_spaces(optimizers, words)
