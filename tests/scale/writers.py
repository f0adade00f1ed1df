"""Has many processes log runs to a team's server at once, and counts what arrives."""

import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.synchronize import Event as EventType
from multiprocessing.synchronize import Semaphore as SemaphoreType
from pathlib import Path

from tests.conftest import ROOT
from tests.test_server import free_port

_EXPERIMENT, _SETTINGS, _EPOCHS = "writers", 40, 20
_DATASET = {
    "name": "digits",
    "digest": "0" * 32,
    "description": "digits",
    "images": ["float64", [1077, 64]],
    "labels": ["int64", [1077]],
}
_STARTING = 120.0  # seconds for a server


@dataclass(frozen=True)
class Written:
    """How many runs arrived whole, of how many, in how many seconds."""

    whole: int
    of: int
    seconds: float


@contextmanager
def server(folder: Path, workers: int) -> Iterator[str]:
    """Yield the address of a team's server with PostgreSQL that keeps everything in a folder."""
    port = free_port()
    command = [sys.executable, "-m", "src.server", "--folder", str(folder), "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--workers", str(workers)], cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address, end = f"http://127.0.0.1:{port}", time.monotonic() + _STARTING
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError("the server does not start; make server says why") from None
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait()


def write(address: str, writers: int, runs: int) -> Written:
    """Have ``writers`` processes log ``runs`` runs each, all at the same time."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["src.sweep.preload"])
    with tempfile.TemporaryDirectory() as folder:
        ready, go = context.Semaphore(0), context.Event()
        tasks = [(address, Path(folder) / str(n), runs, ready, go) for n in range(writers)]
        processes = [context.Process(target=_write, args=task) for task in tasks]
        for process in processes:
            process.start()
        for _ in processes:
            ready.acquire()
        begin = time.monotonic()
        go.set()
        for process in processes:
            process.join()
        seconds = time.monotonic() - begin
    return Written(_whole(address), writers * runs, seconds)


def _write(address: str, folder: Path, runs: int, ready: SemaphoreType, go: EventType) -> None:
    """Tell the server of runs as a mirror does, one after the other."""
    from src.runs.tracking import Tracking
    from src.tracking.mirror import tell
    from src.tracking.store import open_tracking

    tracking = Tracking(address, _EXPERIMENT)
    folder.mkdir()
    folders = [_finished_run(folder / str(number)) for number in range(runs)]
    open_tracking(tracking, folder)  # imports MLflow and connects
    ready.release()
    go.wait()
    for own in folders:
        tell(own, tracking, folder)


def _finished_run(folder: Path) -> Path:
    """Leave in a folder what a run leaves, as far as MLflow gets it."""
    from src.runs.folder import HISTORY
    from src.runs.record import Record

    folder.mkdir()
    record = Record(
        "a run",
        [],
        "val/loss",
        key=secrets.token_hex(16),
        started=int(time.time() * 1000),
        epochs=_EPOCHS,
        settings={f"setting.{n}": str(n) for n in range(_SETTINGS)},
        dataset=_DATASET,
    )
    record.write(folder)
    rows = [
        {"epoch": epoch, **_values(epoch), "time": record.started + epoch}
        for epoch in range(1, _EPOCHS + 1)
    ]
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    (folder / HISTORY).write_text("".join(f"{line}\n" for line in lines))
    replace(record, status="FINISHED", value=1.0, seconds=1.0).write(folder)
    return folder


def _values(epoch: int) -> dict[str, float]:
    parts = [f"{part}/{kind}" for part in ("train", "val", "test") for kind in ("loss", "accuracy")]
    return {**dict.fromkeys(parts, 1 / epoch), "updates": float(epoch)}


def _whole(address: str) -> int:
    """Count the finished runs with every setting and every point."""
    from mlflow import MlflowClient

    client = MlflowClient(address)
    found = client.get_experiment_by_name(_EXPERIMENT)
    assert found is not None
    whole, token = 0, None
    while True:
        page = client.search_runs([found.experiment_id], max_results=1000, page_token=token)
        for run in page:
            points = client.get_metric_history(run.info.run_id, "updates")
            whole += (
                run.info.status == "FINISHED"
                and len(run.data.params) == _SETTINGS
                and sorted(point.step for point in points) == list(range(1, _EPOCHS + 1))
            )
        token = page.token
        if not token:
            return whole
