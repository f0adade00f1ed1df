"""The one thread of a process that writes to MLflow, in the order in which work was handed to it.

Python delivers signals to the main thread, so Ctrl-C never interrupts a transaction of MLflow.
"""

import atexit
import contextlib
import functools
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future

# Curves are written after at least and at most this many seconds,
# and in between so that writing takes this share of the time.
_LEAST_WAIT, _MOST_WAIT, _SHARE = 1.0, 5.0, 0.05
_TURN_SECONDS = 1e-4
_EXIT_SECONDS = 2.0  # at the end of the process, for the jobs that are left


class Writer:
    """Runs jobs one after another in a thread of its own.

    Measurements are written by ``write`` functions that are called together, once in a while:
    MLflow takes milliseconds per call, however few values it is given.

    The thread is a daemon: a store that hangs must not keep the process from its end. What is lost
    then is in the journals of the runs.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="mlflow", daemon=True).start()
        atexit.register(self._finish)
        self._jobs = 0  # submitted and not yet begun
        self._changed = threading.Condition()
        self._planned: dict[Callable[[], None], None] = {}
        self._waits = False
        self._next = time.monotonic() + wait_after(0)

    def submit(self, job: Callable[[], object]) -> Future[None]:
        """Run a job after those submitted before it."""
        with self._changed:
            self._jobs += 1
            self._changed.notify()
        done: Future[None] = Future()
        self._queue.put(lambda: self._run(job, done))
        return done

    def plan(self, write: Callable[[], None]) -> None:
        """Call ``write`` within seconds, together with the others that are planned by then."""
        with self._changed:
            self._planned[write] = None
            self._wait()

    def _wait(self) -> None:
        if not self._waits:
            self._waits = True
            self._queue.put(self._write_planned)

    def _serve(self) -> None:
        while True:
            self._queue.get()()

    def _finish(self) -> None:
        """Give the jobs that are left a moment at the end of the process."""
        done = self.submit(lambda: None)
        with contextlib.suppress(TimeoutError):
            done.result(_EXIT_SECONDS)

    def _run(self, job: Callable[[], object], done: "Future[None]") -> None:
        with self._changed:
            self._jobs -= 1
        try:
            with _short_turns():
                job()
            done.set_result(None)
        except Exception as error:
            done.set_exception(error)
        finally:
            with self._changed:
                if self._planned:
                    self._wait()

    def _write_planned(self) -> None:
        with self._changed:
            remaining = max(0.0, self._next - time.monotonic())
            jobs_come_first = self._changed.wait_for(lambda: self._jobs > 0, remaining)
            self._waits = False
            if jobs_come_first:
                return
            planned, self._planned = list(self._planned), {}
        start = time.monotonic()
        with _short_turns():
            for write in planned:
                with contextlib.suppress(Exception):  # the thread must go on for the others
                    write()
        end = time.monotonic()
        self._next = end + wait_after(end - start)


def wait_after(seconds: float) -> float:
    """Return the seconds to wait after a writing of curves that took ``seconds``."""
    return min(max(seconds / _SHARE, _LEAST_WAIT), _MOST_WAIT)


def writer() -> Writer:
    """Return the writer of this process; a forked process gets one of its own."""
    return _writer(os.getpid())


@functools.cache
def _writer(process: int) -> Writer:
    return Writer()


@contextlib.contextmanager
def _short_turns() -> Iterator[None]:
    """Let threads take turns more often.

    Training offers its turn in each call of NumPy; Python code would keep it for a whole interval.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(_TURN_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
