"""Prints to the terminal. All text is printed as it is: none of it is read as markup or emoji."""

import contextlib
import io
import logging
import sys
import textwrap
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_KEY_WIDTH = 12  # characters of the first column
_READABLE_WIDTH = 100  # characters of a line of sentences
_PLAIN_WIDTH = 160  # characters of a line where the output is not a terminal

_silent = ContextVar("silent", default=False)


class _Unfailing(io.FileIO):
    """A file that drops what it can't write: its reader has gone, or its disk is full."""

    def write(self, data: "ReadableBuffer") -> int:
        size = memoryview(data).nbytes
        try:
            return super().write(data) or size
        except OSError:
            return size


def never_fail() -> None:
    """Make standard output and standard error of this process such that writing never fails.

    A training then goes on when ``head`` has read enough, when the terminal is closed, when the
    output's disk is full, and where a character does not exist in the output's encoding. A line of
    the log that can't be written is dropped without a traceback.
    """
    logging.raiseExceptions = False
    if sys.stdout is sys.__stdout__ and sys.stdout is not None:
        sys.stdout = _unfailing(sys.stdout)
    if sys.stderr is sys.__stderr__ and sys.stderr is not None:
        sys.stderr = _unfailing(sys.stderr)


def _unfailing(stream: TextIO) -> TextIO:
    """Return a stream that writes where ``stream`` does, and drops what it can't write."""
    with contextlib.suppress(OSError):
        stream.flush()
    at_once = stream.line_buffering or getattr(stream, "write_through", False)  # python -u
    return io.TextIOWrapper(
        io.BufferedWriter(_Unfailing(stream.fileno(), "w", closefd=False)),
        stream.encoding,
        "backslashreplace",
        line_buffering=bool(at_once),
    )


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Print nothing to standard output in the block."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def console() -> Console:
    """Return the terminal, or for other output a console wide enough for any table."""
    screen = _console()
    return screen if screen.is_terminal else _console(_PLAIN_WIDTH)


def _console(width: int | None = None) -> Console:
    return Console(
        width=width,
        quiet=_silent.get(),
        force_jupyter=False,  # in a notebook Rich would make an HTML page of each line
        markup=False,
        emoji=False,
        highlight=False,
    )


def say(*parts: str | tuple[str, str]) -> None:
    """Print a line made of texts, each with a style where it is a pair."""
    console().print(Text.assemble(*parts), soft_wrap=True)


def fact(key: str, value: str) -> None:
    """Print a line of the form key, value."""
    say((f"{key:<{_KEY_WIDTH}}", "bold"), value)


@contextlib.contextmanager
def waiting(text: str) -> Iterator[None]:
    """Show in the block, on a terminal, what is waited for."""
    screen = console()
    with screen.status(text) if screen.is_terminal else contextlib.nullcontext():
        yield


def paragraph(key: str, text: str) -> None:
    """Print sentences under a key, in lines of a readable length."""
    for number, line in enumerate(textwrap.wrap(text, _READABLE_WIDTH, break_long_words=False)):
        fact("" if number else key, line)


def problem(message: str) -> None:
    """Print to standard error what is wrong."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        Text.assemble(("error", "bold red"), " ", message)
    )


def table(*headings: str, left: str = "") -> Table:
    """Return a table without lines; the column ``left`` is aligned to the left."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        made.add_column(heading, justify="left" if heading == left else "right", overflow="fold")
    return made


def count(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: "1 epoch", "3 epochs"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def show_log() -> None:
    """Print to standard error the start of a download, and what happens to MLflow's store."""
    for name in ("src.data", "src.tracking.process", "src.tracking.store"):
        log = logging.getLogger(name)
        if not log.handlers:
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("%(message)s"))
            log.addHandler(handler)
            log.setLevel(logging.INFO)
