"""Several processes as one run: how they meet, what one of them does, what they decide together."""

import contextlib
import socket
import time

import jax
import numpy as np

from structdl.errors import InputError
from structdl.training.run import Run

SECONDS_TO_MEET = 60
GO = b"go on"


def join(run: Run) -> None:
    """Waits for the other processes of a run, where it has any; before the first use of a device.

    They are named by `--coordinator HOST:PORT`, where process 0 listens, `--num-processes` and
    `--process-id`, or with `--coordinator auto` by the cluster: Slurm, Open MPI, TPU pods, and the
    variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Raises:
      InputError: they are not named, or do not all answer within SECONDS_TO_MEET.
    """
    if not run.coordinator:
        if run.num_processes or run.process_id >= 0:
            raise InputError("--num-processes and --process-id need --coordinator HOST:PORT.")
        return
    if run.coordinator == "auto":
        jax.distributed.initialize(initialization_timeout=SECONDS_TO_MEET)
        return
    if not 0 <= run.process_id < run.num_processes:
        raise InputError(
            f"--coordinator {run.coordinator} needs --num-processes, and --process-id from 0 to "
            f"one less; they are {run.num_processes} and {run.process_id}."
        )
    _meet(run.coordinator, run.num_processes, run.process_id, time.monotonic() + SECONDS_TO_MEET)
    jax.distributed.initialize(run.coordinator, run.num_processes, run.process_id)


def _meet(coordinator: str, num_processes: int, process_id: int, deadline: float) -> None:
    """Returns when all processes are there. JAX would abort a process that waits in vain."""
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"--coordinator is {coordinator!r}: give HOST:PORT, or auto.")
    try:
        if process_id == 0:
            _gather(int(port), num_processes, deadline)
        else:
            _greet(host, int(port), process_id, deadline)
    except OSError as error:
        raise InputError(
            f"process {process_id} of {num_processes} did not meet the others at {coordinator} "
            f"within {SECONDS_TO_MEET} s ({error or type(error).__name__}): start all of them at "
            "about the same time, with one --coordinator that they all reach, where process 0 "
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
            stack.enter_context(friend).settimeout(5)
            number = int.from_bytes(friend.recv(4), "big")
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
    mesh = jax.make_mesh((jax.device_count(),), ("devices",))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    whole = jax.jit(lambda tree: tree, out_shardings=everywhere)(tree)
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), whole)
