"""One side of one case, in a process of its own: `python -m experiments.benchmarks.worker`.

It prepares, warms up and says so; then it answers every line on its standard input with the
milliseconds of one run.
"""

import argparse
import importlib
import os
import sys
import time

from structdl.training.runtime import keep_freed_memory

WARM_UP_SECONDS = 1.0
RUN_SECONDS = 0.25


def limit_threads(threads: int) -> None:
    """Before jax or torch is imported: they size their thread pools by what they find here."""
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def seconds_of_one(call, least: float) -> float:
    """The mean time of a call, called as often as fits into `least` seconds, once at least."""
    count, start = 0, time.perf_counter()
    while count == 0 or time.perf_counter() - start < least:
        call()
        count += 1
    return (time.perf_counter() - start) / count


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("case")
    parser.add_argument("side")
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    # what the sides print must not mix with the answers
    answers, sys.stdout = sys.stdout, sys.stderr
    limit_threads(options.threads)
    keep_freed_memory()  # for the peers too: their memory is the same system's
    family = importlib.import_module(options.module).CASES
    case = next(case for case in family if case.name == options.case)
    call = case.sides[options.side]()
    if not case.whole_process:
        call()
        seconds_of_one(call, WARM_UP_SECONDS)
    units = case.units.get(options.side, 1)
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        least = 0.0 if case.whole_process else RUN_SECONDS
        seconds = call() if case.own_clock else seconds_of_one(call, least)
        print(1000 * seconds / units, file=answers, flush=True)


if __name__ == "__main__":
    main()
