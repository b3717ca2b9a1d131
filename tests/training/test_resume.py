"""A run that a signal ended and that is started again ends bit for bit where a whole one does."""

import importlib.util
import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import pytest

from structdl.errors import InputError
from structdl.training.checkpoints import TEMPORARY, Checkpoints
from structdl.training.state import LoopState, TrainState

SCRIPT = Path(__file__).parent / "killed_run.py"


def load_script():
    spec = importlib.util.spec_from_file_location("killed_run", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def end_at_first_checkpoint(command: list[str], store: Path, number=signal.SIGKILL) -> str:
    """Sends a signal to a process, seen alive, when it has saved; returns what it printed."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while not saved_steps(store):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline, "no checkpoint in two minutes"
            time.sleep(0.005)
        assert process.poll() is None, "the process ended before it could be killed"
        process.send_signal(number)
        output, errors = process.communicate()
    assert process.returncode == (-9 if number == signal.SIGKILL else 0), errors
    return output


def saved_steps(store: Path) -> list[int]:
    """Steps of whole checkpoints; one being written has another name."""
    return sorted(int(entry.name) for entry in store.glob("*") if entry.name.isdigit())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "number"),
    [
        ("none", signal.SIGKILL),
        ("window_mean", signal.SIGKILL),
        ("patience", signal.SIGKILL),
        ("patience", signal.SIGTERM),
    ],
)
def test_a_run_that_was_ended_resumes_bit_for_bit(rule, number, tmp_path):
    train = load_script().train
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir()
    whole.mkdir()
    command = [sys.executable, str(SCRIPT), str(killed), rule]
    store = killed / "checkpoints" / "seeds-0-1"
    printed = end_at_first_checkpoint(command, store, number)
    step = max(saved_steps(store))
    if number == signal.SIGTERM:
        assert int(printed) == step, "it left after the call in which it was asked, and saved"
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


def cut_short(checkpoint: Path) -> None:
    """Empties the files of a checkpoint, as a disk that was unplugged might."""
    for file in checkpoint.rglob("*"):
        if file.is_file():
            file.write_bytes(b"")


def test_a_damaged_checkpoint_is_set_aside(tmp_path, capfd):
    script = load_script()
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    for folder in (whole, damaged):
        folder.mkdir()
    uninterrupted = script.train(whole, "none")
    script.train(damaged, "none")
    store = damaged / "checkpoints" / "seeds-0-1"
    before, last = saved_steps(store)
    cut_short(store / str(last))
    (store / f"820{TEMPORARY}").mkdir()
    again = script.train(damaged, "none")
    errors = capfd.readouterr().err
    assert f"{last} cannot be read" in errors
    assert f"going on from that of step {before}" in errors
    assert f"the save 820{TEMPORARY} was cut short" in errors
    chex.assert_trees_all_equal(again.state, uninterrupted.state)
    assert saved_steps(store) == [before, last]
    assert (store / f"{last}.unreadable").is_dir(), "nothing is lost"


def some_state(seed: int, *shape: int) -> LoopState:
    step, no = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    params = {"kernel": jax.random.normal(jax.random.key(seed), shape)}
    train = TrainState(step, jax.random.key(0), params, (), (), {})
    return LoopState(train, (), stopped=no, diverged=no)


def test_one_flipped_bit_anywhere_in_a_checkpoint_is_seen(tmp_path, capfd):
    store = Checkpoints(tmp_path)
    for step in (1, 2):
        store.save(step, some_state(step, 4, 8), {"resumed": 0})
    store.close()
    reader = Checkpoints(tmp_path, read_only=True)
    flipped = [path for path in (tmp_path / "2").rglob("*") if path.is_file()]
    assert len(flipped) > 5
    for path in flipped:
        content = path.read_bytes()
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :])
        saved = reader.restore(some_state(0, 4, 8))
        assert saved.step == 1, path
        chex.assert_trees_all_equal(saved.state, some_state(1, 4, 8))
        assert "is not as it was saved): going on from that of step 1" in capfd.readouterr().err
        path.write_bytes(content)
    assert reader.restore(some_state(0, 4, 8)).step == 2
    for step in ("1", "2"):
        (tmp_path / step / "state" / "manifest.ocdbt").unlink()
    with pytest.raises(InputError, match="2 is damaged, or does not fit"):
        reader.restore(some_state(0, 4, 8))
    reader.close()


# what orbax's threads were at when the disk was full may be said of them later, by the collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_loses_nothing_that_was_saved(tmp_path):
    def state(seed: int) -> LoopState:
        return some_state(seed, 512, 1024)  # 2 MB, not to be packed

    store = Checkpoints(tmp_path / "store")
    store.save(1, state(1), {"resumed": 0})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**12, hard))  # as if there were no more room
    try:
        with pytest.raises(InputError, match=f"{tmp_path / 'store'}.*[Ff]ile too large"):
            store.save(2, state(2), {"resumed": 0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    store.close()
    store = Checkpoints(tmp_path / "store")
    saved = store.restore(state(0))
    assert saved.step == 1
    chex.assert_trees_all_equal(saved.state, state(1))
    store.save(2, state(2), {"resumed": 1})
    chex.assert_trees_all_equal(store.restore(state(0)).state, state(2))
    store.close()
