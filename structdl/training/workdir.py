"""The folder of a run: whose run it is, who may write to it, and what of it is complete."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import filelock

from structdl.errors import InputError
from structdl.files import PART, read_json, remove, write_json
from structdl.training.configs import changed_fields, from_dict, identity, to_dict
from structdl.training.ranges import check_ranges

CONFIG, SUMMARY, METRICS, CHECKPOINTS, FIGURES, PROFILE = (
    "config.json",
    "summary.json",
    "metrics.jsonl",
    "checkpoints",
    "figures",
    "profile",
)


WAY_OUT = "Give another --workdir."


class Record(NamedTuple):
    """Content of config.json."""

    experiment: str
    preset: str
    commits: list[str]  # of the code that trained the run
    fields: dict[str, Any]  # `from_dict` makes the config of them


def default_workdir(experiment: str, preset: str, config) -> Path:
    """runs/EXPERIMENT/PRESET-HASH, the hash being that of the config's identity."""
    text = json.dumps(identity(config), sort_keys=True)
    return Path("runs") / experiment / f"{preset}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@contextlib.contextmanager
def open_workdir(path: Path, experiment: str, config) -> Iterator[None]:
    """Takes a folder for this run, alone; changes nothing in it (see `claim`).

    Raises:
      InputError: another process is writing there; the folder holds a run with another config and
        `--overwrite` is not given, or something else than a run; it cannot be written to.
    """
    with held(path):
        _check(path, experiment, config)
        yield


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Makes a folder where there is none, and holds it for this process alone.

    Raises:
      InputError: another process is writing there; it cannot be written to.
    """
    lock = filelock.FileLock(path / ".lock")
    with naming_workdir(path):
        path.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise InputError(
                f"another process is writing to {path}: wait for it, or give another --workdir."
            ) from None
    try:
        yield
    finally:
        lock.release()


def claim(path: Path, experiment: str, preset: str, config, commit: str) -> list[str]:
    """Writes config.json into an opened folder, in which a run is about to start or resume.

    Called after the config has proved itself on the data, so that a mistake costs nothing. With
    `--overwrite`, or without a checkpoint to resume from, what else an earlier run wrote is
    removed. Returns the commits of the code that trained this run, the present one last.

    Raises:
      InputError: something cannot be removed or written.
    """
    goes_on = has_checkpoint(path) and not config.run.overwrite
    commits = read_record(path).commits if goes_on else []
    _clear(path, keeps_run=goes_on)
    if not (commits and _is_trained(path, config)):
        commits = [*(each for each in commits if each != commit), commit]
    with naming_workdir(path):
        record = {"experiment": experiment, "preset": preset, "commits": commits}
        write_json(path / CONFIG, record | {"config": to_dict(config)})
    return commits


@contextlib.contextmanager
def naming_workdir(path: Path) -> Iterator[None]:
    """Turns an error of the file system into one that names the folder and the way out."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write the run to {path}: {error}. What was saved before is intact. Make "
            "room or permission there, or give another --workdir; then run the same command again."
        ) from error


def read_record(path: Path) -> Record:
    """Reads the config.json of a workdir.

    Raises:
      InputError: it is missing, or is not what `claim` writes.
    """
    content = read_json(path / CONFIG)
    names = ("experiment", "preset", "commits", "config")
    defaults = {"commits": []}  # not in runs of the first version
    values = [(defaults | content).get(name) for name in names] if type(content) is dict else []
    if list(map(type, values)) != [str, str, list, dict]:
        raise InputError(
            f"{path / CONFIG} does not describe a run (edited by hand?): expected an object with "
            f"the strings experiment and preset and the object config. {WAY_OUT}"
        )
    return Record(*values)


def read_config(path: Path, kind: type):
    """The config of the run in a workdir.

    Raises:
      InputError: config.json is missing, its fields are not those of `kind`, or a number is out of
        its range.
    """
    fields = read_record(path).fields
    try:
        config = from_dict(kind, fields)
        check_ranges(config)
        config.run.validate()
    except InputError as error:
        raise InputError(f"{path / CONFIG}: {error}") from None
    return config


def finished_summary(path: Path, config) -> dict[str, Any] | None:
    """The summary of this very run, if it has taken all its steps and drawn all its pictures.

    Raises:
      InputError: the summary is that of another config; or steps were added to a finished run
        whose checkpoints are gone.
    """
    if not (path / SUMMARY).exists():
        return None
    summary, before = _read_summary(path, config)
    require_same(path, before, config)
    is_resumable = has_checkpoint(path)
    if before.run.num_steps != config.run.num_steps:
        if not is_resumable:
            raise InputError(
                f"{path} holds a run that finished after {before.run.num_steps} steps, and its "
                "checkpoints are gone: it cannot go on. Give another --workdir, or --overwrite to "
                "start again there."
            )
        return None
    return summary if _is_drawn(path, summary) or not is_resumable else None


def _read_summary(path: Path, config) -> tuple[dict[str, Any], Any]:
    """The summary in a workdir, and the config that it was made with."""
    file = path / SUMMARY
    summary = read_json(file)
    found = summary if isinstance(summary, dict) else {}
    if not isinstance(found.get("metrics"), dict) or not isinstance(found.get("figures", []), list):
        raise InputError(f"{file} is not the summary of a run (edited by hand?). {WAY_OUT}")
    try:
        return summary, from_dict(type(config), found.get("config"))
    except InputError as error:
        raise InputError(f"{file}: {error} {WAY_OUT}") from None


def _is_trained(path: Path, config) -> bool:
    """True if a run has taken all its steps, so that at most its pictures are missing."""
    if not (path / SUMMARY).exists():
        return False
    return _read_summary(path, config)[1].run.num_steps == config.run.num_steps


def _is_drawn(path: Path, summary: dict[str, Any]) -> bool:
    """True if all pictures of a run are there; the first version did not list them."""
    folder = path / FIGURES
    if (listed := summary.get("figures")) is None:
        files = [*folder.glob("*")] or [folder / "none"]
    else:
        files = [folder / str(name) for name in listed]
    return all(file.is_file() and file.stat().st_size for file in files)


def require_same(path: Path, before, config, *, trains: bool = True) -> None:
    """Refuses a config that is not that of the run in a workdir.

    Args:
      trains: whether the run goes on. If not, it may have fewer steps and other devices: only
        training draws, and devices decide only what is drawn.

    Raises:
      InputError: names the fields that differ, with both values.
    """
    if before.run.parallel == "pmap" and not before.run.num_devices:
        # all there were, whose number the first version did not record
        before = dataclasses.replace(
            before, run=dataclasses.replace(before.run, num_devices=config.run.num_devices)
        )
    if not trains:
        before, config = (
            dataclasses.replace(each, run=each.run.on_this_process()) for each in (before, config)
        )
    changes = changed_fields(before, config)
    if trains and config.run.num_steps < before.run.num_steps:
        changes.append(
            f"--num-steps was {before.run.num_steps} and is {config.run.num_steps}: it can only "
            "be raised"
        )
    if changes:
        raise InputError(
            f"{path} holds a run with another config: {'; '.join(changes)}. Give another --workdir "
            "to keep both, or --overwrite to start again there."
        )


def has_checkpoint(path: Path) -> bool:
    """True if a workdir has a checkpoint of any group of seeds."""
    entries = (path / CHECKPOINTS).glob("*/*")
    return any(entry.name.isdigit() and entry.parent.suffix != PART for entry in entries)


def _check(path: Path, experiment: str, config) -> None:
    """Refuses a folder of something else, and a run with another config that has been saved."""
    if not (path / CONFIG).exists():
        entries = (entry.name for entry in path.iterdir() if entry.suffix != PART)
        strangers = sorted(name for name in entries if name != ".lock")
        if strangers:
            raise InputError(
                f"{path} is not empty and not the workdir of a run (it holds {strangers[0]!r}): "
                "give another --workdir."
            )
        return
    if (found := read_record(path).experiment) != experiment:
        raise InputError(f"{path} holds a run of {found}: give another --workdir.")
    is_saved = has_checkpoint(path) or (path / SUMMARY).exists()
    if is_saved and not config.run.overwrite:
        before = read_config(path, type(config))
        require_same(path, before, config, trains=not config.run.evaluate_only)


def _clear(path: Path, *, keeps_run: bool) -> None:
    """Removes what killed processes left unfinished, and what a run writes besides its config.

    Raises:
      InputError: something cannot be removed.
    """
    unwanted = [*path.glob(f"*{PART}")]
    if not keeps_run:
        # the folder of checkpoints itself may be a link to another disk, and stays
        unwanted += [*(path / CHECKPOINTS).glob("seed*"), *path.glob("events.out.tfevents.*")]
        unwanted += [path / name for name in (SUMMARY, METRICS, FIGURES, PROFILE)]
    try:
        for each in unwanted:
            remove(each)
    except OSError as error:
        raise InputError(
            f"the run before cannot be removed from {path}: {error}. Part of it may be gone. Give "
            "permission there, or another --workdir."
        ) from error
