"""The command line's contract, on the karate club: what a run writes, resumes, and refuses."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import chex
import filelock
import jax
import numpy as np
import pytest

from experiments import load_run
from experiments.node_classification.train import EXPERIMENT, main
from structdl.core.segment import gather_sum
from structdl.errors import InputError
from structdl.training import cli, measure
from structdl.training.cli import restore_run
from structdl.training.task import Inputs

SHORT = ["--num-steps", "20", "--steps-per-call", "10", "--log-every", "10"]


def run(workdir: Path, *options: str) -> dict:
    main(["karate", "--workdir", str(workdir), *SHORT, *options])
    return json.loads((workdir / "summary.json").read_text())


def refused(capsys, *options: str) -> str:
    """The error paragraph of a command that must end with code 2 and no stack trace."""
    with pytest.raises(SystemExit) as stopped:
        main(list(options))
    shown = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "Traceback" not in shown
    return " ".join(shown.split())


def test_a_run_writes_what_the_contract_says(tmp_path, capsys):
    summary = run(tmp_path / "run", "--num-seeds", "3", "--split", "random")
    assert (tmp_path / "run" / "figures" / "embedding.png").read_bytes()[:4] == b"\x89PNG"
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))
    assert {"experiment", "preset", "config", "metrics", "steps", "parameters"} <= summary.keys()
    assert {"resumed", "diverged", "seconds", "device", "versions"} <= summary.keys()
    accuracy = summary["metrics"]["test_accuracy"]
    assert accuracy["count"] == len(accuracy["values"]) == 3
    np.testing.assert_allclose(accuracy["mean"], np.mean(accuracy["values"]))
    np.testing.assert_allclose(accuracy["std"], np.std(accuracy["values"], ddof=1))
    assert summary["steps"] == {"mean": 20.0, "values": [20, 20, 20]}
    assert summary["parameters"] == 34 * 4 + 4 * 4 + 4 * 2 + 2 * 4 + 4
    assert "test_accuracy" in capsys.readouterr().out
    log = (tmp_path / "run" / "metrics.jsonl").read_text()
    rows = [json.loads(line) for line in log.splitlines()]
    assert {row["seed"] for row in rows} == {0, 1, 2}
    assert [row["step"] for row in rows if row["seed"] == 1] == [10, 20]


def test_a_finished_run_prints_its_summary_and_raised_steps_go_on(tmp_path, capsys):
    first = run(tmp_path)
    capsys.readouterr()
    changed = (tmp_path / "summary.json").stat().st_mtime_ns
    assert run(tmp_path) == first
    assert "finished" in capsys.readouterr().out
    assert (tmp_path / "summary.json").stat().st_mtime_ns == changed
    more = run(tmp_path, "--num-steps", "40")
    assert more["resumed"] == 1
    assert more["steps"]["values"] == [40]
    run(tmp_path / "whole", "--num-steps", "40")
    states = [restore_run(path, EXPERIMENT)[2].state for path in (tmp_path, tmp_path / "whole")]
    chex.assert_trees_all_equal(*states)


def test_more_metrics_are_in_the_summary(tmp_path):
    seen = []

    def more(config, task, result):
        seen.append((config.dataset, result.seeds))
        return {"test_more": np.array([2.0, 4.0])}

    words = ["karate", "--workdir", str(tmp_path), *SHORT, "--num-seeds", "2"]
    summary = cli.run_experiment(EXPERIMENT._replace(more_metrics=more), words)
    assert seen == [("karate", (0, 1))]
    assert summary["metrics"]["test_more"]["values"] == [2.0, 4.0]
    assert summary["metrics"]["test_more"]["mean"] == 3.0
    assert json.loads((tmp_path / "summary.json").read_text()) == summary


def test_load_run_gives_the_parameters_that_were_tested(tmp_path, caplog):
    summary = run(tmp_path)
    caplog.clear()
    config, task, params, _ = load_run(tmp_path)
    assert not caplog.records, "orbax warns of a reader"
    assert config.dataset == "karate"
    inputs = task.data, task.seed_data(0), np.int32(2)
    correct, count = task.metrics(params, (), Inputs(*inputs), None)["accuracy"]
    np.testing.assert_allclose(correct / count, summary["metrics"]["test_accuracy"]["mean"])


def test_a_run_of_many_devices_is_read_by_a_process_of_one(tmp_path):
    run(tmp_path, "--parallel", "jit")
    config = tmp_path / "config.json"
    stored = json.loads(config.read_text())
    stored["config"]["run"] |= {"num_devices": 4, "shard_parameters": True}
    config.write_text(json.dumps(stored))
    config, *_ = load_run(tmp_path)
    assert config.run.num_devices == 4


def test_a_run_that_is_asked_to_leave_in_its_test_leaves(tmp_path, monkeypatch, capsys):
    """After its last step nothing is to be saved any more: the same command tests it."""
    asked = []

    def evaluate(task, options):
        asked.append(True)
        return lambda *args: pytest.fail("it was asked to leave before")

    with monkeypatch.context() as patched:
        patched.setattr(measure, "make_evaluate", evaluate)
        patched.setattr(cli, "preemption", lambda: contextlib.nullcontext(lambda: bool(asked)))
        main(["karate", "--workdir", str(tmp_path), *SHORT])
    assert "saved after 20 steps" in capsys.readouterr().err
    assert not (tmp_path / "summary.json").exists()
    summary = run(tmp_path)
    assert (summary["resumed"], summary["steps"]["mean"]) == (1, 20)


def test_a_run_that_is_asked_to_leave_is_not_measured_further(tmp_path, monkeypatch, capsys):
    asked = []

    def measured(*args):
        asked.append(True)
        return {"test_accuracy": np.ones(1)}

    monkeypatch.setattr(cli, "measure", measured)
    monkeypatch.setattr(cli, "preemption", lambda: contextlib.nullcontext(lambda: bool(asked)))
    its = EXPERIMENT._replace(more_metrics=lambda *args: pytest.fail("it was asked to leave"))
    cli.main(its, ["karate", "--workdir", str(tmp_path), *SHORT])
    assert "saved after 20 steps" in capsys.readouterr().err
    assert not (tmp_path / "summary.json").exists()


def test_evaluate_only_trains_nothing_and_changes_nothing(tmp_path, capsys):
    summary = run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json*")}
    capsys.readouterr()
    main(["karate", "--workdir", str(tmp_path), *SHORT, "--evaluate-only"])
    shown = f"{summary['metrics']['test_accuracy']['mean']:.4f}"
    assert shown in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json*")} == before


def test_evaluate_only_without_a_run_is_refused(tmp_path, capsys):
    shown = refused(capsys, "karate", "--workdir", str(tmp_path / "none"), "--evaluate-only")
    assert "not the workdir of a run" in shown
    assert not (tmp_path / "none").exists()


def test_a_changed_field_is_refused_by_name_and_overwrite_starts_again(tmp_path, capsys):
    run(tmp_path)
    saved = sorted(path.name for path in (tmp_path / "checkpoints" / "seed-0").iterdir())
    options = ["karate", "--workdir", str(tmp_path), *SHORT, "--optimizer.learning-rate", "0.5"]
    shown = refused(capsys, *options)
    assert "--optimizer.learning-rate was 0.01 and is 0.5" in shown
    assert sorted(path.name for path in (tmp_path / "checkpoints" / "seed-0").iterdir()) == saved
    stranger = tmp_path / "notes.txt"
    stranger.write_text("mine")
    again = run(tmp_path, "--optimizer.learning-rate", "0.5", "--overwrite")
    assert again["resumed"] == 0
    assert again["config"]["optimizer"]["learning_rate"] == 0.5
    assert stranger.read_text() == "mine"


def test_a_mistake_costs_nothing_that_was_saved(tmp_path, capsys):
    run(tmp_path)
    saved = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    command = ["karate", "--workdir", str(tmp_path), *SHORT, "--overwrite"]
    refused(capsys, *command, "--dataset", "coro")
    refused(capsys, *command, "--model.dropout", "1.5")
    refused(capsys, *command, "--evaluate-only")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == saved


def test_after_a_mistake_the_corrected_command_runs(tmp_path, capsys):
    refused(capsys, "karate", "--workdir", str(tmp_path), *SHORT, "--dataset", "coro")
    refused(capsys, "karate", "--workdir", str(tmp_path), *SHORT, "--model.dropout", "1.5")
    (tmp_path / "config.json.part").write_text("{")
    assert run(tmp_path)["steps"]["values"] == [20]


def test_without_a_checkpoint_nothing_is_evaluated_or_written(tmp_path, capsys):
    run(tmp_path)
    store = tmp_path / "checkpoints" / "seed-0"
    shutil.rmtree(store)
    store.mkdir()
    with pytest.raises(InputError, match="no checkpoint"):
        load_run(tmp_path)
    shown = refused(capsys, "karate", "--workdir", str(tmp_path), *SHORT, "--evaluate-only")
    assert "there is no checkpoint" in shown
    assert not list(store.iterdir())


def test_a_reader_leaves_a_writers_unfinished_checkpoint_alone(tmp_path):
    run(tmp_path)
    unfinished = tmp_path / "checkpoints" / "seed-0" / "40.orbax-checkpoint-tmp"
    unfinished.mkdir()
    load_run(tmp_path)
    assert unfinished.exists()


def test_a_stopping_rule_needs_validations(tmp_path, capsys):
    options = ["--stopping", "patience", "--eval-every", "10"]
    shown = refused(capsys, "karate", "--workdir", str(tmp_path), *SHORT, *options)
    assert "this task has none" in shown


def test_fewer_steps_than_were_taken_are_refused(tmp_path, capsys):
    run(tmp_path)
    shown = refused(capsys, "karate", "--workdir", str(tmp_path), *SHORT, "--num-steps", "10")
    assert "--num-steps was 20 and is 10" in shown


def test_an_optimizer_that_needs_forward_mode_is_told_so(tmp_path, capsys, monkeypatch):
    only_reverse = jax.custom_vjp(lambda x: x)
    only_reverse.defvjp(lambda x: (x, None), lambda _, cotangent: (only_reverse(cotangent),))
    monkeypatch.setattr(
        "structdl.graphs.gcn.gather_sum", lambda *args, **kw: only_reverse(gather_sum(*args, **kw))
    )
    options = ["--optimizer.name", "sophia", "--workdir", str(tmp_path)]
    assert "forward-mode derivatives" in refused(capsys, "karate", *SHORT, *options)


def test_graphs_on_tables_have_forward_mode(tmp_path, monkeypatch):
    monkeypatch.setattr("structdl.core.segment._FEW_EDGES", 0)
    run(tmp_path, "--optimizer.name", "sophia")


def test_a_learning_rate_that_diverges_ends_with_the_last_finite_state(tmp_path, capsys):
    options = ["--optimizer.name", "sgd", "--optimizer.learning-rate", "1e38"]
    shown = refused(capsys, "karate", "--workdir", str(tmp_path), *SHORT, *options)
    assert "not finite" in shown
    assert "1e+38" in shown
    _, _, fit = restore_run(tmp_path, EXPERIMENT)
    assert fit.state.diverged.all()
    chex.assert_tree_all_finite(fit.state.train.params)


def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("all of it")
    shown = refused(capsys, "karate", "--workdir", str(tmp_path), *SHORT, "--overwrite")
    assert "not the workdir of a run" in shown
    assert (tmp_path / "thesis.tex").read_text() == "all of it"


def test_two_runs_in_one_workdir_are_refused(tmp_path, capsys):
    with filelock.FileLock(tmp_path / ".lock"):
        shown = refused(capsys, "karate", "--workdir", str(tmp_path), *SHORT)
    assert "another process is writing" in shown


def test_a_workdir_that_cannot_be_made_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    shown = refused(capsys, "karate", "--workdir", str(tmp_path / "file" / "run"), *SHORT)
    assert f"cannot write the run to {tmp_path / 'file' / 'run'}" in shown


@pytest.mark.slow
@pytest.mark.parametrize("room", [64, 1_000, 20_000])
def test_a_full_disk_leaves_what_was_saved(tmp_path, room):
    """A limit on the size of files stands in for the full disk; it is met in different writers."""
    run(tmp_path)
    before = restore_run(tmp_path, EXPERIMENT)[2].state
    script = (
        "import resource, sys\n"
        "from experiments.node_classification.train import main\n"
        "import structdl.training.checkpoints as checkpoints\n"
        "save = checkpoints.Checkpoints.save\n"
        "def full(self, *args):\n"
        f"    resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))\n"
        "    save(self, *args)\n"
        "checkpoints.Checkpoints.save = full\n"
        "main(sys.argv[1:])\n"
    )
    options = ["karate", "--workdir", str(tmp_path), *SHORT, "--num-steps", "40"]
    done = subprocess.run(
        [sys.executable, "-c", script, *options], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stderr
    first, *_, last = done.stderr.splitlines()  # of one paragraph, without words of libraries
    assert first.startswith("error: cannot write the run to")
    assert last.startswith("(python ")
    assert "\n(python " in done.stderr
    assert len(done.stderr.splitlines()) < 10
    assert "Traceback" not in done.stderr
    assert run(tmp_path, "--num-steps", "40")["steps"]["values"] == [40]
    whole = run(tmp_path / "whole", "--num-steps", "40")
    assert before.train.step.tolist() == [20]
    states = [restore_run(path, EXPERIMENT)[2].state for path in (tmp_path, tmp_path / "whole")]
    chex.assert_trees_all_equal(*states)
    assert whole["resumed"] == 0


@pytest.mark.slow
def test_a_killed_command_resumes_bit_for_bit(tmp_path):
    options = ["--num-steps", "1500", "--steps-per-call", "10", "--checkpoint-every", "20"]
    command = [sys.executable, "-m", "experiments.node_classification", "karate", *options]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    store = killed / "checkpoints" / "seed-0"
    with subprocess.Popen(
        [*command, "--workdir", str(killed)], stderr=subprocess.PIPE, env=os.environ
    ) as process:
        deadline = time.monotonic() + 120
        while not any(path.name.isdigit() for path in store.glob("*")):
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert process.poll() is None, "killed while it was running"
        process.send_signal(signal.SIGKILL)
        process.wait()
    step = max(int(path.name) for path in store.glob("*") if path.name.isdigit())
    assert 0 < step < 1500
    main(["karate", *options, "--workdir", str(killed)])
    main(["karate", *options, "--workdir", str(whole)])
    summaries = [json.loads((path / "summary.json").read_text()) for path in (killed, whole)]
    assert [summary["resumed"] for summary in summaries] == [1, 0]
    assert summaries[0]["metrics"] == summaries[1]["metrics"]
    states = [restore_run(path, EXPERIMENT)[2].state for path in (killed, whole)]
    chex.assert_trees_all_equal(*states)
    logs = [(path / "metrics.jsonl").read_text() for path in (killed, whole)]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("prints", ["a list", "a summary"])
def test_a_reader_that_leaves_ends_it_in_silence(prints, tmp_path):
    options = ["--list-presets"]
    if prints == "a summary":
        run(tmp_path)
        options = ["karate", "--workdir", str(tmp_path), *SHORT]
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "experiments.node_classification", *options]
    result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert result.stderr == b""
    assert result.returncode == 1


def test_no_recompilation_after_the_first_call(tmp_path):
    run(tmp_path / "warm-up")  # small operations outside the compiled call
    events = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **rest: events.append(name)
    )
    compiled = "/jax/core/compile/backend_compile_duration"
    run(tmp_path / "short")
    few = events.count(compiled)
    events.clear()
    run(tmp_path / "long", "--num-steps", "80")
    assert events.count(compiled) == few > 0
