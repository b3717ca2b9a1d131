"""Where prepared sets of the tests lie, and contracts that several experiments' tests share."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from experiments.sequence_presets import encoder_size
from structdl.datasets.sequences import Splits
from structdl.training.cli import run_experiment
from structdl.training.loop import fit
from structdl.training.optimizers import OptimizerConfig, make_optimizer
from structdl.training.profiling import Profile
from structdl.training.task import Inputs

OPTIMIZERS = ("sgd", "momentum", "adagrad", "rmsprop", "adam", "lbfgs", "schedule_free_adamw")


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """One temporary folder, and not the user's cache."""
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture(autouse=True)
def _data_dir(data_dir, monkeypatch):
    monkeypatch.setenv("STRUCTDL_DATA_DIR", str(data_dir))


_INITIAL = {}  # by a task's init, since several tests of a task begin with it


def _initial(task):
    if task.init not in _INITIAL:
        key, _ = jax.random.split(jax.random.key(0))  # as a run of seed 0 does
        inputs = Inputs(task.data, (), task.batch(0, 0))
        _INITIAL[task.init] = jax.jit(task.init)(key, inputs)[0]
    return _INITIAL[task.init]


def _params(result):
    """Those of the one seed of a Fit."""
    return jax.tree.map(lambda leaf: leaf[0], result.selected[0])


def _loss(task, params, batch, key=0):
    function = jax.jit(task.loss_fn)
    return function(params, (), Inputs(task.data, (), batch), jax.random.key(key))[0]


def _metrics(task, params, batch, key=0):
    """Compiled anew each time, since what is monkeypatched stands in the program."""
    function = jax.jit(lambda *args: task.metrics(*args))
    return function(params, (), Inputs(task.data, (), batch), jax.random.key(key))


@pytest.fixture(scope="session")
def initial():
    """`initial(task)`: a task's parameters before training with seed 0."""
    return _initial


@pytest.fixture(scope="session")
def loss_of():
    """`loss_of(task, params, batch, key)`: (total, count) in training."""
    return _loss


@pytest.fixture(scope="session")
def metrics_of():
    """`metrics_of(task, params, batch, key)`: {name: (total, count)} in evaluation."""
    return _metrics


@pytest.fixture
def batches_are_of_their_splits():
    """`check(task, expected, shown_by, contents, steps)`: no split shows what is another's.

    Args:
      expected: by the split's name what the set itself has there, in its order: a list.
      shown_by: `batch -> numbers` of the examples that a batch shows.
      contents: `numbers -> list` of what the task's data has there.
      steps: of an epoch.
    """

    def check(task, expected, shown_by, contents, steps):
        shown = {
            name: np.concatenate([shown_by(batch) for batch in task.eval_batches(name)])
            for name in Splits._fields
        }
        for name, numbers in shown.items():
            assert contents(numbers) == expected[name], name
        everything = np.concatenate([*shown.values()])
        assert len(np.unique(everything)) == len(everything)
        for epoch in range(2):
            numbers = range(epoch * steps, (epoch + 1) * steps)
            trained = np.concatenate([shown_by(task.batch(number, 0)) for number in numbers])
            assert np.isin(trained, shown["train"]).all()
            assert len(np.unique(trained)) == len(trained)
        return len(trained)

    return check


@pytest.fixture
def only_noise_draws():
    """`check(task, draws)`: whether the loss depends on its key; what is evaluated does not."""

    def check(task, draws: bool):
        args = (_initial(task), (), Inputs(task.data, (), task.batch(0, 0)))
        loss = jax.jit(task.loss_fn)
        first, other, same = (loss(*args, jax.random.key(seed))[0] for seed in (1, 2, 1))
        chex.assert_trees_all_equal(first, same)
        chex.assert_tree_all_finite(first)
        assert (float(first[0]) != float(other[0])) == draws
        if draws:
            evaluate = jax.jit(task.metrics)
            chex.assert_trees_all_equal(*(evaluate(*args, jax.random.key(n)) for n in (1, 2)))

    return check


@pytest.fixture
def has_its_stated_size():
    """`check(config, time, in_features)`: a preset's model has the parameters that it promises."""

    def check(config, time, in_features):
        size = encoder_size(config.model, time, in_features)
        assert abs(size - config.parameters) <= 0.05 * config.parameters

    return check


@pytest.fixture
def few_steps_lower_the_loss(tmp_path):
    """`check(task, run, batch)`: a few steps of Adam do so on a batch, and compile once."""

    def check(task, run, batch):
        profile = Profile(tmp_path)
        optimizer = make_optimizer(OptimizerConfig("adam", 0.02))
        result = fit(task, optimizer, run, profile=profile)
        before, after = (
            _metrics(task, params, batch)["loss"] for params in (_initial(task), _params(result))
        )
        assert float(after[0] / after[1]) < float(before[0] / before[1])
        assert profile.recompilations == []

    return check


@pytest.fixture(params=OPTIMIZERS)
def optimizer_takes_steps(request):
    """`check(task, run)`: two steps move all parameters; a test runs for each optimizer."""

    def check(task, run):
        optimizer = make_optimizer(OptimizerConfig(request.param, 0.01))
        result = fit(task, optimizer, dataclasses.replace(run, num_steps=2))
        # an averaging optimizer selects others than it trains
        for found in (result.selected[0], result.state.train.params):
            chex.assert_tree_all_finite(found)
            moved = jax.tree.map(lambda new, old: abs(new[0] - old).max(), found, _initial(task))
            assert min(jax.tree.leaves(moved)) > 1e-6

    return check


@pytest.fixture
def resumed_equals_whole(tmp_path):
    """`check(experiment, words)`: a run that goes on ends where one that did not stop ends.

    It returns the folder of pictures of the whole run.
    """
    words_of_all = ["--eval-every", "2", "--steps-per-call", "2"]

    def check(experiment, words, *, noise=("--model.dropout", "0.3")):
        ends = {}

        def run(name, steps, draw=lambda *args: None):
            def draw_and_keep(config, task, result, *places):
                ends[name] = (result.selected, result.state.train.opt_state)
                draw(config, task, result, *places)

            options = ["--workdir", str(tmp_path / name), "--num-steps", str(steps)]
            its = experiment._replace(draw=draw_and_keep)
            return run_experiment(its, [*words, *noise, *words_of_all, *options])

        run("two", 2)
        gone_on, whole = run("two", 4), run("one", 4, experiment.draw)
        assert (gone_on["resumed"], whole["resumed"]) == (1, 0)
        for found in ("metrics", "steps", "parameters"):
            chex.assert_trees_all_equal(gone_on[found], whole[found])
        chex.assert_trees_all_equal(ends["two"], ends["one"])
        return tmp_path / "one" / "figures"

    return check


@pytest.fixture
def is_refused(tmp_path, capsys):
    """`check(main, words, message)`: the command line ends in a paragraph that says so."""

    def check(main, words, message):
        with pytest.raises(SystemExit) as exit_info:
            main([*words, "--workdir", str(tmp_path)])
        assert exit_info.value.code == 2
        shown = capsys.readouterr().err
        assert "Traceback" not in shown
        assert message in " ".join(shown.split())

    return check
