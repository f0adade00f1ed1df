"""What a Dask worker does for a sweep: it runs each task in a process of its own.

So a task has the same surroundings as in a sweep on one machine, and signals end it in order. Dask
decides where a task runs, and runs it elsewhere when its worker is lost.
"""

import contextlib
import hashlib
import multiprocessing
import os
import pickle
import platform
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from distributed import Reschedule, Worker, WorkerPlugin, get_worker

from src.runs.provenance import code_digest
from src.support.temporary import remove_abandoned, temporary_folder
from src.sweep.executors import LocalExecutor, Work, WorkerDied, start_method

_TURN = 0.5  # seconds between two messages about the progress of a task
_LAST = -200  # the priority of what is done last at the end of a process
_ENDED_BY_SIGNAL = {128 + number for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
_PASSED_ON = ("MLFLOW_", "SCRATCHGRID_")  # environment variables of the driver


@dataclass(frozen=True)
class Place:
    """Where a task runs: on a worker that may not see the driver's files.

    ``data`` is the folder of the files that were sent to the worker; None if it sees the driver's.
    ``runs`` is the worker's own folder for runs; None if it sees the driver's. ``folder`` is the
    driver's current one.
    """

    data: Path | None
    runs: Path | None
    folder: str


class Task(Protocol):
    """A task that reads or writes files: it changes with the place where it runs."""

    def at(self, place: Place) -> "Task":
        """Return the task as it is at a place."""

    def carry(self, news: Any) -> Any:
        """Return news of the task as they are sent to the driver."""

    def remains(self) -> list[Any]:
        """Return news that the driver must have when the task has ended in whatever way."""


@dataclass(frozen=True)
class Driver:
    """What workers must know of the process that sends them tasks."""

    machine: str
    code: str
    numpy: str
    folder: str  # the current one
    environment: Mapping[str, str]
    token: Path  # a file in the sweep's folder
    secret: str  # its content
    shares: bool | None  # whether workers use the driver's folders; None: where they see them
    needs_this_machine: bool  # whether MLflow's store can be opened on this machine only
    keeps_runs: bool  # whether a tracking server keeps the runs

    @staticmethod
    def here(
        token: Path, shares: bool | None, *, needs_this_machine: bool, keeps_runs: bool
    ) -> "Driver":
        """Describe this process."""
        own = {key: value for key, value in os.environ.items() if key.startswith(_PASSED_ON)}
        return Driver(
            machine(),
            code_digest(),
            np.__version__,
            str(Path.cwd()),
            own,
            token.absolute(),
            token.read_text(encoding="utf-8"),
            shares,
            needs_this_machine,
            keeps_runs,
        )


@dataclass(frozen=True)
class Outcome:
    """What a task returned, or the error that it raised. Dask would repeat a task that raises."""

    result: Any
    error: Exception | None


def machine() -> str:
    """Return what tells this machine from others, until it is booted again."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{socket.gethostname()} {platform.platform()}"


def run_task(
    sweep: str, work: Work, task: Task, names: Sequence[tuple[str, str]], contents: Sequence[bytes]
) -> Outcome:
    """Run a task of a sweep on this worker; Dask calls this.

    ``names`` holds the name and the SHA-256 of each file of ``contents``, which the task reads.
    Raises WorkerDied if its process died, and Reschedule if the worker is about to end.
    """
    worker = get_worker()
    plugin = worker.plugins[sweep]
    assert isinstance(plugin, SweepPlugin)
    return plugin.run(str(worker.get_current_task()), work, task, zip(names, contents, strict=True))


class SweepPlugin(WorkerPlugin):
    """Keeps the processes of a sweep on one worker, and ends them with the worker or the sweep.

    Dask sends it to each worker once, to those that join later, too.
    """

    def __init__(
        self, sweep: str, driver: Driver, preload: Sequence[str], *, ignores_interrupts: bool
    ) -> None:
        self.name = sweep
        self._driver, self._preload = driver, preload
        self._ignores_interrupts = ignores_interrupts

    def setup(self, worker: Worker) -> None:
        """Start the process from which those of tasks are forked. Dask calls this."""
        self._worker = worker
        self._running: dict[str, LocalExecutor] = {}
        self._interrupted: set[str] = set()
        if self._ignores_interrupts:  # a terminal sends Ctrl-C to all its processes
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        # A daemon of multiprocessing, as workers are under a nanny, may start no process: it would
        # be left behind. Ours end with their parent.
        multiprocessing.current_process().daemon = False
        self._folder = Path(worker.local_directory) / self.name
        self._folder.mkdir(parents=True, exist_ok=True)
        # When a worker is killed, the next one removes its local directory. The processes of tasks
        # live on for a moment, to close their runs: those are kept elsewhere.
        self._runs: Path | None = None
        self._runs_lock = threading.Lock()
        self._users = 0  # tasks that use it
        self._ends = False
        self._open = contextlib.ExitStack()
        Finalize(None, self._open.close, exitpriority=_LAST)
        remove_abandoned()
        self._method = start_method(self._preload)

    def teardown(self, worker: Worker) -> None:
        """Let the tasks close their runs: the worker ends. Dask calls this."""
        self._ends = True
        for key in list(self._running):
            self._interrupt(key, SystemExit())
        with self._using_runs():  # they are removed if no task uses them
            pass

    def transition(self, key: Any, start: Any, finish: Any, **_: Any) -> None:
        """Interrupt a task that nobody waits for any more: it, or the driver, is gone."""
        if start == "executing" and finish == "released":
            self._interrupt(str(key), KeyboardInterrupt())

    def _interrupt(self, key: str, reason: BaseException) -> None:
        if executor := self._running.get(key):
            self._interrupted.add(key)
            executor.cancel(reason)

    def refusal(self) -> str | None:
        """Return why runs can't be trained on this worker, or None."""
        driver, here = self._driver, f"the worker {self._worker.address}"
        if code_digest() != driver.code:
            return f"{here} has other code: install the same version of scratchgrid there"
        if np.__version__ != driver.numpy:
            return f"{here} has NumPy {np.__version__}, not {driver.numpy}: install the same"
        if driver.needs_this_machine and not (self._shares() and machine() == driver.machine):
            return (
                f"{here} is on another machine, or does not see this folder, and MLflow's store is "
                "a SQLite file of this machine: start a tracking server with make server, and set "
                "MLFLOW_TRACKING_URI to its address"
            )
        if not (driver.keeps_runs or self._shares()):
            return (
                f"{here} does not see {driver.token.parent}, and without a tracking server nothing "
                "would keep its runs: share the folder, or set MLFLOW_TRACKING_URI to the address "
                "of a server"
            )
        return None

    def sees(self, paths: Sequence[Path]) -> bool:
        """Return whether this worker sees these files of the driver."""
        return self._shares() and all(path.exists() for path in paths)

    def _shares(self) -> bool:
        """Return whether runs are kept in the driver's folder."""
        driver = self._driver
        if driver.shares is False:
            return False
        try:
            return driver.token.read_text(encoding="utf-8") == driver.secret
        except OSError:
            return False

    def run(
        self, key: str, work: Work, task: Task, files: Iterator[tuple[tuple[str, str], bytes]]
    ) -> Outcome:
        """Run a task in a process of its own. Raises what ``run_task`` raises."""
        if refused := self.refusal():
            return Outcome(None, RuntimeError(refused))
        with self._using_runs():
            return self._run(key, work, task, files)

    @contextlib.contextmanager
    def _using_runs(self) -> Iterator[None]:
        """Keep the folder of runs in the block; a worker that ends removes it afterwards."""
        with self._runs_lock:
            self._users += 1
        try:
            yield
        finally:
            with self._runs_lock:
                self._users -= 1
                if self._ends and not self._users:
                    self._open.close()

    def _own_runs(self) -> Path:
        """Return this worker's folder for runs."""
        with self._runs_lock:
            if self._runs is None:
                self._runs = self._open.enter_context(temporary_folder())
            return self._runs

    def _run(
        self, key: str, work: Work, task: Task, files: Iterator[tuple[tuple[str, str], bytes]]
    ) -> Outcome:
        data = self._receive(files)
        runs = None if self._shares() else self._own_runs()
        task = task.at(Place(data, runs, self._driver.folder))
        folder = runs or Path(self._driver.folder)
        folder.mkdir(parents=True, exist_ok=True)
        surroundings = str(folder), {**os.environ, **self._driver.environment}
        news = _News(self._worker, self.name, key)
        with LocalExecutor(1, self._method, surroundings) as executor:
            future = executor.submit(work, task)
            self._running[key] = executor
            news.begin()
            try:

                def hear(content: Any) -> None:
                    news.hear(task.carry(content))
                    if key in self._interrupted:  # perhaps before there was a process
                        executor.cancel(KeyboardInterrupt())

                for _ in executor.as_completed(hear):
                    pass
            finally:
                del self._running[key]
                self._interrupted.discard(key)
        for content in task.remains():
            news.hear(content)
        news.end()
        if future.cancelled():
            raise Reschedule
        error = future.exception()
        if isinstance(error, WorkerDied):
            if error.code in _ENDED_BY_SIGNAL:  # all processes of this worker are ended
                raise Reschedule
            raise error
        assert error is None or isinstance(error, Exception)
        return Outcome(None if error else future.result(), error)

    def _receive(self, files: Iterator[tuple[tuple[str, str], bytes]]) -> Path | None:
        """Write the files that were sent into this worker's folder, each once; return the folder.

        Raises OSError if they can't be written.
        """
        received = None
        for (name, digest), content in files:
            received = self._folder
            path = received / name
            if path.exists():
                continue
            if hashlib.sha256(content).hexdigest() != digest:
                raise OSError(f"{name}: was damaged on its way to {self._worker.address}")
            part = path.with_name(f"{name}.{threading.get_ident()}.part")
            part.write_bytes(content)
            part.replace(path)
        return received


class _News:
    """Sends what a task tells to the driver, in a message now and then."""

    def __init__(self, worker: Worker, topic: str, key: str) -> None:
        self._worker, self._topic, self._key = worker, topic, key
        self._sum = 0
        self._sent = time.monotonic()

    def begin(self) -> None:
        self._send("begin")

    def hear(self, content: Any) -> None:
        """Take numbers, which are added up, and anything else, which is sent at once."""
        if not isinstance(content, int):
            self._flush()
            self._send("news", content)
            return
        self._sum += content
        if time.monotonic() - self._sent >= _TURN:
            self._flush()

    def end(self) -> None:
        self._flush()
        self._send("end")

    def _flush(self) -> None:
        if self._sum:
            self._send("news", self._sum)
            self._sum, self._sent = 0, time.monotonic()

    def _send(self, kind: str, content: Any = None) -> None:
        message = pickle.dumps((kind, self._key, content))
        with contextlib.suppress(Exception):  # the scheduler may be gone
            self._worker.log_event(self._topic, message)
