"""Prints, as JSON, the parameters of the same runs on one device and on all of them.

`python parallel_runs.py STORE` also leaves checkpoints of a run on all devices in STORE.
"""

import dataclasses
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import jax
from conftest import make_regression

from structdl.training.checkpoints import Checkpoints
from structdl.training.logging import MetricsLog
from structdl.training.loop import fit
from structdl.training.optimizers import OptimizerConfig, make_optimizer
from structdl.training.run import Run


def train(run: Run, batch_size: int, store: Path | None = None, **changes):
    task = make_regression(batch_size=batch_size)._replace(**changes)
    log = MetricsLog(None, every=4)
    optimizer = make_optimizer(OptimizerConfig("adam", 0.05))
    checkpoints = None if store is None else (lambda group: Checkpoints(store / group))
    result = fit(task, optimizer, run, log=log, checkpoints=checkpoints)
    return result, [row["train_loss"] for row in log.rows]


def kernels(run: Run, batch_size: int, kinds: tuple[str, ...], **changes) -> dict:
    found = {}
    for parallel in kinds:
        result, losses = train(dataclasses.replace(run, parallel=parallel), batch_size, **changes)
        kernel = result.selected[0]["kernel"]
        found[parallel] = [kernel.tolist(), losses, len(kernel.sharding.device_set)]
    return found


def noisy_loss(params, state, inputs, key):
    """A loss with randomness and a state that depends on the whole batch."""
    index, mask = inputs.batch
    features = inputs.data[0][index] + jax.random.normal(key, (len(index), 3))
    error = (features @ params["kernel"] - inputs.data[1][index]) ** 2
    return ((error * mask).sum(), mask.sum()), (0.9 * state + features.mean(), {})


SHORT = Run(num_steps=12, steps_per_call=4, eval_every=4)

if __name__ == "__main__":
    several = dataclasses.replace(SHORT, num_seeds=16, seeds_per_call=8)
    penalty = {"penalty": lambda params: 0.1 * (params["kernel"] ** 2).sum()}
    noisy = {
        "loss_fn": noisy_loss,
        "init": lambda key, inputs: ({"kernel": jax.random.normal(key, (3,))}, jax.numpy.zeros(())),
    }
    runs = {
        "examples": kernels(SHORT, 16, ("none", "jit")),
        "penalty": kernels(SHORT, 16, ("none", "jit"), **penalty),
        "noise": kernels(SHORT, 16, ("none", "jit"), **noisy),
        "indivisible": kernels(SHORT, 9, ("none", "jit")),
        "seeds": kernels(several, 5, ("none", "jit", "pmap")),
    }
    train(dataclasses.replace(SHORT, parallel="jit"), 16, Path(sys.argv[1]))
    print(json.dumps({"devices": jax.device_count(), "runs": runs}))
