"""What a mirror keeps of a run in MLflow, and the store that it opens."""

import contextlib
import math
import shutil
import sqlite3
import subprocess
import sys
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
from src.runs.context import RunContext
from src.runs.history import read_history
from src.runs.record import Record
from src.runs.recorder import recording
from src.runs.tracking import Tracking, database_uri
from src.support.errors import UserError
from src.tracking import mlflow_internals
from src.tracking.errors import refuses
from src.tracking.mirror import Mirror, tell
from src.tracking.store import check_database, check_store, database_file, open_tracking
from src.tracking.told import Told, left_open
from tests.conftest import ROOT

PATIENCE = 120.0  # seconds; a machine may be busy
MINE = Tracking(None, "mine")


def recorded(outputs: Path, *overrides: str, folder: str = "run") -> Any:
    """Open a small run in a folder below the outputs."""
    with composer():
        job, prepared = check(compose(["epochs=3", f"outputs={outputs}", *overrides]))
    own = outputs / folder
    own.mkdir(parents=True)
    return prepared, recording(job, prepared, RunContext(own, "a run", [], {"lr": 0.08}))


def kept(outputs: Path, folder: str = "run") -> Any:
    """Return what MLflow has of a run."""
    client = MlflowClient(database_uri(outputs / "mlflow.db"))
    return client.get_run(str(Told.load(outputs / folder).run_id))


class Said(Mirror):
    """A mirror in this process, and what it has said."""

    def __init__(self, outputs: Path, store: str | None = None) -> None:
        self.said: list[str] = []
        store = store or database_uri(outputs / "mlflow.db")
        super().__init__(store, "scratchgrid", outputs, self._hear_say)

    def _hear_say(self, **message: Any) -> None:
        self.said += [word for word in message if word != "heard"]


def trained(outputs: Path, *overrides: str, mirror: Said | None = None) -> Said:
    """Train a run to its end and tell MLflow of it; return the mirror."""
    mirror = mirror or Said(outputs)
    mirror.follow([outputs / "run"])
    prepared, opened = recorded(outputs, *overrides)
    with opened as recorder:
        for epoch in prepared.train():
            recorder.add(epoch)
        mirror.turn()
        recorder.finish()
    mirror.turn()
    assert mirror.is_idle
    return mirror


def curve(outputs: Path, key: str) -> list[tuple[float, float, float]]:
    """Return step, value and time of each point of the only run."""
    points = "SELECT step, value, timestamp FROM metrics WHERE key = ? ORDER BY step"
    with contextlib.closing(sqlite3.connect(outputs / "mlflow.db")) as store:
        return list(store.execute(points, [key]))


# --- what MLflow has ----------------------------------------------------------------------------


def test_a_run_in_mlflow_has_the_points_and_the_times_of_its_folder(tmp_path: Path) -> None:
    mirror = trained(tmp_path)
    assert (mirror.lacking, mirror.has_ended) == ({}, True)
    record, run = Record.load(tmp_path / "run"), kept(tmp_path)
    assert (run.info.status, run.data.params) == ("FINISHED", {"lr": "0.08"})
    assert curve(tmp_path, "train/loss") == [
        (row["epoch"], row["train/loss"], row["time"]) for row in read_history(tmp_path / "run")
    ]
    assert run.info.start_time == record.started
    assert run.info.end_time - run.info.start_time == pytest.approx(1000 * record.seconds, abs=2)


def test_name_note_and_tags_reach_mlflow_and_leave_the_experiment_alone(tmp_path: Path) -> None:
    given = ["note=a first try", "++tags.purpose=thesis", "++tags.year=2026"]
    with composer():
        plain, _ = check(compose([]))
        noted, _ = check(compose(given))
    assert plain.experiment.digest == noted.experiment.digest
    trained(tmp_path, *given)
    run = kept(tmp_path)
    assert run.info.run_name == "a run"
    assert run.data.tags["mlflow.note.content"] == "a first try"
    assert (run.data.tags["purpose"], run.data.tags["year"]) == ("thesis", "2026")
    (output,) = run.outputs.model_outputs
    client = MlflowClient(database_uri(tmp_path / "mlflow.db"))
    assert client.get_logged_model(output.model_id).name == "a run"


def test_a_run_of_a_sweep_takes_eleven_transactions_of_the_store(tmp_path: Path) -> None:
    counts: list[int] = []

    def count(connection: object) -> None:
        counts[-1] += 1

    event.listen(Engine, "commit", count)
    with composer():
        job, prepared = check(compose(["epochs=20", f"outputs={tmp_path}"]))
    mirror = Said(tmp_path)
    for number in range(2):  # the first one opens the store and arranges the sweep's views
        counts.append(0)
        own = tmp_path / str(number)
        own.mkdir()
        context = RunContext(own, f"run {number}", [], {"lr": 0.05}, sweep_id="s", varied=("lr",))
        with recording(job, prepared, context) as recorder:
            for epoch in prepared.train():
                recorder.add(epoch)
            recorder.finish()
        mirror.follow([own])
        mirror.turn()
    event.remove(Engine, "commit", count)
    assert 0 < counts[1] <= 11
    run = kept(tmp_path, "1")
    assert run.info.status == "FINISHED"
    assert run.data.metrics["updates"] == 20 * 34
    assert not list(tmp_path.glob("artifacts/models/*"))  # the sweep logs that of its best run


# --- what it refuses ----------------------------------------------------------------------------


def answer(status: int) -> requests.HTTPError:
    """Return the error of a server that answers with a status when it is sent a file."""
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(f"{status} of a test", response=response)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        ("log_artifact", OSError(28, "No space left on device"), "history.csv: OSError: "),
        ("log_artifact", answer(413), "history.csv: HTTPError: 413 of a test"),
        (
            "log_inputs",
            MlflowException("no such thing", error_code=INVALID_PARAMETER_VALUE),
            "settings: MlflowException: no such thing",
        ),
    ],
)
def test_what_the_store_does_not_take_is_no_outage_and_the_rest_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: Exception, said: str
) -> None:
    def refused(*_: Any) -> Any:
        raise error

    with monkeypatch.context() as disk:
        disk.setattr(MlflowClient, call, refused)
        mirror = trained(tmp_path)
    assert said in mirror.lacking[str(tmp_path / "run")]
    assert (mirror.said, mirror.has_ended) == ([], True)
    run = kept(tmp_path)
    assert run.info.status == "FINISHED"
    assert "failure" not in run.data.tags
    assert len(curve(tmp_path, "val/loss")) == 3
    assert not Told.load(tmp_path / "run").is_complete
    told, lacking = tell(tmp_path / "run", Tracking(None, "scratchgrid"), tmp_path)
    assert (told.is_complete, lacking) == (True, "")
    assert len(curve(tmp_path, "val/loss")) == 3
    assert len(list(tmp_path.rglob("artifacts/**/history.csv"))) == 1
    assert len(list(tmp_path.rglob("artifacts/**/MLmodel"))) == 1


def test_which_answers_to_a_file_are_an_outage() -> None:
    asked = (400, 401, 403, 404, 408, 413, 415, 429, 500, 502, 503, 504, 507)
    passing = [status for status in asked if not refuses(answer(status))]
    assert passing == [401, 408, 429, 500, 502, 503, 504]


# --- whose run it is ----------------------------------------------------------------------------


def test_a_run_that_died_before_mlflow_had_all_ends_as_its_result_says(tmp_path: Path) -> None:
    prepared, opened = recorded(tmp_path, folder="runs/one")
    folder, died = tmp_path / "runs" / "one", Said(tmp_path)
    died.follow([folder])
    with opened as recorder:
        died.turn()
        with pytest.raises(UserError, match="another process is telling"):
            tell(folder, MINE, tmp_path)
        died._open[folder].lock.close()  # as the system does when it dies
        with pytest.raises(UserError, match="still goes on"):
            tell(folder, MINE, tmp_path)
        for epoch in prepared.train():
            recorder.add(epoch)
        recorder.finish()
    assert list(left_open(tmp_path)) == [folder]
    Said(tmp_path).turn()  # the mirror of the next command
    assert kept(tmp_path, "runs/one").info.status == "FINISHED"
    assert len(curve(tmp_path, "val/loss")) == 3
    assert list(left_open(tmp_path)) == []


def test_a_run_is_told_by_one_mirror_at_a_time_and_the_next_one_waits(tmp_path: Path) -> None:
    """As when a run goes on at once whose process was killed: its mirror still closes it."""
    prepared, opened = recorded(tmp_path)
    first, second = Said(tmp_path), Said(tmp_path)
    for mirror in (first, second):
        mirror.follow([tmp_path / "run"])
    with opened as recorder:
        first.turn()
        second.turn()
        assert (first.is_idle, second.is_idle) == (True, False)
        first._open.popitem()[1].lock.close()
        for epoch in prepared.train():
            recorder.add(epoch)
        recorder.finish()
    second.turn()
    assert second.is_idle
    assert kept(tmp_path).info.status == "FINISHED"


def test_it_says_that_the_store_answers_though_no_answer_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, said = 0.0, list[str]()
    monkeypatch.setattr("src.tracking.mirror.time.monotonic", lambda: now)
    mirror = Mirror("", "", tmp_path, lambda **message: said.extend(message))
    for _ in range(10):
        now += 0.4
        mirror._hear()
    assert said == ["heard"] * 5


# --- the store ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["plain", "a b", "a%20b", "a?b", "a#b", "ü"])
def test_the_database_is_where_the_outputs_are_whatever_their_name(
    folder: str, tmp_path: Path
) -> None:
    outputs = tmp_path / folder
    assert database_file(database_uri(outputs / "mlflow.db")) == outputs / "mlflow.db"
    trained(tmp_path, mirror=Said(outputs))
    with contextlib.closing(sqlite3.connect(outputs / "mlflow.db")) as store:
        assert store.execute("SELECT status FROM runs").fetchall() == [("FINISHED",)]
    for name in ("history.csv", "MLmodel"):
        assert len(list(outputs.rglob(f"artifacts/**/{name}"))) == 1
    assert list(tmp_path.rglob("mlflow.db")) == [outputs / "mlflow.db"]


@pytest.mark.slow
def test_outputs_that_were_deleted_are_made_anew(tmp_path: Path) -> None:
    for _ in range(2):
        trained(tmp_path / "outputs")
        assert len(curve(tmp_path / "outputs", "val/loss")) == 3
        shutil.rmtree(tmp_path / "outputs")


def test_a_database_is_looked_at_before_anything_is_begun(tmp_path: Path) -> None:
    check_store(MINE, tmp_path)  # there is none yet
    client, experiment_id = open_tracking(MINE, tmp_path)
    check_store(MINE, tmp_path)
    client.delete_experiment(experiment_id)
    with pytest.raises(UserError, match="'mine' is deleted: restore it"):
        check_store(MINE, tmp_path)
    check_store(Tracking(None, "another"), tmp_path)
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
        "import sys; from pathlib import Path; from src.tracking.store import open_tracking;"
        "from src.runs.tracking import Tracking;"
        "open_tracking(Tracking(None, 'mine'), Path(sys.argv[1])); print('made', flush=True)"
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
    client, experiment_id = open_tracking(MINE, tmp_path)
    assert client.get_experiment(experiment_id).name == "mine"
    assert not (tmp_path / "mlflow.db.new").exists()


# --- private functions of MLflow: what breaks when it changes -------------------------------------


@pytest.fixture
def client(tmp_path: Path) -> MlflowClient:
    return open_tracking(MINE, tmp_path)[0]


def test_mlflow_creates_a_database_and_lets_go_of_it(tmp_path: Path) -> None:
    mlflow_internals.create_database(
        database_uri(tmp_path / "new.db"), (tmp_path / "artifacts").as_uri()
    )
    (tmp_path / "new.db").rename(tmp_path / "mlflow.db")
    assert open_tracking(MINE, tmp_path)[1]
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
