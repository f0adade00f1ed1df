"""Starts runs in processes that are forked from one that has imported everything, to save time."""

import atexit
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.torture.faulty import Fault, Injector

PATIENCE = 300.0  # seconds; a machine may be busy
_PRELOAD = [
    "src.sweep.preload",
    "src.run",
    "src.sync",
    "src.pictures",
    "src.runs.pictures.folder",
    "src.training.engines.choice",
]


@dataclass(frozen=True)
class Ended:
    """A process that has ended: its exit code and what it printed."""

    code: int
    said: str

    def faults(self, codes: Sequence[int]) -> list[str]:
        """Return what a person must never see: a traceback, or another exit code than these."""
        found = []
        if "Traceback" in self.said:
            found.append(f"a traceback:\n{self.said[-1500:]}")
        if self.code not in codes:
            found.append(f"exit code {self.code}:\n{self.said[-600:]}")
        return found


@cache
def _context() -> BaseContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    return context


class Process:
    """One command of the project: ``src.run``, or another entry point, with its arguments."""

    def __init__(
        self,
        outputs: Path,
        *arguments: str,
        module: str = "src.run",
        fault: Fault | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        outputs.mkdir(parents=True, exist_ok=True)
        self._console = outputs.parent / f"{outputs.name}.console"
        self.counts = outputs.parent / f"{outputs.name}.counts.json"
        given = (module, arguments, outputs, self._console, self.counts, fault, environment or {})
        self._process: BaseProcess = _context().Process(target=_serve, args=given)  # type: ignore[attr-defined]
        self._process.start()

    def alive(self) -> bool:
        """Return whether the process has not ended."""
        return self._process.exitcode is None

    def signal_after(self, seconds: float, *numbers: int) -> float:
        """Send signals after some time; return how many seconds later the process had ended."""
        self._process.join(seconds)
        begin = time.monotonic()
        for number in numbers:
            if self.alive() and self._process.pid:
                os.kill(self._process.pid, number)
                self._process.join(0.02)
        self.end()
        return time.monotonic() - begin

    def kill_after(self, seconds: float) -> bool:
        """Kill the process after some time; return whether it was still alive."""
        self._process.join(seconds)
        alive = self._process.exitcode is None
        self._process.kill()
        self.end()
        return alive

    def end(self) -> Ended:
        """Wait for the end of the process."""
        self._process.join(PATIENCE)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
            return Ended(-99, f"it hung for {PATIENCE:.0f} s")
        said = self._console.read_text(errors="replace") if self._console.exists() else ""
        return Ended(int(self._process.exitcode), said)


def run(outputs: Path, *arguments: str, module: str = "src.run", **environment: str) -> Ended:
    """Run a command to its end."""
    return Process(outputs, *arguments, module=module, environment=environment).end()


def sync(outputs: Path, **environment: str) -> Ended:
    """Tell MLflow what it does not have, when the mirrors of dead processes have ended."""
    arguments, end = (str(outputs), "--outputs", str(outputs)), time.monotonic() + PATIENCE
    while True:
        ended = run(outputs, *arguments, module="src.sync", **environment)
        is_told = "another process is telling" not in " ".join(ended.said.split())
        if is_told or time.monotonic() > end:
            return ended
        time.sleep(0.5)


def _serve(
    module: str,
    arguments: Sequence[str],
    outputs: Path,
    console: Path,
    counts: Path,
    fault: Fault | None,
    environment: Mapping[str, str],
) -> None:
    """Be the command, in a forked process."""
    descriptor = os.open(console, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", closefd=False) for n in (1, 2))
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]
    os.environ.update(environment)
    multiprocessing.process._parent_process = None  # type: ignore[attr-defined] # no sweep's worker
    sys.argv = [module, *arguments]
    injector = Injector(fault, outputs) if fault else None
    if injector and fault:
        injector.install()
        _break_mirror(fault, outputs, counts.with_suffix(".mirror"))
    try:
        __import__(module)
        sys.modules[module].main()
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out
        if injector:
            counts.write_text(json.dumps(injector.counts))


def _break_mirror(fault: Fault, outputs: Path, counts: Path) -> None:
    """Have the first mirror of this process fail; the one that replaces it is sound."""
    sound = subprocess.Popen

    def popen(command: list[str], **options: Any) -> Any:
        if command[-1] == "src.tracking.mirror":
            subprocess.Popen = sound  # type: ignore[misc]
            given = [json.dumps(asdict(fault)), str(outputs), str(counts)]
            command = [*command[:-1], "tests.torture.faulty_mirror", *given]
        return sound(command, **options)

    subprocess.Popen = popen  # type: ignore[assignment,misc]


def calls(process: Process) -> dict[str, int]:
    """Return how many calls of each kind a command made that has ended, its mirror included."""
    of_mirror = process.counts.with_suffix(".mirror")
    end = time.monotonic() + PATIENCE
    while not of_mirror.exists():
        assert time.monotonic() < end, "its mirror has not ended"
        time.sleep(0.05)
    counted = [json.loads(path.read_text() or "{}") for path in (process.counts, of_mirror)]
    return {**counted[0], **counted[1]}


@cache
def _database(folder: Path) -> Path:
    """Return an empty database of MLflow, which takes seconds to make."""
    from src.runs.tracking import database_uri
    from src.tracking.store import open_store

    path = folder / "empty" / "mlflow.db"
    path.parent.mkdir(parents=True)
    open_store(database_uri(path), "unused", path.parent)
    return path


def new_outputs(folder: Path, working: Path) -> Path:
    """Return a new folder of outputs that holds an empty database."""
    folder.mkdir(parents=True)
    shutil.copyfile(_database(working), folder / "mlflow.db")
    return folder
