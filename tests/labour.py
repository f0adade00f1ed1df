"""What tasks do in the tests of executors; light to import, as each task has a fresh process."""

import contextlib
import hashlib
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.support.temporary import using

if TYPE_CHECKING:
    from src.sweep.dask_worker import Place

Tell = Callable[[Any], None]


class Log:
    """A file to which tasks add lines, whichever process they are in."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, line: Any) -> None:
        with self.path.open("a") as file:
            file.write(f"{line}\n")

    @property
    def lines(self) -> list[str]:
        return self.path.read_text().split() if self.path.exists() else []


class Labour:
    """A task: what it does, and its log."""

    def __init__(self, kind: str, log: Path) -> None:
        self.kind, self.log = kind, log

    def at(self, place: "Place") -> "Labour":
        return self

    def carry(self, news: Any) -> Any:
        return news

    def remains(self) -> list[Any]:
        return []


def labour(task: Labour, tell: Tell) -> Any:
    kind, log = task.kind, Log(task.log)
    log.add(kind)
    tell(2)
    tell(3)
    tell(f"{kind} was told")
    if kind == "error":
        raise ValueError("no such thing")
    if kind == "process":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "worker" or (kind == "worker-once" and log.lines.count(kind) == 1):
        worker = multiprocessing.parent_process()
        assert worker is not None
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        time.sleep(60)  # until the end of the worker ends this process, too
    return f"{kind} is done"


def endless(task: Labour, tell: Tell) -> None:
    """Work until it is interrupted; what it has open takes a moment to close."""
    try:
        Log(task.log).add("begun")
        while True:
            tell("begun")
            time.sleep(0.05)
    except BaseException as error:
        time.sleep(0.5)
        Log(task.log).add(type(error).__name__)
        raise


class Reader(Labour):
    """A task that reads a file, wherever it is."""

    def __init__(self, path: Path) -> None:
        super().__init__("reader", path)
        self.path, self.data = path, path.parent

    def at(self, place: "Place") -> "Reader":
        reader = Reader(self.path)
        if place.data:
            reader.data = place.data
        return reader


def read(task: Reader, tell: Tell) -> tuple[str, str, int, str]:
    file = task.data / task.path.name
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return str(file), digest, file.stat().st_mtime_ns, str(Path.cwd())


class Keeper(Labour):
    """A task that keeps files in the worker's own folder."""

    def __init__(self, log: Path, runs: Path | None = None) -> None:
        super().__init__("keeper", log)
        self.runs = runs

    def at(self, place: "Place") -> "Keeper":
        return Keeper(self.log, place.runs)


def keep(task: Keeper, tell: Tell) -> None:
    """Kill the worker; then keep a file as soon as another attempt has begun, which closes it."""
    log = Log(task.log)
    assert task.runs is not None
    if log.lines.count("begun"):
        log.add("begun")
        while "closed" not in log.lines and "lost" not in log.lines:
            tell(1)
            time.sleep(0.05)
        return
    with using(task.runs):
        log.add("begun")
        worker = multiprocessing.parent_process()
        assert worker is not None
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        try:
            while True:
                tell(1)
                time.sleep(0.05)
        finally:
            while log.lines.count("begun") < 2:
                time.sleep(0.05)
            kept = task.runs / "result"
            with contextlib.suppress(OSError):
                kept.write_text("closed")
            log.add("closed" if kept.exists() else "lost")


class Crowd(Labour):
    """A task that ends when so many of them run at the same time."""

    def __init__(self, size: int, log: Path) -> None:
        super().__init__("crowd", log)
        self.size = size


def together(task: Crowd, tell: Tell) -> int:
    """Return how many tasks have begun while this one runs."""
    log = Log(task.log)
    log.add("begun")
    while log.lines.count("begun") < task.size:
        tell(1)
        time.sleep(0.05)
    return log.lines.count("begun")


def note(task: str, tell: Tell) -> None:
    """Write a line of the log to a file."""
    logging.basicConfig(filename=task)
    logging.warning("a line")
