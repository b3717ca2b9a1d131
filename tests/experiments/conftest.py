"""Where prepared sets of the tests lie, and contracts that several experiments' tests share."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from structdl.training.cli import run_experiment
from structdl.training.loop import fit
from structdl.training.optimizers import OptimizerConfig, make_optimizer

OPTIMIZERS = ("sgd", "momentum", "adagrad", "rmsprop", "adam", "lbfgs", "schedule_free_adamw")


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """One temporary folder, and not the user's cache."""
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture(autouse=True)
def _data_dir(data_dir, monkeypatch):
    monkeypatch.setenv("STRUCTDL_DATA_DIR", str(data_dir))


@pytest.fixture(params=OPTIMIZERS)
def optimizer_takes_steps(request):
    """`check(task, run)`: two steps leave finite parameters; a test runs for each optimizer."""

    def check(task, run):
        optimizer = make_optimizer(OptimizerConfig(request.param, 0.01))
        result = fit(task, optimizer, dataclasses.replace(run, num_steps=2))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.selected))

    return check


@pytest.fixture
def resumed_equals_whole(tmp_path):
    """`check(experiment, words)`: a run that goes on ends where one that did not stop ends.

    It returns the folder of pictures of the whole run.
    """

    def check(experiment, words):
        def run(name, steps, draw=lambda *args: None):
            options = ["--workdir", str(tmp_path / name), "--num-steps", str(steps)]
            options += ["--eval-every", "2", "--steps-per-call", "2"]
            return run_experiment(experiment._replace(draw=draw), [*words, *options])

        run("two", 2)
        gone_on, whole = run("two", 4), run("one", 4, experiment.draw)
        assert (gone_on["resumed"], whole["resumed"]) == (1, 0)
        chex.assert_trees_all_equal(gone_on["metrics"], whole["metrics"])
        return tmp_path / "one" / "figures"

    return check
