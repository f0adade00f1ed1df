"""Sweeps on a Dask cluster: real workers, real kills, real stores."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from src.sweep.executors import WorkerDied

pytest.importorskip("distributed", reason="pip install '.[cluster]' adds it")

from distributed import Client
from mlflow import MlflowClient
from mlflow.entities import Run

from src.runs.record import Record
from src.sweep.clusters import Local
from src.sweep.dask_executor import DaskExecutor
from src.sweep.dask_worker import Driver
from tests import sshd
from tests.conftest import ROOT, Ended, command, run
from tests.labour import (
    Crowd,
    Keeper,
    Labour,
    Log,
    Reader,
    Tell,
    endless,
    keep,
    labour,
    read,
    together,
)
from tests.slurm import missing, slurm
from tests.test_outage import Server
from tests.test_resume import run_id_of
from tests.test_run import runs, wait_for
from tests.test_stacked import ancestors, workers_of


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Two workers of this machine."""
    with Local(2).open() as client:
        yield client


def driver(folder: Path, **settings: Any) -> Driver:
    token = folder / "token"
    token.write_text("secret")
    needs: dict[str, Any] = {"needs_this_machine": False, "keeps_runs": True}
    return Driver.here(token, settings.pop("shares", None), **{**needs, **settings})


def executor_of(client: Client, here: Driver) -> DaskExecutor:
    return DaskExecutor(client, here, ["tests.labour"], local=True)


def run_all(
    client: Client, folder: Path, work: Any, tasks: list[Any], hear: Tell = lambda news: None
) -> list[Future[Any]]:
    """Return the future of each task, all done."""
    with executor_of(client, driver(folder)) as executor:
        futures = [executor.submit(work, task) for task in tasks]
        assert set(executor.as_completed(hear)) == set(futures)
    return futures


@pytest.mark.slow
def test_results_errors_and_news_reach_the_driver_and_errors_are_not_repeated(
    client: Client, tmp_path: Path
) -> None:
    heard: list[Any] = []
    log = Log(tmp_path / "log")
    good, bad = run_all(
        client,
        tmp_path,
        labour,
        [Labour("good", log.path), Labour("error", log.path)],
        heard.append,
    )
    assert good.result() == "good is done"
    assert str(bad.exception()) == "ValueError: no such thing"
    assert sorted(log.lines) == ["error", "good"]
    assert sum(news for news in heard if isinstance(news, int)) == 10
    assert {"good was told", "error was told"} <= set(heard)


@pytest.mark.slow
def test_a_task_whose_worker_dies_runs_again_on_another(client: Client, tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    kinds = ["worker-once", "good", "good", "good"]
    futures = run_all(client, tmp_path, labour, [Labour(kind, log.path) for kind in kinds])
    assert [future.result() for future in futures] == [f"{kind} is done" for kind in kinds]
    assert log.lines.count("worker-once") == 2
    assert log.lines.count("good") == 3


@pytest.mark.slow
def test_a_task_that_kills_three_workers_fails_alone(client: Client, tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    kinds = ["worker", "good", "good", "good"]
    bad, *good = run_all(client, tmp_path, labour, [Labour(kind, log.path) for kind in kinds])
    assert isinstance(bad.exception(), WorkerDied)
    assert str(bad.exception()) == "3 workers died while they ran it"
    assert [future.result() for future in good] == ["good is done"] * 3
    assert log.lines.count("worker") == 3


@pytest.mark.slow
def test_a_task_whose_process_dies_is_tried_three_times(client: Client, tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    (future,) = run_all(client, tmp_path, labour, [Labour("process", log.path)])
    assert "ended by signal 9" in str(future.exception())
    assert log.lines.count("process") == 3


@pytest.mark.slow
def test_the_folder_of_a_killed_worker_stays_until_its_runs_are_closed(
    client: Client, tmp_path: Path
) -> None:
    """Dask starts the next worker meanwhile, which removes the directory of the one before."""
    log = Log(tmp_path / "log")
    with executor_of(client, driver(tmp_path, shares=False)) as executor:
        future = executor.submit(keep, Keeper(log.path))
        assert list(executor.as_completed(lambda news: None)) == [future]
    assert future.exception() is None
    assert log.lines == ["begun", "begun", "closed"]


@pytest.mark.slow
def test_an_interruption_reaches_the_tasks_which_close_what_they_have_open(
    client: Client, tmp_path: Path
) -> None:
    log = Log(tmp_path / "log")
    interrupted: list[Any] = []

    def hear(news: Any) -> None:
        if not interrupted and len(client.nthreads()) == log.lines.count("begun"):
            interrupted.append(news)  # once: what is heard later is part of the end
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all(client, tmp_path, endless, [Labour("endless", log.path)] * 5, hear)
    begun = log.lines.count("begun")
    assert 1 <= begun <= 2  # the others never began
    assert sorted(log.lines) == ["KeyboardInterrupt"] * begun + ["begun"] * begun


@pytest.mark.slow
@pytest.mark.parametrize("shares", [None, False])
def test_files_are_read_in_place_or_sent_to_each_worker_once(
    shares: bool | None, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(os.urandom(2_000_000))
    with executor_of(client, driver(tmp_path, shares=shares)) as executor:
        futures = [executor.submit(read, Reader(path), [path]) for _ in range(6)]
        assert set(executor.as_completed(lambda news: None)) == set(futures)
    results = [future.result() for future in futures]
    assert {digest for _, digest, _, _ in results} == {
        hashlib.sha256(path.read_bytes()).hexdigest()
    }
    files = {(file, written) for file, _, written, _ in results}
    folders = {folder for *_, folder in results}
    if shares is None:
        assert files == {(str(path), path.stat().st_mtime_ns)}
        assert folders == {str(Path.cwd())}
    else:
        assert 1 <= len(files) <= 2  # one on each worker, written once
        assert str(path) not in {file for file, _ in files}
        assert str(Path.cwd()) not in folders


@pytest.mark.parametrize(
    ("shares", "needs_this_machine", "keeps_runs", "said"),
    [
        (False, True, False, "make server"),
        (False, False, False, "share the folder"),
        (None, True, False, None),
        (False, False, True, None),
    ],
)
def test_workers_that_no_store_can_be_reached_from_are_refused(
    shares: bool | None, needs_this_machine: bool, keeps_runs: bool, said: str | None,
    client: Client, tmp_path: Path,
) -> None:  # fmt: skip
    from src.support.errors import ConfigError

    here = driver(
        tmp_path, shares=shares, needs_this_machine=needs_this_machine, keeps_runs=keeps_runs
    )
    refused = pytest.raises(ConfigError, match=said) if said else contextlib.nullcontext()
    with executor_of(client, here) as executor, refused:
        executor.check()


# --- sweeps -----------------------------------------------------------------------------------


def sweep(
    folder: Path, *arguments: str, start_new_session: bool = False
) -> "subprocess.Popen[str]":
    """Start a sweep of four runs on two workers of this machine."""
    grid = ("-m", "lr=0.05,0.1", "batching.size=32,64", "hydra/launcher=dask_local")
    return subprocess.Popen(
        command(folder, *grid, "hydra.launcher.workers=2", *arguments),
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=start_new_session,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def at_work(process: "subprocess.Popen[str]", folder: Path) -> dict[Path, int]:
    """Wait until each run has a checkpoint, and return which process trains which."""
    for number in range(4):
        wait_for(folder, f"sweeps/*/{number}/checkpoint.npz")
    while len(found := workers_of(process)) < 4:
        assert process.poll() is None
        time.sleep(0.1)
    return found


def parent(pid: int) -> int:
    return int(ancestors(str(pid))[0])


def dask_worker(pid: int) -> int:
    """Return the Dask worker above a process that trains: forks come from a process between."""
    return parent(parent(pid))


def weights(folder: Path) -> list[bytes]:
    return [
        (own / "weights.npz").read_bytes()
        for own in sorted(folder.glob("sweeps/*/[0-9]"), key=lambda path: path.name)
    ]


@pytest.mark.slow
def test_a_sweep_whose_worker_is_killed_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    undisturbed = run(
        tmp_path / "a", "-m", "lr=0.05,0.1", "batching.size=32,64", "epochs=600",
        "hydra.launcher.workers=2",
    )  # fmt: skip
    process = sweep(tmp_path / "b", "epochs=600", "checkpoint.every=50")
    pids = at_work(process, tmp_path / "b")
    os.kill(dask_worker(min(pids.values())), signal.SIGKILL)
    out, err = process.communicate()
    assert process.returncode == undisturbed.code == 0, out + err
    assert "4 of 4 finished" in out
    assert weights(tmp_path / "b") == weights(tmp_path / "a")
    found = runs(Ended(tmp_path / "b", 0, out, err))
    assert [one.info.status for one in found] == ["FINISHED"] * 4  # each once
    assert sorted(one.data.tags.get("attempt", "1") for one in found).count("2") in (2, 4)


def statuses(folder: Path) -> list[str]:
    return [one.info.status for one in runs(Ended(folder, 0, "", ""))]


@pytest.mark.long
def test_ctrl_c_closes_the_runs_and_leaves_no_process(tmp_path: Path) -> None:
    process = sweep(tmp_path, "epochs=100000", start_new_session=True)
    pids = set(at_work(process, tmp_path).values())
    workers = {dask_worker(pid) for pid in pids}
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate()
    assert process.returncode == 130, out + err
    assert statuses(tmp_path) == ["KILLED"] * 4
    for folder in Ended(tmp_path, 0, "", "").folders:
        assert Record.load(folder).failure == "interrupted"
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids | workers)


@pytest.mark.long
def test_workers_whose_driver_is_killed_close_their_runs_and_end(tmp_path: Path) -> None:
    process = sweep(tmp_path, "epochs=100000")
    pids = set(at_work(process, tmp_path).values())
    pids |= {dask_worker(pid) for pid in pids}
    process.kill()
    process.communicate()
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.1)
    assert statuses(tmp_path) == ["KILLED"] * 4


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]", Path]]:
    """A scheduler and two workers, each in a folder of its own; yield address and scheduler."""
    file = tmp_path / "scheduler.json"
    quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def start(name: str, *arguments: str) -> "subprocess.Popen[bytes]":
        (folder := tmp_path / name).mkdir()
        dask = [sys.executable, "-m", "dask", *arguments, "--scheduler-file", str(file)]
        return subprocess.Popen([*dask, "--no-dashboard"], cwd=folder, env=environment, **quiet)

    scheduler = start("scheduler", "scheduler", "--host", "127.0.0.1", "--port", "0")
    wait_for(tmp_path, "scheduler.json")
    workers = [
        start(f"worker{n}", "worker", "--nthreads", "1", "--memory-limit", "0") for n in range(2)
    ]
    try:
        yield json.loads(file.read_text())["address"], scheduler, tmp_path
    finally:
        for process in (*workers, scheduler):
            process.terminate()
            process.wait()


def on(cluster: str, folder: Path, *arguments: str) -> list[str]:
    grid = ("-m", "lr=0.05,0.1", "batching.size=32,64", "hydra/launcher=dask")
    return command(folder, *grid, f"hydra.launcher.address={cluster}", *arguments)


@pytest.mark.long
def test_a_sweep_whose_scheduler_is_killed_ends_with_a_word_and_the_same_command_goes_on(
    cluster: tuple[str, "subprocess.Popen[bytes]", Path],
) -> None:
    address, scheduler, folder = cluster
    arguments = ("epochs=1500", "checkpoint.every=20")
    process = subprocess.Popen(
        on(address, folder, *arguments), cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for number in range(4):
        wait_for(folder, f"sweeps/*/{number}/checkpoint.npz")
    scheduler.kill()
    out, err = process.communicate()
    assert process.returncode == 1, out + err
    assert "the connection to Dask's scheduler is lost" in err
    assert set(statuses(folder)) <= {"KILLED", "FAILED"}
    again = run(folder, "-m", "lr=0.05,0.1", "batching.size=32,64", *arguments)
    assert again.code == 0, again.out + again.err
    assert "4 go on from a checkpoint" in again.out
    assert statuses(folder) == ["FINISHED"] * 4


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """An MLflow server that takes files, too."""
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server", files=True)
    server.start()
    try:
        yield server.address
    finally:
        server.kill()


@pytest.mark.long
def test_workers_without_a_shared_folder_lose_nothing_when_one_is_killed(
    server: str, tmp_path: Path
) -> None:
    undisturbed = run(
        tmp_path / "a", "-m", "lr=0.05,0.1", "batching.size=32,64", "epochs=400",
        "hydra.launcher.workers=2",
    )  # fmt: skip
    assert undisturbed.code == 0
    folder = tmp_path / "b"
    process = sweep(
        folder, "epochs=400", "checkpoint.every=20", "hydra.launcher.shared=false",
        f"tracking.uri={server}",
    )  # fmt: skip
    client = MlflowClient(server)
    while not any("checkpoint.npz" in names for names in artifacts(client).values()):
        assert process.poll() is None, process.communicate()
        time.sleep(1)
    os.kill(dask_worker(min(workers_of(process).values())), signal.SIGKILL)
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    assert "4 of 4 finished" in out
    kept = tracked(client)
    assert [one.info.status for one in kept] == ["FINISHED"] * 4  # each once
    assert any(one.data.tags.get("attempt") == "2" for one in kept)
    files = {"checkpoint.npz", "history.csv", "predictions.npz", "result.json", "weights.npz"}
    assert all(files <= names for names in artifacts(client).values())
    alone = Ended(tmp_path / "a", 0, "", "").folders
    for own, other in zip(Ended(folder, 0, out, err).folders, alone, strict=True):
        result = Record.load(own)
        assert {**result.metrics, "seconds": 0} == {**Record.load(other).metrics, "seconds": 0}
        run_id = run_id_of(own)
        points = client.get_metric_history(run_id, "train/loss")
        assert [point.step for point in points] == list(range(1, 401))  # none doubled
        there = client.download_artifacts(run_id, "weights.npz", str(own))
        assert Path(there).read_bytes() == (other / "weights.npz").read_bytes()


def tracked(client: MlflowClient) -> list[Run]:
    """Return the runs in a store, without the summary of their sweep."""
    experiment = client.get_experiment_by_name("scratchgrid")
    found = client.search_runs([experiment.experiment_id]) if experiment else []
    return [one for one in found if "stack" in one.data.tags]


def artifacts(client: MlflowClient) -> dict[str, set[str]]:
    """Return the files of each run in a store."""
    ids = [one.info.run_id for one in tracked(client)]
    return {own: {str(file.path) for file in client.list_artifacts(own)} for own in ids}


@pytest.mark.long
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_slurm_runs_a_sweep_with_the_same_results(tmp_path: Path) -> None:
    grid = ("-m", "lr=0.05,0.1", "batching.size=32,64", "epochs=30")
    with slurm(tmp_path / "slurm") as environment:
        settings = ("hydra/launcher=dask_slurm", "hydra.launcher.workers=2")
        ended = run(tmp_path / "a", *grid, *settings, "hydra.launcher.memory=1GB", **environment)
    assert ended.code == 0, ended.out + ended.err
    assert "2 workers of Dask on SLURM" in ended.out
    here = run(tmp_path / "b", *grid)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert here.code == 0
    assert list(tmp_path.glob("a/sweeps/*/slurm/*.err"))  # what the workers said


@pytest.mark.long
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_slurm_job_that_is_requeued_comes_back_and_goes_on_with_its_runs(tmp_path: Path) -> None:
    """There is no other worker: SLURM starts the job again, some two minutes later."""
    arguments = ("-m", "lr=0.05,0.1", "batching.size=32,64", "epochs=1200", "checkpoint.every=50")
    settings = ("hydra/launcher=dask_slurm", "hydra.launcher.workers=1")
    with slurm(tmp_path / "slurm") as environment:
        process = subprocess.Popen(
            command(tmp_path / "a", *arguments, *settings, "hydra.launcher.memory=1GB"),
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            while not list(tmp_path.glob("a/sweeps/*/*/checkpoint.npz")):
                assert process.poll() is None, process.communicate()
                time.sleep(0.1)
            (job,) = _slurm("squeue", "--noheader", "--format=%i", **environment).split()
            _slurm("scontrol", "requeue", job, **environment)
            out, err = process.communicate(timeout=900)
        finally:
            process.kill()
    assert process.returncode == 0, out + err
    here = run(tmp_path / "b", *arguments)
    assert here.code == 0, here.out + here.err
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    found = runs(Ended(tmp_path / "a", 0, out, err))
    assert [one.info.status for one in found] == ["FINISHED"] * 4  # each once
    assert "2" in {one.data.tags.get("attempt") for one in found}


def _slurm(*arguments: str, **environment: str) -> str:
    return subprocess.run(
        arguments, env=environment, check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.slow
@pytest.mark.skipif(sshd.missing() is not None, reason=str(sshd.missing()))
def test_workers_are_started_through_ssh_and_end_with_the_sweep(tmp_path: Path) -> None:
    pytest.importorskip("asyncssh", reason="pip install '.[cluster]' adds it")
    with sshd.sshd(tmp_path / "home") as environment:
        ended = run(
            tmp_path / "a", "-m", "lr=0.05,0.1", "epochs=3", "hydra/launcher=dask_ssh",
            f"hydra.launcher.hosts=[{','.join(sshd.HOSTS)}]", **environment,
        )  # fmt: skip
        assert ended.code == 0, ended.out + ended.err
        assert "2 workers of Dask through SSH" in ended.out
        assert statuses(tmp_path / "a") == ["FINISHED"] * 2
        while any(is_of_ssh(process, tmp_path) for process in Path("/proc").glob("[0-9]*")):
            time.sleep(0.1)


def is_of_ssh(process: Path, folder: Path) -> bool:
    """Return whether a process was started by the SSH server in a folder."""
    with contextlib.suppress(OSError):
        return f"STARTED_BY={folder}".encode() in (process / "environ").read_bytes()
    return False


@pytest.mark.slow
@pytest.mark.skipif(sshd.missing() is not None, reason=str(sshd.missing()))
def test_a_host_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    pytest.importorskip("asyncssh", reason="pip install '.[cluster]' adds it")
    ended = run(
        tmp_path, "-m", "lr=0.05,0.1", "hydra/launcher=dask_ssh",
        "hydra.launcher.hosts=[no.such.host.invalid]",
    )  # fmt: skip
    assert ended.code == 1
    assert "hydra.launcher.hosts=[no.such.host.invalid]: no worker can be started" in ended.err


@pytest.mark.slow
def test_a_cluster_grows_with_the_work_and_workers_that_join_later_get_tasks(
    tmp_path: Path,
) -> None:
    log = Log(tmp_path / "log")
    with Local(3, minimum=1).open() as client:
        client.wait_for_workers(1)
        assert len(client.nthreads()) == 1
        with executor_of(client, driver(tmp_path)) as executor:
            futures = [executor.submit(together, Crowd(3, log.path)) for _ in range(3)]
            assert set(executor.as_completed(lambda news: None)) == set(futures)
        assert [future.result() for future in futures] == [3] * 3  # all were there at once
        while len(client.nthreads()) > 1:  # and go when there is nothing to do
            time.sleep(0.1)


@pytest.mark.parametrize(
    ("launcher", "setting", "said"),
    [
        ("dask_local", "minimum=0", "must be from 1 to the number of workers, 2"),
        ("dask_local", "minimum=3", "must be from 1 to the number of workers, 2"),
        ("dask_slurm", "minimum=3", "must be from 1 to the number of workers, 2"),
        ("dask_ssh", "hosts=[]", "must be a list such as"),
        ("dask_ssh", "hosts=alpha", "must be a list such as"),
    ],
)
def test_impossible_clusters_are_refused(
    launcher: str, setting: str, said: str, invoke: Callable[..., Ended]
) -> None:
    workers = [] if launcher == "dask_ssh" else ["hydra.launcher.workers=2"]
    ended = invoke(
        "-m", "lr=0.1,0.2", f"hydra/launcher={launcher}", *workers, f"hydra.launcher.{setting}"
    )
    assert ended.code == 2
    assert said in " ".join(ended.err.split())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((), "error hydra.launcher.address: is missing: add hydra.launcher.address=…"),
        (
            ("hydra.launcher.address=tcp://127.0.0.1:9",),
            "error hydra.launcher.address=tcp://127.0.0.1:9: no Dask scheduler answers",
        ),
    ],
)
def test_a_scheduler_that_is_not_there_is_told_in_a_line_and_leaves_nothing(
    settings: Sequence[str],
    said: str,
    invoke: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("src.sweep.clusters._CONNECTING", 1.0)
    ended = invoke("-m", "seed=0,1", "hydra/launcher=dask", *settings)
    assert ended.code == 2
    assert ended.err.startswith(said)
    assert len(ended.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
