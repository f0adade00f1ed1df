"""What fails around a run: MLflow's server, killed and started again, and a disk that is full."""

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from src.tracking.told import pending
from tests.test_outage import Server
from tests.torture.comparing import differences, torn, untold
from tests.torture.processes import PATIENCE, run, sync
from tests.torture.trial import RUN_FOLDER, Trial, beginning, going_on, start

_LOADED = ["model=relu2_small", "batching=full", "epochs=1500", "lr=0.3"]


# --- the server ---------------------------------------------------------------------------------


def server_killed(trial: Trial) -> None:
    """Kill the server one to three times while two runs tell it their curves."""
    server = _server(trial.working)
    if not server.answers():
        server.start()
    environment = {"MLFLOW_TRACKING_URI": server.address}
    seed = trial.draw.randrange(1000)
    settings = [[*_LOADED, f"seed={seed + number}"] for number in range(2)]
    outputs = [trial.folder / f"run{number}" for number in range(2)]
    runs = [
        start(own, of_run, environment=environment)
        for own, of_run in zip(outputs, settings, strict=True)
    ]
    for _ in range(trial.draw.randint(1, 3)):
        time.sleep(trial.draw.uniform(0.2, 5.0))
        server.kill()
        trial.kills += 1
        time.sleep(trial.draw.uniform(0.0, 4.0))
        server.start()
    for own, process in zip(outputs, runs, strict=True):
        trial.faults += process.end().faults((0,))
        if list(pending([own])):  # the server was away for too long
            synced = sync(own, **environment)
            trial.faults += synced.faults((0,))
        folder = own / RUN_FOLDER
        trial.faults += [*torn(folder), *untold(folder, server.folder)]


@cache
def _server(working: Path) -> Server:
    """Return the server of all trials; it is not started yet."""
    folder = working / "server"
    folder.mkdir()
    return Server(folder)


def end_server(working: Path) -> None:
    """Kill the server, if there is one."""
    if (working / "server").exists():
        with contextlib.suppress(ProcessLookupError, AssertionError):
            _server(working).kill()


# --- the disk -----------------------------------------------------------------------------------

_ON_DISK = ["model=relu2_small", "optimizer=adam", "lr=0.002", "epochs=6", "checkpoint.every=2"]
_SIZE = 64 * 2**20  # bytes of the file system


class NotPossible(Exception):
    """A kind of trial cannot run on this machine; the message says why."""


def disk_full(trial: Trial) -> None:
    """Let the disk fill up at some moment of a run, free it, and let the run go on."""
    whole, _ = trial.whole(_ON_DISK)
    used = sum(path.stat().st_size for path in whole.parents[1].rglob("*") if path.is_file())
    with _small_disk() as disk:
        on_it = disk / "outputs"
        shutil.copytree(trial.outputs("start"), on_it)
        there = (on_it / "mlflow.db").stat().st_size
        ballast = disk / "ballast"
        free = trial.draw.randint(0, max(1, used - there) // 1024)
        _fill(disk, ballast, free)
        ended = run(on_it, *beginning(on_it, _ON_DISK))
        trial.faults += ended.faults((0, 1, 2))
        trial.faults += torn(on_it / RUN_FOLDER)
        words = ("No space left", "no space", "disk is full", "is full", "not been told")
        if ended.code and not any(word in ended.said for word in words):
            trial.faults.append(f"with {free} KiB the disk is not named:\n{ended.said[-600:]}")
        ballast.unlink()
        trial.faults += run(on_it, *going_on(on_it, _ON_DISK)).faults((0,))
        if list(pending([on_it])):
            trial.faults += sync(on_it).faults((0,))
        folder = on_it / RUN_FOLDER
        trial.faults += [*differences(folder, whole), *untold(folder, on_it)]
        trial.faults += [f"{free} KiB were free"] if trial.faults else []


def _fill(disk: Path, ballast: Path, free: int) -> None:
    """Write a file that leaves so many KiB."""
    left = shutil.disk_usage(disk).free - 1024 * free
    with ballast.open("wb") as file:
        for _ in range(left // 2**20):
            file.write(bytes(2**20))
        file.write(bytes(left % 2**20))


@contextlib.contextmanager
def _small_disk() -> Iterator[Path]:
    """Mount a small file system in memory. Raises NotPossible where that is not allowed."""
    folder = Path(tempfile.mkdtemp(prefix="disk."))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(folder)]
    try:
        made = subprocess.run(mount, capture_output=True, text=True, check=False)
    except OSError as error:
        folder.rmdir()
        raise NotPossible(f"no file system can be mounted: {error}") from None
    if made.returncode:
        folder.rmdir()
        raise NotPossible(f"no file system can be mounted: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        end = time.monotonic() + PATIENCE
        while subprocess.run(["umount", str(folder)], capture_output=True, check=False).returncode:
            if time.monotonic() > end:
                break
            time.sleep(0.1)
        folder.rmdir()
