"""What a run's calls cost: programs compiled, seconds a step, waiting for input, memory."""

import contextlib
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

TRACED_CALLS = 3


class Compilations(NamedTuple):
    """Programs that this process has compiled or read from JAX's cache, and the seconds of it."""

    count: int
    seconds: float


_compilations = [Compilations(0, 0.0)]


def _count_compilation(event: str, duration: float, **details) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        count, seconds = _compilations[0]
        _compilations[0] = Compilations(count + 1, seconds + duration)


jax.monitoring.register_event_duration_secs_listener(_count_compilation)


def compilations() -> Compilations:
    """Those since the process began."""
    return _compilations[0]


class Profile:
    """Watches the calls of `fit`, at next to no cost; with `trace_to` it traces some of them.

    Args:
      trace_to: where TRACED_CALLS calls after the first are traced for TensorBoard and xprof;
        then a program that is compiled after the first call is warned of as well.
    """

    def __init__(self, trace_to: Path | None = None):
        self._trace_to, self._tracing, self._trace_is_done = trace_to, False, False
        self._before, self._calls = compilations(), 0
        self._waited, self._waits, self._seconds = 0.0, 0.0, 0.0
        self._step_seconds: list[float] = []
        self._rates: list[float] = []  # examples a second, call by call, of the running group
        self._group_rates: list[float] = []
        self._shapes: dict[str, tuple] | None = None
        self._end: float | None = None
        self.recompilations: list[str] = []

    @contextlib.contextmanager
    def input(self, running: jax.Array) -> Iterator[None]:
        """Times the making of the next call's batches, if the device has nothing else to do.

        Args:
          running: an array of what the last call returned.
        """
        self._trace(running)
        was_idle, start = running.is_ready(), time.perf_counter()
        yield
        # where the device fell idle in between this is more than it waited
        is_wait = was_idle or running.is_ready()
        self._waited = time.perf_counter() - start if is_wait else 0.0

    @contextlib.contextmanager
    def call(self, steps: int, inputs: Any) -> Iterator[None]:
        """Times a call and the wait for the one before, which is what it takes in the long run.

        Args:
          steps: how many it takes.
          inputs: the arguments whose shapes could make it compile again, by name.
        """
        compiled = compilations().count
        yield
        compiled, now = compilations().count > compiled, time.perf_counter()
        shapes = _shapes(inputs)
        if compiled and self._shapes:
            self._warn(_difference(self._shapes, shapes))
        elif self._end and not compiled and not self._tracing:
            self._step_seconds.append((now - self._end) / steps)
            if examples := _examples(inputs):
                self._rates.append(steps * examples / (now - self._end))
            self._seconds += now - self._end
            self._waits += self._waited
        self._shapes, self._end, self._calls = shapes, now, self._calls + 1

    def finish(self, last: jax.Array) -> None:
        """Ends what is still traced; call it when a group of seeds has returned its last state."""
        if self._tracing:
            self._stop_tracing(last)
        self._end = None  # until the next group's first call, other things are done
        if self._rates:
            self._group_rates.append(float(np.median(self._rates)))
            self._rates = []

    def costs(self) -> dict[str, list[float]]:
        """Training's examples a second, one value a group of seeds, and the peak memory so far.

        A group's value is the median over its calls but those that compiled, validations in a call
        included, all seeds together. There is none where no such call was made, or where batches
        are no indices of examples. The memory is that of the device where it says so, else of the
        process.
        """
        peak = [value for value, _ in _peaks()[-1:]]
        found = {"examples_per_second": self._group_rates, "peak_memory_gb": peak}
        return {name: values for name, values in found.items() if values}

    def table(self) -> str:
        """What was seen, in lines of a name and a figure."""
        count, seconds = np.subtract(compilations(), self._before)
        lines = {
            "compiled": f"{count:.0f} programs in {seconds:.1f} s",
            "recompiled": "; ".join(self.recompilations) or "nothing after the first call",
            "step": "no call without compiling or tracing: raise --num-steps",
        }
        if self._step_seconds:
            median, high = 1000 * np.quantile(self._step_seconds, (0.5, 0.9))
            calls = len(self._step_seconds)
            lines["step"] = f"median {median:.3g} ms, p90 {high:.3g} ms, of {calls} calls' means"
            lines["input wait"] = f"{self._waits / self._seconds:.1%} of these calls, at most"
        lines["peak memory"] = _peak_memory()
        if self._trace_to:
            lines["trace"] = str(self._trace_to) if self._trace_is_done else "no second call"
        return "\n".join(f"  {name:<12} {text}" for name, text in lines.items())

    def _trace(self, running: jax.Array) -> None:
        """Traces the second call and some after it: the first one compiles."""
        if self._tracing and self._calls == 1 + TRACED_CALLS:
            self._stop_tracing(running)
        elif self._trace_to and self._calls == 1 and not self._trace_is_done:
            jax.block_until_ready(running)
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # it would be most of the trace
            jax.profiler.start_trace(str(self._trace_to), profiler_options=options)
            self._tracing = True

    def _stop_tracing(self, running: jax.Array) -> None:
        jax.block_until_ready(running)
        jax.profiler.stop_trace()
        self._tracing, self._trace_is_done, self._end = False, True, None

    def _warn(self, change: str) -> None:
        self.recompilations.append(change)
        if self._trace_to:
            text = f"warning: call {self._calls + 1} was compiled again: {change}"
            tqdm.write(text, file=sys.stderr)


def _shapes(tree: Any) -> dict[str, tuple]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): (leaf.dtype, leaf.shape)
        for path, leaf in leaves
    }


def _difference(old: dict[str, tuple], new: dict[str, tuple]) -> str:
    """What changed between two calls' inputs, in words.

    >>> _difference({"batches": (np.dtype("int32"), (20,))}, {"batches": (np.dtype("int32"), (5,))})
    'batches was int32 [20] and is int32 [5]'
    """
    for name in itertools.chain(new, old):
        before, after = (_words(shapes.get(name)) for shapes in (old, new))
        if before != after:
            return f"{name} was {before} and is {after}"
    return "no shape of its inputs has changed"


def _words(dtype_and_shape: tuple | None) -> str:
    if dtype_and_shape is None:
        return "absent"
    dtype, shape = dtype_and_shape
    return f"{dtype} {list(shape)}"


def _examples(inputs: dict[str, Any]) -> int:
    """Examples in a step, all seeds together, where a batch is their indices; else 0."""
    for leaf in jax.tree.leaves(inputs["batches"][1:])[:1]:
        num_seeds, _, _, *shape = leaf.shape
        if len(shape) == 1 and np.issubdtype(leaf.dtype, np.integer):
            return num_seeds * shape[0]
    return 0


def _peak_memory() -> str:
    return ", ".join(f"{value:.2f} GB of the {owner}" for value, owner in _peaks()) or (
        "not known here"
    )


def _peaks() -> list[tuple[float, str]]:
    """GB of the process and, where it says so, of the first device."""
    found = []
    with contextlib.suppress(ImportError):  # not on every system
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        found.append((peak / 1e9, "process"))
    if statistics := jax.local_devices()[0].memory_stats():
        found.append((statistics["peak_bytes_in_use"] / 1e9, "device"))
    return found
