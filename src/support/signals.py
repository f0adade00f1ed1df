"""Ends a process in order on its first signal, and at once on the second.

SIGINT (Ctrl-C), SIGTERM, SIGHUP and SIGQUIT end a process, with 128 plus the signal's number as
its exit code. SIGUSR1 and SIGXCPU ask for a checkpoint. The functions that set handlers must be
called in the main thread; the entry points do so. This module imports little, because it is
imported before everything else.
"""

import atexit
import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

GRACE = 20.0  # seconds that a process has to end in order before it is made to leave
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_LOOK = 0.05  # seconds between two looks for the parent process
CHECKPOINT = (signal.SIGUSR1, signal.SIGXCPU)

_first = 0  # the signal that ends this process, or 0
_dropped = False  # whether Python has dropped the exception of that signal
# The last signal that arrived in a block of ``held``, and what it does.
_pending: tuple[Callable[[int], None], int] | None = None
_holds = 0  # blocks of ``held`` that are open
_unfinished = 0  # blocks of ``finishing_first`` that are open
_hurries = False  # whether a second signal came in such a block
_requests = 0  # for a checkpoint, so far
_answered = 0  # those that ``checkpoint_requested`` has told of
_forward: list[Callable[[int], None]] = []
_clean: list[Callable[[], None]] = []


def leave_at_once_on_signals() -> None:
    """Let every ending signal end this process without a word: nothing needs to be closed.

    This is for the time before an entry point's ``main`` and after it, when an exception would be
    shown as a traceback of Python's own imports or of its shutdown.
    """
    _handle(ENDING, lambda number, _: leave(_first or number))
    _handle(CHECKPOINT, lambda number, _: None)
    _keep_exit_code()


def end_in_order_on_signals() -> None:
    """Let the first ending signal raise KeyboardInterrupt (SIGINT) or SystemExit in this thread.

    A second one ends the process at once; so does the passing of GRACE seconds. SIGQUIT shows the
    stack of every thread first. SIGUSR1 and SIGXCPU ask for a checkpoint. A signal that the parent
    process had ignored stays ignored: ``nohup`` ignores SIGHUP, shells ignore SIGINT in background
    jobs.
    """
    _handle(ENDING, lambda number, _: _end(number))
    _handle(CHECKPOINT, lambda number, _: _request_checkpoint(number))
    _repeat_what_is_dropped()


def end_worker_in_order_on_signals(interrupt: signal.Signals) -> None:
    """Do the same in a worker process, which closes its runs whatever signals follow.

    ``interrupt`` is what the parent sends for its own Ctrl-C. The terminal's Ctrl-C, which reaches
    every process, is ignored.
    """
    _handle(ENDING, lambda number, _: _end_worker(number))
    signal.signal(interrupt, lambda number, _: _end_worker(signal.SIGINT))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _handle(CHECKPOINT, lambda number, _: _request_checkpoint(number))
    _repeat_what_is_dropped()


def raise_if_ending() -> None:
    """Raise again what the first signal raised.

    Python drops an exception that is raised while it runs a destructor or a callback of C code.
    """
    if _first:
        raise _exception(_first)


def leave(number: int) -> NoReturn:
    """End this process at once with a signal's exit code, and remove its temporary files."""
    for remove in _clean:
        with contextlib.suppress(Exception):
            remove()
    os._exit(128 + number)


def clean_when_leaving(remove: Callable[[], None]) -> Callable[[], None]:
    """Call ``remove`` if a signal ends this process at once; return a function that undoes this."""
    _clean.append(remove)
    return lambda: _clean.remove(remove)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Hold back ending signals in the block: they act when it ends.

    The block must be short. It makes work that belongs together whole, such as a checkpoint and
    the result of a run that ends.
    """
    global _holds, _pending
    _holds += 1
    try:
        yield
    finally:
        _holds -= 1
        if _pending and not _holds:
            (act, number), _pending = _pending, None
            act(number)


@contextlib.contextmanager
def finishing_first() -> Iterator[None]:
    """Let a second signal wait until what the first one has raised has left the block.

    So what is written on the way is whole. A third signal ends the process at once, and so does
    the passing of GRACE seconds.
    """
    global _unfinished
    _unfinished += 1
    try:
        yield
    finally:
        _unfinished -= 1
        if _hurries and not _unfinished:
            leave(_first)


def exit_code() -> int | None:
    """Return the exit code of the signal that ends this process, or None if there was none."""
    return 128 + _first if _first else None


@contextlib.contextmanager
def forwarding_checkpoint_requests(forward: Callable[[int], None]) -> Iterator[None]:
    """Call ``forward`` with the signal of each request for a checkpoint in the block."""
    _forward.append(forward)
    try:
        yield
    finally:
        _forward.remove(forward)


def checkpoint_requests() -> int:
    """Return how many times a signal has asked for a checkpoint in this process."""
    return _requests


def checkpoint_requested() -> bool:
    """Return whether a signal has asked for a checkpoint since the last call.

    Where several readers share a process, each compares ``checkpoint_requests`` instead.
    """
    global _answered
    before, _answered = _answered, _requests
    return _answered > before


@contextlib.contextmanager
def keeping_handlers() -> Iterator[None]:
    """Keep our handlers in a block that imports a package which sets its own."""
    before = {number: signal.getsignal(number) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def ignoring_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C in the block, and in the processes that are started in it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def outlive_signals() -> None:
    """Let this process, from which workers are forked, live on.

    An ending signal to all processes of a sweep must not end the server, which reports the exit
    codes of its workers. A worker that has not begun its task leaves.
    """
    server = os.getpid()

    def handler(number: int, _: object) -> None:
        if os.getpid() != server:
            leave(number)

    _handle(ENDING, handler)
    _handle(CHECKPOINT, lambda number, _: None)


@contextlib.contextmanager
def leaving_with_parent() -> Iterator[None]:
    """Leave as soon as the parent process is gone, in a block that does not look for itself."""
    parent = os.getppid()

    def look(number: int, _: object) -> None:
        if os.getppid() != parent:
            leave(signal.SIGTERM)

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, _LOOK, _LOOK)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _handle(numbers: tuple[signal.Signals, ...], handler: Callable[[int, object], None]) -> None:
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


@functools.cache
def _keep_exit_code() -> None:
    """Ignore signals in the last milliseconds, when Python has taken our handlers away.

    Python lets what is ignored be ignored. The callback registered first is called last.
    """

    def ignore() -> None:
        for number in ENDING:
            if callable(signal.getsignal(number)):  # a handler of ours
                signal.signal(number, signal.SIG_IGN)

    atexit.register(ignore)


def _repeat_what_is_dropped() -> None:
    """Send the first signal again if Python drops its exception, instead of showing a traceback.

    Python drops what is raised while a destructor or a callback of the garbage collector runs.
    """
    show = sys.unraisablehook

    def repeat(unraisable: "sys.UnraisableHookArgs") -> None:
        global _dropped
        if not _first or not isinstance(unraisable.exc_value, KeyboardInterrupt | SystemExit):
            show(unraisable)
            return
        _dropped = True
        # Not the first signal's number: a worker ignores SIGINT.
        again = threading.Timer(_LOOK, os.kill, [os.getpid(), signal.SIGTERM])
        again.daemon = True
        again.start()

    sys.unraisablehook = repeat


def _end(number: int) -> None:
    """Raise the exception of a first signal; leave on a second one, in order if it is told so."""
    global _pending, _dropped, _hurries
    if _holds:
        _pending = _end, number
        return
    if _dropped:
        _dropped = False
        raise _exception(_first)
    if _first and _unfinished and not _hurries:
        _hurries = True
        return
    if _first:
        leave(_first)
    _begin_ending(number)
    raise _exception(number)


def _end_worker(number: int) -> None:
    global _pending, _dropped
    if _holds:
        _pending = _end_worker, number
    elif _dropped:
        _dropped = False
        raise _exception(_first)
    elif not _first:
        _begin_ending(number)
        raise _exception(number)


def _begin_ending(number: int) -> None:
    """Keep the first signal, and see to it that this process ends within GRACE seconds."""
    global _first
    _first = number
    if number == signal.SIGQUIT:
        import faulthandler

        with contextlib.suppress(Exception):  # standard error may be closed
            faulthandler.dump_traceback(all_threads=True)
    watchdog = threading.Timer(GRACE, leave, [number])
    watchdog.daemon = True
    with contextlib.suppress(RuntimeError):  # no more threads, as in Python's shutdown
        watchdog.start()


def _exception(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


def _request_checkpoint(number: int) -> None:
    global _requests
    _requests += 1
    for forward in _forward:
        forward(number)
