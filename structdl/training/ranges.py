"""Ranges of the numbers in a config: declared by its fields, shown in --help, checked in one place.

A field declares its range in its annotation, by one of the types below or by `in_range`:

    hidden: PositiveInt = 16
    widths: Widths = (16, 16)
    frames: in_range(int, Ge(2)) = 32

`check_ranges` compares every field of a config, nested ones included, with what it declares.
"""

import dataclasses
import functools
import numbers
import operator
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from annotated_types import Ge, Gt, Le, Lt, MinLen
from tyro.constructors import PrimitiveConstructorSpec

from structdl.errors import InputError

LARGEST_INT = 2**31 - 1  # steps, sizes and ids are int32

Bound = Ge | Gt | Le | Lt


class _Relation(NamedTuple):
    """Symbols, wording and predicate of a kind of bound."""

    before: str
    behind: str
    words: str
    holds: Callable[[Any, Any], bool]


_RELATIONS = {
    Ge: _Relation("<=", ">=", "at least", operator.ge),
    Gt: _Relation("<", ">", "above", operator.gt),
    Le: _Relation(">=", "<=", "at most", operator.le),
    Lt: _Relation(">", "<", "below", operator.lt),
}
_NUMBERS = {int: (numbers.Integral, "a whole number"), float: (numbers.Real, "a finite number")}


def in_range(kind: type, *bounds: Bound):
    """The type of an int or a float within bounds: Annotated[kind, *bounds].

    `--help` shows the bounds beside the type's name. Without an upper bound an int is at most
    2^31 - 1; a float is finite.

    >>> in_range(int, Ge(2), Le(5)).__metadata__[-1].metavar
    '2<=INT<=5'
    """
    spec = PrimitiveConstructorSpec(
        nargs=1,
        metavar=_metavar(kind.__name__.upper(), bounds),
        instance_from_str=lambda words: kind(words[0]),
        # "~": where a union has no int, an int is taken for a float
        is_instance=lambda value: type(value) is kind or ("~" if type(value) is int else False),
        str_from_instance=lambda value: [str(value)],
    )
    return Annotated[(kind, *bounds, spec)]


def _metavar(name: str, bounds: Sequence[Bound]) -> str:
    """INT>=1, or 0<=FLOAT<1 where there are two bounds."""
    *before, behind = bounds or [None]
    left = "".join(f"{_limit(bound)}{_RELATIONS[type(bound)].before}" for bound in before)
    right = f"{_RELATIONS[type(behind)].behind}{_limit(behind)}" if behind else ""
    return left + name + right


def _limit(bound: Bound) -> int | float:
    return getattr(bound, type(bound).__name__.lower())


AnyInt = in_range(int)
NonNegativeInt = in_range(int, Ge(0))
PositiveInt = in_range(int, Ge(1))
Depth = in_range(int, Ge(1), Le(1000))  # of layers that are built one by one
AnyFloat = in_range(float)
NonNegativeFloat = in_range(float, Ge(0))
PositiveFloat = in_range(float, Gt(0))
Share = in_range(float, Ge(0), Le(1))
ShareBelowOne = in_range(float, Ge(0), Lt(1))
DropoutRate = ShareBelowOne
Widths = Annotated[tuple[PositiveInt, ...], MinLen(1)]


def check_ranges(config, *, prefix: str = "--", source: Path | None = None) -> None:
    """Compares every number of a config with the range that its field declares.

    Args:
      prefix: of the options' names, say `--optimizer.` for an OptimizerConfig alone.
      source: the file that the config was read from, if any.

    Raises:
      InputError: a number that is out of its range, NaN, infinite, or of another type.

    >>> @dataclasses.dataclass
    ... class Config:
    ...     num_layers: PositiveInt = 2
    >>> check_ranges(Config(num_layers=0))
    Traceback (most recent call last):
    structdl.errors.InputError: --num-layers is 0: it must be at least 1
    """
    for name, hint in hints(type(config)).items():
        value, option = getattr(config, name), prefix + name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            inner = prefix if name == "run" else f"{option}."
            check_ranges(value, prefix=inner, source=source)
        elif fault := _fault(option, value, hint):
            raise InputError(f"{source}: {fault}" if source else fault)


@functools.cache
def hints(kind: type) -> dict[str, Any]:
    """The annotations of a dataclass's fields, with the ranges that they declare."""
    found = typing.get_type_hints(kind, include_extras=True)
    return {field.name: found[field.name] for field in dataclasses.fields(kind)}


def unwrapped(hint) -> tuple[Any, tuple]:
    """A type, and what an Annotated around it declares."""
    if typing.get_origin(hint) is Annotated:
        return hint.__origin__, hint.__metadata__
    return hint, ()


def _fault(option: str, value, hint) -> str:
    """Error message for a value out of its range; empty if it is allowed."""
    kind, declared = unwrapped(hint)
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _fault(option, value, _part_for(value, parts))
    if origin is tuple and isinstance(value, Sequence):
        if not value and any(isinstance(each, MinLen) for each in declared):
            return f"{option} is (): give one number or more"
        allowed = next(filter(None, (_allowed(each, parts[0]) for each in value)), "")
        return allowed and f"{option} is {value}: each number must be {allowed}"
    if origin is dict and isinstance(value, Mapping):
        faults = (_fault(f"{option}.{key}", each, parts[1]) for key, each in value.items())
        return next(filter(None, faults), "")
    allowed = _allowed(value, hint)
    return allowed and f"{option} is {value}: it must be {allowed}"


def _part_for(value, parts: tuple):
    """The part of a union that is meant for a value: of its type, or else the first number."""
    kinds = {unwrapped(part)[0]: part for part in parts}
    others = (part for kind, part in kinds.items() if kind in _NUMBERS)
    return kinds.get(type(value)) or next(others, object)


def _allowed(value, hint) -> str:
    """The allowed range in words; empty if the value is in it, or no number is declared."""
    kind, declared = unwrapped(hint)
    if kind not in _NUMBERS:
        return ""
    accepted, words = _NUMBERS[kind]
    bounds = [each for each in declared if type(each) in _RELATIONS]
    is_number = isinstance(value, accepted) and not isinstance(value, bool)
    if not is_number or not abs(value) <= sys.float_info.max:
        return ", ".join(filter(None, [words, _said(bounds)]))
    if not all(_RELATIONS[type(bound)].holds(value, _limit(bound)) for bound in bounds):
        return _said(bounds)
    is_bounded = any(isinstance(bound, Le | Lt) for bound in bounds)
    if kind is int and not is_bounded and value > LARGEST_INT:
        return _said([*bounds, Le(LARGEST_INT)])
    return ""


def _said(bounds: Sequence[Bound]) -> str:
    return " and ".join(f"{_RELATIONS[type(bound)].words} {_limit(bound)}" for bound in bounds)
