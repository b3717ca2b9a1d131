"""jit over a mesh and pmap give the run of one device; on eight virtual ones, in a process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parent / "parallel_runs.py"


@pytest.mark.slow
def test_eight_devices_give_the_run_of_one():
    flags = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        capture_output=True,
        text=True,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout.splitlines()[-1])
    assert shown["devices"] == 8
    for name, found in shown["runs"].items():
        kernels, losses = found["none"]
        assert len(losses) >= 3
        for parallel in ("jit", "pmap"):
            np.testing.assert_allclose(found[parallel][0], kernels, rtol=1e-4, err_msg=name)
            np.testing.assert_allclose(found[parallel][1], losses, rtol=1e-4, err_msg=name)
