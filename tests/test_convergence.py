"""The same sweep again runs what is missing and ends as if it had never been disturbed."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from src.experiment.results import RESULT, Result
from tests.conftest import ROOT, Ended, command, run
from tests.test_resume import history, lines, points
from tests.test_stacked import workers_of

PATIENCE = 120.0  # seconds; a machine may be busy

# In both, runs leave their stacks at different epochs: one diverges, some stop early.
SWEEPS = {
    "per sample": (
        "model=sigmoid3", "batching=sample", "lr=0.005,0.01,0.02,0.03", "seed=range(4)",
        "data.split.train=150", "stopping=target", "stopping.metric=val/accuracy",
        "stopping.value=0.8", "epochs=24", "checkpoint.every=4",
    ),
    "mini-batches": (
        "model=sigmoid3", "lr=0.1,0.2,0.3,1e20", "seed=0,1", "optimizer=momentum",
        "stopping=early", "stopping.patience=20", "stopping.min_delta=0,0.02", "epochs=150",
        "checkpoint.every=7",
    ),
}  # fmt: skip


def start(outputs: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Start a sweep in a process group of its own."""
    return subprocess.Popen(
        command(outputs, "-m", *arguments),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def wait_until(process: "subprocess.Popen[str]", reached: Callable[[], bool]) -> None:
    """Wait until something has happened in a sweep; it must not have ended before."""
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert process.poll() is None, "the sweep ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def trained(outputs: Path) -> int:
    """Return how many epochs the runs of a sweep have trained."""
    return sum(lines(folder) for folder in Ended(outputs, 0, "", "").folders)


def assert_equal_sweeps(ours: Ended, theirs: Ended) -> None:
    """Check that two sweeps have equal bytes in every run, and equal points in MLflow."""
    assert [folder.name for folder in ours.folders] == [folder.name for folder in theirs.folders]
    client = MlflowClient(ours.store)
    (experiment,) = [e for e in client.search_experiments() if e.name == "scratchgrid"]
    rows = client.search_runs([experiment.experiment_id])
    assert len(rows) == len(ours.folders), "each run has one row in MLflow"
    by_folder = {row.data.tags["output_dir"]: row.info for row in rows}
    for mine, other in zip(ours.folders, theirs.folders, strict=True):
        result, expected = Result.load(mine), Result.load(other)
        assert (result.status, result.failure) == (expected.status, expected.failure)
        assert history(mine) == history(other), mine
        assert result.metrics == expected.metrics
        if result.status == "FINISHED":
            for name in ("weights.npz", "predictions.npz"):
                assert (mine / name).read_bytes() == (other / name).read_bytes(), (mine, name)
        info = by_folder[str(mine)]
        assert (info.run_id, info.status) == (result.run_id, result.status)
        kept, wanted = points(ours.store, info.run_id), points(theirs.store, str(expected.run_id))
        assert kept.keys() == wanted.keys()
        for key in kept.keys() - {"seconds"}:
            values = [[(step, value) for step, value, _ in one[key]] for one in (kept, wanted)]
            assert values[0] == values[1], (mine, key)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Ended]:
    """Return the sweeps that nobody disturbs, each run once."""
    known: dict[str, Ended] = {}

    def get(name: str) -> Ended:
        if name not in known:
            known[name] = run(tmp_path_factory.mktemp("undisturbed"), "-m", *SWEEPS[name])
        return known[name]

    return get


@pytest.mark.parametrize("victim", ["group", "parent", "worker"])
@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_killed_sweep_ends_as_if_it_had_not_been_killed(
    sweep: str, victim: str, tmp_path: Path, undisturbed: Callable[[str], Ended]
) -> None:
    whole = undisturbed(sweep)
    share = sum(lines(folder) for folder in whole.folders) * 0.6
    process = start(tmp_path, *SWEEPS[sweep])
    wait_until(process, lambda: trained(tmp_path) >= share)
    if victim == "worker":
        os.kill(sorted(workers_of(process).values())[0], signal.SIGKILL)
        process.wait()
    else:
        send = os.killpg if victim == "group" else os.kill
        send(process.pid, signal.SIGKILL)
        process.wait()
    folders = Ended(tmp_path, 0, "", "").folders
    done = {folder: Result.load(folder) for folder in folders if finished(folder)}
    assert len(done) < len(whole.folders)
    again = run(tmp_path, "-m", *SWEEPS[sweep])
    assert again.code == whole.code, again.out + again.err
    assert f"resumed     {len(done)} of {len(whole.folders)} runs" in again.out, again.out
    assert "from a checkpoint" in again.out
    assert_equal_sweeps(again, whole)
    for folder, before in done.items():  # but for MLflow's ids, if MLflow had not been told
        after = replace(Result.load(folder), run_id=before.run_id)
        assert replace(after, experiment_id=before.experiment_id) == before


def finished(folder: Path) -> bool:
    return (folder / RESULT).exists() and Result.load(folder).status == "FINISHED"
