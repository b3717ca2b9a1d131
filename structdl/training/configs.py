"""Configs as JSON: what identifies a run, how a config is stored, and how it is read back."""

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any

from structdl.errors import InputError

_UNIONS = (types.UnionType, typing.Union)


def identity(config, prefix: str = "", *, left_out: bool = False) -> dict[str, Any]:
    """The fields that decide what a run computes, by the name of their option.

    Left out, unless asked for, are fields whose metadata says `{"identity": False}`: the workdir,
    the number of steps, data folders, how often things are saved, and the devices. The metadata may
    hold a function of the config instead: devices belong to the identity under `--parallel pmap`.
    """
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        name = prefix + field.name.replace("_", "-")
        if _parts_of_union(_types_of(type(config))[field.name]):
            fields[name] = type(value).__name__
        if dataclasses.is_dataclass(value):
            inner = "" if field.name == "run" else f"{name}."
            fields |= identity(value, inner, left_out=left_out)
        elif left_out or _identifies(field, config):
            fields[name] = value
    return json.loads(json.dumps(fields, default=str))


def _identifies(field: dataclasses.Field, config) -> bool:
    rule = field.metadata.get("identity", True)
    return rule(config) if callable(rule) else rule


def changed_fields(before, now) -> list[str]:
    """A phrase for each field of the identity that differs between two configs."""
    old, new = identity(before), identity(now)
    was, is_now = (identity(config, left_out=True) for config in (before, now))
    return [
        f"--{name} was {was.get(name)!r} and is {is_now.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def to_dict(config) -> dict[str, Any]:
    """All fields of a config as JSON values; of a union of dataclasses the class as "type" too."""
    return json.loads(json.dumps(_fields(config), default=str))


def from_dict(kind: type, fields: Any):
    """The config that `to_dict` stored.

    Raises:
      InputError: a field is unknown to this version, is missing, or has a value of another type.
    """
    if not isinstance(fields, dict):
        raise InputError(
            f"expected an object with the fields of {kind.__name__}, found {fields!r}."
        )
    types_of = _types_of(kind)
    if unknown := fields.keys() - types_of.keys():
        raise InputError(f"fields of another version of {kind.__name__}: {sorted(unknown)}.")
    values = {}
    for name, value in fields.items():
        try:
            values[name] = _convert(types_of[name], value)
        except TypeError:
            raise InputError(
                f"the field {name} of {kind.__name__} is {value!r}: "
                f"expected {_words(types_of[name])}."
            ) from None
    try:
        return kind(**values)
    except TypeError as error:  # a field without a default is missing
        raise InputError(f"{kind.__name__}: {error}.") from None


def _fields(config) -> dict[str, Any]:
    found = {}
    for name, kind in _types_of(type(config)).items():
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            union = {"type": type(value).__name__} if _parts_of_union(kind) else {}
            value = union | _fields(value)
        found[name] = value
    return found


def _types_of(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _parts_of_union(kind) -> dict[str, type]:
    """The dataclasses of a union by their names; empty for any other type."""
    parts = typing.get_args(kind) if typing.get_origin(kind) in _UNIONS else ()
    return {part.__name__: part for part in parts if dataclasses.is_dataclass(part)}


def _convert(kind, value):
    """Converts a JSON value to a field's type; raises TypeError if it does not fit."""
    if parts := _parts_of_union(kind):
        fields = dict(value) if isinstance(value, dict) else {}
        if (name := str(fields.pop("type", None))) not in parts:
            raise InputError(f"unknown type {name!r}: expected one of {sorted(parts)}.")
        return from_dict(parts[name], fields)
    if dataclasses.is_dataclass(kind):
        return from_dict(kind, value)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in _UNIONS:
        return _convert_to_any(arguments, value)
    if origin is tuple and isinstance(value, list):  # of any length, all of one type
        return tuple(_convert(arguments[0], item) for item in value)
    if origin is dict and isinstance(value, dict):
        return {name: _convert(arguments[1], item) for name, item in value.items()}
    if kind is Path and isinstance(value, str):
        return Path(value)
    if origin is typing.Literal:
        fits = isinstance(value, str) and value in arguments
    else:
        fits = type(value) in ((int, float) if kind is float else (kind,))
    if not fits:
        raise TypeError
    return value


def _convert_to_any(kinds, value):
    for kind in kinds:
        try:
            return _convert(kind, value)
        except TypeError:
            continue
    raise TypeError


def _words(kind) -> str:
    """A type for an error message.

    >>> _words(tuple[int, ...] | None)
    'list of int or null'
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in _UNIONS:
        return " or ".join(map(_words, arguments))
    if origin is typing.Literal:
        return " or ".join(map(repr, arguments))
    if origin is tuple:
        return f"list of {_words(arguments[0])}"
    return {type(None): "null", Path: "string", str: "string"}.get(kind, kind.__name__)
