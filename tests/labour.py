"""What tasks do in the tests of executors; light to import, as each task has a fresh process."""

import hashlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
