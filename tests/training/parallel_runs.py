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

from structdl.errors import InputError
from structdl.training.checkpoints import Checkpoints
from structdl.training.logging import MetricsLog
from structdl.training.loop import check_start, fit
from structdl.training.optimizers import OptimizerConfig, make_optimizer
from structdl.training.run import Run


def train(run: Run, batch_size: int, store: Path | None = None, **changes):
    task = make_regression(batch_size=batch_size)._replace(**changes)
    log = MetricsLog(None, every=4)
    optimizer = make_optimizer(OptimizerConfig("adam", 0.05))
    checkpoints = None if store is None else (lambda group: Checkpoints(store / group))
    result = fit(task, optimizer, run, log=log, checkpoints=checkpoints)
    return result, [row["train_loss"] for row in log.rows]


def kernels(
    run: Run, batch_size: int, kinds: tuple[str, ...], shard: bool = False, **changes
) -> dict:
    found = {}
    for parallel in kinds:
        on_these = dataclasses.replace(
            run,
            parallel=parallel,
            num_devices=0 if parallel == "none" else run.num_devices,
            shard_parameters=shard and parallel == "jit",
        )
        result, losses = train(on_these, batch_size, **changes)
        kernel, state = result.selected[0]["kernel"], result.state.train
        found[parallel] = {
            "kernel": kernel.tolist(),
            "losses": losses,
            "devices": len(kernel.sharding.device_set),
            "held": [
                leaf.addressable_shards[0].data.size / leaf.size
                for leaf in jax.tree.leaves((state.params, state.opt_state))
                if leaf.size >= 16
            ],
        }
    return found


def noisy_loss(params, state, inputs, key):
    """A loss with randomness and a state that depends on the whole batch."""
    index, mask = inputs.batch
    features = inputs.data[0][index] + jax.random.normal(key, (len(index), 3))
    error = (features @ params["kernel"] - inputs.data[1][index]) ** 2
    return ((error * mask).sum(), mask.sum()), (0.9 * state + features.mean(), {})


def wide_loss(params, state, inputs, key):
    """The kernel in two parts, of which one is large enough to be divided."""
    index, mask = inputs.batch
    kernel = params["kernel"] + params["wide"].reshape(3, 16).sum(axis=1)
    error = (inputs.data[0][index] @ kernel - inputs.data[1][index]) ** 2
    return ((error * mask).sum(), mask.sum()), (state, {})


def refusal(begin, parallel: str) -> str:
    """What a batch of fewer examples than devices is told."""
    task, optimizer = make_regression(batch_size=5), make_optimizer(OptimizerConfig("sgd", 0.1))
    try:
        begin(task, optimizer, dataclasses.replace(SHORT, parallel=parallel))
    except InputError as error:
        return str(error)
    return ""


KINDS = ("jit", "pmap")
SHORT = Run(num_steps=12, steps_per_call=4, eval_every=4)

if __name__ == "__main__":
    several = dataclasses.replace(SHORT, num_seeds=16, seeds_per_call=8)
    uneven = dataclasses.replace(SHORT, num_seeds=11, seeds_per_call=8)
    penalty = {"penalty": lambda params: 0.1 * (params["kernel"] ** 2).sum()}
    noisy = {
        "loss_fn": noisy_loss,
        "init": lambda key, inputs: ({"kernel": jax.random.normal(key, (3,))}, jax.numpy.zeros(())),
    }
    wide = {
        "loss_fn": wide_loss,
        "metrics": lambda *args: {"loss": wide_loss(*args)[0]},
        "init": lambda key, inputs: (
            {"kernel": jax.random.normal(key, (3,)), "wide": jax.numpy.zeros(48)},
            (),
        ),
    }
    runs = {
        "examples": kernels(SHORT, 16, ("none", "jit", "pmap")),
        "penalty": kernels(SHORT, 16, ("none", "jit", "pmap"), **penalty),
        "noise": kernels(SHORT, 16, ("none", "jit"), **noisy),
        "indivisible": kernels(SHORT, 9, ("none", "jit", "pmap")),
        # each device has the whole batch, and draws what one device draws
        "indivisible noise": kernels(SHORT, 9, ("none", "jit", "pmap"), **noisy),
        "two groups": kernels(uneven, 8, ("none", "jit", "pmap")),
        "two": kernels(dataclasses.replace(SHORT, num_devices=2), 16, ("none", "jit", "pmap")),
        "divided": kernels(SHORT, 16, ("none", "jit"), shard=True, **wide),
        "seeds": kernels(several, 5, ("none", "jit", "pmap")),
    }
    train(dataclasses.replace(SHORT, parallel="jit"), 16, Path(sys.argv[1]))
    refused = [refusal(begin, parallel) for begin in (fit, check_start) for parallel in KINDS]
    print(json.dumps({"devices": jax.device_count(), "runs": runs, "refused": refused}))
