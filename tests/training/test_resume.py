"""A run killed with SIGKILL and started again ends bit for bit where an uninterrupted one does."""

import importlib.util
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import chex
import pytest

SCRIPT = Path(__file__).parent / "killed_run.py"


def load_script():
    spec = importlib.util.spec_from_file_location("killed_run", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kill_at_first_checkpoint(command: list[str], store: Path) -> int:
    """Kills a process, seen alive, when it has saved; returns the step of its last checkpoint."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        while not saved_steps(store):
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() < deadline, "no checkpoint in two minutes"
            time.sleep(0.005)
        assert process.poll() is None, "the process ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
    return max(saved_steps(store))


def saved_steps(store: Path) -> list[int]:
    """Steps of whole checkpoints; one being written has another name."""
    return sorted(int(entry.name) for entry in store.glob("*") if entry.name.isdigit())


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["none", "window_mean", "patience"])
def test_a_killed_run_resumes_bit_for_bit(rule, tmp_path):
    train = load_script().train
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir()
    whole.mkdir()
    command = [sys.executable, str(SCRIPT), str(killed), rule]
    step = kill_at_first_checkpoint(command, killed / "checkpoints" / "seeds-0-1")
    uninterrupted = train(whole, rule)
    steps = uninterrupted.state.train.step.tolist()
    assert 0 < step < min(steps), "killed before either seed had stopped"
    assert uninterrupted.state.stopped.tolist() == [rule != "none"] * 2
    resumed = train(killed, rule)
    assert resumed.resumed == 1
    chex.assert_trees_all_equal(resumed.state, uninterrupted.state)
    chex.assert_trees_all_equal(resumed.selected, uninterrupted.selected)
    logs = [(folder / "metrics.jsonl").read_text() for folder in (killed, whole)]
    assert logs[0] == logs[1], "the log has no line twice and none too few"
    assert json.loads(logs[0].splitlines()[-1])["step"] <= max(steps)
