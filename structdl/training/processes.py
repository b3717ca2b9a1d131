"""Several processes as one run: how they meet, what one of them does, what they decide together."""

import contextlib
import dataclasses
import functools
import os
import socket
import time
from collections.abc import Iterator

import jax
import numpy as np

from structdl.errors import InputError
from structdl.training.run import Run

SECONDS_TO_MEET, SECONDS_TO_SPEAK = 60, 5
VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
GO = b"go on"


def join(run: Run) -> None:
    """Waits for the other processes of a run, where it has any; before the first use of a device.

    They are named by `--coordinator HOST:PORT`, where process 0 listens, `--num-processes` and
    `--process-id`, or with `--coordinator auto` by the variables JAX_COORDINATOR_ADDRESS,
    JAX_NUM_PROCESSES and JAX_PROCESS_ID, or else by a cluster that JAX knows: Slurm, Open MPI, TPU
    pods.

    Raises:
      InputError: they are not named, or do not all answer within SECONDS_TO_MEET.
    """
    run = _named_by_environment(run)
    if not run.coordinator:
        if run.num_processes or run.process_id >= 0:
            raise InputError("--num-processes and --process-id need --coordinator HOST:PORT.")
        return
    if run.coordinator == "auto":
        try:
            jax.distributed.initialize(initialization_timeout=SECONDS_TO_MEET)
        except (ValueError, RuntimeError) as error:
            raise InputError(
                f"--coordinator auto found no cluster ({str(error) or type(error).__name__}): give "
                "HOST:PORT, --num-processes and --process-id, or the variables "
                f"{', '.join(VARIABLES)}."
            ) from error
        return
    if not 0 <= run.process_id < run.num_processes:
        raise InputError(
            f"--coordinator {run.coordinator} needs --num-processes, and --process-id from 0 to "
            f"one less; they are {run.num_processes} and {run.process_id}."
        )
    _meet(run.coordinator, run.num_processes, run.process_id, time.monotonic() + SECONDS_TO_MEET)
    jax.distributed.initialize(run.coordinator, run.num_processes, run.process_id)


def _named_by_environment(run: Run) -> Run:
    """The run with what the three variables say, where it is left to them."""
    found = [os.environ.get(name) for name in VARIABLES]
    if run.coordinator != "auto" or None in found:
        return run
    try:
        num_processes, process_id = int(found[1]), int(found[2])
    except ValueError as error:
        raise InputError(f"{VARIABLES[1]} and {VARIABLES[2]} are to be numbers: {error}") from error
    return dataclasses.replace(
        run, coordinator=found[0], num_processes=num_processes, process_id=process_id
    )


def _meet(coordinator: str, num_processes: int, process_id: int, deadline: float) -> None:
    """Returns when all processes are there. JAX would abort a process that waits in vain."""
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise InputError(
            f"--coordinator is {coordinator!r}: give HOST:PORT, with a port below 65536, or auto."
        )
    try:
        if process_id == 0:
            _gather(int(port), num_processes, deadline)
        else:
            _greet(host, int(port), process_id, deadline)
    except OSError as error:
        raise InputError(
            f"process {process_id} of {num_processes} did not meet the others at {coordinator} "
            f"within {SECONDS_TO_MEET} s ({str(error) or type(error).__name__}): start all of them "
            "at about the same time, with one --coordinator that they all reach, where process 0 "
            "runs, and each with a --process-id of its own."
        ) from error


def _gather(port: int, num_processes: int, deadline: float) -> None:
    """Lets every other process say its number, and then lets them all go on."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("", port)))
        friends: dict[int, socket.socket] = {}
        while len(friends) < num_processes - 1:
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                friend, _ = server.accept()
            except TimeoutError:
                missing = min({*range(1, num_processes)} - friends.keys())
                raise TimeoutError(f"no word from process {missing}") from None
            stack.enter_context(friend).settimeout(SECONDS_TO_SPEAK)
            try:
                number = int.from_bytes(friend.recv(4), "big")
            except OSError:  # a stranger who says nothing
                continue
            if 0 < number < num_processes:  # else a stranger knocked
                friends[number] = friend
        for friend in friends.values():
            friend.sendall(GO)


def _greet(host: str, port: int, process_id: int, deadline: float) -> None:
    """Says this process's number to the first one, until that has heard all."""
    while True:
        try:
            with socket.create_connection((host, port), timeout=5) as server:
                server.sendall(process_id.to_bytes(4, "big"))
                server.settimeout(max(0.01, deadline - time.monotonic()))
                if server.recv(len(GO)) == GO:
                    return
                raise ConnectionError("process 0 hung up")
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def is_first() -> bool:
    """Whether this is the process that writes logs, pictures and the summary."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Returns when every process has come to this place."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils  # only here: it is experimental

        multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """A block that all processes leave together: where one of them refuses, all raise.

    Raises:
      InputError: what this process refused, or that another one did.
    """
    refused = None
    try:
        yield
    except InputError as error:
        refused = error
    if any_of_them(refused is not None):
        raise refused or InputError("another process refused to go on: its message says why.")


def any_of_them(flag: bool) -> bool:
    """Whether the flag of any process is set; all of them ask together."""
    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def local(tree):
    """Arrays that lie on the devices of all processes, whole on one of this process."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), _gathered()(tree))


@functools.cache
def _gathered():
    """The compiled function that puts arrays whole on every device."""
    mesh = jax.make_mesh((jax.device_count(),), ("devices",))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.jit(lambda tree: tree, out_shardings=everywhere)
