"""How runs are kept in MLflow: beside training, in batches, and to the end."""

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from src.config.composition import compose, composer
from src.config.preflight import check
from src.experiment.recorder import Recorder, RunContext, record
from src.experiment.results import Result
from src.support.errors import UserError
from src.tracking import tracker
from src.tracking.store import check_database, open_store
from src.tracking.tracker import Tracking, _Pace
from tests.conftest import ROOT
from tests.test_run import history


def recorded(folder: Path) -> Any:
    """Open a small run in a folder."""
    with composer():
        job, prepared = check(compose(["epochs=3", f"outputs={folder}"]))
    own = folder / "run"
    own.mkdir(parents=True)
    return prepared, record(job, prepared, RunContext(own, "a run", [], {"lr": 0.08}))


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """As where MLflow is still to be imported: a run is opened beside training, and not before the event is set."""
    event = threading.Event()

    def open_later(*arguments: Any) -> Any:
        assert event.wait(60)
        return open_store(*arguments)

    monkeypatch.setattr(tracker, "open_store", open_later)
    monkeypatch.setattr(tracker, "_at_once", tracker._beside)
    return event


def test_training_does_not_wait_for_mlflow_and_everything_is_kept(
    held: threading.Event, tmp_path: Path
) -> None:
    prepared, recording = recorded(tmp_path)
    with recording as recorder:
        for epoch in prepared.train():
            recorder.epoch(epoch)
        assert len(history(tmp_path / "run")) == 3  # on disk already
        assert not (tmp_path / "mlflow.db").exists()
        held.set()
        recorder.finish()
    result = recorder.finished.result
    assert Result.load(tmp_path / "run") == result
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = client.get_run(result.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"lr": "0.08"}
    curve = client.get_metric_history(result.run_id, "train/loss")
    assert [(point.step, point.value) for point in curve] == [
        (row["epoch"], row["train/loss"]) for row in history(tmp_path / "run")
    ]
    assert curve[0].timestamp <= curve[-1].timestamp <= run.info.end_time


def test_a_store_that_turns_out_to_be_closed_ends_the_run_with_what_it_learned(
    held: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: Any) -> Any:
        assert held.wait(60)
        raise UserError("the MLflow store can't be opened: gone")

    monkeypatch.setattr(tracker, "open_store", closed)
    prepared, recording = recorded(tmp_path)

    def whole_run() -> None:
        with recording as recorder:
            for epoch in prepared.train():
                recorder.epoch(epoch)
            held.set()
            recorder.finish()

    with pytest.raises(UserError, match="gone"):
        whole_run()
    result = Result.load(tmp_path / "run")
    assert (result.status, result.run_id) == ("FAILED", None)
    assert "gone" in str(result.failure)
    assert len(history(tmp_path / "run")) == 3


def test_an_interruption_before_the_store_is_open_is_known_there(
    held: threading.Event, tmp_path: Path
) -> None:
    _, recording = recorded(tmp_path)
    threading.Timer(0.2, held.set).start()
    with pytest.raises(KeyboardInterrupt), recording:
        raise KeyboardInterrupt
    result = Result.load(tmp_path / "run")
    run = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").get_run(str(result.run_id))
    assert (run.info.status, run.data.tags["failure"]) == ("KILLED", "interrupted")


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


def test_writing_takes_a_small_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("src.tracking.tracker.time.monotonic", lambda: now[0])
    pace = _Pace()
    written = 0
    while now[0] < 100:
        now[0] += 0.01
        if pace.allows():
            with pace.writing():
                now[0] += 0.05
                written += 1
    assert 17 <= written <= 20  # of 0.05 s each: 1 % of the time


def test_what_could_not_be_written_in_time_is_written_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Pace, "allows", lambda self: False)
    with Tracking(None, "mine").start(tmp_path, "r", {}) as run:
        for step in range(1, 301):
            run.metrics({f"m{k}": step / 10 + k for k in range(7)}, step)
        run_id = run.identity()[1]
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    for k in range(7):
        points = client.get_metric_history(run_id, f"m{k}")
        assert [(p.step, p.value) for p in points] == [
            (step, step / 10 + k) for step in range(1, 301)
        ]


def test_the_recorder_s_seconds_are_those_of_training_and_keeping(tmp_path: Path) -> None:
    prepared, recording = recorded(tmp_path)
    with recording as recorder:
        assert isinstance(recorder, Recorder)
        for epoch in prepared.train():
            recorder.epoch(epoch)
        spent = recorder.seconds
        assert spent > epoch.seconds
        recorder.finish()
    assert recorder.finished.result.seconds > spent


def test_a_store_whose_making_is_broken_off_is_made_anew(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from src.tracking.tracker import Tracking;"
        "Tracking(None, 'mine').open(Path(sys.argv[1])); print('made', flush=True)"
    )
    broken_off = 0
    for delay in (0.0, 0.15, 0.3, 0.5):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
        )
        end = time.monotonic() + 60
        while (
            not (tmp_path / "mlflow.db.new").exists()
            and process.poll() is None
            and time.monotonic() < end
        ):
            time.sleep(0.005)
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_waits_for_what_must_not_be_left_half_done(number: signal.Signals) -> None:
    script = (
        "import os, signal, sys; from src.support.signals import held\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "try:\n"
        "    with held():\n"
        f"        os.kill(os.getpid(), {int(number)}); os.kill(os.getpid(), {int(number)})\n"
        "        print('done', flush=True)\n"
        "    print('not reached')\n"
        "except KeyboardInterrupt: print('interrupted'); sys.exit(130)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.stdout.splitlines() == (
        ["done", "interrupted"] if number == signal.SIGINT else ["done"]
    )
    assert ended.returncode == (130 if number == signal.SIGINT else 143)


def test_what_is_ignored_does_not_hide_what_is_not() -> None:
    script = (
        "import os, signal, sys; from src.support.signals import held\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "with held():\n"
        "    os.kill(os.getpid(), signal.SIGINT); os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 143
