"""What a run tells while it goes: metrics.jsonl, TensorBoard events, a bar, its seconds."""

import contextlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from structdl.files import append, write_whole
from structdl.training.metrics import means
from structdl.training.profiling import compilations
from structdl.training.seeds import group_name
from structdl.training.workdir import naming_workdir


class Stopwatch:
    """Seconds of compiling, training and evaluating, added up over resumed processes.

    A block in which a program was compiled counts as compiling: what else it does is only to
    dispatch that program.
    """

    kinds = ("compile", "train", "evaluate")

    def __init__(self):
        self._here = dict.fromkeys(self.kinds, 0.0)
        self._before = dict.fromkeys(self.kinds, 0.0)

    @contextlib.contextmanager
    def measure(self, kind: str) -> Iterator[None]:
        """Times a block."""
        compiled, start = compilations().count, time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self._here["compile" if compilations().count > compiled else kind] += seconds

    def resume(self, seconds: dict[str, float]) -> None:
        """Takes over what earlier processes counted; later checkpoints of theirs count more."""
        self._before = {kind: max(self._before[kind], seconds[kind]) for kind in self.kinds}

    def total(self) -> dict[str, float]:
        return {kind: round(self._before[kind] + self._here[kind], 3) for kind in self.kinds}


class MetricsLog:
    """One line of JSON a seed and round, curves for TensorBoard, and a bar on a terminal.

    Traces stay on the device until they are written; a write waits for the last of them.
    Without a workdir the rows are kept in `rows`.

    Args:
      workdir: the run's folder, or None.
      total_steps: steps of all seeds together, for the bar; None for no bar.
      every: steps between writes.
    """

    def __init__(self, workdir: Path | None, *, total_steps: int | None = None, every: int = 20):
        self.rows: list[dict[str, Any]] = []
        self._path = workdir / "metrics.jsonl" if workdir else None
        self._workdir, self._every = workdir, every
        self._curves, self._seeds, self._pending = None, (), []
        # None disables the bar when standard error is not a terminal
        disable = True if total_steps is None else None
        self._bar = tqdm(total=total_steps, unit="step", disable=disable, dynamic_ncols=True)

    def start_group(self, seeds: Sequence[int], step: int) -> None:
        """Prepares for seeds that go on from a step: what was logged after it is cut off."""
        self._seeds, self._sums, self._steps = tuple(seeds), None, 0
        self._bar.update(step * len(seeds))
        if self._path is None:
            return
        with naming_workdir(self._workdir):
            _cut_back(self._path, self._seeds, step)
            if self._curves is None:
                self._curves = Curves(self._workdir, purge_step=step)

    def add(self, step: int, call, trace: dict) -> None:
        """Takes the trace of the call that began at `step`."""
        self._pending.append((step, call, trace))
        end = step + call.rounds * call.steps
        self._bar.update((end - step) * len(self._seeds))
        if end // self._every > step // self._every:
            self.flush()

    def flush(self) -> None:
        """Writes what is pending."""
        pending, self._pending = self._pending, []
        rows = []
        for step, call, trace in pending:
            trace = jax.device_get(trace)
            for index in range(call.rounds):
                at = jax.tree.map(lambda leaf, index=index: leaf[:, index], trace)
                step += call.steps
                self._accumulate(at["train"], call.steps)
                if call.evaluate:
                    rows += self._take_rows(step, at)
        if self._steps:
            rows += self._take_rows(step, at)
        self._write(rows)

    def close(self) -> None:
        self._bar.close()
        if self._curves:
            with naming_workdir(self._workdir):
                self._curves.close()

    def _accumulate(self, train: dict, steps: int) -> None:
        self._sums = train if self._sums is None else jax.tree.map(np.add, self._sums, train)
        self._steps += steps

    def _take_rows(self, step: int, at: dict) -> list[dict[str, Any]]:
        """A row for each seed that took this step, with means since the last rows."""
        train = {
            name: sums if isinstance(sums, tuple) else (sums, self._steps)
            for name, sums in self._sums.items()
        }
        values = {f"train_{name}": value for name, value in means(train).items()}
        values |= {f"validation_{name}": value for name, value in at["validation"].items()}
        self._sums, self._steps = None, 0
        rows = []
        for index, seed in enumerate(self._seeds):
            if at["step"][index] == step:  # a frozen seed stays behind
                scalars = {name: float(f"{value[index]:.7g}") for name, value in values.items()}
                rows.append({"seed": seed, "step": step, **scalars})
        return rows

    def _write(self, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        last = [row for row in rows if row["step"] == rows[-1]["step"]]
        shown = [name for name in last[0] if name.endswith(("_loss", "_accuracy"))]
        self._bar.set_postfix(
            {name: f"{np.mean([row[name] for row in last]):.3g}" for name in shown}
        )
        if self._path is None:
            self.rows += rows
            return
        with naming_workdir(self._workdir):
            append(self._path, "".join(json.dumps(row) + "\n" for row in rows))
            self._write_curves(rows)

    def _write_curves(self, rows: list[dict[str, Any]]) -> None:
        """Means over the group's seeds: a curve a seed would be thousands of them."""
        by_step: dict[int, list[dict]] = {}
        for row in rows:
            by_step.setdefault(row["step"], []).append(row)
        for step, group in by_step.items():
            for name in group[0].keys() - {"seed", "step"}:
                value = float(np.mean([row[name] for row in group]))
                self._curves.add(f"{name}/{group_name(self._seeds)}", value, step)
        self._curves.flush()


class Curves:
    """TensorBoard events, written in the caller's thread so that its errors are the caller's.

    Args:
      workdir: where the events file goes.
      purge_step: what earlier files hold from here on is void.
    """

    def __init__(self, workdir: Path, purge_step: int):
        # slow to import; its SummaryWriter would write from a thread, and again at exit
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto import event_pb2

        self._event, self._scalar = event_pb2.Event, summary.scalar
        suffix = f".{os.getpid()}"
        self._file = event_file_writer.EventsWriter(str(workdir / "events"), suffix)
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        event = self._event(wall_time=time.time(), step=purge_step, session_log=start)
        self._file.write_event(event)

    def add(self, name: str, value: float, step: int) -> None:
        summary = self._scalar(name, value)
        self._file.write_event(self._event(wall_time=time.time(), step=step, summary=summary))

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _cut_back(path: Path, seeds: tuple[int, ...], step: int) -> None:
    """Drops the lines of these seeds after a step, and a last line that was cut short."""
    if not path.exists():
        return
    rows = read_rows(path)
    kept = [row for row in rows if row["seed"] not in seeds or row["step"] <= step]
    text = "".join(json.dumps(row) + "\n" for row in kept)
    if text.encode() != path.read_bytes():
        write_whole(path, text)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, which another process may be writing; empty without a file.

    A line that is not a row of a seed at a step, as one that was cut short, is left out.
    """
    rows = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and {type(row.get("seed")), type(row.get("step"))} == {int}:
            rows.append(row)
    return rows
