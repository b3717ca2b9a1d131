"""A run to be killed: `python killed_run.py WORKDIR RULE` trains the regression of conftest.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from conftest import make_regression

from structdl.training.checkpoints import Checkpoints
from structdl.training.logging import MetricsLog
from structdl.training.loop import fit
from structdl.training.optimizers import OptimizerConfig, make_optimizer
from structdl.training.preemption import Preempted, preemption
from structdl.training.run import Run


def train(workdir: Path, rule: str, preempted=lambda: False):
    """Two seeds that stop, where a rule stops them, long after the first checkpoint."""
    run = Run(
        num_steps=800,
        num_seeds=2,
        steps_per_call=10,
        checkpoint_every=20,
        stopping=rule,
        stopping_size=30,
    )
    log = MetricsLog(workdir, every=20)
    result = fit(
        make_regression(),
        make_optimizer(OptimizerConfig("adam", 0.02)),
        run,
        checkpoints=lambda group: Checkpoints(workdir / "checkpoints" / group),
        log=log,
        preempted=preempted,
    )
    log.close()
    return result


if __name__ == "__main__":
    with preemption() as preempted:
        try:
            train(Path(sys.argv[1]), sys.argv[2], preempted)
        except Preempted as leave:
            print(leave.step)
