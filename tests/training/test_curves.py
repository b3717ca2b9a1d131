"""Learning curves: means over seeds, and a plot only of what was logged."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from structdl.training import curves

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
