"""The command line's words: presets, options that replace their fields, and what is recorded."""

import json

import pytest

from experiments.node_classification.train import EXPERIMENT, main
from experiments.skeleton_action import train as skeleton_action
from structdl.training.cli import list_presets, parse
from structdl.training.experiment import ledger_rows, published_figures


def test_published_figures_stand_only_beside_their_own_config():
    def shown(*options):
        preset, config = parse(EXPERIMENT, ["gcn-cora", *options])
        return {m: f.value for m, f in published_figures(EXPERIMENT, preset, config).items()}

    assert shown("--num-seeds", "7", "--seed", "3") == {"test_accuracy": 0.815}
    assert shown("--split", "random") == {"test_accuracy": 0.801}
    assert shown("--dataset", "citeseer") == shown("--num-steps", "20") == {}
    assert shown("--optimizer.name", "sgd") == {}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"weight_decay": 0.3}),
        (["--optimizer.kwargs.weight-decay", "0.1"], {"weight_decay": 0.1}),
        (["--optimizer.name", "adamw"], {"weight_decay": 0.3}),
        (["--optimizer.kwargs", "b1", "0.8"], {"b1": 0.8}),
        (["--optimizer.name", "sgd"], {}),
        (["--optimizer.name=sgd", "--optimizer.kwargs", "momentum", "0.9"], {"momentum": 0.9}),
    ],
)
def test_another_optimizer_does_without_the_kwargs_of_a_preset(options, expected):
    _, config = parse(skeleton_action.EXPERIMENT, ["agc-lstm", *options])
    assert config.optimizer.kwargs == expected
    assert config.optimizer.name == ("sgd" if "sgd" in " ".join(options) else "adamw")


@pytest.mark.parametrize("places", [["--workdir=here"], ["--workdir", "here", "--data.dir", "x"]])
def test_a_recorded_command_says_what_ran_and_not_where(places, tmp_path):
    short = ["--num-steps", "20", "--steps-per-call", "10", "--log-every", "10"]
    main(["karate", "--workdir", str(tmp_path), *short])
    summary = json.loads((tmp_path / "summary.json").read_text()) | {"commits": ["0" * 12]}
    words = ["karate", "--num-seeds", "2", *places, "--record", "--data.raw-dir", "y"]
    row = ledger_rows(EXPERIMENT, *parse(EXPERIMENT, words), summary, words)[0]
    assert row["command"] == "python -m experiments.node_classification karate --num-seeds 2"


def test_only_a_presets_own_figures_are_recorded(is_refused):
    words = ["karate", "--record", "--num-steps", "20"]
    is_refused(main, words, "--record keeps the figures of presets")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["gcn-kora"], "no preset 'gcn-kora': did you mean 'gcn-cora'"),
        (["karate", "--dataset", "coro"], "unknown data set 'coro': did you mean 'cora'"),
        (["karate", "--optimizer.name", "adm"], "unknown optimizer 'adm': did you mean"),
        (["karate", "--optimizer.kwargs", "b7", "0.9"], "b7"),
        (["gat-cora", "--dataset", "karate"], "--dataset karate has no features"),
        (["karate", "--num-seeds", "0"], "--num-seeds is 0"),
        (["karate", "--num-seeds", "1000000000"], "at least 1 and at most 100000"),
        (["karate", "--optimizer.learning-rate", "-0.1"], "it must be at least 0"),
        (["karate", "--optimizer.kwargs", "b1", "nan"], "--optimizer.kwargs.b1 is nan"),
        (["karate", "--model.hidden", "16", "0"], "each number must be at least 1"),
        (["karate", "--model.hidden", "1000000000", "1000000000"], "would take 12,000,000,456 GB"),
        (["karate", "--seed", "4294967296"], "--seed is 4294967296"),
        (["karate", "--model.hidden"], "--model.hidden is ()"),
        (["karate", "--model.dropout", "1.5"], "dropout"),
        (["gcn-cora", "--data.raw-dir", "/nowhere"], "/nowhere"),
    ],
)
def test_bad_options_are_named(options, words, is_refused):
    is_refused(main, options, words)


def test_a_misspelt_option_is_corrected(is_refused):
    is_refused(main, ["karate", "--num-seed", "3"], "--num-seeds")


def test_list_presets_names_each_with_a_line(capsys):
    main(["--list-presets"])
    assert capsys.readouterr().out.strip() == list_presets(EXPERIMENT)
    assert len(list_presets(EXPERIMENT).splitlines()) == len(EXPERIMENT.presets)
