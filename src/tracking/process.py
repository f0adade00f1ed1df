"""Starts the mirror of this process, and says to it which runs there are.

This module imports nothing that takes time: the mirror is started before anything else.
"""

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from src.runs.job import Job
    from src.runs.tracking import Tracking

log = logging.getLogger(__name__)  # shown on the terminal too

# A store that was silent for so many seconds is given up at the end of a run. After a signal the
# process must end soon.
PATIENCE, PATIENCE_WHEN_KILLED = 20.0, 4.0
_ATTEMPTS = 4.0  # seconds for a store that is away since long
_IMPORTING = 60.0  # seconds for a mirror that has only been started
_SOURCE = Path(__file__).parents[2]
_COMMANDS_WITHOUT = ("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i")


class MirrorProcess:
    """A mirror: a process of its own, which ends some time after this one."""

    def __init__(self) -> None:
        self.is_closed = False
        self._sent: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._start()

    def _start(self) -> None:
        # It finds the plugins that this process finds, and no other package named src.
        path = [str(_SOURCE), *(place or "." for place in sys.path), "."]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "src.tracking.mirror"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # whoever reads our output must not wait for the mirror
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
            start_new_session=True,  # Ctrl-C does not reach it
        )
        self._is_ready = self._is_away = self._has_ended = False
        self._heard = time.monotonic()
        self._flushed = 0
        self.lacking: dict[str, str] = {}
        self._answer: str | None = None  # why the store can't be opened; empty if it can
        threading.Thread(target=self._listen, args=[self._process], daemon=True).start()

    def open(self, store: str, experiment: str, outputs: Path, place: str) -> None:
        """Say which store and experiment hold the runs; ``place`` names the store to people."""
        self.place = place
        self.send(store=store, experiment=experiment, outputs=str(outputs.absolute()))

    def check(self) -> None:
        """Raise UserError if the store can't be opened; wait until this is known."""
        from src.support.errors import UserError

        self._answer = None
        self._write({"check": True})
        with self._changed:
            self._changed.wait_for(lambda: self._answer is not None or self._has_ended)
        if self._answer:
            raise UserError(self._answer)

    def follow(self, folders: Iterable[Path]) -> None:
        """Have the runs told that begin in these folders, or have begun."""
        self.send(follow=[str(folder.absolute()) for folder in folders])

    def send(self, **message: Any) -> None:
        """Send a message; see ``src.tracking.mirror``."""
        self._sent.append(message)
        self._write(message)

    def _write(self, message: dict[str, Any]) -> None:
        assert self._process.stdin
        with contextlib.suppress(OSError, ValueError):  # it has died
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def flush(self, patience: float = PATIENCE) -> bool:
        """Wait until MLflow has everything; return whether it has, or refuses the rest.

        A store that is silent for ``patience`` seconds is given up. A mirror that has died is
        replaced once.
        """
        number = int(time.monotonic() * 1e6)
        self._write({"flush": number})
        is_new = False
        begin = time.monotonic()
        with self._changed:
            if not self._is_away:
                self._heard = begin
            while self._flushed != number:
                now = time.monotonic()
                if self._has_ended and is_new:
                    return False
                if self._has_ended:
                    is_new = True
                    self._start()
                    for message in [*self._sent, {"flush": number}]:
                        self._write(message)
                silent, attempts = now - self._heard, now - begin
                least = min(patience, _ATTEMPTS) if self._is_ready else _IMPORTING
                if silent >= patience and attempts >= least:
                    return False
                self._changed.wait(0.2)
        return True

    def close(self) -> None:
        """Let the mirror end when it has told what is left."""
        self.is_closed = True
        with contextlib.suppress(OSError):
            assert self._process.stdin
            self._process.stdin.close()

    def _listen(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin
        assert process.stdout
        with process.stdout as lines:
            for line in lines:
                with contextlib.suppress(ValueError):
                    self._take(json.loads(line))
        with self._changed:
            if process is self._process:
                self._has_ended = True
            self._changed.notify_all()
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.wait()

    def _take(self, message: dict[str, Any]) -> None:
        if reason := message.get("lost"):
            self._is_away = True
            log.warning(
                "the MLflow store %s fails: %s; training goes on, and the run's folder has what "
                "MLflow must be told",
                self.place,
                reason,
            )
            return
        if message.get("found"):
            self._is_away = False
            log.warning("the MLflow store %s is back", self.place)
        with self._changed:
            self._heard = time.monotonic()
            self._is_ready = True
            self._answer = message.get("refused", self._answer)
            self._flushed = message.get("flushed", self._flushed)
            self.lacking = message.get("lacking", self.lacking)
            self._changed.notify_all()


_idle: list[MirrorProcess] = []  # started, and not used yet
_used: dict[tuple[int, "Tracking", Path], MirrorProcess] = {}


def start(arguments: Sequence[str]) -> None:
    """Start a mirror if a command with these arguments is going to need one."""
    is_needed = not any(
        argument in _COMMANDS_WITHOUT or argument.endswith("tracking.offline=true")
        for argument in arguments
    )
    if is_needed and not (_idle or _used):
        _idle.append(MirrorProcess())


@contextlib.contextmanager
def closing_mirrors() -> Iterator[None]:
    """Let the mirrors of this process end after the block, when they have told what is left."""
    try:
        yield
    finally:
        for process in [*_idle, *_used.values()]:
            process.close()
        _idle.clear()
        _used.clear()


def mirror(job: "Job") -> MirrorProcess | None:
    """Return the mirror of this process for a job's store; it is started if need be.

    One for another store may end then. None if the job uses no store.
    """
    from src.support.masking import mask

    if job.tracking.offline:
        return None
    key = os.getpid(), job.tracking, job.outputs.absolute()
    if key not in _used or _used[key].is_closed:
        while _used:
            _used.popitem()[1].close()
        _used[key] = _idle.pop() if _idle else MirrorProcess()
        store = job.tracking.store(job.outputs)
        _used[key].open(store, job.tracking.experiment, job.outputs, mask(store))
    return _used[key]


def check_mirror(job: "Job") -> None:
    """Raise UserError if a job's store can't be opened, as far as can be known at once."""
    from src.tracking.store import check_store, database_file

    if job.tracking.offline:
        return
    check_store(job.tracking, job.outputs)
    if not database_file(job.tracking.store(job.outputs)) and (own := mirror(job)):
        own.check()
