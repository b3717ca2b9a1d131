"""--deterministic: two runs give the same bits, and the compiler is told so."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments import load_run
from structdl.errors import InputError
from structdl.training.evaluate import make_evaluate
from structdl.training.loop import fit
from structdl.training.optimizers import OptimizerConfig, make_optimizer
from structdl.training.parallel import on_devices
from structdl.training.run import Run

# a module's command line on two cores, hence with two threads
ON_TWO_CORES = """
import os, runpy, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
runpy.run_module(sys.argv.pop(1), run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "preset"),
    [("node_classification", "karate"), ("polyphonic_music", "gru-chords")],
)
def test_two_runs_give_the_same_bits(name, preset, tmp_path):
    options = ["--deterministic", "--num-steps", "20", "--stopping", "none", "--eval-every", "10"]
    options += ["--steps-per-call", "10", "--log-every", "10"]
    found = []
    for run in ("first", "second"):
        folder = tmp_path / run
        command = [sys.executable, "-c", ON_TWO_CORES, f"experiments.{name}", preset, *options]
        done = subprocess.run([*command, "--workdir", str(folder)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        _, _, params, _ = load_run(folder)
        found.append((params, (folder / "metrics.jsonl").read_text()))
    (params, metrics), (others, other_metrics) = found
    assert metrics == other_metrics
    jax.tree.map(np.testing.assert_array_equal, params, others)


@pytest.mark.parametrize("parallel", ["none", "jit"])
def test_the_compiler_hears_of_it(parallel, monkeypatch):
    """Of an option that it does not have it complains."""
    from experiments.node_classification.train import EXPERIMENT

    config = EXPERIMENT.presets["karate"].config
    task = EXPERIMENT.make_task(config)
    optimizer = make_optimizer(OptimizerConfig("sgd", 0.1))
    run = Run(num_steps=1, parallel=parallel, deterministic=True)
    result = fit(task, optimizer, run)
    make_evaluate(task, run.compiler_options)(
        result.selected, result.state.train.key, run.seeds, "test"
    )
    monkeypatch.setattr(Run, "compiler_options", {"xla_gpu_no_such_thing": True})
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_gpu_no_such_thing"):
        fit(task, optimizer, run)
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_gpu_no_such_thing"):
        make_evaluate(task, run.compiler_options)(
            result.selected, result.state.train.key, run.seeds, "test"
        )


def test_without_the_option_the_compiler_hears_nothing():
    assert Run().compiler_options == {}
    assert Run(deterministic=True).compiler_options == {"xla_gpu_deterministic_ops": True}


def test_pmap_cannot_be_told():
    with pytest.raises(InputError, match="--parallel jit"):
        on_devices(Run(parallel="pmap", deterministic=True))
