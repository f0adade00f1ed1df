"""SIGKILL for a worker, a nanny, the scheduler or the driver of a sweep on a Dask cluster."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from src.runs.folder import HISTORY
from src.tracking.told import Told
from tests.conftest import ROOT
from tests.test_outage import Server
from tests.test_signals import members
from tests.test_stacked import ancestors
from tests.torture.comparing import differences, torn, untold
from tests.torture.processes import PATIENCE, Ended, new_outputs
from tests.torture.trial import Trial

TARGETS = ("worker", "nanny", "scheduler", "driver")
_MINUTE = 60.0  # seconds after which nothing of a sweep may be left
_MOST_LOSSES = 2  # of workers in one command: a third may rightly fail its runs
_RUNS, _EPOCHS = 6, (2000, 200)
_SWEEPS = (  # stacks, and runs by themselves
    ["lr=0.05,0.1,0.2", "optimizer=sgd,momentum", "model=sigmoid3"],
    ["seed=range(6)", "model=relu2_dropout", "hydra.launcher.together=1"],
)


class Dask:
    """A scheduler and two workers; what is killed can be started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "scheduler.json"
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, lost: int | None = None) -> None:
        """Start what does not live, and wait until both workers are known.

        The process ``lost`` was killed: it may take a moment to die.
        """
        from distributed import Client

        for own in self._started:
            if own.pid == lost:
                own.wait()
        if not self._started or self._started[0].poll() is not None:
            self.end()
            self._file.unlink(missing_ok=True)
            self._started = [self._dask("scheduler", "--host", "127.0.0.1", "--port", "0")]
            while not self._file.exists():
                time.sleep(0.05)
        self._started[1:] = [own for own in self._started[1:] if own.poll() is None]
        while len(self._started) < 3:
            self._started.append(self._dask("worker", "--nthreads", "1", "--memory-limit", "0"))
        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=PATIENCE)

    @property
    def address(self) -> str:
        return str(json.loads(self._file.read_text())["address"])

    def _dask(self, *arguments: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "dask", *arguments, "--scheduler-file", str(self._file)]
        settings = {
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "2",
            "DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION": "1.0",
        }
        with (self._folder / "dask.log").open("ab") as log:
            return subprocess.Popen(
                [*command, "--no-dashboard"],
                cwd=self._folder,
                env={**os.environ, **settings, "PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def process(self, target: str, index: int) -> int | None:
        """Return the process of a target, or None if there is none at this moment."""
        if target == "scheduler":
            return self._started[0].pid
        nanny = self._started[1:][index]
        if target == "nanny":
            return nanny.pid
        for child in members(nanny):
            with contextlib.suppress(OSError):
                whole = Path(f"/proc/{child}/cmdline").read_bytes()
                if b"spawn_main" in whole and ancestors(str(child))[:1] == [str(nanny.pid)]:
                    return child
        return None

    def end(self) -> float:
        """End all in order; return how many seconds it took until no process was left."""
        begin = time.monotonic()
        for own in self._started:
            own.terminate()
        while any(own.poll() is None or members(own) for own in self._started):
            if time.monotonic() - begin > _MINUTE:
                for own in self._started:
                    for process in members(own):
                        os.kill(process, signal.SIGKILL)
            time.sleep(0.05)
        self._started.clear()
        return time.monotonic() - begin


def killed(trial: Trial) -> None:
    """Kill two to four parts of a sweep and its cluster; give the same command again."""
    _in(trial, trial.draw.randrange(len(_SWEEPS)), None)


def killed_away(trial: Trial) -> None:
    """Do the same with workers that don't see the sweep's folder: a server keeps the runs."""
    server = _server(trial.working)
    if not server.answers():
        server.start()
    _in(trial, trial.draw.randrange(len(_SWEEPS)), server)


def _in(trial: Trial, number: int, server: Server | None) -> None:
    dask = _dask(trial.working)
    dask.start()
    whole = _undisturbed(trial.working, number, dask)
    outputs = trial.outputs("killed")
    _kill(trial, outputs, number, dask, server)
    (folder,) = outputs.glob("sweeps/*")
    for expected in sorted(whole.glob("[0-9]*")):
        ours = folder / expected.name
        if server:
            _bring(ours, server)
        found = [
            *differences(ours, expected, pictures=False, others=server is None),
            *untold(ours, server.folder if server else outputs),
        ]
        trial.faults += [f"run {expected.name}: {fault}" for fault in found]


def _bring(folder: Path, server: Server) -> None:
    """Copy what the server keeps of a run into its folder."""
    run_id = Told.load(folder).run_id
    for name in ("weights.npz", "predictions.npz"):
        (kept,) = server.folder.glob(f"artifacts/*/{run_id}/artifacts/{name}")
        shutil.copy(kept, folder)


@cache
def _server(working: Path) -> Server:
    """Return the server of all trials; it is not started yet."""
    folder = working / "server of clusters"
    folder.mkdir()
    return Server(folder, files=True)


@cache
def _dask(working: Path) -> Dask:
    """Return the cluster of all trials; it is not started yet."""
    folder = working / "dask"
    folder.mkdir()
    return Dask(folder)


def end(working: Path) -> str | None:
    """End the cluster, if there is one; return a fault if a process outlives it for a minute."""
    if (working / "server of clusters").exists():
        _server(working).kill()
    if not (working / "dask").exists():
        return None
    seconds = _dask(working).end()
    return f"the cluster took {seconds:.0f} s to end" if seconds > _MINUTE else None


def _kill(trial: Trial, outputs: Path, number: int, dask: Dask, server: Server | None) -> None:
    """Give the command until it ends by itself after the last of two to four kills."""
    moments = sorted(trial.draw.uniform(-0.1, 0.95) for _ in range(trial.draw.randint(2, 4)))
    process, losses = _start(outputs, number, dask, server), 0
    for moment in moments:
        target = trial.draw.choice(TARGETS)
        if losses == _MOST_LOSSES and target in ("worker", "nanny"):
            target = "driver"
        delay = trial.draw.uniform(0.0, 3.0)
        while process.poll() is None and _progress(outputs, number) < moment:
            time.sleep(0.02)
        if moment < 0:  # before the first epoch
            time.sleep(delay)
        place = trial.draw.randrange(2)
        victim = process.pid if target == "driver" else dask.process(target, place)
        if process.poll() is not None or victim is None:
            continue
        os.kill(victim, signal.SIGKILL)
        trial.kills += 1
        trial.killed_of[target] = trial.killed_of.get(target, 0) + 1
        losses += target in ("worker", "nanny")
        if target in ("scheduler", "driver"):
            _close(trial, process, outputs, target)
            dask.start(lost=victim)
            process, losses = _start(outputs, number, dask, server), 0
        elif target == "nanny":
            dask.start(lost=victim)
    trial.faults += _end(process, outputs).faults((0,))
    dask.start()


def _progress(outputs: Path, number: int) -> float:
    """Return the share of a sweep's epochs that are kept."""
    done: dict[str, int] = {}
    own = Path(tempfile.gettempdir())  # where workers keep runs that don't see the sweep's folder
    for sweep in outputs.glob("sweeps/*"):
        away = own.glob(f"scratchgrid.*/{sweep.name}/[0-9]*/{HISTORY}")
        for path in [*sweep.glob(f"[0-9]*/{HISTORY}"), *away]:
            with contextlib.suppress(OSError):  # it goes with its worker
                lines = path.read_bytes().count(b"\n") - 1
                done[path.parent.name] = max(lines, done.get(path.parent.name, 0))
    return sum(done.values()) / (_RUNS * _EPOCHS[number])


def _close(trial: Trial, process: "subprocess.Popen[bytes]", outputs: Path, target: str) -> None:
    """Wait for the end of a command whose scheduler or driver was killed, and of its runs."""
    begin = time.monotonic()
    ended = _end(process, outputs)
    trial.faults += ended.faults((1,) if target == "scheduler" else (-9,))
    while training := list(_training(outputs)):
        if time.monotonic() - begin > _MINUTE:
            trial.faults.append(f"{training} train a minute after the {target} was killed")
            for own in training:
                os.kill(own, signal.SIGKILL)
            break
        time.sleep(0.05)
    trial.longest = max(trial.longest, time.monotonic() - begin)
    for folder in outputs.glob("sweeps/*/[0-9]*"):
        trial.faults += torn(folder)


def _training(outputs: Path) -> Iterator[int]:
    """Yield the processes that have a run of these outputs open."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            links = [link.readlink() for link in (entry / "fd").iterdir()]
            sweeps = [path.name for path in outputs.glob("sweeps/*")]
            if any(own.name == HISTORY and own.parent.parent.name in sweeps for own in links):
                yield int(entry.name)


def _undisturbed(working: Path, number: int, dask: Dask) -> Path:
    """Return the folder of a sweep that nobody disturbs."""
    outputs = working / f"cluster{number}"
    if not outputs.exists():
        new_outputs(outputs, working)
        ended = _end(_start(outputs, number, dask), outputs)
        assert ended.code == 0, ended.said
    (folder,) = outputs.glob("sweeps/*")
    return folder


def _start(
    outputs: Path, number: int, dask: Dask, server: Server | None = None
) -> "subprocess.Popen[bytes]":
    launcher = ["hydra/launcher=dask", f"hydra.launcher.address={dask.address}"]
    settings = [f"outputs={outputs}", f"epochs={_EPOCHS[number]}", "checkpoint.every=20"]
    if server:
        settings += ["hydra.launcher.shared=false", f"tracking.uri={server.address}"]
    with outputs.with_suffix(".console").open("wb") as console:
        return subprocess.Popen(
            [sys.executable, "-m", "src.run", "-m", *settings, *launcher, *_SWEEPS[number]],
            cwd=ROOT,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )


def _end(process: "subprocess.Popen[bytes]", outputs: Path) -> Ended:
    """Wait for the end of a command."""
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return Ended(-99, f"it hung for {PATIENCE:.0f} s")
    return Ended(process.returncode, outputs.with_suffix(".console").read_text(errors="replace"))
