"""Prints, as JSON, a run's losses and how many rows this process has read for it.

`python fetching_run.py COORDINATOR PROCESS` is one of two processes, and without arguments all.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import jax
from conftest import make_regression

from structdl.training.logging import MetricsLog
from structdl.training.loop import fit
from structdl.training.optimizers import OptimizerConfig, make_optimizer
from structdl.training.processes import join
from structdl.training.run import Run

if __name__ == "__main__":
    run = Run(num_steps=12, steps_per_call=4, eval_every=4)
    if len(sys.argv) > 1:
        named = {"coordinator": sys.argv[1], "process_id": int(sys.argv[2]), "num_processes": 2}
        run = Run(num_steps=12, steps_per_call=4, eval_every=4, parallel="jit", **named)
    join(run)
    task, read = make_regression(batch_size=8), []
    features, targets = task.data

    def fetch(batch):
        index, mask = batch
        read.append(len(index))
        return features[index], targets[index], mask

    def loss_fn(params, state, inputs, key):
        its_features, its_targets, mask = inputs.batch
        error = (its_features @ params["kernel"] - its_targets) ** 2
        return ((error * mask).sum(), mask.sum()), (state, {})

    log = MetricsLog(None, every=4)
    streamed = task._replace(loss_fn=loss_fn, fetch=fetch)
    fit(streamed, make_optimizer(OptimizerConfig("adam", 0.05)), run, log=log)
    losses = [row["train_loss"] for row in log.rows]
    print(json.dumps({"losses": losses, "read": read, "processes": jax.process_count()}))
