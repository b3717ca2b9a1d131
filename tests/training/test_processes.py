"""Two processes on this machine train as one would; they meet, are killed, and go on."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from structdl.errors import InputError
from structdl.training import processes
from structdl.training.run import Run


def free_address() -> str:
    with socket.create_server(("localhost", 0)) as server:
        return f"localhost:{server.getsockname()[1]}"


def start(task: str, workdir: Path, *options: str, address: str = "", process_id: int = 0):
    """An experiment in a process of its own, alone or as one of two."""
    command = [sys.executable, "-m", f"experiments.{task}", "--workdir", str(workdir), *options]
    if address:
        command += ["--parallel", "jit", "--coordinator", address]
        command += ["--num-processes", "2", "--process-id", str(process_id)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


def finish(*running) -> None:
    for process in running:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output


def rows(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def pair(task: str, workdir: Path, *options: str):
    address = free_address()
    return [start(task, workdir, *options, address=address, process_id=i) for i in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("node_classification", ("--num-steps", "6", "--num-seeds", "2")),
        ("polyphonic_music", ("--num-steps", "48", "--checkpoint-every", "12")),
    ],
)
def test_two_processes_train_as_one(task, options, tmp_path):
    alone, both = tmp_path / "alone", tmp_path / "both"
    finish(start(task, alone, *options))
    finish(*pair(task, both, *options))
    for one, two in zip(rows(alone), rows(both), strict=True):
        assert one.keys() == two.keys()
        for name in one:
            np.testing.assert_allclose(one[name], two[name], rtol=1e-4, err_msg=name)
    summaries = [json.loads((path / "summary.json").read_text()) for path in (alone, both)]
    for name, values in summaries[0]["metrics"].items():
        mean = summaries[1]["metrics"][name]["mean"]
        np.testing.assert_allclose(values["mean"], mean, rtol=1e-4, err_msg=name)


@pytest.mark.slow
def test_two_processes_of_which_one_is_killed_go_on_with_two_and_then_with_one(tmp_path):
    both, whole = tmp_path / "both", tmp_path / "whole"
    options = ("--checkpoint-every", "12", "--num-steps", "240")
    finish(*pair("polyphonic_music", whole, *options))
    running = pair("polyphonic_music", both, *options)
    deadline = time.monotonic() + 240
    while not list((both / "checkpoints" / "seed-0").glob("[0-9]*[0-9]")):
        assert all(process.poll() is None for process in running), running[0].communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running[1].send_signal(signal.SIGKILL)
    running[0].kill()  # it would notice after a while, and abort
    for process in running:
        process.communicate()
    assert not (both / "summary.json").exists(), "killed before its end"

    finish(*pair("polyphonic_music", both, *options))
    assert rows(both) == rows(whole), "bit for bit"
    finish(start("polyphonic_music", both, *options[:2], "--num-steps", "252"))
    assert json.loads((both / "summary.json").read_text())["resumed"] == 2


def test_who_waits_in_vain_is_told(monkeypatch):
    monkeypatch.setattr(processes, "SECONDS_TO_MEET", 0.3)
    address = free_address()
    with pytest.raises(InputError, match=f"process 1 of 2 did not meet the others at {address}"):
        processes.join(Run(coordinator=address, num_processes=2, process_id=1))
    with pytest.raises(InputError, match="no word from process 1"):
        processes.join(Run(coordinator=address, num_processes=2, process_id=0))


def test_processes_meet():
    address, met = free_address(), []

    def meet(process_id):
        processes._meet(address, 3, process_id, time.monotonic() + 30)
        met.append(process_id)

    threads = [threading.Thread(target=meet, args=(process_id,)) for process_id in (2, 0, 1)]
    for thread in threads[:2]:
        thread.start()
        time.sleep(0.05)
    host, port = address.split(":")
    for _ in range(2):  # strangers who say nothing
        socket.create_connection((host, int(port)), timeout=5).close()
    time.sleep(0.3)
    assert met == []
    threads[2].start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(met) == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(num_processes=2), "need --coordinator"),
        (dict(coordinator="localhost:1", process_id=0), "--process-id from 0"),
        (dict(coordinator="localhost:1", num_processes=2, process_id=2), "--process-id from 0"),
        (dict(coordinator="localhost", num_processes=2, process_id=0), "HOST:PORT"),
    ],
)
def test_processes_that_are_not_named_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        processes.join(Run(**options))
