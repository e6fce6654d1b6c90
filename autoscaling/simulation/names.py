"""Names with options, as a command line gives them: `step`, or `step:at_s=60,factor=4`."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping


def split(text: str, known: Collection[str], what: str) -> tuple[str, str]:
    """Return the name and the options of a text. Raises ValueError when the name is not known; ``what`` it names."""
    name, _, options = text.partition(":")
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        meant = f"did you mean {close[0]}? " if close else ""
        raise ValueError(f"there is no {what} {name!r}; {meant}take one of {', '.join(known)}")
    return name, options


def numbers(name: str, text: str, defaults: Mapping[str, float]) -> dict[str, float]:
    """Return the options of a name, given as ``option=number`` with commas between, and the defaults of those left out.

    Raises ValueError for an option that is not among the defaults, and for what is no number.
    """
    options = dict(defaults)
    for item in filter(None, text.split(",")):
        option, _, number = item.partition("=")
        if option not in options:
            raise ValueError(f"{name} has no option {option!r}; it has {', '.join(options) or 'none'}")
        try:
            options[option] = float(number)
        except ValueError:
            options[option] = math.nan
        if not math.isfinite(options[option]):
            example = f"{option}={defaults[option]:g}"
            raise ValueError(f"{name}: {option} must be a number, such as {example}; got {number!r}")
    return options
