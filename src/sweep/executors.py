"""Processes that work side by side: one that dies takes only its own work with it, and none outlives its parent."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from src.support.errors import first_line
from src.support.signals import ignoring_interrupts

_PATIENCE = 30.0  # seconds that workers have to close what they have open
_INTERRUPT = getattr(
    signal, "SIGUSR1", signal.SIGTERM
)  # of the parent; the terminal's Ctrl-C reaches all processes


class WorkerDied(Exception):
    """A worker was gone before its work was done."""


def start_method(preload: Sequence[str] = ()) -> BaseContext:
    """Return the way to start workers: from a process that has imported ``preload`` once for all, where there is one.

    That process begins to import now, beside whatever the caller does next.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    with ignoring_interrupts():  # it would die of a Ctrl-C while it imports
        forkserver.ensure_running()
    return context


def work_through(
    context: BaseContext,
    function: Callable[[Any, Callable[[Any], None]], Any],
    tasks: Sequence[Any],
    workers: int,
    hear: Callable[[Any], None],
) -> Iterator[tuple[int, Any]]:
    """Yield each task's number and what ``function(task, tell)`` returned or raised, as they come.

    ``hear`` is given what they ``tell``. Where the caller is interrupted, the workers are, and have time to clean up.
    """
    waiting = deque(enumerate(tasks))
    idle: list[_Worker] = []
    busy: dict[Connection, tuple[_Worker, int]] = {}
    try:
        while waiting or busy:
            while waiting and len(busy) < workers:
                worker = idle.pop() if idle else _Worker(context, function)
                number, task = waiting.popleft()
                busy[worker.connection] = worker, number
                worker.connection.send(task)
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                worker, number = busy[connection]
                try:
                    is_result, content = connection.recv()
                except EOFError:
                    del busy[connection]
                    yield number, worker.died()
                    continue
                if is_result:
                    del busy[connection]
                    idle.append(worker)
                    yield number, content
                else:
                    hear(content)
    except BaseException as error:
        for worker, _ in busy.values():
            worker.interrupt(error)
        raise
    finally:
        for worker in [*idle, *(worker for worker, _ in busy.values())]:
            worker.end()


class _Worker:
    """The parent's side of a worker."""

    def __init__(self, context: BaseContext, function: Callable[..., Any]) -> None:
        self.connection, theirs = context.Pipe()
        serve = (theirs, function, str(Path.cwd()), dict(os.environ))
        self._process = context.Process(target=_serve, args=serve)  # type: ignore[attr-defined]
        self._process.start()
        theirs.close()  # so that its end here is felt when the worker is gone

    def interrupt(self, error: BaseException) -> None:
        with contextlib.suppress(OSError):
            os.kill(
                self._process.pid,
                _INTERRUPT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM,
            )

    def died(self) -> WorkerDied:
        self._process.join()
        code = self._process.exitcode
        how = f"by signal {-code}" if code and code < 0 else f"with exit code {code}"
        return WorkerDied(
            f"its worker process ended {how}; perhaps the system killed it for want of memory"
        )

    def end(self) -> None:
        self.connection.close()
        self._process.join(_PATIENCE)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()


def _serve(
    connection: Connection,
    function: Callable[..., Any],
    folder: str,
    environment: Mapping[str, str],
) -> None:
    """Work as long as the parent has something to do and lives."""
    os.chdir(folder)
    os.environ.clear()  # the process that this one comes from may be older than folder and environment
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(_INTERRUPT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_follow_parent, daemon=True).start()

    def tell(news: Any) -> None:
        if _stopping:  # and the exception came where Python drops it, such as in the callback of a weak reference
            raise _stopping[0]
        with contextlib.suppress(OSError):
            connection.send((False, news))

    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            result = function(task, tell)
        except Exception as error:
            result = RuntimeError(first_line(error))
        except KeyboardInterrupt:
            sys.exit(130)
        with contextlib.suppress(OSError):  # nobody may be left to take it
            connection.send((True, result))


_stopping: list[BaseException] = []


def _stop(number: int, _: Any) -> None:
    for again in (_INTERRUPT, signal.SIGTERM):  # while things are being closed, once is enough
        signal.signal(again, signal.SIG_IGN)
    _stopping.append(SystemExit(143) if number == signal.SIGTERM else KeyboardInterrupt())
    raise _stopping[0]


def _follow_parent() -> None:
    """End as on a termination when the parent is gone: nobody would take the result."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
