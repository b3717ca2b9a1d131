"""What an experiment hands to the loop: pure functions and the arrays they are given."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

# A loss or a metric before printing: its sum over examples and their number. Two of these add up
# over batches and devices, which two means do not.
TotalAndCount = tuple[Any, Any]


class Inputs(NamedTuple):
    """Everything a task's functions see besides the parameters."""

    data: Any  # the task's arrays, on the device, shared by all seeds
    seed_data: Any  # what differs between seeds: split masks, a fold
    batch: Any  # this step's or this evaluation's batch


class Task(NamedTuple):
    """A model wired to its data, as pure functions of explicit arguments.

    Full-batch, in-memory and streamed data differ only in what `batch` returns: `()` or a scalar,
    int32 indices into `data`, or the arrays themselves. Leaves of a batch with one axis or more
    have the examples on the first axis, which is what is divided over devices; leaves of different
    sizes, as a graph's nodes and edges are, go to every device whole.

    Fields:
      data: a pytree of arrays, put on the device once and passed to every function. Arrays that a
        function closes over would become constants of the compiled program.
      init: `(key, inputs) -> (params, model_state)`.
      loss_fn: `(params, model_state, inputs, key) -> ((total, count), (model_state, metrics))`,
        where metrics is `{name: (total, count)}`. The step minimises
        `total / count + penalty(params)`.
      metrics: `(params, model_state, inputs, key) -> {name: (total, count)}`, in evaluation mode.
        "loss" is expected among them, without the penalty.
      eval_batches: `split -> sequence of batches`, the last one padded with a mask; an empty
        sequence where the task has no such split. Those of "validation" are stacked on the device.
      batch: `(step, seed) -> batch`, on the host and stateless, so that a resumed run needs no
        iterator: step and seed are all there is to know. It names the global batch.
      fetch: `batch -> batch`, on the host: reads what a batch names, where that does not lie in
        `data`. Of several processes each is given the rows of its own share to read.
      seed_data: `seed -> pytree` of arrays, of the same shapes for every seed.
      penalty: `params -> scalar`, a paper's regulariser; the rule window_mean judges by it too.
      score: the metric to maximise, beside the loss, for the rule "patience"; "" if none.
    """

    data: Any
    init: Callable[..., tuple[Any, Any]]
    loss_fn: Callable[..., tuple[TotalAndCount, tuple[Any, dict[str, TotalAndCount]]]]
    metrics: Callable[..., dict[str, TotalAndCount]]
    eval_batches: Callable[[str], Sequence[Any]] = lambda split: ()
    batch: Callable[[int, int], Any] = lambda step, seed: ()
    fetch: Callable[[Any], Any] = lambda batch: batch
    seed_data: Callable[[int], Any] = lambda seed: ()
    penalty: Callable[[Any], Any] = lambda params: jnp.zeros(())
    score: str = ""


def of_totals(totals: Callable[..., dict[str, TotalAndCount]]) -> tuple[Callable, Callable]:
    """The loss_fn and the metrics of a Task without a model state, of one function.

    Args:
      totals: `(params, inputs, key=None) -> {name: (total, count)}`, "loss" among them; in training
        mode where there is a key.
    """

    def loss_fn(params, model_state, inputs: Inputs, key):
        values = totals(params, inputs, key)
        return values.pop("loss"), (model_state, values)

    def metrics(params, model_state, inputs: Inputs, key):
        return totals(params, inputs)

    return loss_fn, metrics
