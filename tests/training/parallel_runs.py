"""Prints, as JSON, the parameters of the same runs on one device and on all of them."""

import dataclasses
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import jax
from conftest import make_regression

from structdl.training.logging import MetricsLog
from structdl.training.loop import fit
from structdl.training.optimizers import OptimizerConfig, make_optimizer
from structdl.training.run import Run


def kernels(run: Run, batch_size: int, **changes) -> dict:
    task = make_regression(batch_size=batch_size)._replace(**changes)
    found = {}
    for parallel in ("none", "jit", "pmap"):
        log = MetricsLog(None, every=4)
        result = fit(
            task,
            make_optimizer(OptimizerConfig("adam", 0.05)),
            dataclasses.replace(run, parallel=parallel),
            log=log,
        )
        losses = [row["train_loss"] for row in log.rows]
        found[parallel] = [result.selected[0]["kernel"].tolist(), losses]
    return found


if __name__ == "__main__":
    short = Run(num_steps=12, steps_per_call=4, eval_every=4)
    several = dataclasses.replace(short, num_seeds=16, seeds_per_call=8)
    penalty = {"penalty": lambda params: 0.1 * (params["kernel"] ** 2).sum()}
    runs = {
        "examples": kernels(short, 16),
        "penalty": kernels(short, 16, **penalty),
        "indivisible": kernels(short, 9),
        "seeds": kernels(several, 5),
    }
    print(json.dumps({"devices": jax.device_count(), "runs": runs}))
