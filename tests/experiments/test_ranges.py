"""Every number of every config declares its range, and is refused outside it, by its name."""

import copy
import dataclasses
import functools
import json
import math
import typing

import pytest

from experiments import get, load_run, names
from experiments.optimizer_comparison import compare
from structdl.errors import InputError
from structdl.training import cli
from structdl.training.configs import to_dict
from structdl.training.optimizers import OptimizerConfig
from structdl.training.ranges import check_ranges, hints, unwrapped
from structdl.training.run import DataConfig, Run

PROBES = (-1, 0, math.nan, math.inf)


def parts_of(kind: type) -> dict[type, None]:
    """A config's class and those of its parts, each model that it may have included."""
    found = {kind: None}
    for hint in hints(kind).values():
        inner = unwrapped(hint)[0]
        for part in typing.get_args(inner) or (inner,):
            if isinstance(part, type) and dataclasses.is_dataclass(part):
                found |= parts_of(part)
    return found


def classes_of(name: str) -> list[type]:
    """Of an experiment, without what all of them share."""
    shared = parts_of(Run) | parts_of(OptimizerConfig) | parts_of(DataConfig)
    if name == "all experiments":
        return list(shared)
    presets = {} if name == "optimizer_comparison" else get(name).presets
    kinds = {type(preset.config) for preset in presets.values()} or {compare.Config}
    return [part for kind in kinds for part in parts_of(kind) if part not in shared]


def numbers_of(config):
    """(option, metavar, change) of each number in a config: change(value) has it in its place."""
    for name, hint in hints(type(config)).items():
        for hold, metavar in numbers_in(hint):
            change = functools.partial(replaced, config, name, hold)
            yield f"--{name.replace('_', '-')}", metavar, change


def replaced(config, name, hold, value):
    """As dataclasses.replace, past the constructor, whose types the tests check."""
    found = copy.copy(config)
    object.__setattr__(found, name, hold(value))
    return found


def numbers_in(hint, hold=lambda value: value):
    """(hold, metavar) of each number in an annotation: hold(value) is the field's value."""
    kind, declared = unwrapped(hint)
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind in (int, float):
        yield hold, next((its.metavar for its in declared if hasattr(its, "metavar")), "")
    elif origin is tuple:
        yield from numbers_in(parts[0], lambda value: (value,))
    elif origin is dict:
        yield from numbers_in(parts[1], lambda value: {"key": value})
    elif origin is not typing.Literal:
        for part in parts:
            yield from numbers_in(part, hold)


def is_allowed(metavar: str, value) -> bool:
    """What --help says, read as Python: 0<=FLOAT<1, INT>=1, or a type alone."""
    name = "INT" if "INT" in metavar else "FLOAT"
    is_number = math.isfinite(value) and (name == "FLOAT" or isinstance(value, int))
    return is_number and (metavar == name or eval(metavar, {name: value}))


def refusal(config) -> str:
    try:
        check_ranges(config)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", [*names(), "optimizer_comparison", "all experiments"])
def test_every_number_is_in_its_declared_range_or_refused_by_name(name):
    numbers = 0
    for kind in classes_of(name):
        assert not refusal(kind())
        for option, metavar, change in numbers_of(kind()):
            numbers += 1
            assert metavar, f"{kind.__name__}: {option} declares no range"
            assert "INT" not in metavar or refusal(change(2**32)), f"{option} is beyond int32"
            for value in PROBES:
                found = refusal(change(value))
                assert bool(found) != is_allowed(metavar, value), f"{option} {value}: {found!r}"
                assert not found or found.startswith((f"{option} is", f"{option}.key is"))
                assert str(value) in found or not found
    assert numbers >= 4


@pytest.mark.parametrize("name", names())
def test_a_command_is_refused_before_it_reads_data(name, is_refused, tmp_path):
    its = get(name)._replace(make_task=lambda config: pytest.fail("data was read"))
    model = next(iter(its.presets.values())).config.model
    option = next(numbers_of(model))[0].replace("--", "--model.")
    is_refused(lambda argv: cli.main(its, argv), [option, "-1"], f"{option} is ")
    assert not any(tmp_path.iterdir())


def test_numbers_of_a_stored_run_are_checked_too(tmp_path):
    config = to_dict(next(iter(get("node_classification").presets.values())).config)
    config["run"]["num_seeds"] = 10**9
    record = {"experiment": "node_classification", "preset": "karate", "config": config}
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"config\.json: --num-seeds is 1000000000: it must be"):
        load_run(tmp_path)
