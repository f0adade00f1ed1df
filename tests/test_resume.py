"""A run that is killed and resumed is the run that would have been, in real processes."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from src.config.composition import compose, composer
from src.config.preflight import check
from src.runs.folder import CHECKPOINT, HISTORY, LOCK, PREVIOUS, disown, is_alive, own
from src.runs.record import Identity, Record
from src.runs.recorder import Recorder
from src.support.errors import ConfigError, NotReproduced
from src.tracking.told import Told, ids
from tests.conftest import ROOT, Ended, run
from tests.resuming import train

PATIENCE = 120.0  # seconds; a machine may be busy


def lines(folder: Path) -> int:
    """Return how many epochs the history of a run has."""
    path = folder / HISTORY
    return max(0, path.read_bytes().count(b"\n") - 1) if path.exists() else 0


def history(folder: Path) -> list[dict[str, str]]:
    """Return the history without what the clock decides."""
    with (folder / HISTORY).open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in ("seconds", "time")} for row in rows]


def run_id_of(folder: Path) -> str:
    """Return the id that a run has in MLflow."""
    found = ids(folder)
    assert found
    return found[1]


def assert_equal_runs(ours: Path, theirs: Path) -> None:
    assert history(ours) == history(theirs)
    for name in ("weights.npz", "predictions.npz"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    assert Record.load(ours).metrics == Record.load(theirs).metrics


def kill_after(process: "subprocess.Popen[Any]", reached: Callable[[], bool]) -> None:
    """Kill a process as soon as something has happened, unless it ends before."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and not reached():
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    process.kill()
    process.wait()


def train_and_kill(folder: Path, after: int, *overrides: str) -> None:
    """Train a run in a process of its own, and kill it when its history has some lines more."""
    before = lines(folder)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.resuming", str(folder), *overrides], cwd=ROOT
    )
    kill_after(process, lambda: lines(folder) >= before + after)


# ``make torture`` draws any combination; these have each kind of state once.
COMBINATIONS = {
    "adam plateau, best weights": [
        *("optimizer=adam", "schedule=plateau", "lr=0.03", "stopping=early"),
        "stopping.patience=12",
    ],
    "dropout, momentum, cosine": [
        *("model=relu2_dropout", "optimizer=momentum", "schedule=cosine", "lr=0.01"),
        "schedule.warmup=5",
    ],
    "per sample, inverse": ["batching=sample", "model=sigmoid3", "schedule=inverse", "lr=0.01"],
    "plain, float64, diagnosed": [
        *("engine=plain", "dtype=float64", "train_metrics=exact", "batching=full"),
        *("diagnose=5", "optimizer.clip_norm=0.5", "optimizer=nesterov"),
    ],
}
SLOW = {"dropout, momentum, cosine", "per sample, inverse", "plain, float64, diagnosed"}
EPOCHS = 30


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(overrides, id=name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name, overrides in COMBINATIONS.items()
    ],
)
def test_a_run_that_is_killed_and_resumed_has_the_bytes_of_one_that_was_not(
    tmp_path: Path, overrides: list[str]
) -> None:
    rng = np.random.default_rng(len(" ".join(overrides)))
    asked = [f"epochs={EPOCHS}", "checkpoint.every=4", *overrides]
    train(tmp_path / "whole", *asked)
    train_and_kill(tmp_path / "killed", int(rng.integers(1, EPOCHS - 4)), *asked)
    assert not (tmp_path / "killed" / "result.json").exists(), "it ended before it was killed"
    finished = train(tmp_path / "killed", *asked)
    assert_equal_runs(tmp_path / "killed", tmp_path / "whole")
    assert [epoch.number for epoch in finished.history] == list(range(1, len(finished.history) + 1))


@pytest.mark.slow
def test_a_run_may_be_killed_many_times_and_loses_a_checkpoint_s_epochs_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["epochs=24", "checkpoint.every=3", "optimizer=adam", "schedule=cosine", "lr=0.002"]
    folder, rng = tmp_path / "killed", np.random.default_rng(8)
    train(tmp_path / "whole", *asked)
    for _ in range(2):
        train_and_kill(folder, int(rng.integers(1, 6)), *asked)
    done, computed = lines(folder), list[int]()
    add = Recorder.add
    monkeypatch.setattr(
        Recorder,
        "add",
        lambda self, given: computed.append(given.number) or add(self, given),  # type: ignore[func-returns-value]
    )
    train(folder, *asked)
    assert_equal_runs(folder, tmp_path / "whole")
    assert computed[0] > done - 3
    assert computed[0] > 3


@pytest.mark.slow
def test_a_torn_line_is_mended_and_a_lost_one_is_taken_from_the_checkpoint(tmp_path: Path) -> None:
    asked = ["epochs=30", "checkpoint.every=5"]
    train(tmp_path / "whole", *asked)
    train_and_kill(tmp_path / "killed", 12, *asked)
    path = tmp_path / "killed" / HISTORY
    sound = path.read_bytes()
    for cut in (sound[:-7], b"".join(sound.splitlines(keepends=True)[:3]), sound[:20], b""):
        shutil.copytree(tmp_path / "killed", tmp_path / "torn")
        (tmp_path / "torn" / HISTORY).write_bytes(cut)
        train(tmp_path / "torn", *asked)
        assert_equal_runs(tmp_path / "torn", tmp_path / "whole")
        shutil.rmtree(tmp_path / "torn")


@pytest.mark.slow
def test_a_damaged_checkpoint_costs_some_epochs_and_no_result(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = ["epochs=30", "checkpoint.every=4"]
    train(tmp_path / "whole", *asked)
    train_and_kill(tmp_path / "killed", 15, *asked)
    for damaged in ([CHECKPOINT], [CHECKPOINT, PREVIOUS]):
        shutil.copytree(tmp_path / "killed", tmp_path / "damaged")
        for name in damaged:
            raw = bytearray((tmp_path / "damaged" / name).read_bytes())
            raw[len(raw) // 2] ^= 1
            (tmp_path / "damaged" / name).write_bytes(raw)
        caplog.clear()
        train(tmp_path / "damaged", *asked)
        assert caplog.text.count("its checksum is wrong") == len(damaged)
        assert_equal_runs(tmp_path / "damaged", tmp_path / "whole")
        shutil.rmtree(tmp_path / "damaged")


@pytest.mark.slow
def test_an_epoch_that_comes_out_differently_is_named(tmp_path: Path) -> None:
    asked = ["epochs=30", "checkpoint.every=10"]
    train_and_kill(tmp_path, 14, *asked)
    path = tmp_path / HISTORY
    rows = path.read_text().splitlines(keepends=True)
    number, loss, *rest = rows[12].split(",")
    rows[12] = ",".join([number, "0.5", *rest])
    path.write_text("".join(rows), newline="")
    with pytest.raises(NotReproduced, match=r"epoch 12, computed again, has train/loss .*not 0\.5"):
        train(tmp_path, *asked)
    assert loss != "0.5"


def test_a_full_disk_ends_no_training_at_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("src.runs.checkpoints.save_checkpoint", full)
    finished = train(tmp_path, "epochs=4", "checkpoint.every=2")
    assert finished.record.status == "FINISHED"
    assert "no checkpoint of epoch 2: OSError: [Errno 28] No space" in caplog.text


# --- the identity of a run ---


def identity(*overrides: str) -> Identity:
    with composer():
        _, prepared = check(compose(["model=relu2_small", "epochs=3", *overrides]))
    return Identity.of(prepared)


def test_an_identity_names_all_that_decides_the_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = identity()
    assert identity("name=other", "checkpoint.every=2") == first
    assert identity("lr=0.3").of_checkpoints != first.of_checkpoints
    assert identity("data.split.seed=1").of_checkpoints != first.of_checkpoints
    longer = identity("epochs=4")
    assert longer.key != first.key
    assert longer.of_checkpoints == first.of_checkpoints

    path = tmp_path / "weights.npz"
    from_file = ("initializer=file", f"initializer.path={path}")
    shapes = {"W1": (784, 10), "b1": (1, 10), "W2": (10, 10), "b2": (1, 10)}
    np.savez(path, allow_pickle=False, **{n: np.zeros(shape) for n, shape in shapes.items()})
    zeros = identity(*from_file)
    np.savez(path, allow_pickle=False, **{n: np.ones(shape) for n, shape in shapes.items()})
    assert identity(*from_file).key != zeros.key
    assert identity(*from_file).of_checkpoints != zeros.of_checkpoints

    assert first.may_follow(identity())
    assert not first.may_follow(replace(first, versions={"NumPy": "1.0"}))
    monkeypatch.setattr("src.runs.record.code_digest", lambda: "another")
    assert not identity().may_follow(first)
    assert identity().key == first.key


# --- the folder's owner ---------------------------------------------------------------------------


def test_a_folder_has_one_owner_and_is_free_when_that_dies(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path\n"
        "from src.runs.folder import own\n"
        "own(Path(sys.argv[1])); print('mine', flush=True); time.sleep(600)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "mine\n"
        assert is_alive(tmp_path)
        with pytest.raises(ConfigError, match="another process is writing into this folder"):
            own(tmp_path)
    finally:
        owner.kill()
        owner.communicate()
    assert not is_alive(tmp_path)
    own(tmp_path)
    assert is_alive(tmp_path)
    disown(tmp_path)


def test_what_a_killed_process_left_unfinished_goes_when_the_folder_is_alive(
    tmp_path: Path,
) -> None:
    (tmp_path / ".0123456789ab.part").write_bytes(b"half")
    own(tmp_path)
    disown(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {LOCK}


# --- the command ----------------------------------------------------------------------------------


def points(store: str, run_id: str) -> dict[str, list[tuple[int, float, int]]]:
    """Return every point that the store has of a run, by metric."""
    client = MlflowClient(store)
    keys = client.get_run(run_id).data.metrics
    return {
        key: sorted(
            (point.step, point.value, point.timestamp)
            for point in client.get_metric_history(run_id, key)
        )
        for key in keys
    }


WAITS_FOR_MLFLOW = """
import time
from src.runs.recorder import Recorder
from src.run import main
from src.tracking.told import Told

add = Recorder.add

def slow(self, given):
    add(self, given)
    while given.number == 100 and Told.load(self._folder).epochs == 0:
        time.sleep(0.01)
    time.sleep(0.02 * (given.number > 100))

Recorder.add = slow
main()
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A run that was killed in its middle, after MLflow knew some of its epochs."""
    outputs = tmp_path_factory.mktemp("killed")
    asked = (
        *("epochs=400", "model=relu2_small", "batching=full"),
        *("tags.purpose=a thesis", "checkpoint.every=30"),
    )
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS_FOR_MLFLOW, f"outputs={outputs}", *asked],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def told() -> Told:
        return Told.load(next(outputs.glob("runs/*"), outputs))

    kill_after(process, lambda: told().epochs > 0)
    ended = Ended(outputs, int(process.returncode), "", "")
    assert ended.code == -signal.SIGKILL
    deadline = time.monotonic() + PATIENCE
    while not told().is_complete:  # the mirror closes the run
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return ended


@pytest.fixture
def again(killed: Ended, tmp_path: Path) -> Iterator[Ended]:
    """A copy of the killed run's outputs, in the same place."""
    shutil.copytree(killed.outputs, tmp_path / "copy")
    yield killed
    shutil.rmtree(killed.outputs)
    shutil.copytree(tmp_path / "copy", killed.outputs)


@pytest.mark.parametrize("resume", ["resume=auto", "resume={folder}"])
def test_a_run_that_was_killed_before_its_last_picture_gets_the_rest(
    resume: str, invoke: Callable[..., Ended]
) -> None:
    asked = ("model=relu2_small", "epochs=1")
    (folder,) = invoke(*asked).folders
    drawn = {path.name: path.read_bytes() for path in folder.glob("*.png")}
    for name in ("predictions.png", "first_layer.png"):
        (folder / name).unlink()
    again = invoke(*(asked if "auto" in resume else ()), resume.format(folder=folder))
    assert again.code == 0, again.err
    assert again.folders == [folder]
    assert "nothing is left to train" in again.out
    assert {path.name: path.read_bytes() for path in folder.glob("*.png")} == drawn


@pytest.mark.slow
def test_resume_goes_on_in_the_same_folder_and_the_same_mlflow_run(
    again: Ended, tmp_path: Path
) -> None:
    (folder,) = again.folders
    run_id, done = run_id_of(folder), lines(folder)
    before = MlflowClient(again.store).get_run(run_id)
    assert before.info.status == "KILLED"
    assert 100 <= done < 400
    ended = run(again.outputs, f"resume={run_id}")
    assert (ended.code, ended.err) == (0, "")
    assert "resumed     after epoch " in ended.out
    assert ended.folders == [folder]
    train(tmp_path / "whole", "epochs=400", "model=relu2_small", "batching=full")
    assert_equal_runs(folder, tmp_path / "whole")
    client = MlflowClient(again.store)
    (found,) = client.search_runs([before.info.experiment_id])
    assert (found.info.run_id, found.info.status) == (run_id, "FINISHED")
    assert found.info.start_time == before.info.start_time
    assert found.data.params == {**found.data.params, **before.data.params}
    assert found.data.tags["purpose"] == "a thesis"
    kept = points(again.store, run_id)
    with (folder / HISTORY).open(newline="") as file:
        rows = list(csv.DictReader(file))
    for key in ("train/loss", "val/accuracy", "seconds", "updates"):
        expected = [(int(row["epoch"]), float(row[key]), int(row["time"])) for row in rows]
        assert kept[key] == expected, key
    times = [int(row["time"]) for row in rows]
    assert times == sorted(times)
    assert all(len(found) == 1 for key, found in kept.items() if key.startswith(("final", "best")))

    finished = run(again.outputs, f"resume={folder}")
    assert (finished.code, finished.err) == (0, "")
    assert finished.out.startswith(f"finished    {folder}: nothing is left to train\n")
    assert points(again.store, run_id) == kept

    longer = run(again.outputs, f"resume={folder}", "epochs=420")
    assert (longer.code, longer.err) == (0, "")
    found = client.get_run(run_id)
    assert (found.info.status, found.data.tags["epochs"]) == ("FINISHED", "420")
    assert len(points(again.store, run_id)["train/loss"]) == 420


def test_a_finished_run_goes_on_with_more_epochs(tmp_path: Path) -> None:
    asked = ["optimizer=adam", "lr=0.002", "schedule=plateau", "stopping=early"]
    train(tmp_path / "whole", "epochs=20", *asked)
    train(tmp_path / "longer", "epochs=12", *asked)
    train(tmp_path / "longer", "epochs=20", *asked)
    assert_equal_runs(tmp_path / "longer", tmp_path / "whole")
    assert Record.load(tmp_path / "longer").epochs == 20


@pytest.mark.slow
def test_a_run_that_failed_keeps_its_last_epoch_and_auto_goes_on(
    tmp_path: Path, invoke: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("epochs=12", "model=relu2_small", "checkpoint.every=1000")
    add = Recorder.add

    def interrupt(self: Recorder, given: Any) -> None:
        add(self, given)
        if given.number == 7:
            raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "add", interrupt)
        first = invoke(*asked, tracked=True)
    assert first.code == 1
    (folder,) = first.folders
    assert Record.load(folder).status == "FAILED"
    second = invoke(*asked, "resume=auto", tracked=True)
    assert (second.code, second.err) == (0, "")
    assert "resumed     after epoch 7 of 12" in second.out
    assert second.folders == [folder]
    (tmp_path / "whole").mkdir()
    train(tmp_path / "whole" / "run", *asked)
    assert_equal_runs(folder, tmp_path / "whole" / "run")
    info = MlflowClient(second.store).get_run(run_id_of(folder))
    assert info.info.status == "FINISHED"
    assert "failure" not in info.data.tags
    third = invoke(*asked, "resume=auto")  # nothing is unfinished: a new run
    assert third.code == 0
    assert len(third.folders) == 2
    other = invoke(*asked, "resume=auto", "seed=3")
    assert (other.code, len(other.folders)) == (0, 3)


@pytest.fixture
def interrupted(invoke: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that failed after its fifth epoch, and can go on."""
    add = Recorder.add

    def interrupt(self: Recorder, given: Any) -> None:
        add(self, given)
        if given.number == 5:
            raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "add", interrupt)
        ended = invoke("epochs=9", "schedule=cosine", "model=relu2_small")
    assert ended.code == 1
    return ended.folders[0]


def edit_record(folder: Path, **changes: Any) -> None:
    known = json.loads((folder / "run.json").read_text())
    del known["sha256"]  # a file without a checksum is taken as it is
    for key, value in changes.items():
        if key in known["identity"]:
            known["identity"][key] = value
        else:
            known[key] = value
    (folder / "run.json").write_text(json.dumps(known))


@pytest.mark.slow
def test_what_has_changed_is_named_in_a_line_and_leaves_the_run_alone(
    interrupted: Path, invoke: Callable[..., Ended]
) -> None:
    before = {path: path.read_bytes() for path in interrupted.rglob("*") if path.is_file()}
    record = Record.load(interrupted)
    cases: list[tuple[dict[str, Any], list[str], str]] = [
        ({"overrides": [*record.overrides, "lr=0.07"]}, [], "lr was 0.05 and is 0.07"),
        ({"data": "0" * 32}, [], "the data has changed"),
        ({"code": "0" * 32}, [], "add accept=code"),
        ({"code": "0" * 32}, ["accept=numpy"], "add accept=code"),
        ({"versions": {"NumPy": "1.0"}}, [], "NumPy was 1.0 .* add accept=numpy"),
        ({"overrides": ["hydra.job_logging.x=1"]}, [], "not the settings of a run"),
        ({"overrides": ["plugins=[os]"]}, [], r"add plugins=\[os\]"),
        ({}, ["lr=0.3"], "lr: can't be set beside resume="),
        ({}, ["-m"], "leave out -m"),
        ({}, ["accept=all"], "must be code or numpy"),
        ({}, ["epochs=4"], "has trained 5 epochs already"),
        ({}, ["epochs=20"], "the schedule depends on the number of epochs"),
    ]
    for changes, arguments, message in cases:
        edit_record(interrupted, **changes)
        ended = invoke(f"resume={interrupted}", *arguments)
        assert (ended.code, ended.out) == (2, ""), (message, ended.out)
        assert ended.err.count("\n") <= 6
        assert re.search(message, " ".join(ended.err.split())), ended.err
        (interrupted / "run.json").write_bytes(before[interrupted / "run.json"])
    after = {path: path.read_bytes() for path in interrupted.rglob("*") if path.is_file()}
    assert after == before
    edit_record(interrupted, code="0" * 32)
    accepted = invoke(f"resume={interrupted}", "accept=code")
    assert accepted.code == 0
    assert Record.load(interrupted).status == "FINISHED"


@pytest.mark.parametrize("place", ["nowhere", "."])
def test_what_is_no_run_can_not_be_resumed(invoke: Callable[..., Ended], place: str) -> None:
    ended = invoke(f"resume={place}")
    assert ended.code == 2
    assert "the folder of a run" in " ".join(ended.err.split())
    assert list(ended.outputs.parent.iterdir()) == []


def test_a_folder_that_holds_a_run_takes_no_other(
    interrupted: Path, invoke: Callable[..., Ended]
) -> None:
    before = (interrupted / HISTORY).read_bytes()
    ended = invoke("epochs=2", f"hydra.run.dir={interrupted}")
    assert ended.code == 2
    assert "holds a run already" in " ".join(ended.err.split())
    assert (interrupted / HISTORY).read_bytes() == before


@pytest.mark.slow
def test_of_two_resumes_at_once_the_second_is_refused(
    interrupted: Path, invoke: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    add, codes = Recorder.add, list[tuple[int, str]]()

    def resume_meanwhile(self: Recorder, given: Any) -> None:
        add(self, given)
        if given.number == 7:
            ended = run(interrupted.parents[1], f"resume={interrupted}")
            codes.append((ended.code, " ".join(ended.err.split())))

    monkeypatch.setattr(Recorder, "add", resume_meanwhile)
    first = invoke(f"resume={interrupted}")
    assert first.code == 0
    ((code, message),) = codes
    assert code == 2
    assert "another process is writing into this folder" in message
    assert (interrupted / LOCK).exists()


@pytest.mark.slow
def test_a_member_of_a_sweep_is_resumed_alone(tmp_path: Path) -> None:
    asked = ("-m", "model=sigmoid3", "lr=0.05,0.1,0.2,0.3")
    whole = run(tmp_path / "whole", *asked, "epochs=20")
    short = run(tmp_path / "short", *asked, "epochs=15")
    assert (whole.code, short.code) == (0, 0)
    second = short.folders[1]
    resumed = run(short.outputs, f"resume={second}", "epochs=20")
    assert (resumed.code, resumed.err) == (0, "")
    assert "resumed     after epoch 15 of 20" in resumed.out
    again, expected = history(second), history(whole.folders[1])
    assert len(again) == len(expected) == 20
    for key, value in expected[-1].items():
        assert float(again[-1][key]) == pytest.approx(float(value), rel=1e-4), key
    assert len(Record.load(second).stack) == 2
    client = MlflowClient(short.store)
    assert client.get_run(run_id_of(second)).info.status == "FINISHED"
