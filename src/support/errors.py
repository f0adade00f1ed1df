"""What can go wrong in ways that a person can mend, each told in a line or two."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class UserError(Exception):
    """What was asked for can't be done as asked: a bad configuration or bad data. Exit code 2."""


class ConfigError(UserError):
    """The configuration is wrong; the message says where, and what would be right."""


class DataError(UserError):
    """The data is missing, damaged or does not fit; the message names the file and the fault."""


class TrainingFailed(Exception):
    """The run was done as asked and came to nothing. Exit code 1."""


class Diverged(TrainingFailed):
    """Training left the finite numbers."""


class TargetMissed(TrainingFailed):
    """Training ended without having reached what it was to reach."""


class WrongGradient(TrainingFailed):
    """Backpropagation and centred differences disagree."""


class InvalidValue(ValueError):
    """A field of a configured class holds a value of the right type but out of range."""

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
    """Say of an InvalidValue that comes from inside where it was set: ``size`` within ``batching`` is ``batching.size``."""
    try:
        yield
    except InvalidValue as error:
        raise InvalidValue(
            f"{place}.{error.field}" if place else error.field, error.value, error.rule
        ) from None


def suggest(name: str, options: Iterable[str]) -> str:
    """Return the tail of a message that offers the nearest of the right names."""
    options = list(options)
    near = difflib.get_close_matches(name, options, n=1)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(options)}"


def first_line(error: BaseException) -> str:
    """Return an unforeseen error in one line: its kind and the first line of what it says."""
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
