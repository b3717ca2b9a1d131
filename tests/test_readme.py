"""The READMEs' commands parse, their code runs, and their tables are the ledger's."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from experiments import get, names
from experiments.benchmarks import measure as benchmarks
from experiments.optimizer_comparison import compare
from experiments.report import renewed, tables
from structdl.training.cli import parse
from structdl.training.experiment import ledger_rows, unmeasured_rows
from structdl.training.ledger import format_table, read_rows

ROOT = Path(__file__).parent.parent
READMES = [
    ROOT / "README.md",
    benchmarks.DIRECTORY / "README.md",
    compare.HERE / "README.md",
    *(ROOT / "experiments" / name / "README.md" for name in names()),
]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)


def commands(path: Path) -> list[str]:
    return [line for block in blocks(path, "bash") for line in block.splitlines() if line]


def test_the_two_commands_stand_alone_on_their_lines():
    found = [line for line in commands(ROOT / "README.md") if line.startswith("pip install -e")]
    assert found == [
        "pip install -e . && python -m experiments.node_classification",
        "pip install -e '.[test]' && pytest",
    ]


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)
def test_every_command_of_an_experiment_parses(path):
    seen = 0
    for command in commands(path):
        words = shlex.split(command.split("&&")[-1])
        if words[:2] != ["python", "-m"]:
            continue
        *_, task = words[2].split(".")
        seen += 1
        if task == "benchmarks":
            assert benchmarks.parse(words[3:]).family in benchmarks.FAMILIES
            continue
        if task == "optimizer_comparison":
            assert compare.parse(words[3:]).tasks
            continue
        assert task in names()
        if not {"--help", "--list-presets"} & set(words):
            preset, _ = parse(get(task), words[3:])
            assert preset in get(task).presets
    assert seen


def test_the_code_for_notebooks_runs():
    (code,) = blocks(ROOT / "README.md", "python")
    scope = {}
    exec(code, scope)
    # each node is the mean of two nodes, each of which sums to one
    np.testing.assert_allclose(scope["hidden"], np.ones((2, 3)), rtol=1e-6)


@pytest.mark.parametrize("path", tables(), ids=lambda path: path.parent.name)
def test_tables_are_printed_from_the_ledgers(path):
    text = path.read_text()
    assert renewed(path, tables()[path]) == text, "run: python -m experiments.report --write"
    assert renewed(path, "other") != text


@pytest.mark.parametrize("name", names())
def test_every_row_of_the_ledger_repeats_its_presets_published_figure(name):
    experiment = get(name)
    rows = read_rows(experiment.directory)
    assert rows
    for row in rows:
        words = shlex.split(row["command"])
        preset, config = parse(experiment, words[3:])
        measured = {"mean": row["mean"], "std": row["std"], "count": row["seeds"]}
        summary = {
            "commits": [row["commit"]],
            "steps": {"mean": row["steps"]},
            "seconds": {"all": row["seconds"]},
            "device": row["device"],
            "versions": row["versions"],
            "diverged": 0,
            "metrics": dict.fromkeys(experiment.presets[preset].metrics, measured),
        }
        remade = ledger_rows(experiment, preset, config, summary, words[3:])
        (same,) = [each for each in remade if each["metric"] == row["metric"]]
        assert same | {"date": row["date"], "note": row["note"]} == row


def test_a_published_figure_without_a_row_is_said_not_to_be_measured():
    experiment = get("node_classification")
    rows = read_rows(experiment.directory)
    gone = next(row for row in rows if row["preset"] == "gcn-cora")
    kept = [row for row in rows if row is not gone]
    lost = [row for row in unmeasured_rows(experiment, kept) if row["preset"] == "gcn-cora"]
    assert [(row["dataset"], row["mean"]) for row in lost] == [(gone["dataset"], None)]
    assert "| not measured |" in format_table(lost)
    assert not [row for row in unmeasured_rows(experiment, rows) if row["preset"] == "gcn-cora"]


def test_a_row_shows_its_gap():
    row = read_rows(get("node_classification").directory)[0] | {
        "metric": "test_accuracy",
        "published": 0.8,
        "mean": 0.75,
        "std": 0.01,
    }
    assert "| 80 % | 75.00 ± 1.00 % | -5.00 |" in format_table([row])
