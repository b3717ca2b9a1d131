"""Rows, curves and seconds: each read back by other code than wrote it."""

import json
import struct
import time

import jax
import jax.numpy as jnp
import numpy as np
from tensorboardX.proto import event_pb2

from structdl.training.logging import Curves, MetricsLog, Stopwatch
from structdl.training.programs import Call


def read_events(folder):
    """TFRecords: length, its checksum, the bytes, their checksum."""
    events = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            events.append(event_pb2.Event.FromString(data[12 : 12 + length]))
            data = data[12 + length + 4 :]
    return events


def trace(step, losses, totals, steps=2, validation=None):
    """Two seeds, one round."""
    return {
        "step": np.array(step).reshape(2, 1),
        "train": {
            "loss": np.array(losses).reshape(2, 1),
            "accuracy": (np.array(totals).reshape(2, 1), np.full((2, 1), 10.0)),
        },
        "validation": {"loss": np.array(validation).reshape(2, 1)} if validation else {},
    }


def test_rows_are_means_since_the_last_rows_and_leave_frozen_seeds_out(tmp_path):
    log = MetricsLog(tmp_path, every=4)
    log.start_group((5, 6), 0)
    log.add(0, Call(1, 2, False), trace([2, 2], [2.0, 4.0], [5.0, 10.0]))
    assert not (tmp_path / "metrics.jsonl").exists(), "nothing is written between the writes"
    # seed 6 froze at step 3
    log.add(2, Call(1, 2, True), trace([4, 3], [6.0, 8.0], [10.0, 10.0], validation=[1.25e-9, 0.6]))
    log.close()
    (row,) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert row == {
        "seed": 5,
        "step": 4,
        "train_loss": 2.0,
        "train_accuracy": 0.75,
        "validation_loss": 1.25e-9,  # digits, not decimals, are kept
    }
    curves = {
        (value.tag, event.step): value.simple_value
        for event in read_events(tmp_path)
        for value in event.summary.value
    }
    assert curves["validation_loss/seeds-5-6", 4] == np.float32(1.25e-9)


def test_a_resumed_log_is_cut_back_for_its_own_seeds_only(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [{"seed": seed, "step": step} for seed in (0, 1, 2) for step in (10, 20, 30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"seed": 1, "st')
    log = MetricsLog(tmp_path)
    log.start_group((1, 2), 20)
    log.close()
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert kept == [row for row in rows if row["seed"] == 0 or row["step"] <= 20]


def test_curves_void_what_came_after_the_resumed_step(tmp_path):
    curves = Curves(tmp_path, purge_step=20)
    curves.add("loss", 1.5, 21)
    curves.close()
    events = read_events(tmp_path)
    starts = [event.step for event in events if event.session_log.status == 1]
    assert starts == [20]
    assert events[-1].summary.value[0].simple_value == 1.5


def test_the_stopwatch_tells_compiling_from_running_and_adds_up(tmp_path):
    watch = Stopwatch()
    program = jax.jit(lambda x: jnp.sin(x) * 3)
    with watch.measure("train"):
        program(jnp.ones(7)).block_until_ready()
    first = watch.total()
    assert first["compile"] > 0
    assert first["train"] == 0
    with watch.measure("train"):
        program(jnp.ones(7)).block_until_ready()
        time.sleep(0.01)
    assert watch.total()["train"] >= 0.01
    assert watch.total()["compile"] == first["compile"]
    resumed = Stopwatch()
    resumed.resume({"compile": 2.0, "train": 5.0, "evaluate": 0.0})
    resumed.resume({"compile": 1.0, "train": 4.0, "evaluate": 0.0})
    assert resumed.total() == {"compile": 2.0, "train": 5.0, "evaluate": 0.0}
