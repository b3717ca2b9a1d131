"""Learning curves: means over seeds, and a plot only of what was logged."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from structdl.training import curves
from structdl.training.workdir import CONFIG, METRICS

ROWS = [
    {"seed": 0, "step": 10, "train_loss": 1.0},
    {"seed": 1, "step": 10, "train_loss": 3.0},
    {"seed": 1, "step": 20, "train_loss": 2.0, "validation_loss": 4.0, "validation_auc": 0.5},
]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    saved = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, dpi: saved.append(figure))
    return saved


def test_lines_are_means_over_the_seeds_that_have_the_step(drawn):
    curves.draw_learning_curves(ROWS, "a run", Path("none.png"))
    (axis,) = drawn[0].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axis.get_lines()}
    assert lines == {"train": [[10, 2], [20, 2]], "validation": [[20, 4]]}
    assert "2 seeds" in drawn[0].get_suptitle()


def test_a_band_is_a_standard_deviation_and_ends_where_the_seeds_do(drawn):
    losses = [0.01, 0.01, 0.01, 1.0]  # whose mean less their standard deviation is negative
    rows = [{"seed": n, "step": 10, "train_loss": loss} for n, loss in enumerate(losses)]
    curves.draw_learning_curves(rows, "a run", Path("none.png"), log_loss=True)
    (band,) = drawn[0].axes[0].collections
    heights = band.get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose(heights.min(), 0.01)
    np.testing.assert_allclose(heights.max(), np.mean(losses) + np.std(losses))


def test_one_plot_for_each_quantity_that_was_logged(drawn):
    quantities = ("loss", "accuracy", "auc")
    curves.draw_learning_curves(ROWS[2:], "a run", Path("none.png"), quantities=quantities)
    assert [axis.get_ylabel() for axis in drawn[0].axes] == ["loss", "auc"]
    np.testing.assert_array_equal(drawn[0].axes[1].get_lines()[0].get_xydata(), [[20, 0.5]])


def test_a_baseline_is_a_dotted_line_and_a_loss_may_be_logarithmic(drawn):
    baselines = {"loss": curves.Baseline("chance", 2.5)}
    curves.draw_learning_curves(ROWS, "a run", Path("none.png"), baselines=baselines, log_loss=True)
    runs = {"a run": ROWS}
    curves.draw_runs(runs, "runs", Path("none.png"), baseline=baselines["loss"], log=True)
    curves.draw_runs(runs, "runs", Path("none.png"))
    for figure in drawn[:2]:
        for axis in figure.axes:
            dotted = axis.get_lines()[-1]
            assert (dotted.get_label(), dotted.get_linestyle()) == ("chance", ":")
            assert set(dotted.get_ydata()) == {2.5}
            assert axis.get_yscale() == "log"
    assert [axis.get_yscale() for axis in drawn[2].axes] == ["linear"] * 2
    # the rows' losses, 1 to 4, and their margin
    np.testing.assert_allclose(drawn[2].axes[0].get_ylim(), (0.85, 4.15))


def test_a_loss_has_its_unit_and_other_quantities_have_none(drawn):
    quantities = ("loss", "auc")
    arguments = ROWS[2:], "a run", Path("none.png")
    curves.draw_learning_curves(*arguments, quantities=quantities, loss_unit="nats a step")
    assert [axis.get_ylabel() for axis in drawn[0].axes] == ["loss, nats a step", "auc"]
    for quantity in quantities:
        arguments = {"a run": ROWS}, "runs", Path("none.png")
        curves.draw_runs(*arguments, quantity=quantity, loss_unit="nats a step")
    labels = [figure.axes[0].get_ylabel() for figure in drawn[1:]]
    assert labels == ["loss, nats a step", "auc"]


@pytest.fixture
def make_run(tmp_path):
    """Writes the folder of a run, which logged one row, as many seconds after another as told."""

    def make(name, preset, loss, seconds=0, **fields):
        folder = tmp_path / name
        folder.mkdir()
        config = {"dataset": "a", "parameters": 5} | fields
        record = {"experiment": "music", "preset": preset, "config": config}
        (folder / CONFIG).write_text(json.dumps(record))
        (folder / METRICS).write_text(json.dumps({"seed": 0, "step": 1, "train_loss": loss}) + "\n")
        os.utime(folder / METRICS, (seconds, seconds))
        return folder

    return make


def losses_beside(folder):
    runs = curves.runs_beside(folder, ("dataset", "parameters"))
    return [(name, row["train_loss"]) for name, rows in runs.items() for row in rows]


def test_runs_beside_are_those_of_the_same_data_and_size(make_run):
    this = make_run("this", "tcn", 1.0)
    make_run("other", "gru", 2.0, hidden=7)
    make_run("data", "rnn", 3.0, dataset="b")
    make_run("size", "lstm", 4.0, parameters=6)
    make_run("nothing", "rnn", 5.0, dataset=None)
    for name, missing in (("no_rows", METRICS), ("no_config", CONFIG)):
        (make_run(name, "rnn", 6.0) / missing).unlink()
    assert losses_beside(this) == [("gru", 2.0), ("tcn", 1.0)]


@pytest.mark.parametrize(
    "content",
    ["null", "[]", "{}", '{"config": null}', '{"preset": 1, "config": {}}', "\xff", "[" * 9999],
    ids=lambda content: content[:20],
)
def test_a_damaged_run_beside_is_left_out(make_run, content):
    this, other = make_run("this", "tcn", 1.0), make_run("other", "gru", 2.0)
    (other / CONFIG).write_bytes(content.encode("latin1"))
    assert losses_beside(this) == [("tcn", 1.0)]


def test_of_runs_of_a_preset_the_newest_counts_but_for_this_one(make_run):
    # names in the other order than times
    make_run("a", "gru", 1.0, seconds=30)
    make_run("b", "gru", 2.0, seconds=20)
    this = make_run("c", "tcn", 3.0, seconds=10)
    make_run("d", "tcn", 4.0, seconds=40)
    assert losses_beside(this) == [("gru", 1.0), ("tcn", 3.0)]


def test_two_presets_are_drawn_together(make_run, drawn):
    make_run("other", "gru", 2.0)
    runs = curves.runs_beside(make_run("this", "tcn", 1.0), ("dataset", "parameters"))
    curves.draw_runs(runs, "runs", Path("none.png"))
    training, validation = drawn[0].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in training.get_lines()}
    assert lines == {"gru": [[1, 2.0]], "tcn": [[1, 1.0]]}
    assert [line.get_xydata().size for line in validation.get_lines()] == [0, 0]
