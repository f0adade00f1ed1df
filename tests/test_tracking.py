"""How runs are kept in MLflow: beside training, in order, and to the end."""

import contextlib
import math
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import requests
from mlflow import MlflowClient, MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from sqlalchemy import event
from sqlalchemy.engine import Engine

from src.config.composition import compose, composer
from src.config.preflight import check
from src.data import Dataset, Split
from src.experiment.open_run import record
from src.experiment.recorder import Recorder
from src.experiment.results import Result
from src.experiment.run_context import RunContext
from src.support.errors import UserError
from src.tracking import mlflow_internals, settings, tracker
from src.tracking.journal import JOURNAL
from src.tracking.outage import refuses
from src.tracking.settings import Tracking
from src.tracking.store import check_database, database_file, database_uri, open_store
from src.tracking.sync import sync
from src.tracking.writer import Writer, wait_after
from tests.conftest import ROOT
from tests.test_run import history

PATIENCE = 120.0  # seconds; a machine may be busy


def recorded(folder: Path, *overrides: str) -> Any:
    """Open a small run in a folder."""
    with composer():
        job, prepared = check(compose(["epochs=3", f"outputs={folder}", *overrides]))
    own = folder / "run"
    own.mkdir(parents=True)
    return prepared, record(job, prepared, RunContext(own, "a run", [], {"lr": 0.08}))


def kept(folder: Path, run_id: str | None) -> Any:
    return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").get_run(str(run_id))


def no_data() -> Dataset:
    split = Split(np.zeros((2, 4), np.uint8), np.array([0, 1]))
    return Dataset("nothing", split, split, split, shape=(2, 2), scale=1.0, digest="0" * 32)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The store opens when this event is set, as if importing MLflow took as long."""
    event = threading.Event()

    def open_later(*arguments: Any) -> Any:
        assert event.wait(PATIENCE)
        return open_store(*arguments)

    monkeypatch.setattr(settings, "open_store", open_later)
    return event


# --- beside training ------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_does_not_wait_for_mlflow_and_everything_is_kept(
    gate: threading.Event, tmp_path: Path
) -> None:
    prepared, recording = recorded(tmp_path)
    with recording as recorder:
        for epoch in prepared.train():
            recorder.epoch(epoch)
        assert len(history(tmp_path / "run")) == 3  # on disk already
        recorder.finish()
        assert (tmp_path / "run" / "weights.npz").exists()
        assert not (tmp_path / "mlflow.db").exists()
        gate.set()
    result = recorder.finished.result
    assert Result.load(tmp_path / "run") == result
    run = kept(tmp_path, result.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"lr": "0.08"}
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    curve = client.get_metric_history(str(result.run_id), "train/loss")
    assert [(point.step, point.value) for point in curve] == [
        (row["epoch"], row["train/loss"]) for row in history(tmp_path / "run")
    ]
    assert run.info.start_time <= curve[0].timestamp
    assert curve[0].timestamp <= curve[-1].timestamp <= run.info.end_time


def test_calls_of_mlflow_are_made_in_one_thread_which_is_not_the_main_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def note_thread(name: str) -> None:
        call = getattr(MlflowClient, name)

        def noted(self: Any, *arguments: Any, **more: Any) -> Any:
            threads.append(threading.current_thread())
            return call(self, *arguments, **more)

        monkeypatch.setattr(MlflowClient, name, noted)

    for name in ("create_run", "log_batch", "log_inputs", "log_artifact", "set_terminated"):
        note_thread(name)
    prepared, recording = recorded(tmp_path)
    with recording as recorder:
        for epoch in prepared.train():
            recorder.epoch(epoch)
        recorder.finish()
    assert len(threads) > 5
    assert set(threads) == {threads[0]}
    assert threads[0] is not threading.main_thread()


def whole_run(folder: Path) -> Result:
    prepared, recording = recorded(folder)
    with recording as recorder:
        for epoch in prepared.train():
            recorder.epoch(epoch)
        recorder.finish()
    result: Result = recorder.finished.result
    return result


@pytest.mark.slow
def test_a_store_that_cannot_be_opened_changes_nothing_of_a_training_that_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: Any) -> Any:
        raise UserError("the MLflow store can't be opened: gone")

    monkeypatch.setattr(tracker, "PATIENCE", 0.5)
    monkeypatch.setattr(settings, "open_store", closed)
    result = whole_run(tmp_path)
    assert (result.status, result.run_id, result.failure) == ("FINISHED", None, None)
    assert Result.load(tmp_path / "run") == result
    assert result.metrics["val/accuracy"] > 0
    assert len(history(tmp_path / "run")) == 3
    assert (tmp_path / "run" / "weights.npz").exists()
    monkeypatch.undo()
    assert sync(tmp_path / "run")
    assert curve(tmp_path, "val/loss") == [
        (row["epoch"], row["val/loss"], row["time"]) for row in history(tmp_path / "run")
    ]
    assert sync(tmp_path / "run") is None


def curve(folder: Path, key: str) -> list[tuple[float, float, float]]:
    """Return step, value and time of each point of the only run."""
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as store:
        return list(
            store.execute(
                "SELECT step, value, timestamp FROM metrics WHERE key = ? ORDER BY step", [key]
            )
        )


@pytest.mark.slow
def test_a_file_that_mlflow_has_no_room_for_leaves_the_rest_of_the_run_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(MlflowClient, "log_artifact", full)
        result = whole_run(tmp_path)
        # While the disk is full: a file may be sent again at any later time.
        assert not list(tmp_path.rglob("artifacts/**/history.csv"))
    assert result.status == "FINISHED"
    run = kept(tmp_path, result.run_id)
    assert run.info.status == "FINISHED"
    assert "failure" not in run.data.tags
    assert len(curve(tmp_path, "val/loss")) == 3
    assert " fails: " not in caplog.text  # the store is there
    assert re.search(
        r"a part of the run: .*/history\.csv: OSError: .*No space left.*python -m src\.sync \S*run",
        caplog.text,
    )
    assert sync(tmp_path / "run")
    assert len(list(tmp_path.rglob("artifacts/**/history.csv"))) == 1
    assert len(list(tmp_path.rglob("artifacts/**/MLmodel"))) == 1
    assert not (tmp_path / "run" / JOURNAL).exists()


@pytest.mark.slow
def test_a_file_finds_room_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log_artifact, failed = MlflowClient.log_artifact, threading.Event()

    def full_at_first(self: MlflowClient, run_id: str, path: str, *more: Any) -> None:
        if not failed.is_set():
            failed.set()
            raise PermissionError(13, "Permission denied")
        log_artifact(self, run_id, path, *more)

    monkeypatch.setattr(MlflowClient, "log_artifact", full_at_first)
    prepared, recording = recorded(tmp_path)
    with recording as recorder:
        recorder._tracked.history()
        assert failed.wait(PATIENCE)
        for epoch in prepared.train():
            recorder.epoch(epoch)
        recorder.finish()
    assert len(list(tmp_path.rglob("artifacts/**/history.csv"))) == 1


def answer(status: int) -> requests.HTTPError:
    """Return the error of a server that answers with a status when it is sent a file."""
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(f"{status} of a test", response=response)


@pytest.mark.slow
@pytest.mark.parametrize(("status", "is_outage"), [(413, False), (503, True)])
def test_a_file_that_a_server_refuses_is_no_outage(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    status: int,
    is_outage: bool,
) -> None:
    def refused(*_: Any) -> Any:
        raise answer(status)

    monkeypatch.setattr(tracker, "PATIENCE", 1.0)
    monkeypatch.setattr(MlflowClient, "log_artifact", refused)
    result = whole_run(tmp_path)
    assert result.status == "FINISHED"
    assert (" fails: " in caplog.text) == is_outage
    assert (f"/history.csv: HTTPError: {status} of a test" in caplog.text) != is_outage
    assert (kept(tmp_path, result.run_id).info.status == "FINISHED") != is_outage


def test_which_answers_to_a_file_are_an_outage() -> None:
    asked = (400, 401, 403, 404, 408, 413, 415, 429, 500, 502, 503, 504, 507)
    passing = [status for status in asked if not refuses(answer(status))]
    assert passing == [401, 408, 429, 500, 502, 503, 504]


@pytest.mark.slow
def test_what_the_store_refuses_is_told_and_the_rest_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: Any) -> Any:
        raise MlflowException("no such thing", error_code=INVALID_PARAMETER_VALUE)

    monkeypatch.setattr(MlflowClient, "log_inputs", refused)
    result = whole_run(tmp_path)
    assert kept(tmp_path, result.run_id).info.status == "FINISHED"
    assert len(curve(tmp_path, "val/loss")) == 3
    assert "MLflow refuses a part of the run: dataset: MlflowException: no such thing" in (
        caplog.text
    )


def test_an_interruption_before_the_store_is_open_is_known_there(
    gate: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Result.write

    def write_then_open(self: Result, folder: Path) -> None:
        write(self, folder)
        assert Result.load(tmp_path / "run").status == "KILLED"  # the folder comes first
        gate.set()

    monkeypatch.setattr(Result, "write", write_then_open)
    _, recording = recorded(tmp_path)
    with pytest.raises(KeyboardInterrupt), recording:
        raise KeyboardInterrupt
    result = Result.load(tmp_path / "run")
    run = kept(tmp_path, result.run_id)
    assert (run.info.status, run.data.tags["failure"]) == ("KILLED", "interrupted")


@pytest.mark.slow
def test_a_run_left_by_a_second_ctrl_c_is_closed_from_its_journal(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, threading; from pathlib import Path\n"
        "from src.tracking import settings\n"
        "from src.tracking.settings import Tracking\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "settings.open_store = lambda *_: threading.Event().wait()\n"  # it hangs for ever
        "folder = Path(sys.argv[1])\n"
        "tracker = Tracking(None, 'mine').start(folder, 'a run', {}, folder=folder)\n"
        "submit = tracker._writer.submit\n"
        "def interrupted(job):\n"
        "    future = submit(job)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    return future\n"
        "tracker._writer.submit = interrupted\n"
        "try: tracker.end('KILLED', 1.0, 'interrupted')\n"
        "except KeyboardInterrupt: print('twice')\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.returncode) == ("twice\n", 0), ended.stderr
    assert not (tmp_path / "mlflow.db").exists()
    synced = sync(tmp_path)
    assert synced
    run = kept(tmp_path, synced.run_id)
    assert (run.info.status, run.data.tags["failure"]) == ("KILLED", "interrupted")


# --- curves ---------------------------------------------------------------------------------------


def test_curves_are_written_within_seconds_and_seldom() -> None:
    assert wait_after(0.0) == 1.0
    assert wait_after(0.1) == pytest.approx(2.0)
    assert wait_after(0.5) == wait_after(50.0) == 5.0  # one slow writing delays the next by little


def test_a_planned_writing_comes_though_nothing_else_does() -> None:
    writer, written = Writer(), threading.Event()
    writer.plan(written.set)
    assert written.wait(PATIENCE)


def test_plans_come_together_and_give_way_to_other_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.tracking.writer.wait_after", lambda seconds: 1e6)
    writer, told = Writer(), list[str]()
    writer.plan(lambda: told.append("planned"))
    writer.submit(lambda: told.append("a job")).result(PATIENCE)
    writer.submit(lambda: told.append("another")).result(PATIENCE)
    assert told == ["a job", "another"]
    with writer._changed:
        writer._next = time.monotonic()
    both = threading.Event()
    writer.plan(both.set)
    writer.submit(lambda: None).result(PATIENCE)  # ends the wait of a million seconds
    assert both.wait(PATIENCE)
    assert told == ["a job", "another", "planned"]


def test_every_value_is_written_at_the_end(tmp_path: Path) -> None:
    run = Tracking(None, "mine").start(tmp_path, "r", {})
    for step in range(1, 301):
        run.metrics({f"m{k}": step / 10 + k for k in range(7)}, step, run.milliseconds(step / 100))
    run.end("FINISHED", 4.0)
    run.close()
    _, run_id = run.identity() or ("", "")
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    for k in range(7):
        points = client.get_metric_history(run_id, f"m{k}")
        assert [(p.step, p.value) for p in points] == [
            (step, step / 10 + k) for step in range(1, 301)
        ]


def test_the_duration_and_the_times_of_a_run_are_its_own_seconds(tmp_path: Path) -> None:
    run = Tracking(None, "mine").start(tmp_path, "r", {})
    run.metrics({"loss": 1.0}, 1, run.milliseconds(1.25))
    run.end("FINISHED", 3.5)
    run.close()
    _, run_id = run.identity() or ("", "")
    info = kept(tmp_path, run_id).info
    assert info.end_time - info.start_time == 3500
    (point,) = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").get_metric_history(
        run_id, "loss"
    )
    assert point.timestamp - info.start_time == 1250


def test_the_recorder_s_seconds_are_those_of_training_and_keeping(tmp_path: Path) -> None:
    prepared, recording = recorded(tmp_path)
    with recording as recorder:
        assert isinstance(recorder, Recorder)
        for epoch in prepared.train():
            recorder.epoch(epoch)
        recorder.finish()
    result = recorder.finished.result
    assert result.seconds > epoch.seconds
    info = kept(tmp_path, result.run_id).info
    assert info.end_time - info.start_time == pytest.approx(1000 * result.seconds, abs=2)


# --- what is known of a run -----------------------------------------------------------------------


def test_name_note_and_tags_reach_mlflow_and_leave_the_experiment_alone(tmp_path: Path) -> None:
    with composer():
        plain, _ = check(compose([]))
        noted, _ = check(compose(["note=a first try", "++tags.purpose=thesis", "++tags.year=2026"]))
    assert plain.experiment.digest == noted.experiment.digest
    prepared, recording = recorded(
        tmp_path, "note=a first try", "++tags.purpose=thesis", "++tags.year=2026"
    )
    with recording as recorder:
        for epoch in prepared.train():
            recorder.epoch(epoch)
        recorder.finish()
    run = kept(tmp_path, recorder.finished.result.run_id)
    assert run.info.run_name == "a run"
    assert run.data.tags["mlflow.note.content"] == "a first try"
    assert (run.data.tags["purpose"], run.data.tags["year"]) == ("thesis", "2026")
    (output,) = run.outputs.model_outputs
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert client.get_logged_model(output.model_id).name == "a run"


@pytest.mark.slow
def test_a_notebook_s_own_calls_go_where_they_went_before(tmp_path: Path) -> None:
    script = (
        "import sys, mlflow; from src.api import train\n"
        "mine = mlflow.get_tracking_uri()\n"
        "train('debug=fast', f'outputs={sys.argv[1]}/outputs', show=False)\n"
        "assert mlflow.get_tracking_uri() == mine, mlflow.get_tracking_uri()\n"
        "import os; assert 'MLFLOW_TRACKING_URI' not in os.environ\n"
        "mlflow.set_experiment('my own')\n"
        "with mlflow.start_run(): mlflow.log_param('mine', 1)\n"
        "print(mlflow.last_active_run().info.experiment_id)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    ended = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    with contextlib.closing(sqlite3.connect(tmp_path / "outputs" / "mlflow.db")) as ours:
        names = {name for (name,) in ours.execute("SELECT name FROM experiments")}
    assert "my own" not in names
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as theirs:
        assert theirs.execute("SELECT count(*) FROM params").fetchone() == (1,)


@pytest.mark.slow
def test_processes_that_log_one_dataset_to_a_new_experiment_all_succeed(tmp_path: Path) -> None:
    Tracking(None, "first").open(tmp_path)  # the database is there
    script = (
        "import sys; from pathlib import Path\n"
        "from tests.test_tracking import no_data\n"
        "from src.tracking.settings import Tracking\n"
        "Tracking(None, 'first').open(Path(sys.argv[1]))\n"
        "for round in range(12):\n"
        "    print('ready', flush=True); sys.stdin.readline()\n"
        "    run = Tracking(None, f'experiment {round}').start(Path(sys.argv[1]), 'r', {})\n"
        "    run.dataset(no_data())\n"
        "    run.end('FINISHED', 1.0); run.close()\n"
        "print('done', flush=True)\n"
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    for number in range(12):
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        # As fresh as it can be: the experiment is there and no dataset is.
        client.create_experiment(f"experiment {number}", artifact_location=tmp_path.as_uri())
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("\n")
            worker.stdin.flush()
    for worker in workers:
        out, _ = worker.communicate(timeout=PATIENCE)
        assert (out, worker.returncode) == ("done\n", 0)


@pytest.mark.slow
def test_a_dataset_that_another_process_logs_first_is_logged_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_inputs, attempts = MlflowClient.log_inputs, list[int]()

    def raced(self: Any, *arguments: Any) -> None:
        attempts.append(1)
        if len(attempts) < 3:
            raise MlflowException("UNIQUE constraint failed: datasets.experiment_id")
        log_inputs(self, *arguments)

    monkeypatch.setattr(MlflowClient, "log_inputs", raced)
    run = Tracking(None, "mine").start(tmp_path, "r", {})
    run.dataset(no_data())
    run.end("FINISHED", 1.0)
    run.close()
    _, run_id = run.identity() or ("", "")
    (given,) = kept(tmp_path, run_id).inputs.dataset_inputs
    assert given.dataset.name == "nothing"


# --- the store ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["plain", "a b", "a%20b", "a?b", "a#b", "ü"])
def test_the_database_is_where_the_outputs_are_whatever_their_name(
    folder: str, tmp_path: Path
) -> None:
    outputs = tmp_path / folder
    assert database_file(database_uri(outputs / "mlflow.db")) == outputs / "mlflow.db"
    (tmp_path / "note.txt").write_text("kept")
    run = Tracking(None, "mine").start(outputs, "r", {})
    run.files([tmp_path / "note.txt"])
    run.end("FINISHED", 1.0)
    run.close()
    with contextlib.closing(sqlite3.connect(outputs / "mlflow.db")) as store:
        assert store.execute("SELECT status FROM runs").fetchall() == [("FINISHED",)]
    assert [path.read_text() for path in outputs.rglob("note.txt")] == ["kept"]
    assert list(tmp_path.rglob("mlflow.db")) == [outputs / "mlflow.db"]


@pytest.mark.slow
def test_outputs_that_were_deleted_are_made_anew(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    for number in range(3):
        run = Tracking(None, "mine").start(outputs, f"run {number}", {})
        run.metrics({"loss": 1.0}, 1, run.milliseconds(0.5))
        run.end("FINISHED", 1.0)
        run.close()
        with contextlib.closing(sqlite3.connect(outputs / "mlflow.db")) as store:
            assert store.execute("SELECT name FROM runs").fetchall() == [(f"run {number}",)]
        shutil.rmtree(outputs)


def test_a_database_is_looked_at_before_anything_is_begun(tmp_path: Path) -> None:
    tracking = Tracking(None, "mine")
    tracking.check(tmp_path)  # there is none yet
    client, experiment_id = tracking.open(tmp_path)
    tracking.check(tmp_path)
    client.delete_experiment(experiment_id)
    with pytest.raises(UserError, match="'mine' is deleted: restore it"):
        tracking.check(tmp_path)
    Tracking(None, "another").check(tmp_path)
    (tmp_path / "text.db").write_text("no database, but long enough to be taken for one" * 100)
    with pytest.raises(UserError, match=r"text.db can't be opened: file is not a database"):
        check_database(f"sqlite:///{tmp_path / 'text.db'}", "mine")
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE experiments (something INTEGER)")
    other.close()
    with pytest.raises(UserError, match="no such column"):
        check_database(f"sqlite:///{tmp_path / 'other.db'}", "mine")


def wait_until_there(path: Path, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + PATIENCE
    while not path.exists() and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.slow
def test_a_store_whose_making_is_broken_off_is_made_anew(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from src.tracking.settings import Tracking;"
        "Tracking(None, 'mine').open(Path(sys.argv[1])); print('made', flush=True)"
    )
    broken_off = 0
    for delay in (0.0, 0.15, 0.3, 0.5):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
        )
        part = tmp_path / "mlflow.db.new"
        wait_until_there(part, process)
        time.sleep(delay)
        process.kill()
        out, _ = process.communicate()
        broken_off += out == b""
        if (tmp_path / "mlflow.db").exists():
            break
    assert broken_off
    client, experiment_id = Tracking(None, "mine").open(tmp_path)
    assert client.get_experiment(experiment_id).name == "mine"
    assert not (tmp_path / "mlflow.db.new").exists()


# --- private functions of MLflow: what breaks when it changes -------------------------------------


@pytest.fixture
def client(tmp_path: Path) -> MlflowClient:
    return Tracking(None, "mine").open(tmp_path)[0]


def test_mlflow_creates_a_database_and_lets_go_of_it(tmp_path: Path) -> None:
    mlflow_internals.create_database(
        database_uri(tmp_path / "new.db"), (tmp_path / "artifacts").as_uri()
    )
    (tmp_path / "new.db").rename(tmp_path / "mlflow.db")
    assert Tracking(None, "mine").open(tmp_path)[1]
    assert not (tmp_path / "new.db").exists()


@pytest.mark.slow
def test_mlflow_s_client_can_be_disconnected_from_its_database(
    client: MlflowClient, tmp_path: Path
) -> None:
    mlflow_internals.create_database(
        database_uri(tmp_path / "other.db"), (tmp_path / "artifacts").as_uri()
    )
    assert client.get_experiment_by_name("mine")
    (tmp_path / "other.db").replace(tmp_path / "mlflow.db")
    mlflow_internals.disconnect(client)
    assert client.get_experiment_by_name("mine") is None


@pytest.mark.slow
def test_mlflow_s_tables_hold_the_points_that_its_client_gives(client: MlflowClient) -> None:
    experiment = client.create_experiment("theirs")
    runs = [client.create_run(experiment).info.run_id for _ in range(3)]
    for number, own in enumerate(runs):
        for step, value in enumerate([number + 0.5, math.nan, math.inf, -math.inf]):
            client.log_metric(own, "loss", value, timestamp=100 - step, step=step)
        client.log_metric(own, "other", 1.0)
    found = mlflow_internals.points_in_database(client, runs[:2], ["loss"])
    assert found is not None
    points = list(found)
    assert {(own, key) for own, key, _, _ in points} == {(own, "loss") for own in runs[:2]}
    for own in runs[:2]:
        theirs = [(p.step, p.value) for p in client.get_metric_history(own, "loss")]
        ours = [(step, value) for run, _, step, value in points if run == own]
        np.testing.assert_equal(ours, theirs)
    away = MlflowClient("http://127.0.0.1:1")  # a server has no tables to look into
    assert mlflow_internals.points_in_database(away, runs, ["loss"]) is None


def test_mlflow_s_modules_that_are_imported_ahead_are_there() -> None:
    mlflow_internals.preload()
    assert "mlflow.data.numpy_dataset" in sys.modules
    assert mlflow.pyfunc.save_model


def test_a_run_of_a_sweep_takes_ten_transactions_of_the_store(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Writer, "plan", lambda self, write: None)  # curves are written at the end
    counts: list[int] = []

    def count(connection: object) -> None:
        counts[-1] += 1

    event.listen(Engine, "commit", count)
    with composer():
        job, prepared = check(compose(["epochs=20", f"outputs={tmp_path}"]))
    for number in range(2):  # the first one opens the store and arranges the sweep's views
        counts.append(0)
        own = tmp_path / str(number)
        own.mkdir()
        context = RunContext(own, f"run {number}", [], {"lr": 0.05}, sweep_id="s", varied=("lr",))
        with record(job, prepared, context) as recorder:
            for epoch in prepared.train():
                recorder.epoch(epoch)
            recorder.finish()
    event.remove(Engine, "commit", count)
    assert counts[1] <= 10
    run = kept(tmp_path, Result.load(own).run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["updates"] == 20 * 34
    assert not list(tmp_path.glob("artifacts/models/*"))  # the sweep logs that of its best run
