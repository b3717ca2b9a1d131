"""The folder of a run: whose run it is, who may write to it, and how it is read back."""

import contextlib
import dataclasses
import hashlib
import json
import shutil
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from structdl.errors import InputError

CONFIG, SUMMARY, METRICS, CHECKPOINTS, FIGURES, PROFILE = (
    "config.json",
    "summary.json",
    "metrics.jsonl",
    "checkpoints",
    "figures",
    "profile",
)


def identity(config, prefix: str = "") -> dict[str, Any]:
    """The fields that decide what a run computes, by the name of their option.

    Left out are fields whose metadata says `{"identity": False}`: the workdir, the number of
    steps, data folders, how often things are saved, and the devices.
    """
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        name = prefix + field.name.replace("_", "-")
        if _parts_of_union(_types_of(type(config))[field.name]):
            fields[name] = type(value).__name__
        if dataclasses.is_dataclass(value):
            fields |= identity(value, "" if field.name == "run" else f"{name}.")
        elif field.metadata.get("identity", True):
            fields[name] = value
    return json.loads(json.dumps(fields, default=str))


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
    """Writes config.json into an opened folder, clearing what `--overwrite` gives up.

    Called when the config has proved itself on the data, so that a mistake costs nothing. Returns
    the commits of the code that this run was trained by, this one the last.
    """
    commits = []
    if config.run.overwrite:
        _clear(path)
    elif _has_checkpoint(path):
        commits = read_json(path / CONFIG).get("commits", [])
    commits = [*(each for each in commits if each != commit), commit]
    record = {"experiment": experiment, "preset": preset, "commits": commits}
    with naming_workdir(path):
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


def write_json(path: Path, value: Any) -> None:
    """Writes a file whole or not at all."""
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(json.dumps(value, indent=2, default=str) + "\n")
    part.replace(path)


def read_json(path: Path) -> Any:
    """Reads a file of `write_json`.

    Raises:
      InputError: it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path.parent} is not the workdir of a run: no {path.name}.") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON ({error}); was it edited by hand?") from None


def to_dict(config) -> dict[str, Any]:
    """All fields of a config as JSON values; of a union of dataclasses the class as "type" too."""
    return json.loads(json.dumps(_fields(config), default=str))


def _fields(config) -> dict[str, Any]:
    found = {}
    for name, kind in _types_of(type(config)).items():
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            union = {"type": type(value).__name__} if _parts_of_union(kind) else {}
            value = union | _fields(value)
        found[name] = value
    return found


def from_dict(kind: type, fields: dict[str, Any]):
    """The config that `to_dict` wrote.

    Raises:
      InputError: a field that this version's config does not have.
    """
    types_of = _types_of(kind)
    unknown = fields.keys() - types_of.keys()
    if unknown:
        raise InputError(f"fields of another version of {kind.__name__}: {sorted(unknown)}.")
    return kind(**{name: _convert(types_of[name], value) for name, value in fields.items()})


def _types_of(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _parts_of_union(kind) -> dict[str, type]:
    """The dataclasses of a union by their names; none where it is no union of them."""
    parts = kind.__args__ if isinstance(kind, types.UnionType) else ()
    return {part.__name__: part for part in parts if dataclasses.is_dataclass(part)}


def _convert(kind, value):
    if parts := _parts_of_union(kind):
        fields = dict(value)
        if (name := fields.pop("type", None)) not in parts:
            raise InputError(f"{name} is of another version: one of {sorted(parts)} is expected.")
        return from_dict(parts[name], fields)
    if dataclasses.is_dataclass(kind):
        return from_dict(kind, value)
    if isinstance(kind, types.UnionType):
        if value is None:
            return None
        return _convert(next(part for part in kind.__args__ if part is not types.NoneType), value)
    if kind is Path:
        return Path(value)
    return tuple(value) if isinstance(value, list) else value


def _check(path: Path, experiment: str, config) -> None:
    """Refuses a folder of something else, and a run with another config that has been saved."""
    file = path / CONFIG
    if not file.exists():
        entries = (entry.name for entry in path.iterdir() if entry.suffix != ".part")
        strangers = sorted(name for name in entries if name != ".lock")
        if strangers:
            raise InputError(
                f"{path} is not empty and not the workdir of a run (it holds {strangers[0]!r}): "
                "give another --workdir."
            )
        return
    before = read_json(file)
    if before["experiment"] != experiment:
        raise InputError(f"{path} holds a run of {before['experiment']}: give another --workdir.")
    if not config.run.overwrite and _has_checkpoint(path):
        _refuse_changes(path, from_dict(type(config), before["config"]), config)


def _has_checkpoint(path: Path) -> bool:
    return any(entry.name.isdigit() for entry in (path / CHECKPOINTS).glob("*/*"))


def _refuse_changes(path: Path, before, config) -> None:
    old, new = identity(before), identity(config)
    changes = [
        f"--{name} was {old.get(name)!r} and is {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    if config.run.num_steps < before.run.num_steps and not config.run.evaluate_only:
        changes.append(
            f"--num-steps was {before.run.num_steps} and is {config.run.num_steps}: it can only "
            "be raised"
        )
    if changes:
        raise InputError(
            f"{path} holds a run with another config: {'; '.join(changes)}. Give another --workdir "
            "to keep both, or --overwrite to start again there."
        )


def _clear(path: Path) -> None:
    """Removes what a run writes besides its config, and nothing else."""
    for file in (path / SUMMARY, path / METRICS, *path.glob("events.out.tfevents.*")):
        file.unlink(missing_ok=True)
    for folder in (path / CHECKPOINTS, path / FIGURES, path / PROFILE):
        shutil.rmtree(folder, ignore_errors=True)
