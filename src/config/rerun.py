"""Reads ``rerun=``: which runs of a sweep are computed again although they are done."""

from collections.abc import Sequence
from typing import Literal

from src.support.errors import ConfigError

Rerun = Literal["missing", "code", "true"]
_MULTIRUN = ("-m", "--multirun")

_wanted: Rerun = "missing"


def wanted_again() -> Rerun:
    """Return which runs the command line asks to compute again, beside those that are missing."""
    return _wanted


def take_rerun(arguments: Sequence[str]) -> list[str]:
    """Return the command line's arguments without ``rerun=``, which ``wanted_again`` tells.

    Raises ConfigError for another value than true, code or false, and outside a sweep.
    """
    global _wanted
    _wanted, given = "missing", ""
    rest = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or key != "rerun":
            rest.append(argument)
            continue
        given = argument
        if value in ("true", "code"):
            _wanted = value  # type: ignore[assignment]
        elif value != "false":
            raise ConfigError(
                f"{argument}: must be true (every run), code (those of other code) or false"
            )
    if given and not any(argument in _MULTIRUN for argument in rest):
        raise ConfigError(
            f"{given}: belongs to a sweep: add -m; a single run is computed each time"
        )
    return rest
