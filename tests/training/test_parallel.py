"""jit over a mesh, and pmap over seeds, give the run of one device; in a process with eight."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from structdl.errors import InputError
from structdl.training.configs import identity
from structdl.training.parallel import on_devices, with_counted_devices
from structdl.training.placement import EXAMPLES, divides
from structdl.training.run import Run
from structdl.training.workdir import claim, open_workdir

SCRIPT = Path(__file__).parent / "parallel_runs.py"


@pytest.mark.slow
def test_eight_devices_give_the_run_of_one(tmp_path):
    flags = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout.splitlines()[-1])
    assert shown["devices"] == 8
    for name, found in shown["runs"].items():
        alone = found.pop("none")
        assert alone["devices"] == 1
        assert len(alone["losses"]) >= 3
        for parallel, run in found.items():
            if parallel == "jit":
                assert run["devices"] == (2 if name == "two" else 8), name
            for value in ("kernel", "losses"):
                np.testing.assert_allclose(run[value], alone[value], rtol=1e-4, err_msg=name)
    for message in shown["refused"]:
        assert "a batch of 5 examples is fewer than the 8 devices" in message
    # of the wide parameter, and of its two moments, each device holds an eighth
    assert shown["runs"]["examples"]["jit"]["held"] == []
    assert shown["runs"]["divided"]["jit"]["held"] == [1 / 8] * 3

    # this process has one device, and goes on from what eight have saved
    spec = importlib.util.spec_from_file_location("parallel_runs", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    longer = dataclasses.replace(script.SHORT, num_steps=20)
    resumed, _ = script.train(longer, 16, tmp_path)
    assert resumed.resumed == 1
    whole, _ = script.train(longer, 16)
    np.testing.assert_allclose(
        resumed.selected[0]["kernel"], whole.selected[0]["kernel"], rtol=1e-4
    )


def test_devices_that_are_not_there_are_refused():
    for parallel in ("jit", "pmap"):
        with pytest.raises(InputError, match="JAX_NUM_CPU_DEVICES"):
            on_devices(Run(num_devices=2, parallel=parallel))
    with pytest.raises(InputError, match="--parallel jit or pmap"):
        on_devices(Run(num_devices=2))
    with pytest.raises(InputError, match="--parallel jit"):
        on_devices(Run(shard_parameters=True))


@dataclasses.dataclass(frozen=True)
class Config:
    run: Run


def with_run(**fields) -> Config:
    return Config(with_counted_devices(Run(**fields)))


def test_devices_are_part_of_a_run_only_where_each_draws_for_itself(tmp_path):
    alone, by_jit, by_pmap = (with_run(parallel=kind) for kind in ("none", "jit", "pmap"))
    of_four = with_run(parallel="pmap", num_devices=4)
    assert identity(alone) == identity(by_jit) == identity(with_run(num_devices=4))
    assert identity(alone).keys().isdisjoint({"parallel", "num-devices"})
    assert identity(by_pmap) == identity(alone) | {"parallel": "pmap", "num-devices": 1}

    claim(tmp_path, "regression", "preset", by_pmap, "commit")
    (tmp_path / "checkpoints" / "seed-0" / "1").mkdir(parents=True)
    for other, message in (
        (by_jit, "--parallel was 'pmap' and is 'jit'"),
        (of_four, "--num-devices was 1 and is 4"),
    ):
        with pytest.raises(InputError, match=message), open_workdir(tmp_path, "regression", other):
            pass
    for same in (by_pmap, with_run(evaluate_only=True)):  # a test draws nothing
        with open_workdir(tmp_path, "regression", same):
            pass
    # 0 stands in runs of the first version for all devices, whose number it did not record
    claim(tmp_path, "regression", "preset", Config(Run(parallel="pmap")), "commit")
    with open_workdir(tmp_path, "regression", of_four):
        pass


def test_a_batch_divides_by_its_examples():
    batches = np.zeros((1, 1, 2, 3)), np.zeros((1, 1, 2))
    assert divides(batches, EXAMPLES, 3)
    assert not divides(batches, EXAMPLES, 2)
    assert not divides(batches[1:], EXAMPLES, 1)


def test_parts_of_a_graph_are_not_examples():
    """Its senders number nodes that would lie on another device."""
    sizes = {"nodes": 8, "senders": 16, "graphs": 4}
    batch = {name: np.zeros((1, 1, 1, size)) for name, size in sizes.items()}
    for num_devices in (2, 4, 8):
        assert not divides(batch, EXAMPLES, num_devices)
