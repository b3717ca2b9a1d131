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
from structdl.training.parallel import on_devices
from structdl.training.run import Run

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
        kernels, losses, num_devices = found.pop("none")
        assert num_devices == 1
        assert len(losses) >= 3
        for parallel, (parallel_kernels, parallel_losses, num_devices) in found.items():
            if parallel == "jit":
                assert num_devices == 8, name
            np.testing.assert_allclose(parallel_kernels, kernels, rtol=1e-4, err_msg=name)
            np.testing.assert_allclose(parallel_losses, losses, rtol=1e-4, err_msg=name)

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


def test_pmap_divides_seeds_only():
    assert on_devices(Run(num_seeds=1, parallel="pmap")), "one device divides anything"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jax.local_device_count", lambda: 8)
        with pytest.raises(InputError, match="--parallel jit"):
            on_devices(Run(num_seeds=12, seeds_per_call=12, parallel="pmap"))
