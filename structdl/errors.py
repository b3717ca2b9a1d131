"""The one error that means: the user can mend this."""


class InputError(ValueError):
    """Bad input from outside: the message names the value, the allowed range and the fix.

    Everything else that is raised is a bug and keeps its traceback; the command line prints an
    InputError as one paragraph and exits with code 2.
    """


def require_at_least(name: str, value: int | float, least: int) -> None:
    """Raises InputError unless a number is at least `least`; a NaN is not.

    >>> require_at_least("--model.hidden", 0, 1)
    Traceback (most recent call last):
    structdl.errors.InputError: --model.hidden is 0: it must be at least 1
    """
    if not value >= least:
        raise InputError(f"{name} is {value}: it must be at least {least}")


def require_at_most(name: str, value: int | float, most: int) -> None:
    """Raises InputError unless a number is at most `most`; a NaN is not.

    >>> require_at_most("the number of digits", 19, 18)
    Traceback (most recent call last):
    structdl.errors.InputError: the number of digits is 19: it must be at most 18
    """
    if not value <= most:
        raise InputError(f"{name} is {value}: it must be at most {most}")


def require_known(what: str, name: str, known) -> None:
    """Raises InputError unless a name is one of the known ones.

    >>> require_known("mode", "sun", ["mean", "sum"])
    Traceback (most recent call last):
    structdl.errors.InputError: unknown mode 'sun': did you mean 'sum'?
    """
    if name not in known:
        raise InputError(f"unknown {what} {name!r}: {nearest_names(name, known)}")


def nearest_names(name: str, known) -> str:
    """The known names most like a misspelt one, for the end of an error message.

    >>> nearest_names("adm", ["adam", "sgd"])
    "did you mean 'adam'?"
    """
    import difflib  # only needed on the way to an error

    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"known: {', '.join(known)}."
