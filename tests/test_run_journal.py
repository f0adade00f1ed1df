"""What a run's journal holds, how the run of a dead process is closed, and who its store is."""

import json
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from src.data import Dataset, Split
from src.experiment.run_folder import Identity, RunRecord
from src.nn.layers import ReLU
from src.nn.losses import SoftmaxCrossEntropy
from src.nn.network import MLP
from src.support.errors import InvalidValue, UserError
from src.tracking import sync as sync_module
from src.tracking.journal import (
    HISTORY,
    JOURNAL,
    RUN_LOCK,
    Entry,
    Journal,
    Point,
    cut,
    is_running,
    note_ids,
    pending,
    read_points,
    texts,
)
from src.tracking.outage import Store
from src.tracking.settings import Tracking
from src.tracking.sync import DIED, close_dead, left_open, store_of, sync, sync_all
from src.tracking.tracker import Tracker, ending, system_tags

START = 5_000
HEADER = "epoch,val/loss,seconds,time\n"


def entry(**changes: Any) -> Entry:
    gone = {"host": socket.gethostname(), "pid": 1, "started": "never"}
    return replace(Entry("mine", None, "/o", "a run", START, {}, owner=gone), **changes)


def journal(folder: Path, **changes: Any) -> Journal:
    """Leave the journal of a run whose process is gone."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Journal(entry(**changes), folder)
    with made.change():
        pass
    return made


# --- the journal ----------------------------------------------------------------------------------


def test_a_journal_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    made = journal(tmp_path, tags={"a": "b"}, run_id="7", end=9)
    assert made.owes("run")
    made.mark("run")
    known = Journal.load(tmp_path)
    assert known
    assert known.entry == made.entry
    assert (known.owes("run"), known.owes("end")) == (False, True)
    assert known.path("x") == tmp_path / "x"
    known.remove()
    known.remove()
    assert Journal.load(tmp_path) is None


def test_a_journal_without_a_folder_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = Journal(entry(), None)
    made.mark("run")
    made.remove()
    assert (made.rows(), made.path("x"), list(tmp_path.iterdir())) == ([], Path("x"), [])


def test_each_run_has_a_key_of_its_own_and_says_which_process_it_is() -> None:
    one, other = (Entry("mine", None, "", "", 0, {}) for _ in range(2))
    assert one.key != other.key
    assert len(one.key) == 16
    assert (one.owner["host"], one.owner["pid"]) == (socket.gethostname(), os.getpid())


def test_the_points_of_a_history_have_its_times_and_leave_out_what_was_not_measured(
    tmp_path: Path,
) -> None:
    assert read_points(tmp_path / "none", 0) == []
    path = tmp_path / HISTORY
    path.write_text(HEADER + "1,0.5,2.5,9000\n2,,3.5,\n3,0.1,4,900")  # the last line is torn
    expected: list[Point] = [
        ("val/loss", 0.5, 9000, 1),
        ("seconds", 2.5, 9000, 1),
        ("seconds", 3.5, START + 3500, 2),
    ]
    assert read_points(path, START) == expected
    assert journal(tmp_path).rows() == expected
    path.write_text("epoch,val/loss\n1,0.5\n")
    assert read_points(path, START) == [("val/loss", 0.5, START, 1)]


def test_texts_are_cut_to_a_length_with_an_ellipsis() -> None:
    assert (cut("abcd", 4), cut("abcde", 4)) == ("abcd", "abc…")
    assert texts({"a": 123456, "b": None}, 5) == {"a": "1234…", "b": "None"}


def test_journals_are_found_below_folders(tmp_path: Path) -> None:
    for name in ("b/1", "a", "c/x/y"):
        journal(tmp_path / name)
    assert pending([tmp_path / "b", tmp_path, tmp_path / "a"]) == [
        tmp_path / name for name in ("b/1", "a", "c/x/y")
    ]


def test_ids_are_noted_where_there_are_none(tmp_path: Path) -> None:
    note_ids(None, {"run_id": "1"})
    RunRecord("", [], 0, 1, Identity("", "", "", "", {})).write(tmp_path)
    (tmp_path / "result.json").write_text("{")
    for run in ("1", "2"):
        note_ids(tmp_path, {"run_id": run, "experiment_id": f"e{run}"})
        known = RunRecord.load(tmp_path)
        assert (known.run_id, known.experiment_id) == ("1", "e1")
    assert (tmp_path / "result.json").read_text() == "{"


def test_a_run_is_running_while_its_process_lives(tmp_path: Path) -> None:
    own = Entry("mine", None, "", "", 0, {}).owner
    assert is_running(tmp_path, entry(owner=own))
    memory = bytearray(2**28)  # a process is the same one whatever memory it takes
    assert is_running(tmp_path, entry(owner=own))
    del memory
    assert not is_running(tmp_path, entry(owner={**own, "started": "before"}))
    assert not is_running(tmp_path, entry(owner={**own, "pid": 2**22 + 1}))
    assert is_running(tmp_path, entry(owner={**own, "host": "other", "started": "x"}))
    lock = FileLock(tmp_path / RUN_LOCK)
    with lock:  # a lock counts for more than a process's number, which may be another's by now
        assert is_running(tmp_path, entry(owner={**own, "started": "before"}))
    assert not is_running(tmp_path, entry(owner=own))


# --- runs whose process died ----------------------------------------------------------------------


def test_a_run_whose_process_died_ended_with_its_last_epoch(tmp_path: Path) -> None:
    made = journal(tmp_path)
    close_dead(made)
    known = made.entry
    assert (known.status, known.failure, known.end) == ("KILLED", DIED, START)
    (tmp_path / HISTORY).write_text(HEADER + "1,0.5,1,9000\n2,0.5,1,8000\n")
    close_dead(made, ("FAILED", "its worker died"))
    assert (known.status, known.failure, known.end) == ("FAILED", "its worker died", 9000)
    assert Journal.load(tmp_path).entry == known  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"status": "FINISHED", "failure": None}, ("FINISHED", None, None)),
        ({"status": "FAILED", "failure": "full"}, ("FAILED", "full", None)),
        ({"status": "PRUNED", "failure": "rank 3"}, ("FINISHED", None, "rank 3")),
        ({"status": "LOST", "failure": None}, ("KILLED", DIED, None)),
        ({"status": "FINISHED"}, ("KILLED", DIED, None)),
        ([], ("KILLED", DIED, None)),
    ],
)
def test_a_run_that_wrote_its_result_ended_as_that_says(
    result: Any, expected: tuple[str, str | None, str | None], tmp_path: Path
) -> None:
    made = journal(tmp_path)
    (tmp_path / "result.json").write_text(json.dumps(result))
    close_dead(made)
    assert (made.entry.status, made.entry.failure, made.entry.pruned) == expected


def test_runs_are_left_open_where_their_process_is_gone(tmp_path: Path) -> None:
    """Those that MLflow never had are for src.sync; those of a running sweep are its own."""
    runs, sweeps = tmp_path / "runs", tmp_path / "sweeps"
    open_run = journal(runs / "open").folder
    waiting = journal(runs / "waits", status="FINISHED", run_id="1").folder
    journal(runs / "offline", status="FINISHED")
    journal(runs / "alive", owner=Entry("", None, "", "", 0, {}).owner)
    (runs / "damaged").mkdir()
    (runs / "damaged" / JOURNAL).write_text("{")
    of_sweep = journal(sweeps / "s" / "0").folder
    (sweeps / "s" / RUN_LOCK).touch()
    journal(sweeps / "running" / "0")
    with FileLock(sweeps / "running" / RUN_LOCK):
        assert left_open(tmp_path) == sorted(filter(None, (open_run, waiting, of_sweep)))
    assert sweeps / "running" / "0" in left_open(tmp_path)


def test_a_run_that_goes_on_is_not_synced(tmp_path: Path) -> None:
    assert sync(tmp_path) is None
    journal(tmp_path, owner=Entry("", None, "", "", 0, {}).owner)
    with pytest.raises(UserError, match=f"still goes on, on the computer {socket.gethostname()}"):
        sync(tmp_path)
    with FileLock(tmp_path / "tracking.lock"), pytest.raises(UserError, match="another process"):
        sync(tmp_path)


def test_an_error_ends_the_telling_of_many_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def told(folder: Path, died: Any) -> Any:
        asked.append((folder.name, died))
        if folder.name == "c":
            raise UserError("the store is away")
        return folder.name == "b"

    caplog.set_level(logging.INFO, "src.tracking")
    monkeypatch.setattr(sync_module, "sync", told)
    found = sync_all([tmp_path / name for name in "abcd"], ("FAILED", "x"))
    assert found == {(tmp_path / "b").absolute()}
    assert asked == [(name, ("FAILED", "x")) for name in "abc"]
    assert "the store is away" in caplog.text


def test_the_writer_closes_one_run_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    class Now:
        def submit(self, job: Any) -> None:
            job()

    closed: list[str] = []

    def told(folder: Path) -> None:
        if folder.name == "bad":
            raise UserError("away")
        closed.append(folder.name)

    monkeypatch.setattr(sync_module, "sync", told)
    monkeypatch.setattr(sync_module, "writer", Now)
    sync_module.close_left_open([Path("a"), Path("b"), Path("bad"), Path("c")])
    assert closed == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "own", "run_id", "expected"),
    [
        (None, None, None, "sqlite:////o/mlflow.db"),
        (None, "http://host", "1", "http://host"),
        ("http://new", "http://host", None, "http://new"),
        ("http://me:secret@host", "http://me:***@host", "1", "http://me:secret@host"),
        ("http://new", "http://host", "1", UserError),
        (None, "http://me:***@host", None, UserError),
        ("", None, None, "sqlite:////o/mlflow.db"),
    ],
)
def test_the_store_of_a_run(
    given: str | None, own: str | None, run_id: str | None, expected: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if given is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    known = entry(store=own, run_id=run_id)
    if expected is UserError:
        with pytest.raises(UserError, match="MLFLOW_TRACKING_URI"):
            store_of(known)
    else:
        assert store_of(known) == expected


# --- what is noted --------------------------------------------------------------------------------


@pytest.fixture
def offline(tmp_path: Path) -> Tracker:
    return Tracker(None, entry(start=START), tmp_path)


def noted(tmp_path: Path) -> Entry:
    known = Journal.load(tmp_path)
    assert known
    return known.entry


def test_what_a_run_is_given_is_in_its_journal_at_once(offline: Tracker, tmp_path: Path) -> None:
    offline.parameters({"lr": 0.1, "note": "x" * 6001})
    offline.views({"a": "1"})
    offline.views({"b": "2"})
    offline.metrics({"val/loss": 2.5}, 0, START)
    offline.metrics({"val/loss": 1.5}, 1, START + 1)
    offline.files([tmp_path / "run.log", Path("/elsewhere/x")])
    offline.files([tmp_path / "run.log"])
    offline.files([tmp_path / "run.log"], "config")
    offline.end("FINISHED", 2.5, pruned="rank 2")
    known = noted(tmp_path)
    assert known.parameters["lr"] == "0.1"
    assert len(known.parameters["note"]) == 6000
    assert known.sweep == {"a": "1", "b": "2"}
    assert [tuple(point) for point in known.points] == [("val/loss", 2.5, START, 0)]
    files = [("run.log", None), ("/elsewhere/x", None), ("run.log", "config")]
    assert [tuple(file) for file in known.files] == files
    assert (known.status, known.failure, known.pruned) == ("FINISHED", None, "rank 2")
    assert known.end == START + 2500


class Now:
    """A writer that does everything at once, and a store that notes what it is used for."""

    def __init__(self) -> None:
        self.uses, self.answers = 0, True
        self.planned: list[Any] = []

    def submit(self, job: Any) -> None:
        job()

    def plan(self, write: Any) -> None:
        self.planned.append(write)

    def use(self, work: Any) -> bool:
        self.uses += 1
        return self.answers

    def heard(self) -> None:
        pass

    def wait(self, done: Any, patience: float) -> bool:
        return bool(done())


def test_whatever_a_run_is_given_is_uploaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Any = Now()
    monkeypatch.setattr("src.tracking.tracker.writer", lambda: store)
    made = Tracker(store, entry(), tmp_path)
    split = Split(np.zeros((2, 4), np.uint8), np.array([0, 1]))
    data = Dataset("tiny", split, split, split, shape=(2, 2), scale=1.0, digest="d" * 32)
    layers: Any = ((np.zeros((4, 2), np.float32), np.zeros(2, np.float32)),)
    model = MLP(4, (), 2, ReLU())
    calls: list[Callable[[], None]] = [
        lambda: made.parameters({"lr": 1}),
        lambda: made.sweep("s", "val/loss", ["lr"]),
        lambda: made.dataset(data),
        lambda: made.files([tmp_path / "a"]),
        lambda: made.model(model, SoftmaxCrossEntropy(), data, layers, tmp_path / "w"),
        lambda: made.end("FINISHED", 1.0),
    ]
    for call in calls:
        before = store.uses
        call()
        assert store.uses == before + 1
    assert store.planned == []
    made.metrics({"val/loss": 1.0}, 1, START)
    assert len(store.planned) == 1  # together with those of other runs
    store.answers = False  # it is tried again
    store.planned.pop()()
    assert len(store.planned) == 1
    known = noted(tmp_path)
    assert known.model is not None
    assert known.model["weights"] == "w"
    assert known.dataset is not None
    assert known.dataset["digest"] == "d" * 32
    before = store.uses
    made.close()
    made.parameters({"lr": 2})
    assert store.uses == before  # from now on, the journal belongs to src.sync


def test_who_waits_for_a_run_hears_its_ids_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Any = Now()
    monkeypatch.setattr("src.tracking.tracker.writer", lambda: store)
    made, heard = Tracker(store, entry(), tmp_path), list[tuple[str, str]]()
    made.when_open(lambda *ids: heard.append(ids))
    assert made.identity() is None
    made._journal.entry.run_id = "7"
    assert made.identity() is None
    store.planned.pop()()
    assert heard == []
    made._journal.entry.experiment_id = "1"
    store.planned.pop()()
    assert heard == [("1", "7")]
    assert store.planned == []
    assert made.identity() == ("1", "7")


def test_a_file_that_is_given_again_is_sent_again(tmp_path: Path) -> None:
    made = Tracker(None, entry(), tmp_path)
    part = "file pictures/a.png"
    made._journal.entry.written = [part, "file /b.png"]
    made.files([tmp_path / "a.png"], "pictures")
    assert noted(tmp_path).written == ["file /b.png"]
    assert made._upload.renewals[part] == 1


def test_a_run_takes_over_the_journal_of_the_process_before(tmp_path: Path) -> None:
    journal(tmp_path, run_id="7", key="k", model_id="m", written=["attempt", "run", "end"])
    Tracker(None, entry(start=99, name="new"), tmp_path)
    known = noted(tmp_path)
    assert (known.run_id, known.key, known.start) == ("7", "k", START)
    assert (known.model_id, known.written) == ("m", ["attempt"])
    assert known.name == "new"
    Tracker(None, entry(start=99, run_id="8"), tmp_path)  # another run
    known = noted(tmp_path)
    assert (known.run_id, known.start, known.written) == ("8", 99, [])
    (tmp_path / JOURNAL).write_text("{")
    Tracker(None, entry(start=98), tmp_path)  # a damaged one is replaced
    assert noted(tmp_path).start == 98


def test_a_run_without_a_store_waits_for_nothing_and_warns_of_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    writer = Now()
    monkeypatch.setattr("src.tracking.tracker.writer", lambda: writer)
    offline = Tracker(None, entry(), tmp_path)
    offline.when_open(lambda *_: pytest.fail("it is never open"))
    assert writer.planned == []
    assert offline.identity() is None
    offline.close()
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("status", "leaving", "patience"),
    [("FINISHED", None, 20.0), ("KILLED", None, 4.0), ("FINISHED", 143, 4.0), (None, None, 20.0)],
)
def test_a_process_that_must_end_soon_waits_for_a_shorter_time(
    status: Any, leaving: int | None, patience: float, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    class Away(Store):
        def __init__(self) -> None:
            self.waits: list[float] = []

        def use(self, work: Any) -> bool:
            return False

        def wait(self, done: Any, patience: float) -> bool:
            self.waits.append(patience)
            return False

    monkeypatch.setattr("src.tracking.tracker.exit_code", lambda: leaving)
    store = Away()
    made = Tracker(store, entry(), tmp_path)
    if status:
        made.end(status, 1.0)
    made.close()
    assert store.waits == [patience]
    assert f"MLflow has not been told everything: python -m src.sync {tmp_path}" in caplog.text
    made._upload._refused["metrics"] = "too long"
    caplog.clear()
    made.close()
    assert "MLflow refuses a part of the run: metrics: too long" in caplog.text


def test_a_journal_that_can_not_be_written_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = Tracker(None, entry(), tmp_path / "gone")
    made.parameters({"lr": 1})
    assert caplog.text.count("the run's journal can't be written") == 1
    assert made._journal.entry.parameters == {"lr": "1"}


def test_how_an_exception_ends_a_run() -> None:
    assert ending(KeyboardInterrupt()) == ("KILLED", "interrupted")
    assert ending(SystemExit(143)) == ("KILLED", "terminated")
    assert ending(ValueError("wrong")) == ("FAILED", "wrong")
    assert ending(ValueError()) == ("FAILED", "ValueError")


def test_the_tags_of_mlflow_s_ui() -> None:
    known = system_tags({"git.commit": "abc"})
    assert known["mlflow.source.git.commit"] == "abc"
    assert known["mlflow.source.type"] == "LOCAL"
    assert "mlflow.source.git.commit" not in system_tags({})


# --- which store ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((None, " "), "experiment"),
        (("sqlite:///:memory:", "mine"), "must name a file"),
        (("sqlite://", "mine"), "must name a file"),
        (("http://me:secret@host", "mine"), r"me:\*\*\*@host: holds a password"),
    ],
)
def test_settings_of_a_store_that_are_refused(
    settings: tuple[str | None, str], message: str
) -> None:
    with pytest.raises(InvalidValue, match=message):
        Tracking(*settings)


def test_a_password_may_be_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "http://me:secret@host"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    given = Tracking(uri, "mine")
    assert given.store(Path("o")) == uri
    assert "secret" not in repr(given)
    with pytest.raises(InvalidValue, match="holds a password"):
        Tracking(f"{uri}2", "mine")


def test_without_a_uri_the_store_is_a_database_in_the_outputs(tmp_path: Path) -> None:
    assert Tracking(None, "mine").store(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"


def test_a_run_that_is_offline_opens_no_store(tmp_path: Path) -> None:
    given = Tracking(None, "mine", offline=True)
    given.check(tmp_path)
    with pytest.raises(UserError, match="no MLflow store is used"):
        given.open(tmp_path)
    (tmp_path / "run").mkdir()
    tracker = given.start(tmp_path, "a run", {"git.commit": "c", "x": "y"}, "7", tmp_path / "run")
    tracker.end("FINISHED", 1.0)
    known = noted(tmp_path / "run")
    assert (known.experiment, known.store, known.name, known.run_id) == ("mine", None, "a run", "7")
    assert known.outputs == str(tmp_path.absolute())
    assert known.tags.items() >= {"x": "y", "mlflow.source.git.commit": "c"}.items()
    assert known.end == known.start + 1000
    assert not (tmp_path / "mlflow.db").exists()
