"""A family of benchmarks whose outcome is known, for test_benchmarks.py."""

import time

from experiments.benchmarks.case import OURS, Case


def sleeps(seconds: float):
    return lambda: lambda: time.sleep(seconds)


def fails():
    raise ValueError("no bed")


CASES = [
    Case("sleep", {OURS: sleeps(0.004), "sleeper": sleeps(0.04)}, {"sleeper": 3.0}, {OURS: 2}),
    Case(
        "reckons",
        {OURS: lambda: lambda: 0.2, "slower": lambda: lambda: 3.0},
        own_clock=True,
        whole_process=True,
    ),
    Case("dies", {OURS: sleeps(0.001), "sleeper": fails}),
]
