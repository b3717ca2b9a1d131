"""Every experiment's default has the same losses on 1, 2, 4 and 8 devices, by jit and by pmap."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import names

SCRIPT = Path(__file__).parent / "device_runs.py"


EVERYWHERE = ["jit-2", "jit-4", "jit-8", "pmap-2", "pmap-4", "pmap-8"]
# elsewhere each number once, and each kind: a place is a compilation
THROUGH_ALL = ("node_classification", "polyphonic_music")
# batch normalisation doubles a rounding error each step: after twenty, float32 is 20 % apart
IN_DOUBLE = ("graph_classification", "relational_inference")
# under pmap each device samples edges, and normalises a batch, for itself
ONLY_BY_JIT = ("relational_inference",)


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_the_first_losses_do_not_depend_on_the_devices(name):
    places = EVERYWHERE if name in THROUGH_ALL else ["jit-2", "pmap-4", "jit-8"]
    places = [place for place in places if name not in ONLY_BY_JIT or place.startswith("jit")]
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": "8",
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": str(int(name in IN_DOUBLE)),
    }
    done = subprocess.run(
        [sys.executable, str(SCRIPT), name, *places],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout.splitlines()[-1])
    assert shown["devices"] == 8
    for losses in shown["losses"].values():
        alone = losses.pop("none-1")
        assert len(alone) in (20, 160), "one seed, or eight"
        assert losses
        for place, found in losses.items():
            np.testing.assert_allclose(found, alone, rtol=1e-5, err_msg=place)
