"""Where the tasks of a sweep run: here, in processes of this machine.

An executor is used as ``concurrent.futures`` are: tasks are submitted, their results taken as they
are completed. In addition it passes on what tasks tell of their progress.
"""

import contextlib
import functools
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from src.support import signals
from src.support.errors import first_line
from src.support.temporary import remove_abandoned, temporary_folder

_PATIENCE = 30.0  # seconds that a worker has to end after its result
_CLOSING = 10.0  # seconds after which interrupted workers are killed; most need one or two
_LONGEST = 49  # characters of a folder in which a folder of ours can hold a socket; macOS has 49
_INTERRUPT = signal.SIGUSR2  # stands for the parent's Ctrl-C

Tell = Callable[[Any], None]
Work = Callable[[Any, Tell], Any]
Surroundings = tuple[str, Mapping[str, str]]  # the current folder, and the environment


class WorkerDied(Exception):
    """A worker process ended before its task was done; ``code`` is its exit code if it is known."""

    code: int | None = None


class Executor(ABC):
    """Runs tasks somewhere; leaving its ``with`` block by an exception cancels them."""

    @abstractmethod
    def submit(self, work: Work, task: Any, files: Sequence[Path] = ()) -> "Future[Any]":
        """Plan ``work(task, tell)`` and return the future of its result.

        ``files`` are what the task reads, for an executor that must send them.
        """

    @abstractmethod
    def as_completed(self, hear: Tell) -> "Iterator[Future[Any]]":
        """Run what was submitted and yield each future when it is done, failed ones included.

        ``hear`` is called in this thread with whatever a task gives to its ``tell``.
        """

    @abstractmethod
    def cancel(self, reason: BaseException) -> None:
        """Drop what has not begun, and interrupt what runs: it may close what it has open."""

    @abstractmethod
    def shutdown(self) -> None:
        """Wait until nothing runs any more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self.cancel(error)
        self.shutdown()


class LocalExecutor(Executor):
    """Runs each task in a fresh process, at most ``workers`` at a time.

    A process that dies fails its own task and no other. Processes begin in this process's current
    folder with its environment, unless ``surroundings`` gives others.
    """

    def __init__(
        self, workers: int, context: BaseContext, surroundings: Surroundings | None = None
    ) -> None:
        self._workers, self._context, self._surroundings = workers, context, surroundings
        self._waiting: deque[tuple[Future[Any], Work, Any]] = deque()
        self._running: dict[Connection, tuple[BaseProcess, Future[Any]]] = {}

    def submit(self, work: Work, task: Any, files: Sequence[Path] = ()) -> "Future[Any]":
        future: Future[Any] = Future()
        self._waiting.append((future, work, task))
        return future

    def as_completed(self, hear: Tell) -> "Iterator[Future[Any]]":
        with signals.forwarding_checkpoint_requests(self._signal):
            yield from self._as_completed(hear)

    def _as_completed(self, hear: Tell) -> "Iterator[Future[Any]]":
        while self._waiting or self._running:
            while self._waiting and len(self._running) < self._workers:
                future, work, task = self._waiting.popleft()
                try:
                    self._start(future, work, task)
                except Exception as error:  # a task that can't be pickled, no memory for a process
                    future.set_exception(RuntimeError(first_line(error)))
                    yield future
            for connection in wait(list(self._running)) if self._running else ():
                assert isinstance(connection, Connection)
                future = self._running[connection][1]
                self._receive(connection, hear)
                if future.done():
                    yield future

    def _start(self, future: "Future[Any]", work: Work, task: Any) -> None:
        ours, theirs = self._context.Pipe()
        surroundings = self._surroundings or (str(Path.cwd()), dict(os.environ))
        arguments = (theirs, work, task, *surroundings)
        process = self._context.Process(  # type: ignore[attr-defined]
            target=_serve, args=arguments, daemon=True
        )
        try:
            with theirs:  # so that our end hears when the process is gone
                process.start()
            self._running[ours] = process, future
            with contextlib.suppress(OSError):  # it has died already
                ours.send("begin")
        except BaseException:
            ours.close()  # a worker that starts although nobody waits for it does not begin
            raise

    def _receive(self, connection: Connection, hear: Tell) -> None:
        """Take one message of a worker: news, its result, or its end."""
        process, future = self._running[connection]
        try:
            kind, content = connection.recv()
        except (EOFError, OSError):
            kind, content = "error", _death(process)
        except Exception as error:  # a result that can't be unpickled
            kind, content = "error", RuntimeError(first_line(error))
        if kind == "news":
            hear(content)
            return
        del self._running[connection]
        connection.close()
        _end(process, time.monotonic() + _PATIENCE)
        if kind == "result":
            future.set_result(content)
        else:
            future.set_exception(content)

    def cancel(self, reason: BaseException) -> None:
        for future, _, _ in self._waiting:
            future.cancel()
        self._waiting.clear()
        self._signal(_signal_for(reason))

    def _signal(self, number: int) -> None:
        """Send a signal to each worker."""
        for process, _ in list(self._running.values()):
            assert process.pid
            with contextlib.suppress(OSError):
                os.kill(process.pid, number)

    def shutdown(self) -> None:
        deadline = time.monotonic() + _CLOSING
        for connection in self._running:
            connection.close()  # a worker that tells something must not wait for us
        for process, future in self._running.values():
            _end(process, deadline)
            future.cancel()
        self._running.clear()


def start_method(preload: Sequence[str] = ()) -> BaseContext:
    """Return how to start workers: if possible from a process that has imported ``preload``.

    That process starts to import now, while the caller goes on.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    default = tempfile.tempdir
    if len(tempfile.gettempdir()) <= _LONGEST:
        tempfile.tempdir = str(_sockets())  # there multiprocessing makes its socket
    try:
        with signals.ignoring_interrupts():  # a Ctrl-C during the imports would end it
            forkserver.ensure_running()
    finally:
        tempfile.tempdir = default
    return context


@functools.cache
def _sockets() -> Path:
    """Return a folder for sockets that is removed when this process ends."""
    from multiprocessing.util import Finalize

    stack = contextlib.ExitStack()
    Finalize(None, stack.close, exitpriority=-200)  # after its own, of the socket's folder: -100
    return stack.enter_context(temporary_folder())


def _signal_for(reason: BaseException) -> signal.Signals:
    """Return the signal that passes on to workers what has ended the sweep."""
    if isinstance(reason, KeyboardInterrupt):
        return _INTERRUPT
    hung_up = isinstance(reason, SystemExit) and reason.code == 128 + signal.SIGHUP
    return signal.SIGHUP if hung_up else signal.SIGTERM


def _death(process: BaseProcess) -> WorkerDied:
    process.join()
    code = process.exitcode
    how = f"by signal {-code}" if code and code < 0 else f"with exit code {code}"
    died = WorkerDied(f"its worker process ended {how}; the system may have run out of memory")
    died.code = code
    return died


def _end(process: BaseProcess, deadline: float) -> None:
    """Wait for a process to end until the deadline, then kill it."""
    process.join(max(0.0, deadline - time.monotonic()))
    if process.exitcode is None:
        process.kill()
        process.join()


def _serve(
    connection: Connection, work: Work, task: Any, folder: str, environment: Mapping[str, str]
) -> None:
    """Do one task in a worker process, and send its news and its result to the parent."""
    logging.raiseExceptions = False  # a line of the log that can't be written is dropped
    signals.end_worker_in_order_on_signals(_INTERRUPT)
    os.chdir(folder)
    os.environ.clear()  # the process that this one is forked from may be older than these
    os.environ.update(environment)
    try:
        connection.recv()  # the parent knows of this worker
    except (EOFError, OSError):
        return
    threading.Thread(target=_follow_parent, daemon=True).start()

    def tell(news: Any) -> None:
        signals.raise_if_ending()
        with contextlib.suppress(OSError):
            connection.send(("news", news))

    try:
        message = pickle.dumps(("result", work(task, tell)))
    except Exception as error:  # of the work, or because its result can't be pickled
        message = pickle.dumps(("error", RuntimeError(first_line(error))))
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        signals.leave_at_once_on_signals()  # the runs are closed
        signal.signal(_INTERRUPT, signal.SIG_IGN)
        if not _parent().is_alive():
            remove_abandoned()
    with contextlib.suppress(OSError):  # the parent may be gone
        connection.send_bytes(message)


def _follow_parent() -> None:
    """End as on SIGTERM when the parent is gone: nobody would take the result."""
    _parent().join()
    os.kill(os.getpid(), signal.SIGTERM)


def _parent() -> BaseProcess:
    parent = multiprocessing.parent_process()
    assert parent is not None
    return parent
