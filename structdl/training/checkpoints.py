"""Checkpoints of one group of seeds: the only place that knows orbax."""

import contextlib
import dataclasses
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
from tqdm import tqdm

from structdl.errors import InputError
from structdl.files import altered_file, write_checksums
from structdl.training.configs import from_dict, to_dict
from structdl.training.processes import is_first, wait_for_all
from structdl.training.quiet import as_os_error, quiet_threads
from structdl.training.state import LoopState
from structdl.training.workdir import naming_workdir, require_same

TEMPORARY = ".orbax-checkpoint-tmp"  # part of the name of what orbax has not finished


class Saved(NamedTuple):
    """A checkpoint that was read back."""

    step: int
    state: LoopState
    progress: dict[str, Any]  # what the run counts across restarts, JSON


class Checkpoints:
    """The last checkpoints of a group. Each is written beside the others and then renamed.

    A process killed while saving therefore leaves the last whole one to be found. The SHA-256 of
    its files is kept in each, and compared before it is read; a process killed in between leaves
    one without, which is read unverified.

    Args:
      directory: of the group's checkpoints.
      keep: the number of checkpoints that are kept.
      config: that of the run, stored in each checkpoint; one of another config is refused.
      read_only: whether nothing is written or cleaned up.
    """

    def __init__(self, directory: Path, *, keep: int = 2, config=None, read_only: bool = False):
        import orbax.checkpoint as ocp  # half a second, which `--help` need not wait for

        self.directory = Path(directory).resolve()
        self._config = config
        self._args, self._read_only = ocp.args, read_only
        if not read_only:
            _say_what_was_cut_short(self.directory)
        with naming_workdir(self.directory), _without_warnings():
            options = ocp.CheckpointManagerOptions(
                max_to_keep=None if read_only else keep,
                enable_async_checkpointing=False,
                # what a killed process left half written; a reader must not touch a writer's
                cleanup_tmp_directories=not read_only,
                create=not read_only,
                read_only=read_only,
            )
            self._manager = ocp.CheckpointManager(self.directory, options=options)

    def save(self, step: int, state: LoopState, progress: dict[str, Any]) -> None:
        """Saves the state after `step` steps; an existing checkpoint of that step stays.

        Raises:
          InputError: the folder cannot be written; the checkpoints before are intact.
        """
        if step in self._manager.all_steps():
            return
        stored = progress if self._config is None else progress | {"config": to_dict(self._config)}
        args = self._args.Composite(
            state=self._args.StandardSave(state), progress=self._args.JsonSave(stored)
        )
        with naming_workdir(self.directory):
            try:
                with quiet_threads():
                    self._manager.save(step, args=args)
                    self._manager.wait_until_finished()
                if is_first():
                    write_checksums(self.directory / str(step))
            except (OSError, ValueError) as error:  # tensorstore's word for a full disk
                if jax.process_count() > 1 and not isinstance(error, OSError):
                    raise InputError(
                        f"the processes of this run could not save together ({_first_line(error)}):"
                        " one of them may have ended. Start all of them again with the same "
                        "commands; what was saved before is intact."
                    ) from error
                raise as_os_error(error) from error

    def restore(self, template: LoopState) -> Saved | None:
        """Reads the newest whole checkpoint into the template's structure, or returns None.

        One that is damaged or cannot be read is set aside with a warning.

        Raises:
          InputError: all were written by another model or optimizer, or are damaged; or the one
            that can be read was written by a run with another config.
        """
        steps = self._manager.all_steps() if self.directory.exists() else []
        first_error = None
        for step in sorted(steps, reverse=True):
            try:
                restored = self._restore(step, template)
            except (ValueError, KeyError, TypeError, OSError) as error:
                first_error = first_error or error
                continue
            self._require_same_config(restored["progress"])
            if first_error:
                tqdm.write(
                    f"warning: the checkpoint {self.directory / str(max(steps))} cannot be read "
                    f"({_first_line(first_error)}): going on from that of step {step}.",
                    file=sys.stderr,
                )
                self._set_aside_after(step)
            return Saved(step, restored["state"], restored["progress"])
        if first_error:
            raise InputError(
                f"the checkpoint {self.directory / str(max(steps))} is damaged, or does not fit "
                f"this model and optimizer ({_first_line(first_error)}); give another --workdir, "
                "or --overwrite to start again."
            ) from first_error
        return None

    def _restore(self, step: int, template: LoopState):
        if name := altered_file(self.directory / str(step)):
            raise ValueError(f"{name} is not as it was saved")
        args = self._args.Composite(
            state=self._args.StandardRestore(template), progress=self._args.JsonRestore()
        )
        return self._manager.restore(step, args=args)

    def _require_same_config(self, progress: dict[str, Any]) -> None:
        stored = progress.get("config")  # none in those of the first version
        if stored is not None and self._config is not None:
            before = from_dict(type(self._config), stored)
            run = dataclasses.replace(before.run, num_steps=0)  # it may have been raised since
            before, trains = dataclasses.replace(before, run=run), not self._read_only
            require_same(self.directory, before, self._config, trains=trains)

    def _set_aside_after(self, step: int) -> None:
        """Renames later checkpoints, which could not be read: whole ones take their places."""
        if self._read_only:
            return
        if is_first():
            for later in self._manager.all_steps():
                if later > step:
                    aside = self.directory / f"{later}.unreadable"
                    shutil.rmtree(aside, ignore_errors=True)
                    (self.directory / str(later)).rename(aside)
        wait_for_all("unreadable checkpoints are set aside")
        self._manager.reload()

    def close(self) -> None:
        self._manager.close()


def _say_what_was_cut_short(directory: Path) -> None:
    """What a killed process left half written; the manager removes it."""
    for entry in directory.glob(f"*{TEMPORARY}*"):
        tqdm.write(
            f"warning: the save {entry.name} was cut short: the last whole checkpoint counts.",
            file=sys.stderr,
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Orbax warns that a folder opened for reading is read-only."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
