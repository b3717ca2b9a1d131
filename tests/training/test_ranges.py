"""Ranges declared in annotations: what they refuse and how it is said."""

import dataclasses
import math
from pathlib import Path

import pytest
import tyro
from annotated_types import Ge, Le

from structdl.errors import InputError
from structdl.training.ranges import (
    AnyFloat,
    AnyInt,
    PositiveFloat,
    PositiveInt,
    ShareBelowOne,
    Widths,
    check_ranges,
    in_range,
)


@dataclasses.dataclass(frozen=True)
class Inner:
    head: tuple[PositiveInt, ...] = ()
    widths: Widths = (16,)
    num_points: PositiveInt | None = None


@dataclasses.dataclass(frozen=True)
class Run:
    num_steps: in_range(int, Ge(2), Le(5)) = 3
    """Steps."""


@dataclasses.dataclass(frozen=True)
class Config:
    seed: AnyInt = 0
    share: ShareBelowOne = 0.0
    clip_norm: PositiveFloat | None = None
    kwargs: dict[str, bool | AnyInt | AnyFloat | str] = dataclasses.field(default_factory=dict)
    model: Inner | Run = Inner()
    run: Run = Run()


def set_to(path: str, value):
    """A config with one field set; past the constructors, whose types the tests check."""
    config = Config(kwargs={}, model=Inner(), run=Run())
    *parents, name = path.split(".")
    held = config
    for parent in parents:
        held = getattr(held, parent)
    fresh = dataclasses.replace(held)
    object.__setattr__(fresh, name, value)
    return dataclasses.replace(config, **{parents[0]: fresh}) if parents else fresh


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("seed", 2**31, "--seed is 2147483648: it must be at most 2147483647"),
        ("seed", True, "--seed is True: it must be a whole number"),
        ("seed", 1.0, "--seed is 1.0: it must be a whole number"),
        ("share", 1, "--share is 1: it must be at least 0 and below 1"),
        ("share", math.nan, "--share is nan: it must be a finite number, at least 0 and below 1"),
        ("clip_norm", 0.0, "--clip-norm is 0.0: it must be above 0"),
        ("clip_norm", 10**400, f"--clip-norm is {10**400}: it must be a finite number, above 0"),
        ("kwargs", {"b1": math.inf}, "--kwargs.b1 is inf: it must be a finite number"),
        ("kwargs", {"n": True, "m": "word", "k": -1}, None),
        ("model.head", (3, 0), "--model.head is (3, 0): each number must be at least 1"),
        ("model.head", (), None),
        ("model.widths", (), "--model.widths is (): give one number or more"),
        ("model.num_points", None, None),
        ("model.num_points", 0, "--model.num-points is 0: it must be at least 1"),
        ("model.num_points", "8", "--model.num-points is 8: it must be a whole number, at least 1"),
        ("run.num_steps", 6, "--num-steps is 6: it must be at least 2 and at most 5"),
    ],
)
def test_a_number_out_of_its_range_is_named(path, value, sentence):
    config = set_to(path, value)
    if sentence is None:
        check_ranges(config)
        return
    with pytest.raises(InputError) as refused:
        check_ranges(config)
    assert str(refused.value) == sentence
    with pytest.raises(InputError) as refused:
        check_ranges(config, source=Path("config.json"))
    assert str(refused.value) == f"config.json: {sentence}"


def test_help_shows_the_ranges(capsys):
    with pytest.raises(SystemExit):
        tyro.cli(Config, args=["--help"], config=(tyro.conf.AvoidSubcommands,), default=Config())
    shown = capsys.readouterr().out
    for words in (
        "--seed INT ",
        "--share 0<=FLOAT<1",
        "--clip-norm {None}|FLOAT>0",
        "--model.head [INT>=1 [INT>=1 ...]]",
        "--run.num-steps 2<=INT<=5",
    ):
        assert words in shown
