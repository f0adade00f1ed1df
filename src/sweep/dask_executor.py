"""Runs the tasks of a sweep on the workers of a Dask cluster, which repeats what is lost."""

import contextlib
import hashlib
import pickle
import queue
import secrets
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import distributed
from distributed import Client
from distributed.scheduler import KilledWorker

from src.support.errors import ConfigError, first_line
from src.sweep.dask_worker import Driver, Outcome, SweepPlugin, Task, run_task
from src.sweep.executors import Executor, Tell, Work, WorkerDied

ATTEMPTS = 3  # at a task whose process or worker dies
_CLOSING = 10.0  # seconds that interrupted tasks have to close their runs


class ClusterGone(Exception):
    """The connection to the scheduler is lost, and with it all tasks."""


class DaskExecutor(Executor):
    """Runs each task in a fresh process on a worker of the cluster.

    A task whose worker dies runs again on another one, ``ATTEMPTS`` times in all. One that raises
    an exception does not.
    """

    def __init__(
        self, client: Client, driver: Driver, preload: Sequence[str] = (), *, local: bool = False
    ) -> None:
        """``local`` says that the workers were started here, so that Ctrl-C reaches them, too."""
        self._client, self._local = client, local
        self._name = f"scratchgrid-{secrets.token_hex(8)}"
        self._events: queue.SimpleQueue[tuple[str, str, Any]] = queue.SimpleQueue()
        self._hear: Tell = lambda news: None
        self._tasks: dict[str, Future[Any]] = {}
        self._planned: dict[str, distributed.Future[Any]] = {}  # Dask drops what nobody holds
        self._running: set[str] = set()
        self._sent: dict[Path, tuple[tuple[str, str], distributed.Future[Any]]] = {}
        self._sends: bool | None = None  # whether workers don't see the files of this machine
        plugin = SweepPlugin(self._name, driver, preload, ignores_interrupts=local)
        client.subscribe_topic(self._name, self._take)
        client.register_plugin(plugin, self._name)

    def check(self) -> None:
        """Raise ConfigError if a worker that is there can't train runs."""
        told = self._client.run(_refusal, self._name)
        for refused in filter(None, told.values()):
            raise ConfigError(refused)

    def submit(self, work: Work, task: Task, files: Sequence[Path] = ()) -> "Future[Any]":
        """Plan ``work(task, tell)`` and return the future of its result.

        ``files`` are what the task reads; they are sent to workers that do not see them, once.
        """
        if self._sends is None and files:
            seen = self._client.run(_sees, self._name, [path.absolute() for path in files])
            self._sends = not all(seen.values())
        sent = [self._send(path) for path in files] if self._sends else []
        names, contents = [name for name, _ in sent], [content for _, content in sent]
        future: Future[Any] = Future()
        try:
            planned = self._client.submit(
                run_task, self._name, work, task, names, contents, pure=False, retries=ATTEMPTS - 1
            )
        except Exception as error:  # a task that can't be pickled
            self._tasks[key := f"not sent {len(self._tasks)}"] = future
            self._events.put(("done", key, RuntimeError(first_line(error))))
            return future
        key = str(planned.key)
        self._tasks[key], self._planned[key] = future, planned
        planned.add_done_callback(self._end)
        return future

    def _send(self, path: Path) -> tuple[tuple[str, str], distributed.Future[Any]]:
        """Return the name and digest of a file, and the future of its content on the workers.

        Dask copies it to a worker once, and makes it again if all copies are lost.
        """
        if path not in self._sent:
            content = path.read_bytes()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it is large
                future = self._client.submit(bytes, content, pure=False)
            self._sent[path] = (path.name, hashlib.sha256(content).hexdigest()), future
        return self._sent[path]

    def _take(self, event: tuple[float, bytes]) -> None:
        """Take a message of a worker, in Dask's thread."""
        self._events.put(pickle.loads(event[1]))  # noqa: S301 (the cluster runs our code)

    def _end(self, planned: distributed.Future[Any]) -> None:
        """Take the end of a task, in a thread of Dask's."""
        try:
            outcome: Any = planned.result()
        except BaseException as error:
            outcome = error
        self._events.put(("done", str(planned.key), outcome))

    def as_completed(self, hear: Tell) -> "Iterator[Future[Any]]":
        """Yield each future when it is done. Raises ClusterGone if the scheduler is lost."""
        self._hear = hear
        while self._tasks:
            kind, key, content = self._events.get()
            if kind == "done":
                if (future := self._done(key, content)) is not None:
                    yield future
            else:
                self._note(kind, key, content)

    def _note(self, kind: str, key: str, content: Any) -> None:
        if kind == "news":
            self._hear(content)
        elif kind == "begin":
            self._running.add(key)
        elif kind == "end":
            self._running.discard(key)

    def _done(self, key: str, outcome: Any) -> "Future[Any] | None":
        """Settle the future of a task that has ended and return it."""
        if key not in self._tasks:
            return None
        if isinstance(outcome, CancelledError):  # and not by us
            raise ClusterGone(
                "the connection to Dask's scheduler is lost; workers close their runs"
            )
        future = self._tasks.pop(key)
        self._planned.pop(key, None)
        self._running.discard(key)
        if isinstance(outcome, Outcome):
            if outcome.error is None:
                future.set_result(outcome.result)
            else:
                future.set_exception(outcome.error)
        elif isinstance(outcome, KilledWorker | WorkerDied):
            future.set_exception(_lost(outcome))
        else:
            future.set_exception(RuntimeError(first_line(outcome)))
        return future

    def cancel(self, reason: BaseException) -> None:
        for future in self._tasks.values():
            future.cancel()
        self._tasks.clear()
        with contextlib.suppress(Exception):  # the scheduler may be gone
            self._client.cancel(list(self._planned.values()))
        self._planned.clear()

    def shutdown(self) -> None:
        deadline = time.monotonic() + _CLOSING
        while self._running and (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                self._note(*self._events.get(timeout=left))
        if not self._local:  # workers that were started for this sweep end with it
            with contextlib.suppress(Exception):
                self._client.unregister_worker_plugin(self._name)


def _lost(error: Exception) -> WorkerDied:
    """Return why a task that was tried several times has failed."""
    if isinstance(error, WorkerDied):
        return WorkerDied(f"{error}; it was tried {ATTEMPTS} times")
    assert isinstance(error, KilledWorker)
    return WorkerDied(f"{error.allowed_failures + 1} workers died while they ran it")


def _refusal(sweep: str, dask_worker: Any) -> str | None:
    refused: str | None = dask_worker.plugins[sweep].refusal()
    return refused


def _sees(sweep: str, paths: Sequence[Path], dask_worker: Any) -> bool:
    seen: bool = dask_worker.plugins[sweep].sees(paths)
    return seen
