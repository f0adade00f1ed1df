"""Errors that a person can mend, each told in a line or two."""

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

_LONGEST_WORD = 300  # characters
_LONGEST_LINE = 1000


class UserError(Exception):
    """The configuration or the data is wrong. Exit code 2."""

    def __str__(self) -> str:
        return in_brief(super().__str__())


class ConfigError(UserError):
    """The configuration is wrong; the message says where, and what would be right."""


class DataError(UserError):
    """The data is missing, damaged or does not fit; the message names the file and the fault."""


class TrainingFailed(Exception):
    """The run started as configured and did not succeed. Exit code 1."""


class Diverged(TrainingFailed):
    """A loss or a weight is no longer finite."""


class TargetMissed(TrainingFailed):
    """Training ended without reaching its target."""


class NotReproduced(TrainingFailed):
    """An epoch that was computed again, after an interruption, has another result."""


class Pruned(Exception):
    """A run leaves its sweep before its last epoch, because others are better: not a failure."""


class WrongGradient(TrainingFailed):
    """Backpropagation and centred differences disagree."""


class InvalidValue(ValueError):
    """A field of a configured class has the right type, but a value out of range."""

    def __init__(self, field: str, value: Any, rule: str):
        super().__init__(field, value, rule)  # all three: an exception is pickled by its arguments
        self.field, self.value, self.rule = field, value, rule

    def __str__(self) -> str:
        return f"{self.field}={self.value}: {self.rule}"


def require(condition: bool, field: str, value: Any, rule: str) -> None:
    """Raise InvalidValue unless the condition holds; ``rule`` says what would be right."""
    if not condition:
        raise InvalidValue(field, value, rule)


@contextmanager
def within(place: str) -> Iterator[None]:
    """Add to an InvalidValue raised in the block where it was set.

    ``size`` within ``batching`` becomes ``batching.size``.
    """
    try:
        yield
    except InvalidValue as error:
        field = f"{place}.{error.field}" if place else error.field
        raise InvalidValue(field, error.value, error.rule) from None


def suggest(name: str, options: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the nearest option, or all of them."""
    options = list(options)
    near = difflib.get_close_matches(name, options, n=1)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(options)}"


def in_brief(message: str) -> str:
    """Return a message with the words and lines cut that are too long to read."""
    words = re.sub(rf"\S{{{_LONGEST_WORD},}}", lambda word: f"{word[0][:60]}…", message)
    lines = words.split("\n")
    return "\n".join(
        line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…" for line in lines
    )


def first_line(error: BaseException) -> str:
    """Return an unexpected error in one line: its class and the first line of its message."""
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]


def in_one_line(error: BaseException) -> str:
    """Return what a library says of a file, in one line: it may repeat a part of that file."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
