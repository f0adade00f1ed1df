"""The same sweep again runs what is missing and ends as if it had never been disturbed."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from src.runs.folder import RESULT
from src.runs.record import Record
from src.sweep.company import Stage, common_start
from src.sweep.plan import Plan
from src.tracking.told import Told
from tests.conftest import ROOT, Ended, command, run
from tests.test_resume import history, lines, points, run_id_of
from tests.test_stacked import workers_of

PATIENCE = 120.0  # seconds; a machine may be busy

# In the last two, runs leave their stacks at different epochs: one diverges, some stop early.
SWEEPS = {
    "small": (
        "model=sigmoid3", "batching=sample", "lr=0.01,0.02", "seed=0,1",
        "data.split.train=150", "epochs=24", "checkpoint.every=4",
    ),
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
    rows = ours.runs_in_mlflow()
    assert len(rows) == len(ours.folders), "each run has one row in MLflow"
    by_folder = {row.tags["output_dir"]: row for row in rows}
    for mine, other in zip(ours.folders, theirs.folders, strict=True):
        result, expected = Record.load(mine), Record.load(other)
        assert (result.status, result.failure) == (expected.status, expected.failure)
        assert history(mine) == history(other), mine
        assert result.metrics == expected.metrics
        if result.status == "FINISHED":
            for name in ("weights.npz", "predictions.npz"):
                assert (mine / name).read_bytes() == (other / name).read_bytes(), (mine, name)
        row = by_folder[str(mine)]
        assert (row.run_id, row.status) == (run_id_of(mine), result.status)
        kept, wanted = points(ours.store, row.run_id), points(theirs.store, run_id_of(other))
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sweep", "victim"),
    [
        ("small", "group"),
        pytest.param("per sample", "group", marks=pytest.mark.long),
        pytest.param("mini-batches", "parent", marks=pytest.mark.long),
        pytest.param("per sample", "worker", marks=pytest.mark.long),
    ],
)
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
    done = {folder: Record.load(folder) for folder in folders if finished(folder)}
    assert len(done) < len(whole.folders)
    again = run(tmp_path, "-m", *SWEEPS[sweep])
    assert again.code == whole.code, again.out + again.err
    assert f"resumed     {len(done)} of {len(whole.folders)} runs" in again.out, again.out
    assert "from a checkpoint" in again.out
    assert_equal_sweeps(again, whole)
    assert {folder: Record.load(folder) for folder in done} == done


def finished(folder: Path) -> bool:
    return (folder / RESULT).exists() and Record.load(folder).status == "FINISHED"


@pytest.mark.slow
def test_the_next_command_closes_the_runs_that_a_killed_sweep_left_open(tmp_path: Path) -> None:
    """Also those whose row MLflow did not know yet, or that had just written their result."""
    process = start(tmp_path, "model=relu2_small", "lr=0.1,0.2,0.3", "epochs=100000")
    wait_until(
        process, lambda: sum(lines(own) > 1 for own in Ended(tmp_path, 0, "", "").folders) == 3
    )
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    killed = Ended(tmp_path, 0, "", "").folders
    ended = replace(Record.load(killed[0]), status="FINISHED", value=0.5)
    ended.write(killed[0])  # its process died before MLflow was told
    other = run(tmp_path, "-m", "epochs=1", "model=relu2_small")
    assert other.code == 0, other.err
    expected = ["FINISHED", "KILLED", "KILLED"]
    client = MlflowClient(other.store)
    for folder, status in zip(killed, expected, strict=True):
        row = client.get_run(run_id_of(folder))
        assert (row.info.status, row.data.tags["output_dir"]) == (status, str(folder))
        assert Told.load(folder).is_complete


# --- what is left to do ---------------------------------------------------------------------------

GRID = (
    *("-m", "model=relu2_small", "epochs=3", "checkpoint.every=1"),
    *("tracking.offline=true", "hydra/launcher=basic"),  # which saves seconds
)


def told(ended: Ended) -> list[str]:
    """Return what a sweep said of what was done before."""
    said = [line for line in ended.out.splitlines() if line.startswith("resumed")]
    return [line.removeprefix("resumed").strip() for line in said]


def ran(ended: Ended) -> list[str]:
    """Return the names of the runs that a sweep trained."""
    shown = [line.split("  ") for line in ended.out.splitlines()]
    return [parts[1] for parts in shown if len(parts) > 2 and "/" in parts[0]]


@pytest.mark.slow
def test_the_same_sweep_again_shows_its_table_and_runs_nothing(
    invoke: Callable[..., Ended],
) -> None:
    first = invoke(*GRID, "lr=0.1,0.2", "seed=0,1")
    assert (first.code, told(first), len(ran(first))) == (0, [], 4), first.err
    before = {path: path.stat().st_mtime_ns for path in first.outputs.rglob("*/*.npz")}
    again = invoke(*GRID, "seed=0,1", "lr=0.1,0.2", "tags.purpose=other")  # decides no result
    assert (again.code, told(again), ran(again)) == (0, ["4 of 4 runs were done before"], [])
    assert {path: path.stat().st_mtime_ns for path in again.outputs.rglob("*/*.npz")} == before
    table = [line for line in first.out.splitlines() if line.strip()[:2] in ("1 ", "4 ")]
    assert all(line in again.out for line in table)
    assert again.folders == first.folders


@pytest.mark.slow
def test_a_grid_that_grew_runs_its_new_points_in_the_same_sweep(
    invoke: Callable[..., Ended],
) -> None:
    invoke(*GRID, "lr=0.1,0.2")
    grown = invoke(*GRID, "seed=0,1", "lr=0.2,0.1,0.3")
    assert told(grown) == ["2 of 6 runs were done before; 4 are new"]
    assert len(ran(grown)) == 4
    assert "6 of 6 finished" in grown.out
    (sweep,) = {folder.parent for folder in grown.folders}
    plan = Plan.load(sweep)
    assert plan is not None
    for number, folder in enumerate(grown.folders):
        assert Record.load(folder).overrides == list(plan.overrides[number])
        assert plan.identities[number] == Record.load(folder).identity.key
    assert len(plan.names) == len(set(plan.names)) == 6
    moved = invoke(*GRID, "seed=0,1", "lr=0.2,0.5")
    assert told(moved) == ["2 of 4 runs were done before; 2 are new"]
    assert {folder.parent for folder in moved.folders} == {sweep}
    smaller = invoke(*GRID, "lr=0.5", "seed=1")
    assert told(smaller) == ["1 of 1 runs was done before"]


@pytest.mark.slow
def test_another_sweep_with_a_point_in_common_has_a_folder_of_its_own(
    invoke: Callable[..., Ended],
) -> None:
    invoke(*GRID, "lr=0.05,0.2")  # 0.05 and seed 0 are the defaults
    other = invoke(*GRID, "seed=0,1")
    assert (told(other), len(ran(other))) == ([], 2)
    assert len({folder.parent for folder in other.folders}) == 2


@pytest.mark.slow
def test_rerun_computes_all_again_in_a_sweep_of_its_own(invoke: Callable[..., Ended]) -> None:
    invoke(*GRID, "lr=0.1,0.2")
    again = invoke(*GRID, "lr=0.1,0.2", "rerun=true")
    assert (told(again), len(ran(again)), len(again.folders)) == ([], 2, 4)
    assert told(invoke(*GRID, "lr=0.1,0.2", "rerun=false")) == ["2 of 2 runs were done before"]
    for arguments, message in (
        ((*GRID, "rerun=all"), "rerun=all: must be true (every run), code"),
        (("epochs=1", "rerun=true"), "rerun=true: belongs to a sweep: add -m"),
    ):
        ended = invoke(*arguments)
        assert (ended.code, message in ended.err) == (2, True), ended.err


def edit(folder: Path, name: str, **changes: Any) -> None:
    known = json.loads((folder / name).read_text())
    del known["sha256"]  # a file without a checksum is taken as it is
    for key, value in changes.items():
        inner = known["identity"] if key in known.get("identity", ()) else known
        inner[key] = value
    (folder / name).write_text(json.dumps(known))


@pytest.mark.slow
def test_other_code_is_said_and_decided_by_the_user(invoke: Callable[..., Ended]) -> None:
    first = invoke(*GRID, "lr=0.1,0.2,0.3")
    for folder in first.folders[:2]:
        edit(folder, "run.json", code="0" * 32)
    (first.folders[1] / RESULT).unlink()
    kept = invoke(*GRID, "lr=0.1,0.2,0.3")
    assert told(kept)[0] == "2 of 3 runs were done before; 1 is new"
    assert "1 run was computed by other code: rerun=code computes them again" in told(kept)[1]
    assert ran(kept) == ["lr=0.2"]  # its checkpoint is of other code
    assert [folder.name for folder in kept.folders] == ["0", "1", "2", "3"]
    anew = invoke(*GRID, "lr=0.1,0.2,0.3", "rerun=code")
    assert (anew.code, ran(anew)) == (0, ["lr=0.1"])
    assert "3 of 3 finished" in anew.out
    assert told(invoke(*GRID, "lr=0.1,0.2,0.3")) == ["3 of 3 runs were done before"]


@pytest.mark.slow
def test_a_run_that_was_trained_for_longer_is_another_one(invoke: Callable[..., Ended]) -> None:
    first = invoke(*GRID, "lr=0.1,0.2")
    longer = invoke(f"resume={first.folders[1]}", "epochs=5")
    assert longer.code == 0, longer.err
    assert Record.load(first.folders[1]).status == "FINISHED"
    again = invoke(*GRID, "lr=0.1,0.2")
    assert told(again) == ["1 of 2 runs was done before; 1 is new"]
    assert Record.load(again.folders[1]).epochs == 5
    assert Record.load(again.folders[2]).epochs == 3
    assert told(invoke(*GRID, "lr=0.1,0.2")) == ["2 of 2 runs were done before"]


@pytest.mark.slow
def test_jobs_that_differ_in_their_records_only_are_found_again_each(
    invoke: Callable[..., Ended],
) -> None:
    sweep = (*GRID, "metric=val/accuracy,test/loss", "lr=0.1,0.2")
    first = invoke(*sweep)
    assert first.code == 0, first.err
    asked = [Record.load(folder).overrides for folder in first.folders]
    (first.folders[2] / RESULT).unlink()
    again = invoke(*sweep)
    assert told(again) == ["3 of 4 runs were done before; 1 goes on from a checkpoint"]
    assert [Record.load(folder).overrides for folder in again.folders] == asked


@pytest.mark.slow
@pytest.mark.parametrize("content", ["", '{"name": "x"', "[]", '{"name": 1}', "null"])
def test_a_torn_result_costs_its_own_run_at_most(
    content: str, invoke: Callable[..., Ended]
) -> None:
    first = invoke(*GRID, "lr=0.1,0.2")
    whole = (first.folders[1] / "weights.npz").read_bytes()
    (first.folders[1] / RESULT).write_text(content)
    again = invoke(*GRID, "lr=0.1,0.2")
    assert again.code == 0, again.out + again.err
    assert told(again) == ["1 of 2 runs was done before; 1 goes on from a checkpoint"]
    assert "2 of 2 finished" in again.out
    assert (again.folders[1] / "weights.npz").read_bytes() == whole


@pytest.mark.slow
def test_a_sweep_with_a_folder_of_its_own_goes_on_there(
    invoke: Callable[..., Ended], tmp_path: Path
) -> None:
    mine = (*GRID, f"hydra.sweep.dir={tmp_path}/mine")
    assert invoke(*mine, "lr=0.1,0.2").code == 0
    (tmp_path / "mine" / "0" / RESULT).unlink()
    again = invoke(*mine, "lr=0.1,0.2,0.3")
    assert again.code == 0, again.out + again.err
    assert told(again) == ["1 of 3 runs was done before; 1 goes on from a checkpoint; 1 is new"]
    assert sorted(path.parent.name for path in tmp_path.glob("mine/*/result.json")) == list("012")
    for arguments in (("lr=0.1,0.2", "rerun=true"), ("seed=1,2",), ("model=relu2",)):
        refused = invoke(*mine, *arguments)
        assert refused.code == 2
        assert "holds another sweep; choose another folder" in " ".join(refused.err.split())
    other = invoke(*GRID, "lr=0.1,0.2", f"hydra.sweep.dir={tmp_path}/other")
    assert (told(other), len(ran(other))) == ([], 2)


@pytest.mark.slow
def test_of_the_same_sweep_twice_at_once_the_second_is_refused(
    invoke: Callable[..., Ended], tmp_path: Path
) -> None:
    process = start(tmp_path / "outputs", *GRID[1:], "lr=0.1,0.2", "epochs=20000")
    try:
        wait_until(process, lambda: trained(tmp_path / "outputs") > 2)
        second = invoke(*GRID, "lr=0.1,0.2", "epochs=20000")
        assert second.code == 2
        assert "another process is running this sweep" in second.err
        (folder,) = {folder.parent for folder in second.folders}
        named = invoke(*GRID, "lr=0.1,0.3", "epochs=20000", f"hydra.sweep.dir={folder}")
        assert named.code == 2
        assert "another process is running this sweep" in named.err
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


# --- the stacks -----------------------------------------------------------------------------------


def stage(*epochs: int, left: int | None = None) -> Stage:
    return Stage(frozenset({0, *epochs}), left)


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ([stage(8, 4), stage(8, 4)], 8),
        ([stage(8, 4), stage(4)], 4),
        ([stage(8, 4), stage(6, 3)], 0),
        ([stage(8, 4), stage()], 0),
        ([stage(8, 4), stage(6, 4, left=6)], 8),  # it was gone before
        ([stage(4), stage(6, 4, left=6)], 4),  # it takes part until 6
        ([stage(4), stage(6, 5, left=6)], 0),
    ],
)
def test_a_stack_goes_on_after_the_latest_epoch_that_all_have(
    stages: list[Stage], expected: int
) -> None:
    assert common_start(stages) == expected
