"""Allocations that cannot succeed: named by their size, before or as they fail."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structdl.errors import InputError
from structdl.training import memory
from structdl.training.loop import check_start
from structdl.training.memory import naming_memory, require_memory
from structdl.training.optimizers import OptimizerConfig, make_optimizer
from structdl.training.run import Run


def xla(text: str):
    raise jax.errors.JaxRuntimeError(text)


@pytest.mark.parametrize(
    ("allocate", "words"),
    [
        (lambda: jnp.zeros((10**9, 10**6)), "4,000,000 GB was asked for"),
        (lambda: np.zeros((10**9, 10**6)), r"8,0\d\d,\d{3} GB was asked for"),
        (lambda: [0] * 10**15, "an unknown size was asked for"),
        (lambda: xla("INTERNAL: Error dispatching: Out of memory allocating 5000 bytes."), "5 kB"),
        (
            lambda: xla("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 37.25GiB."),
            "40 GB was asked for, and this machine has 25 GB: lower the sizes",
        ),
    ],
)
def test_a_failed_allocation_says_how_much_was_asked_for(allocate, words, monkeypatch):
    monkeypatch.setattr(memory, "memory", lambda: 25 * 10**9)
    with pytest.raises(InputError, match=words), naming_memory():
        allocate()


def test_other_errors_of_the_runtime_keep_their_traceback():
    with pytest.raises(jax.errors.JaxRuntimeError, match="a bug"), naming_memory():
        xla("INTERNAL: a bug")


def test_a_state_larger_than_the_memory_is_refused_before_it_is_made(regression, monkeypatch):
    task = regression._replace(data=jax.tree.map(jnp.asarray, regression.data))
    optimizer, run = make_optimizer(OptimizerConfig("adam", 0.1)), Run(num_seeds=3)
    check_start(task, optimizer, run)
    monkeypatch.setattr(memory, "memory", lambda: 100)
    with pytest.raises(InputError, match=r"would take .* bytes, and this machine has 100 bytes"):
        check_start(task, optimizer, run)
    require_memory(jax.ShapeDtypeStruct((25,), jnp.float32))
    with pytest.raises(InputError):
        require_memory({"kernel": jax.ShapeDtypeStruct((26,), jnp.float32)})


def test_devices_of_their_own_memory_divide_a_state(monkeypatch):
    monkeypatch.setattr(memory, "_device_memory", lambda: 100)
    require_memory(jax.ShapeDtypeStruct((100,), jnp.float32), num_devices=4)
    with pytest.raises(InputError, match="each device has"):
        require_memory(jax.ShapeDtypeStruct((101,), jnp.float32), num_devices=4)
