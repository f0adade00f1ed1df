"""Ctrl-C and termination in time: what must not be left half-done is done first."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
]


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Hold back what would interrupt the block, and let it through afterwards."""
    if threading.current_thread() is not threading.main_thread():  # which alone is interrupted
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    heeded = {
        number: handler
        for number, handler in before.items()
        if callable(handler) or handler == signal.SIG_DFL
    }
    for number in heeded:
        signal.signal(number, lambda *what: came.append(what))
    try:
        yield
    finally:
        for number, handler in heeded.items():
            signal.signal(number, handler)
        for came_number, frame in came:
            handler = heeded[signal.Signals(came_number)]
            if callable(handler):
                handler(came_number, frame)
            else:
                signal.raise_signal(came_number)


@contextlib.contextmanager
def ignoring_interrupts() -> Iterator[None]:
    """Let processes that are started in the block, and this one during it, take no notice of Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
