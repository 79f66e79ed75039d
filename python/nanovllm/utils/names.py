"""What a mistyped name was meant to be."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """The known name most like `name`, if it is at least so much like it; `difflib` counts from 0 to 1 for equal."""
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1, cutoff=likeness)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: the known one that is like it, or nothing."""
    near = nearest(name, known)
    return f"; did you mean {near!r}?" if near else ""
