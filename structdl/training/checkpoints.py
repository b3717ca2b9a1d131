"""Checkpoints of one group of seeds: the only place that knows orbax."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from structdl.errors import InputError
from structdl.training.state import LoopState
from structdl.training.workdir import naming_workdir


class Saved(NamedTuple):
    """A checkpoint that was read back."""

    step: int
    state: LoopState
    progress: dict[str, Any]  # what the run counts across restarts, JSON


class Checkpoints:
    """The last checkpoints of a group. Each is written beside the others and then renamed.

    A process killed while saving therefore leaves the last whole one to be found.
    """

    def __init__(self, directory: Path, *, keep: int = 2, read_only: bool = False):
        import orbax.checkpoint as ocp  # half a second, which `--help` need not wait for

        self.directory = Path(directory).resolve()
        self._args = ocp.args
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
        args = self._args.Composite(
            state=self._args.StandardSave(state), progress=self._args.JsonSave(progress)
        )
        with naming_workdir(self.directory):
            try:
                self._manager.save(step, args=args)
                self._manager.wait_until_finished()
            except (OSError, ValueError) as error:  # tensorstore's word for a full disk
                # what the saving threads still log at exit says no more than this error
                for name in ("asyncio", "concurrent.futures"):
                    logging.getLogger(name).setLevel(logging.CRITICAL)
                raise OSError(str(error).splitlines()[0]) from error

    def restore(self, template: LoopState) -> Saved | None:
        """Reads the newest checkpoint into the template's structure, or returns None.

        Raises:
          InputError: the checkpoint was written by another model or optimizer, or is damaged.
        """
        step = self._manager.latest_step() if self.directory.exists() else None
        if step is None:
            return None
        args = self._args.Composite(
            state=self._args.StandardRestore(template), progress=self._args.JsonRestore()
        )
        try:
            restored = self._manager.restore(step, args=args)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"the checkpoint {self.directory / str(step)} does not fit this model and "
                f"optimizer ({str(error).splitlines()[0]}); give another --workdir, or --overwrite "
                "to start again."
            ) from error
        return Saved(step, restored["state"], restored["progress"])

    def close(self) -> None:
        self._manager.close()


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
