"""What a process that goes on with a run tells MLflow: each epoch once."""

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient, MlflowException
from mlflow.entities import Metric
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from src.experiment.run_folder import Identity, RunRecord
from src.tracking import upload
from src.tracking.journal import HISTORY, Entry, Journal, Point
from src.tracking.settings import Tracking
from src.tracking.upload import Upload

START = 1_000_000


class Opened:
    """A run in MLflow, and its folder."""

    def __init__(self, folder: Path, store: tuple[MlflowClient, str]) -> None:
        self.folder = folder / "run"
        self.folder.mkdir()
        self.client, self.experiment = store
        self.run = self.client.create_run(self.experiment, START).info.run_id

    def known(self, *epochs: int, later: int = 0) -> None:
        """Let MLflow have these epochs, from an earlier process."""
        points = [Metric(*point) for epoch in epochs for point in row(epoch, later)]
        self.client.log_batch(self.run, metrics=points)

    def upload(self, *epochs: int) -> Upload:
        """Return the upload of a process that goes on, whose ``history.csv`` has these epochs."""
        lines = [f"{epoch},{epoch / 10},{epoch},{START + epoch}" for epoch in epochs]
        (self.folder / HISTORY).write_text("\n".join(["epoch,val/loss,updates,time", *lines, ""]))
        entry = Entry("scratchgrid", None, "", "a run", START, {}, run_id=self.run)
        return Upload(Journal(entry, self.folder))

    def advance(self, upload: Upload, client: MlflowClient | None = None) -> None:
        upload.advance(client or self.client, self.experiment, lambda: None)

    def kept(self) -> list[tuple[int, float]]:
        points = self.client.get_metric_history(self.run, "val/loss")
        return sorted((point.step, point.value) for point in points)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[MlflowClient, str]:
    return Tracking(None, "scratchgrid").open(tmp_path_factory.mktemp("store"))


@pytest.fixture
def opened(tmp_path: Path, store: tuple[MlflowClient, str]) -> Opened:
    return Opened(tmp_path, store)


def row(epoch: int, later: int = 0) -> list[Point]:
    time = START + epoch + later
    return [("val/loss", epoch / 10, time, epoch), ("updates", epoch, time, epoch)]


def each_once(last: int) -> list[tuple[int, float]]:
    return [(epoch, epoch / 10) for epoch in range(1, last + 1)]


def test_a_run_that_mlflow_has_whole_knows_its_ids_should_its_process_die_now(
    opened: Opened,
) -> None:
    identity = Identity("", "", "", "", {})
    RunRecord("a run", [], START, 2, identity).write(opened.folder)
    entry = Entry("scratchgrid", None, "", "a run", START, {}, status="FINISHED", end=START)
    opened.advance(Upload(Journal(entry, opened.folder)))
    known = RunRecord.load(opened.folder)
    assert known.experiment_id == opened.experiment
    assert known.run_id
    assert opened.client.get_run(known.run_id).info.status == "FINISHED"


def test_a_gap_that_an_earlier_process_left_is_filled(opened: Opened) -> None:
    opened.known(1, 2, 6, 7)
    opened.advance(opened.upload(*range(1, 10)))
    assert opened.kept() == each_once(9)


def test_epochs_that_are_computed_again_are_not_told_again(opened: Opened) -> None:
    """The earlier process could tell MLflow of more epochs than its history kept."""
    opened.known(*range(1, 7))
    going_on = opened.upload(1, 2)
    opened.advance(going_on)
    for epoch in range(3, 10):  # at other times
        going_on.add(row(epoch, later=500))
    opened.advance(going_on)
    assert opened.kept() == each_once(9)


def test_a_batch_ends_with_an_epoch(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a process that is killed between two batches leaves no half epoch behind."""
    monkeypatch.setattr(upload, "_METRICS_PER_CALL", 5)
    spy = Spy(opened.client)
    opened.advance(opened.upload(*range(1, 6)), spy)  # type: ignore[arg-type]
    assert [sorted({point.step for point in batch}) for batch in spy.batches] == [
        [1, 2],
        [3, 4],
        [5],
    ]
    assert opened.kept() == each_once(5)


def test_a_batch_leaves_out_the_whole_epoch_that_it_has_no_room_for(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "_METRICS_PER_CALL", 7)
    spy = Spy(opened.client)
    going_on = opened.upload()
    for epoch in range(1, 4):
        going_on.add([*row(epoch), *[(f"other/{k}", 0.0, START + epoch, epoch) for k in range(2)]])
    opened.advance(going_on, spy)  # type: ignore[arg-type]
    assert [[point.step for point in batch] for batch in spy.batches] == [[1] * 4, [2] * 4, [3] * 4]


def test_a_run_that_goes_on_begins_where_mlflow_says_and_is_as_long_as_before(
    opened: Opened,
) -> None:
    """A later process has a clock of its own; in MLflow the run began with the first one."""
    going_on = opened.upload()
    with going_on.journal.change() as entry:
        entry.start, entry.end, entry.status = START + 500, START + 900, "FINISHED"
    opened.advance(going_on)
    info = opened.client.get_run(opened.run).info
    assert (info.status, info.start_time, info.end_time) == ("FINISHED", START, START + 400)
    assert going_on.journal.entry.start == START


@pytest.mark.parametrize("answered", [False, True])
def test_a_batch_that_fails_once_is_told_again(opened: Opened, answered: bool) -> None:
    """A refusal may be of a moment, and an answer may be lost although the batch was written."""
    spy = Spy(opened.client, answered=answered, failures=1)
    going_on = opened.upload(*range(1, 4))
    with pytest.raises(MlflowException):
        opened.advance(going_on, spy)  # type: ignore[arg-type]
    for epoch in range(4, 6):
        going_on.add(row(epoch))
    opened.advance(going_on, spy)  # type: ignore[arg-type]
    assert opened.kept() == each_once(5)
    assert not going_on.lacking


def test_what_mlflow_refused_for_good_is_told_by_the_next_process(opened: Opened) -> None:
    spy = Spy(opened.client, failures=100)
    refused = opened.upload(*range(1, 4))
    while not refused.lacking:
        try:
            opened.advance(refused, spy)  # type: ignore[arg-type]
        except MlflowException:
            continue
    refused.add([point for epoch in (4, 5) for point in row(epoch)])
    spy.failures = 0
    opened.advance(refused, spy)  # type: ignore[arg-type]
    assert [step for step, _ in opened.kept()] == [4, 5]
    opened.advance(opened.upload(*range(1, 7)))
    assert opened.kept() == each_once(6)


class Spy:
    """A client whose first batches fail as a wrong request does, ``answered`` after the writing."""

    def __init__(self, client: MlflowClient, *, answered: bool = False, failures: int = 0) -> None:
        self._client, self._answered, self.failures = client, answered, failures
        self.batches: list[list[Metric]] = []

    def log_batch(self, run: str, metrics: Any) -> None:
        if not self.failures or self._answered:
            self._client.log_batch(run, metrics=metrics)
            self.batches.append(list(metrics))
        if self.failures:
            self.failures -= 1
            raise MlflowException("a wrong request", BAD_REQUEST)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_a_history_that_grows_while_it_is_sent_is_sent_as_it_was(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on, log_artifact = opened.upload(1, 2), opened.client.log_artifact
    history = opened.folder / HISTORY
    before = history.read_bytes()

    def send(run_id: str, path: str, folder: str | None = None) -> None:
        with history.open("a") as file:
            file.write("3,0.3,3,1000003\n")
        log_artifact(run_id, path, folder)

    monkeypatch.setattr(opened.client, "log_artifact", send)
    with going_on.journal.change() as entry:
        entry.files.append((HISTORY, None))
    opened.advance(going_on)
    sent = Path(opened.client.download_artifacts(opened.run, HISTORY, str(opened.folder.parent)))
    assert sent.read_bytes() == before
