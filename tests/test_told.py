"""What MLflow has of the runs in folders, and who tells it the rest."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from src.runs.folder import disown, own
from src.runs.tracking import Tracking, database_uri
from src.support.errors import DataError, UserError
from src.tracking import mirror as mirror_module
from src.tracking.mirror import Mirror, tell
from src.tracking.search import KIND
from src.tracking.store import open_tracking
from src.tracking.summary import LEADERBOARD, PLAN, REPORT, SummaryUpload, SweepSummary
from src.tracking.told import SUMMARY, TOLD, Told, ids, left_open, pending
from src.tracking.upload import DIED, Upload
from src.tracking.view import view_tag
from tests.telling import (
    START,
    Opened,
    Spy,
    artifacts,
    begun,
    ended,
    in_mlflow,
    trained,
    with_network,
)

TRACKING = Tracking(None, "mine")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture
def opened(outputs: Path) -> Opened:
    return open_tracking(TRACKING, outputs)


# --- mlflow.json ----------------------------------------------------------------------------------


def test_what_mlflow_has_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    assert Told.load(tmp_path) == Told()
    assert ids(tmp_path) is None
    told = Told("k", experiment_id="1", run_id="7", epochs=3, files={"a": [1, 2]}, status="KILLED")
    told.write(tmp_path)
    assert Told.load(tmp_path) == told
    assert ids(tmp_path) == ("1", "7")
    (tmp_path / TOLD).write_text(json.dumps({"key": "k", "epochs": "3"}))
    assert Told.load(tmp_path) == Told(is_tried=True)


def test_runs_that_mlflow_does_not_have_whole_are_found_once_and_before_their_summary(
    tmp_path: Path,
) -> None:
    for name in ("b/1", "b/0", "a", "c/x/y", "whole", "went-on", "damaged"):
        begun(tmp_path / name)
    (tmp_path / "b" / SUMMARY).write_text("{}")
    Told(attempt=1, is_complete=True).write(tmp_path / "whole")
    Told(attempt=1, is_complete=True).write(tmp_path / "went-on")
    begun(tmp_path / "went-on", attempt=2)
    (tmp_path / "damaged" / "run.json").write_text("{")
    places = [tmp_path / "b", tmp_path, tmp_path / "a"]
    names = ("b/0", "b/1", "a", "c/x/y", "damaged", "went-on", "b")
    assert pending(places) == [tmp_path / name for name in names]


def test_runs_are_left_open_that_mlflow_has_in_part(tmp_path: Path) -> None:
    """Those that it never had are for src.sync."""
    for name in ("runs/part", "runs/never", "sweeps/s/0", "runs/whole"):
        begun(tmp_path / name)
        if name != "runs/never":
            Told(is_complete=name == "runs/whole").write(tmp_path / name)
    assert list(left_open(tmp_path)) == [tmp_path / "runs/part", tmp_path / "sweeps/s/0"]


# --- telling at once ------------------------------------------------------------------------------


def test_a_run_is_told_at_once_and_one_whose_process_died_is_closed(
    outputs: Path, opened: Opened, tmp_path: Path
) -> None:
    begun(tmp_path, 1, 2)
    told, refused = tell(tmp_path, TRACKING, outputs)
    assert (told.is_complete, refused) == (True, "")
    assert told == Told.load(tmp_path)
    known = in_mlflow(opened, tmp_path)
    assert known["times"] == ("KILLED", START, START + 2000)
    assert '"failure": "its process died"' in known["tags"]


def test_a_run_that_goes_on_or_that_another_process_tells_is_left_alone(
    outputs: Path, tmp_path: Path
) -> None:
    begun(tmp_path)
    own(tmp_path)
    with pytest.raises(UserError, match="the run still goes on"):
        tell(tmp_path, TRACKING, outputs)
    disown(tmp_path)
    with (
        mirror_module._locked(tmp_path),
        pytest.raises(UserError, match="another process is telling MLflow"),
    ):
        tell(tmp_path, TRACKING, outputs)
    assert not (tmp_path / TOLD).exists()


def test_a_folder_that_is_damaged_or_holds_nothing_is_named(outputs: Path, tmp_path: Path) -> None:
    begun(tmp_path / "a")
    (tmp_path / "a" / "run.json").write_text("{")
    (tmp_path / "b").mkdir()
    for name, reason in (("a", "not the record of a run"), ("b", "not the summary of a sweep")):
        with pytest.raises(DataError, match=reason):
            tell(tmp_path / name, TRACKING, outputs)


def test_what_is_refused_is_said_and_a_store_that_fails_is_told_in_a_line(
    outputs: Path, opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error: list[Exception] = [MlflowException("too long", BAD_REQUEST)]

    def fail(_: int, name: str, __: Any) -> None:
        if name == "log_inputs" and error:
            raise error[0]

    spy: Any = Spy(opened[0], before=fail)
    monkeypatch.setattr(mirror_module, "open_tracking", lambda *_: (spy, opened[1]))
    begun(tmp_path)
    told, refused = tell(tmp_path, TRACKING, outputs)
    assert refused == "settings: MlflowException: too long"
    assert not told.is_complete
    error[0] = ConnectionError("at http://me:secret@host")
    with pytest.raises(UserError, match=r"fails: ConnectionError: at http://me:\*\*\*@host; what"):
        tell(tmp_path, TRACKING, outputs)
    error.clear()
    assert tell(tmp_path, TRACKING, outputs)[0].is_complete


# --- sweeps ---------------------------------------------------------------------------------------


def swept(folder: Path, runs: int, *, best: str | None = "0") -> SweepSummary:
    """Write the folder of a sweep of configurations of one run each, and its summary."""
    for n in range(runs):
        own, name = folder / str(n), folder.name
        begun(own, 1, sweep_id=name, varied=["lr"], network=with_network(own))
        ended(own)
    for name in (REPORT, LEADERBOARD, PLAN):
        (folder / name).write_text(name)
    configurations = [[str(n)] for n in range(runs)]
    made = SweepSummary(
        folder.name, "2 is best", "val/loss", ["lr"], configurations, best, 7.0, START
    )
    made.write(folder)
    return made


def summaries(opened: Opened, folder: Path) -> list[Any]:
    wanted = f"tags.summary_of = '{folder.name}'"
    return list(opened[0].search_runs([opened[1]], wanted))


def test_a_sweep_without_mlflow_is_told_whole_later(
    outputs: Path, opened: Opened, tmp_path: Path
) -> None:
    client, experiment = opened
    folder = tmp_path / "offline"
    swept(folder, 2, best="1")
    found = pending([tmp_path])
    assert [path.name for path in found] == ["0", "1", "offline"]
    for path in found:
        assert tell(path, TRACKING, outputs)[1] == ""
    assert pending([tmp_path]) == []
    assert [Told.load(folder / name).has_model for name in "01"] == [False, True]
    (summary,) = summaries(opened, folder)
    assert summary.data.tags[KIND] == "sweep"
    assert summary.data.tags["mlflow.note.content"] == "2 is best"
    assert "sweep_id" not in summary.data.tags  # it is none of the sweep's runs
    assert (summary.info.run_name, summary.info.status) == ("sweep offline", "FINISHED")
    assert (summary.info.start_time, summary.info.end_time) == (START, START + 7000)
    assert artifacts(client, summary.info.run_id) == {REPORT, LEADERBOARD, PLAN}
    assert view_tag("offline") in client.get_experiment(experiment).tags


def test_the_summary_of_a_sweep_that_goes_on_replaces_the_one_before(
    opened: Opened, tmp_path: Path
) -> None:
    folder = tmp_path / "goes-on"
    first = swept(folder, 1)
    SummaryUpload(folder).advance(*opened)
    SweepSummary("goes-on", "now 3", "val/loss", ["lr"], [["0"]], None, 9.0).write(folder)
    assert SweepSummary.load(folder).key == first.key
    (folder / REPORT).write_text("longer than it was")
    spy: Any = Spy(opened[0])
    SummaryUpload(folder).advance(spy, opened[1])
    assert spy.counts["log_artifact"] == 1
    (summary,) = summaries(opened, folder)
    assert summary.data.tags["mlflow.note.content"] == "now 3"
    assert (summary.info.start_time, summary.info.end_time) == (START, START + 9000)


@pytest.mark.parametrize("is_answered", [False, True])
def test_a_summary_whose_telling_fails_at_any_call_is_told_once(
    is_answered: bool, opened: Opened, tmp_path: Path
) -> None:
    folder = tmp_path / f"failing-{is_answered}"
    swept(folder, 1)
    whole: Any = Spy(opened[0])
    SummaryUpload(folder).advance(whole, opened[1])
    for call in range(1, len(whole.calls) + 1):
        other = tmp_path / f"failing-{is_answered}-{call}"
        swept(other, 1)

        def fail(number: int, *_: Any, call: int = call) -> None:
            if number == call:
                raise ConnectionError("gone")

        spy: Any = Spy(opened[0], **{"after" if is_answered else "before": fail})
        upload = SummaryUpload(other)
        with pytest.raises(ConnectionError):
            upload.advance(spy, opened[1])
        assert upload.has_news
        upload.advance(spy, opened[1])
        assert upload.is_done
        (summary,) = summaries(opened, other)
        assert len(artifacts(opened[0], summary.info.run_id)) == 3
        assert summary.info.status == "FINISHED"


def test_a_summary_that_is_refused_is_tried_once(opened: Opened, tmp_path: Path) -> None:
    def refuse(_: int, name: str, __: Any) -> None:
        if name == "log_artifact":
            raise MlflowException("too large", BAD_REQUEST)

    folder = tmp_path / "refused"
    swept(folder, 1)
    spy: Any = Spy(opened[0], before=refuse)
    upload = SummaryUpload(folder)
    upload.advance(spy, opened[1])
    assert upload.lacking == {"summary": "MlflowException: too large"}
    assert (upload.is_done, upload.has_news) == (True, False)
    assert folder in pending([folder])


def test_a_summary_leads_into_no_other_run(opened: Opened, tmp_path: Path) -> None:
    begun(tmp_path / "other", 1)
    Upload(tmp_path / "other").advance(*opened)
    before = in_mlflow(opened, tmp_path / "other")
    folder = tmp_path / "forged"
    made = swept(folder, 1)
    (folder / REPORT).unlink()
    (folder / REPORT).symlink_to(tmp_path / "other" / "run.json")
    run_id = Told.load(tmp_path / "other").run_id
    Told(made.key, experiment_id=opened[1], run_id=run_id).write(folder)
    SummaryUpload(folder).advance(*opened)
    assert in_mlflow(opened, tmp_path / "other") == before
    (summary,) = summaries(opened, folder)
    assert artifacts(opened[0], summary.info.run_id) == {LEADERBOARD, PLAN}


def test_a_summary_that_is_damaged_is_named(tmp_path: Path) -> None:
    swept(tmp_path, 1)
    text = (tmp_path / SUMMARY).read_text()
    for damaged in ("{", "[]", text.replace("2 is best", "1 is best"), text.replace("7.0", '"7"')):
        (tmp_path / SUMMARY).write_text(damaged)
        assert SweepSummary.find(tmp_path) is None
        with pytest.raises(DataError, match=f"{SUMMARY}: not the summary of a sweep"):
            SummaryUpload(tmp_path)


# --- the mirror -----------------------------------------------------------------------------------


class Said(list[dict[str, Any]]):
    def __call__(self, **message: Any) -> None:
        if "heard" not in message:
            self.append(message)


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def mirror(outputs: Path, opened: Opened, said: Said) -> Iterator[Mirror]:
    made = Mirror(database_uri(outputs / "mlflow.db"), "mine", outputs, said)
    yield made
    for followed in made._open.values():
        followed.lock.close()


def test_a_mirror_tells_the_runs_that_begin_in_its_folders(
    mirror: Mirror, opened: Opened, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in "ab"]
    mirror.follow(folders)
    mirror.turn()
    begun(folders[0], 1)
    own(folders[0])
    mirror.turn()
    assert in_mlflow(opened, folders[0])["times"][0] == "RUNNING"
    assert mirror.is_idle
    ended(folders[0])
    begun(folders[1], 1)
    ended(folders[1])
    disown(folders[0])
    mirror.turn()
    for folder in folders:
        assert in_mlflow(opened, folder)["times"][0] == "FINISHED"
    assert mirror.has_ended


def test_a_mirror_closes_the_runs_of_a_process_that_died_and_not_before(
    mirror: Mirror, opened: Opened, tmp_path: Path
) -> None:
    begun(tmp_path, 1)
    own(tmp_path)
    mirror.follow([tmp_path])
    mirror.close_dead("FAILED", "its worker died")
    mirror.turn()
    assert in_mlflow(opened, tmp_path)["times"][0] == "RUNNING"
    disown(tmp_path)
    mirror.turn()
    assert in_mlflow(opened, tmp_path)["times"][0] == "FAILED"
    assert mirror.has_ended


def test_a_run_that_dead_processes_left_open_is_closed_by_the_next_mirror(
    outputs: Path, mirror: Mirror, opened: Opened
) -> None:
    left, alive = outputs / "runs" / "left", outputs / "runs" / "alive"
    for folder in (left, alive):
        begun(folder, 1)
        Upload(folder).advance(*opened)
        trained(folder, 1, 2)
    own(alive)
    mirror.turn()
    disown(alive)
    assert in_mlflow(opened, left)["times"][0] == DIED[0]
    assert len(in_mlflow(opened, left)["points"]["val/loss"]) == 2
    assert len(in_mlflow(opened, alive)["points"]["val/loss"]) == 1
    Told(is_complete=True).write(alive)


def test_one_mirror_at_a_time_tells_a_run(
    outputs: Path, mirror: Mirror, said: Said, opened: Opened, tmp_path: Path
) -> None:
    begun(tmp_path, 1)
    with mirror_module._locked(tmp_path):
        mirror.follow([tmp_path])
        mirror.turn()
    assert not (tmp_path / TOLD).exists()
    mirror.follow([tmp_path])
    mirror.turn()
    assert Told.load(tmp_path).epochs == 1
    with pytest.raises(UserError, match="another process is telling"):
        tell(tmp_path, TRACKING, outputs)


def test_a_store_that_is_away_is_named_once_and_tried_every_two_seconds(
    mirror: Mirror, said: Said, opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, tries, is_away = [1000.0], [], [True]

    def fail(*_: Any) -> None:
        tries.append(clock[0])
        if is_away[0]:
            raise ConnectionError("at http://me:secret@host")

    spy: Any = Spy(opened[0], before=fail)
    monkeypatch.setattr(mirror_module, "open_store", lambda *_: (spy, opened[1]))
    monkeypatch.setattr("src.tracking.mirror.time.monotonic", lambda: clock[0])
    begun(tmp_path, 1)
    mirror.follow([tmp_path])
    for _ in range(9):
        mirror.turn()
        clock[0] += 0.5
    assert tries == [1000, 1002, 1004]
    assert not mirror.is_idle
    is_away[0] = False
    for _ in range(9):
        mirror.turn()
        clock[0] += 0.5
    assert [list(message) for message in said] == [["lost"], ["found"]]
    assert said[0]["lost"] == "ConnectionError: at http://me:***@host"
    assert mirror.is_idle
    assert in_mlflow(opened, tmp_path)["points"]["val/loss"] == [(1, 0.1, START + 1000)]


def test_a_mirror_names_what_is_refused_or_damaged_and_tells_the_rest(
    mirror: Mirror, said: Said, opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int, name: str, __: Any) -> None:
        if name == "log_inputs":
            raise MlflowException("too long", BAD_REQUEST)

    spy: Any = Spy(opened[0], before=refuse)
    monkeypatch.setattr(mirror_module, "open_store", lambda *_: (spy, opened[1]))
    for name in ("refused", "damaged"):
        begun(tmp_path / name, 1)
        ended(tmp_path / name)
    (tmp_path / "damaged" / "result.json").write_text("{")
    mirror.follow([tmp_path / "damaged", tmp_path / "refused"])
    mirror.turn()
    assert mirror.lacking[str(tmp_path / "refused")] == "settings: MlflowException: too long"
    assert "not the record of a run" in mirror.lacking[str(tmp_path / "damaged")]
    assert mirror.is_idle
    assert mirror.has_ended
    assert said == []
    assert in_mlflow(opened, tmp_path / "refused")["times"][0] == "FINISHED"


def test_a_mirror_tells_the_summary_of_a_sweep_and_the_model_of_its_best_run(
    mirror: Mirror, opened: Opened, tmp_path: Path
) -> None:
    folder = tmp_path / "mirrored"
    swept(folder, 2, best="1")
    mirror.follow([folder / "0", folder / "1"])
    mirror.turn()
    assert view_tag("mirrored") in opened[0].get_experiment(opened[1]).tags
    (folder / "1" / "curves.png").write_bytes(b"drawn")
    mirror.summarize(folder)
    mirror.turn()
    assert [Told.load(folder / name).has_model for name in "01"] == [False, True]
    assert "pictures/curves.png" in in_mlflow(opened, folder / "1")["files"]
    assert len(summaries(opened, folder)) == 1


def test_pictures_that_are_drawn_after_the_end_of_a_run_are_told_when_it_is_followed_again(
    mirror: Mirror, opened: Opened, tmp_path: Path
) -> None:
    begun(tmp_path, 1)
    ended(tmp_path)
    for picture in ("curves.png", "samples.png"):
        mirror.follow([tmp_path])
        mirror.turn()
        (tmp_path / picture).write_bytes(b"drawn")
    mirror.follow([tmp_path])
    mirror.turn()
    files = in_mlflow(opened, tmp_path)["files"]
    assert files >= {"pictures/curves.png", "pictures/samples.png"}


def test_a_mirror_says_whether_the_store_can_be_opened(
    outputs: Path, mirror: Mirror, said: Said
) -> None:
    mirror.check()
    Mirror("nothing://x", "mine", outputs, said).check()
    assert said[0] == {"refused": ""}
    assert "can't be opened" in said[1]["refused"]
