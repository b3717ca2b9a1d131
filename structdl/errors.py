"""The one error that means: the user can mend this."""


class InputError(ValueError):
    """Bad input from outside: the message names the value, the allowed range and the fix.

    Everything else that is raised is a bug and keeps its traceback; the command line prints an
    InputError as one paragraph and exits with code 2.
    """


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
