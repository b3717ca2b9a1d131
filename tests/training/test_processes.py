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

import jax
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
def test_each_process_reads_its_own_share_of_every_batch():
    address = free_address()
    command = [sys.executable, str(Path(__file__).parent / "fetching_run.py")]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    running = [
        subprocess.Popen([*command, *named], stdout=subprocess.PIPE, text=True, env=environment)
        for named in ([], [address, "0"], [address, "1"])
    ]
    shown = []
    for process in running:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0
        shown.append(json.loads(output.splitlines()[-1]))
    alone, *both = shown
    assert alone["read"] == [8] * 13, "the first batch says the sizes, and twelve are trained on"
    for one in both:
        assert one["processes"] == 2
        assert one["read"] == [8] + [4] * 12
        np.testing.assert_allclose(one["losses"], alone["losses"], rtol=1e-5)


def saved_step(workdir: Path) -> int:
    """The last step that is saved whole; 0 for none."""
    folders = (workdir / "checkpoints").glob("*/*")
    return max((int(path.name) for path in folders if path.name.isdigit()), default=0)


def wait_for_a_later_checkpoint(workdir: Path, step: int, running) -> None:
    deadline = time.monotonic() + 240
    while saved_step(workdir) <= step:
        assert all(process.poll() is None for process in running), running[0].communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "options", "num_steps"),
    [
        (
            "node_classification",
            ("--checkpoint-every", "200", "--num-seeds", "2", "--stopping", "none"),
            4000,
        ),
        ("polyphonic_music", ("--checkpoint-every", "12"), 240),
    ],
)
def test_two_processes_of_which_one_is_ended_go_on_with_two_and_then_with_one(
    task, options, num_steps, tmp_path
):
    both, whole = tmp_path / "both", tmp_path / "whole"
    options = (*options, "--num-steps", str(num_steps))
    finish(*pair(task, whole, *options))
    running = pair(task, both, *options)
    wait_for_a_later_checkpoint(both, 0, running)
    running[1].send_signal(signal.SIGKILL)
    running[0].kill()  # it would notice after a while, and abort
    for process in running:
        process.communicate()
    killed_after = saved_step(both)
    assert killed_after < num_steps, "killed before its end"

    running = pair(task, both, *options)
    wait_for_a_later_checkpoint(both, killed_after, running)
    running[1].send_signal(signal.SIGTERM)
    finish(*running)
    assert killed_after < saved_step(both) < num_steps, "both left when one was asked to"

    finish(*pair(task, both, *options))
    assert rows(both) == rows(whole), "bit for bit"
    finish(*pair(task, both, *options, "--evaluate-only"))
    longer = str(num_steps + num_steps // 20)
    finish(start(task, both, *options[:-1], longer))
    assert json.loads((both / "summary.json").read_text())["resumed"] == 3


def test_one_process_that_refuses_stops_all(monkeypatch):
    with processes.together():
        pass
    with pytest.raises(InputError, match="mine"), processes.together():
        raise InputError("mine")
    monkeypatch.setattr(processes, "any_of_them", lambda flag: True)
    with pytest.raises(InputError, match="another process refused"), processes.together():
        pass


def test_processes_may_be_named_by_variables(monkeypatch):
    monkeypatch.setattr(processes, "SECONDS_TO_MEET", 0.3)
    address = free_address()
    for name, value in zip(processes.VARIABLES, (address, "2", "1"), strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"process 1 of 2 did not meet the others at {address}"):
        processes.join(Run(coordinator="auto"))
    monkeypatch.setenv(processes.VARIABLES[2], "one")
    with pytest.raises(InputError, match="to be numbers"):
        processes.join(Run(coordinator="auto"))


def test_a_cluster_that_is_not_there_is_named(monkeypatch):
    def initialize(**options):
        raise ValueError("Number of processes must be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(InputError, match=r"auto found no cluster \(Number of processes"):
        processes.join(Run(coordinator="auto"))


def test_who_waits_in_vain_is_told(monkeypatch):
    monkeypatch.setattr(processes, "SECONDS_TO_MEET", 0.3)
    address = free_address()
    with pytest.raises(InputError, match=f"process 1 of 2 did not meet the others at {address}"):
        processes.join(Run(coordinator=address, num_processes=2, process_id=1))
    with pytest.raises(InputError, match="no word from process 1"):
        processes.join(Run(coordinator=address, num_processes=2, process_id=0))


def test_processes_meet(monkeypatch):
    monkeypatch.setattr(processes, "SECONDS_TO_SPEAK", 0.1)
    address, met = free_address(), []

    def meet(process_id):
        processes._meet(address, 3, process_id, time.monotonic() + 30)
        met.append(process_id)

    threads = [threading.Thread(target=meet, args=(process_id,)) for process_id in (2, 0, 1)]
    for thread in threads[:2]:
        thread.start()
        time.sleep(0.05)
    host, port = address.split(":")
    # strangers who say nothing, of whom one hangs up
    socket.create_connection((host, int(port)), timeout=5).close()
    stranger = socket.create_connection((host, int(port)), timeout=5)
    time.sleep(0.5)
    assert met == []
    threads[2].start()
    for thread in threads:
        thread.join(timeout=30)
    stranger.close()
    assert sorted(met) == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(num_processes=2), "need --coordinator"),
        (dict(coordinator="localhost:1", process_id=0), "--process-id from 0"),
        (dict(coordinator="localhost:1", num_processes=2, process_id=2), "--process-id from 0"),
        (dict(coordinator="localhost", num_processes=2, process_id=0), "HOST:PORT"),
        (dict(coordinator="localhost:99999", num_processes=2, process_id=0), "below 65536"),
    ],
)
def test_processes_that_are_not_named_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        processes.join(Run(**options))
