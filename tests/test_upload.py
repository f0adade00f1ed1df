"""What MLflow has of a run: everything once, whoever tells it and whatever interrupts the telling.

The client is a real one, of a real database.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient, MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from src.nn.network import forward
from src.nn.weights import load_weights
from src.runs.folder import HISTORY, PREDICTIONS, RUN, WEIGHTS
from src.runs.record import Record
from src.runs.tracking import Tracking
from src.tracking import upload as upload_module
from src.tracking.served_model import Classifier
from src.tracking.store import open_tracking
from src.tracking.told import TOLD, Told
from src.tracking.upload import DIED, Upload
from src.tracking.view import view_tag
from tests.telling import (
    START,
    Killed,
    Opened,
    Spy,
    artifacts,
    begun,
    ended,
    in_mlflow,
    trained,
    with_network,
)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    return open_tracking(Tracking(None, "mine"), tmp_path_factory.mktemp("outputs"))


def told(folder: Path, opened: Opened, *, died: tuple[str, str] | None = None) -> Upload:
    """Tell MLflow of the run in a folder, as a new process does."""
    upload = Upload(folder)
    upload.advance(*opened, died)
    return upload


def run_in(folder: Path, client: MlflowClient) -> Any:
    run_id = Told.load(folder).run_id
    assert run_id
    return client.get_run(run_id)


def curve(folder: Path, client: MlflowClient, key: str = "val/loss") -> list[tuple[int, float]]:
    history = client.get_metric_history(str(Told.load(folder).run_id), key)
    return sorted((point.step, point.value) for point in history)


def each_once(last: int) -> list[tuple[int, float]]:
    return [(epoch, epoch / 10) for epoch in range(1, last + 1)]


def refusing(**parts: str) -> Callable[[int, str, Any], None]:
    """Refuse calls of these names, those of files only for a file of the name given."""

    def before(_: int, name: str, given: Any) -> None:
        if name in parts and (not parts[name] or str(given[1]).endswith(parts[name])):
            raise MlflowException("too long", BAD_REQUEST)

    return before


# --- the parts of a run ---------------------------------------------------------------------------


def test_every_part_of_a_run_is_in_mlflow(opened: Opened, tmp_path: Path) -> None:
    client, experiment = opened
    settings = {f"key{n}": "v" * (6001 if n == 0 else 1) for n in range(201)}
    source = {"user": "me", "program": "src.run", "git.commit": "abc"}
    begun(
        tmp_path, 1, 2, 3, settings=settings, source=source, sizes={"train": 5},
        tags={"long": "x" * 9000, "mine": "y"}, stack=[1, 2], stack_position=0,
    )  # fmt: skip
    (tmp_path / PREDICTIONS).write_bytes(b"p")
    (tmp_path / "curves.png").write_bytes(b"c")
    (tmp_path / "notes.txt").write_text("mine")
    ended(tmp_path)
    assert told(tmp_path, opened).is_complete
    run = run_in(tmp_path, client)
    assert run.data.params == {**settings, "key0": "v" * 5999 + "…"}
    assert run.data.tags["long"] == "x" * 7999 + "…"
    assert (
        run.data.tags.items()
        >= {
            "mine": "y",
            "mlflow.user": "me",
            "mlflow.source.name": "src.run",
            "mlflow.source.type": "LOCAL",
            "mlflow.source.git.commit": "abc",
            "overrides": "lr=0.1",
            "sizes": "train=5",
            "stack": "1 2",
            "stack_position": "0",
            "output_dir": str(tmp_path),
        }.items()
    )
    assert (run.info.run_name, run.info.experiment_id) == ("a run", experiment)
    assert (run.info.status, run.info.start_time) == ("FINISHED", START)
    assert run.info.end_time == START + 3500
    assert curve(tmp_path, client) == each_once(3)
    assert curve(tmp_path, client, "layers/1/spread") == [(0, 2.5)]
    assert curve(tmp_path, client, "val/final/loss") == [(0, 0.3)]
    assert curve(tmp_path, client, "val/best/loss") == [(0, 0.1)]
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("tiny", "d" * 32)
    assert json.loads(used.dataset.profile)["features_shape"] == [5, 4]
    assert [tag.value for tag in used.tags] == ["training"]
    assert artifacts(client, run.info.run_id) == {
        "config/config.yaml",
        HISTORY,
        PREDICTIONS,
        "pictures/curves.png",
    }


@pytest.mark.parametrize("settings", [2, 100])
def test_a_short_run_takes_four_calls_beside_its_files(
    settings: int, opened: Opened, tmp_path: Path
) -> None:
    begun(tmp_path, 1, 2, 3, settings={f"key{n}": "1" for n in range(settings)})
    ended(tmp_path)
    spy: Any = Spy(opened[0])
    told(tmp_path, (spy, opened[1]))
    files = [name for name, _ in spy.calls if name == "log_artifact"]
    assert len(files) == 2
    assert [name for name, _ in spy.calls if name != "log_artifact"] == [
        "create_run",
        "log_batch",
        "log_inputs",
        "set_terminated",
    ]
    assert in_mlflow(opened, tmp_path)["points"].keys() >= {"val/final/loss", "val/loss"}


def test_nothing_is_told_of_what_mlflow_has(opened: Opened, tmp_path: Path) -> None:
    begun(tmp_path, 1)
    upload = told(tmp_path, opened)
    assert not upload.has_news
    trained(tmp_path, 1, 2)
    assert upload.has_news
    ended(tmp_path)
    upload.advance(*opened)
    assert upload.is_done
    assert not upload.has_news
    spy: Any = Spy(opened[0])
    told(tmp_path, (spy, opened[1]))
    assert spy.counts == {"get_run": 1}


def test_a_batch_ends_with_an_epoch(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a process that is killed between two batches leaves no half epoch behind."""
    monkeypatch.setattr(upload_module, "_METRICS", 5)
    monkeypatch.setattr(upload_module, "_FIRST", 4)
    begun(tmp_path, *range(1, 7))
    spy: Any = Spy(opened[0])
    told(tmp_path, (spy, opened[1]))
    sent = [given[1] for name, given in spy.calls if name == "log_batch"]
    steps = [sorted({point.step for point in batch}) for batch in sent]
    assert steps == [[0, 1], [2, 3], [4, 5], [6]]
    assert curve(tmp_path, opened[0]) == each_once(6)


def test_more_values_than_a_batch_may_hold_are_told_in_several(
    opened: Opened, tmp_path: Path
) -> None:
    names = [f"layers/{n}/spread" for n in range(2001)]
    begun(tmp_path, first=dict.fromkeys(names, 1.0))
    lines = [",".join(["epoch", *names, "time"])]
    lines += [",".join([str(epoch), *["0.5"] * 2001, "9"]) for epoch in (1, 2)]
    (tmp_path / HISTORY).write_text("\n".join([*lines, ""]))
    upload = told(tmp_path, opened)
    assert not upload.lacking
    assert len(run_in(tmp_path, opened[0]).data.metrics) == 2001
    for name in (names[0], names[999], names[-1]):
        assert curve(tmp_path, opened[0], name) == [(0, 1.0), (1, 0.5), (2, 0.5)]


def test_a_torn_line_is_left_for_later_and_what_was_not_measured_is_left_out(
    opened: Opened, tmp_path: Path
) -> None:
    begun(tmp_path)
    path = tmp_path / HISTORY
    path.write_text("epoch,val/loss,updates,time\n1,0.1,,9000\n2,0.2,5,9")
    upload = told(tmp_path, opened)
    assert curve(tmp_path, opened[0]) == each_once(1)
    assert curve(tmp_path, opened[0], "updates") == []
    with path.open("a") as file:
        file.write("500\n")
    upload.advance(*opened)
    assert curve(tmp_path, opened[0]) == each_once(2)


def test_a_file_that_changes_while_it_is_sent_is_sent_again(opened: Opened, tmp_path: Path) -> None:
    begun(tmp_path, 1)
    ended(tmp_path)

    def write(_: int, name: str, given: Any) -> None:
        if name == "log_artifact" and given[1].endswith(HISTORY) and not grown:
            trained(tmp_path, 1, 2)
            grown.append(1)

    grown: list[int] = []
    spy: Any = Spy(opened[0], after=write)
    upload = told(tmp_path, (spy, opened[1]))
    assert upload.has_news
    upload.advance(spy, opened[1])
    sent = opened[0].download_artifacts(str(upload.told.run_id), HISTORY, str(tmp_path / ".hydra"))
    assert Path(sent).read_bytes() == (tmp_path / HISTORY).read_bytes()
    assert upload.is_complete


# --- the note -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "changes", "sentence"),
    [
        ("FINISHED", {}, "Finished with val/loss 0.3000."),
        ("FAILED", {"failure": "the loss is NaN"}, "Failed: the loss is NaN."),
        ("KILLED", {"failure": "interrupted"}, "Killed: interrupted."),
        ("PRUNED", {"failure": "rank 3"}, "Pruned: rank 3."),
    ],
)
def test_the_note_is_the_command_the_result_and_the_folder(
    status: str, changes: dict[str, Any], sentence: str, opened: Opened, tmp_path: Path
) -> None:
    begun(tmp_path, 1)
    upload = told(tmp_path, opened)

    def note() -> list[str]:
        return str(run_in(tmp_path, opened[0]).data.tags["mlflow.note.content"]).split("\n\n")

    command, folder = "`python -m src.run lr=0.1`", f"Folder: {tmp_path}"
    assert note() == [command, folder]
    ended(tmp_path, status, **changes)
    upload.advance(*opened)
    assert note() == [command, sentence, folder]


def test_a_user_s_own_note_comes_first(opened: Opened, tmp_path: Path) -> None:
    begun(tmp_path, note="for the paper")
    upload = told(tmp_path, opened)
    ended(tmp_path)
    upload.advance(*opened)
    assert run_in(tmp_path, opened[0]).data.tags["mlflow.note.content"] == "for the paper"


# --- how it ended ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "in_store", "tag"),
    [
        ("FAILED", "FAILED", "failure"),
        ("KILLED", "KILLED", "failure"),
        ("PRUNED", "FINISHED", "pruned"),
    ],
)
def test_a_run_has_ended_as_its_record_says_although_its_process_died(
    status: str, in_store: str, tag: str, opened: Opened, tmp_path: Path
) -> None:
    begun(tmp_path, 1)
    ended(tmp_path, status, failure="f" * 9000, metrics={"val/loss": 1.0})
    told(tmp_path, opened, died=DIED)
    run = run_in(tmp_path, opened[0])
    assert run.info.status == in_store
    assert {"failure", "pruned"} & run.data.tags.keys() == {tag}
    assert run.data.tags[tag] == "f" * 7999 + "…"
    assert "val/final/loss" not in run.data.metrics


@pytest.mark.parametrize("epochs", [0, 2])
def test_a_run_whose_process_died_ended_with_its_last_epoch(
    epochs: int, opened: Opened, tmp_path: Path
) -> None:
    begun(tmp_path, *range(1, epochs + 1))
    upload = told(tmp_path, opened, died=("FAILED", "its worker died"))
    assert upload.is_complete
    run = run_in(tmp_path, opened[0])
    assert (run.info.status, run.data.tags["failure"]) == ("FAILED", "its worker died")
    assert "Failed: its worker died." in run.data.tags["mlflow.note.content"]
    assert run.info.end_time == START + 1000 * epochs
    assert HISTORY in artifacts(opened[0], run.info.run_id)


def test_a_run_that_goes_on_is_running_again_and_has_its_new_tags(
    opened: Opened, tmp_path: Path
) -> None:
    begun(tmp_path, 1, tags={"a": "old"})
    told(tmp_path, opened, died=DIED)
    begun(tmp_path, 1, 2, attempt=2, epochs=5, tags={"a": "new"}, settings={"lr": "9", "x": "1"})
    upload = told(tmp_path, opened)
    run = run_in(tmp_path, opened[0])
    assert run.info.status == "RUNNING"
    assert run.data.tags.items() >= {"a": "new", "attempt": "2", "epochs": "5"}.items()
    assert "failure" not in run.data.tags
    assert run.data.params == {"lr": "0.1", "seed": "1"}  # as they were
    assert not upload.is_complete
    ended(tmp_path)
    upload.advance(*opened)
    run = run_in(tmp_path, opened[0])
    assert (run.info.status, run.info.start_time) == ("FINISHED", START)
    assert curve(tmp_path, opened[0]) == each_once(2)


def test_a_run_that_went_on_without_mlflow_is_told_to_its_new_end(
    opened: Opened, tmp_path: Path
) -> None:
    begun(tmp_path, 1)
    told(tmp_path, opened, died=DIED)
    begun(tmp_path, 1, 2, 3, attempt=2)
    ended(tmp_path, "KILLED", failure="interrupted")
    assert told(tmp_path, opened).is_complete
    run = run_in(tmp_path, opened[0])
    assert (run.info.status, run.data.tags["failure"]) == ("KILLED", "interrupted")
    assert run.info.end_time == START + 3500
    assert curve(tmp_path, opened[0]) == each_once(3)


# --- whoever goes on ------------------------------------------------------------------------------


def steps(folder: Path) -> list[Callable[[], object]]:
    """Return the moments in the life of a run after which it is told."""
    return [
        lambda: begun(folder, 1),
        lambda: trained(folder, 1, 2),
        lambda: ended(folder),
    ]


@pytest.mark.parametrize("is_answered", [False, True])
def test_a_telling_that_dies_at_any_call_goes_on_without_a_gap_or_a_repetition(
    is_answered: bool, opened: Opened, tmp_path: Path
) -> None:
    def die_at(call: int, folder: Path) -> int:
        """Tell a run, dying at a call; return how many calls there were."""

        def die(number: int, *_: Any) -> None:
            if number == call:
                raise Killed

        spy: Any = Spy(opened[0], **{"after" if is_answered else "before": die})
        upload = None
        for step in steps(folder):
            step()
            upload = upload or Upload(folder)
            try:
                upload.advance(spy, opened[1])
            except Killed:
                upload = None
        if upload is None:
            Upload(folder).advance(spy, opened[1])
        return len(spy.calls)

    calls = die_at(0, tmp_path / "whole")
    expected = in_mlflow(opened, tmp_path / "whole")
    for call in range(1, calls + 1):
        folder = tmp_path / str(call)
        die_at(call, folder)
        assert in_mlflow(opened, folder) == expected, call
        assert Told.load(folder).is_complete


def test_a_store_that_fails_between_two_calls_is_told_the_rest_by_the_same_process(
    opened: Opened, tmp_path: Path
) -> None:
    def fail(number: int, *_: Any) -> None:
        if number % 3 == 1:
            raise ConnectionError("the answer is lost")

    spy: Any = Spy(opened[0], after=fail)
    begun(tmp_path / "a", 1, 2)
    begun(tmp_path / "b", 1, 2)
    ended(tmp_path / "a")
    ended(tmp_path / "b")
    upload = Upload(tmp_path / "a")
    while not upload.is_done:
        try:
            upload.advance(spy, opened[1])
        except ConnectionError:
            continue
    told(tmp_path / "b", opened)
    assert in_mlflow(opened, tmp_path / "a") == in_mlflow(opened, tmp_path / "b")
    assert upload.lacking == {}


@pytest.mark.parametrize("text", [None, "", "{", '{"key": 3}', "[" * 100_000])
def test_a_run_is_found_again_where_its_mlflow_json_is_damaged_or_another_s(
    text: str | None, opened: Opened, tmp_path: Path
) -> None:
    begun(tmp_path, 1)
    told(tmp_path, opened)
    before = in_mlflow(opened, tmp_path)
    run_id = Told.load(tmp_path).run_id
    (tmp_path / TOLD).write_text(json.dumps({"key": "another"}) if text is None else text)
    upload = told(tmp_path, opened)
    assert upload.told.run_id == run_id
    assert in_mlflow(opened, tmp_path) == before


@pytest.mark.parametrize("key", ["own", "other"])
def test_a_forged_mlflow_json_leads_into_no_other_run(
    key: str, opened: Opened, tmp_path: Path
) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    begun(other, 1)
    told(other, opened)
    before = in_mlflow(opened, other)
    begun(own, 1, 2)
    network = with_network(own)
    begun(own, 1, 2, network=network)
    ended(own)
    forged = asdict(Told.load(other)) | {"key": Record.load(own if key == "own" else other).key}
    (own / TOLD).write_text(json.dumps(forged))
    assert told(own, opened).is_complete
    assert in_mlflow(opened, other) == before
    assert Told.load(own).run_id != Told.load(other).run_id
    assert curve(own, opened[0]) == each_once(2)


@pytest.mark.parametrize("is_same_process", [False, True])
@pytest.mark.parametrize("has_ended", [False, True])
def test_a_run_that_was_deleted_from_mlflow_is_created_again(
    is_same_process: bool, has_ended: bool, opened: Opened, tmp_path: Path
) -> None:
    begun(tmp_path / "whole", 1, 2, 3)
    folder = tmp_path / "deleted"
    begun(folder, 1)
    upload = told(folder, opened)
    opened[0].delete_run(str(upload.told.run_id))
    trained(folder, 1, 2, 3)
    if has_ended:
        ended(folder)
        ended(tmp_path / "whole")
    (upload if is_same_process else Upload(folder)).advance(*opened)
    told(tmp_path / "whole", opened)
    assert in_mlflow(opened, folder) == in_mlflow(opened, tmp_path / "whole")


def test_a_database_that_is_deleted_in_the_middle_has_every_run_again(tmp_path: Path) -> None:
    outputs, folders = tmp_path / "outputs", [tmp_path / name for name in ("a", "b", "whole")]
    tracking = Tracking(None, "mine")
    for folder in folders:
        begun(folder, 1)
    ended(folders[1])
    uploads = [Upload(folder) for folder in folders[:2]]
    for upload in uploads:
        upload.advance(*open_tracking(tracking, outputs))
    (outputs / "mlflow.db").unlink()
    opened = open_tracking(tracking, outputs)
    trained(folders[0], 1, 2)
    trained(folders[2], 1, 2)
    uploads[0].advance(*opened)
    told(folders[1], opened)
    told(folders[2], opened)
    assert in_mlflow(opened, folders[0]) == in_mlflow(opened, folders[2])
    assert in_mlflow(opened, folders[1])["times"] == ("FINISHED", START, START + 3500)


# --- what the store does not take -----------------------------------------------------------------


def test_what_is_refused_is_tried_once_and_the_rest_is_told(opened: Opened, tmp_path: Path) -> None:
    begun(tmp_path, 1)
    spy: Any = Spy(opened[0], before=refusing(log_inputs="", log_artifact=HISTORY))
    upload = told(tmp_path, (spy, opened[1]))
    ended(tmp_path)
    for _ in range(2):
        upload.advance(spy, opened[1])
    assert upload.lacking.keys() == {"settings", HISTORY}
    assert upload.lacking[HISTORY] == "MlflowException: too long"
    assert (spy.counts["log_inputs"], spy.counts["log_artifact"]) == (1, 2)
    assert upload.is_done
    assert not upload.has_news
    known = in_mlflow(opened, tmp_path)
    assert known["times"][0] == "FINISHED"
    assert known["files"] == {"config/config.yaml"}
    assert curve(tmp_path, opened[0]) == each_once(1)
    assert not Told.load(tmp_path).is_complete
    assert told(tmp_path, opened).is_complete  # the next process tries again
    known = in_mlflow(opened, tmp_path)
    assert known["files"] == {"config/config.yaml", HISTORY}
    assert known["data"] == ["d" * 32]
    assert curve(tmp_path, opened[0]) == each_once(1)


def test_curves_that_are_refused_are_told_by_the_next_process(
    opened: Opened, tmp_path: Path
) -> None:
    begun(tmp_path, 1)
    refused = told(tmp_path, opened)
    trained(tmp_path, 1, 2, 3)
    ended(tmp_path)
    spy: Any = Spy(opened[0], before=refusing(log_batch=""))
    refused.advance(spy, opened[1])
    assert refused.lacking.keys() == {"metrics", "end"}
    assert curve(tmp_path, opened[0]) == each_once(1)
    assert told(tmp_path, opened).is_complete
    assert curve(tmp_path, opened[0]) == each_once(3)
    assert in_mlflow(opened, tmp_path)["times"][0] == "FINISHED"


def test_a_run_that_is_refused_is_asked_for_once(opened: Opened, tmp_path: Path) -> None:
    begun(tmp_path, 1)
    spy: Any = Spy(opened[0], before=refusing(create_run=""))
    upload = told(tmp_path, (spy, opened[1]))
    ended(tmp_path)
    upload.advance(spy, opened[1])
    assert spy.counts == {"create_run": 1}
    assert upload.lacking == {"run": "MlflowException: too long"}
    assert upload.is_done
    assert told(tmp_path, opened).is_complete


def test_a_file_without_room_is_left_out_and_a_store_that_is_away_is_not(
    opened: Opened, tmp_path: Path
) -> None:
    begun(tmp_path, 1)
    ended(tmp_path)
    error: list[Exception] = [OSError(28, "No space left on device")]

    def fail(_: int, name: str, given: Any) -> None:
        if name == "log_artifact" and given[1].endswith(HISTORY) and error:
            raise error[0]

    spy: Any = Spy(opened[0], before=fail)
    upload = told(tmp_path, (spy, opened[1]))
    assert upload.lacking == {HISTORY: "OSError: [Errno 28] No space left on device"}
    assert in_mlflow(opened, tmp_path)["times"][0] == "FINISHED"
    error[0] = ConnectionError("gone")
    with pytest.raises(ConnectionError):
        upload.advance(spy, opened[1])
    error.clear()
    upload.advance(spy, opened[1])
    assert (upload.is_complete, upload.lacking) == (True, {})


@pytest.mark.parametrize(("clashes", "succeeds"), [(4, True), (5, False)])
def test_a_dataset_that_another_process_creates_is_tried_five_times(
    clashes: int, succeeds: bool, opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clash(_: int, name: str, __: Any) -> None:
        if name == "log_inputs" and spy.counts[name] <= clashes:
            raise MlflowException("UNIQUE constraint failed", BAD_REQUEST)

    spy: Any = Spy(opened[0], before=clash)
    monkeypatch.setattr("src.tracking.upload.time.sleep", lambda _: None)
    begun(tmp_path, 1)
    if succeeds:
        told(tmp_path, (spy, opened[1]))
    else:
        with pytest.raises(MlflowException):
            told(tmp_path, (spy, opened[1]))
    assert spy.counts["log_inputs"] == 5


# --- files that are none of the run's -------------------------------------------------------------


def test_a_link_in_the_place_of_a_file_is_not_followed(opened: Opened, tmp_path: Path) -> None:
    folder, secrets = tmp_path / "run", tmp_path / "secrets"
    network = with_network(secrets)
    begun(folder, 1, network=network)
    for name in ("config.yaml", PREDICTIONS):
        (secrets / name).write_text("secret")
    (folder / ".hydra" / "config.yaml").unlink()
    (folder / ".hydra").rmdir()
    (folder / ".hydra").symlink_to(secrets)
    (folder / PREDICTIONS).symlink_to(secrets / PREDICTIONS)
    (folder / WEIGHTS).symlink_to(secrets / WEIGHTS)
    (folder / "curves.png").mkdir()
    os.mkfifo(folder / "samples.png")  # reading it would wait for ever
    ended(folder)
    assert told(folder, opened).is_complete
    known = in_mlflow(opened, folder)
    assert known["files"] == {HISTORY}
    assert known["models"] == ([], 0)


def test_mlflow_json_is_not_written_through_a_link(opened: Opened, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    begun(folder, 1)
    for name in (TOLD, f".{TOLD}.part"):
        (tmp_path / name).write_text("mine")
        (folder / name).symlink_to(tmp_path / name)
    told(folder, opened)
    assert not (folder / TOLD).is_symlink()
    assert {path.read_text() for path in (tmp_path / TOLD, tmp_path / f".{TOLD}.part")} == {"mine"}


# --- runs on other machines -----------------------------------------------------------------------


def test_of_a_run_on_another_machine_mlflow_has_what_it_goes_on_from(
    opened: Opened, tmp_path: Path
) -> None:
    client = opened[0]
    begun(tmp_path, 1, away_from="/far/sweep/3", network=with_network(tmp_path))
    (tmp_path / WEIGHTS).rename(tmp_path / "weights")
    (tmp_path / "checkpoint.npz").write_text("1")
    (tmp_path / "run.log").write_text("line")
    upload = told(tmp_path, opened)
    run_id = str(upload.told.run_id)
    assert artifacts(client, run_id) == {HISTORY, "checkpoint.npz", RUN}
    assert run_in(tmp_path, client).data.tags["output_dir"] == "/far/sweep/3"
    (tmp_path / "weights").rename(tmp_path / WEIGHTS)
    trained(tmp_path, 1, 2, 3)
    ended(tmp_path)
    upload.advance(*opened)
    assert upload.is_complete
    more = {WEIGHTS, "run.log", "result.json", "config/config.yaml"}
    assert artifacts(client, run_id) == {HISTORY, "checkpoint.npz", RUN, *more}
    assert curve(tmp_path, client) == each_once(3)
    statuses, links = in_mlflow(opened, tmp_path)["models"]
    assert ([str(status) for status in statuses], links) == (["READY"], 1)


def test_mlflow_has_no_epoch_that_its_copy_of_a_far_history_lacks(
    opened: Opened, tmp_path: Path
) -> None:
    """It would come at two times, were it trained again on a third machine."""
    begun(tmp_path, 1, away_from="/far/sweep/3")

    def train(_: int, name: str, given: Any) -> None:
        if name == "log_artifact" and given[1].endswith(HISTORY):
            trained(tmp_path, 1, 2)

    spy: Any = Spy(opened[0], after=train)
    upload = told(tmp_path, (spy, opened[1]))
    assert curve(tmp_path, opened[0]) == each_once(1)
    upload.advance(*opened)
    assert curve(tmp_path, opened[0]) == each_once(2)


def test_a_run_that_went_on_elsewhere_is_found_by_its_key_and_opened_again(
    opened: Opened, tmp_path: Path
) -> None:
    begun(tmp_path / "here", 1, key="k-elsewhere")
    told(tmp_path / "here", opened, died=("FAILED", "its worker died"))
    begun(tmp_path / "there", 1, 2, key="k-elsewhere", attempt=2)
    there = told(tmp_path / "there", opened)
    assert there.told.run_id == Told.load(tmp_path / "here").run_id
    run = run_in(tmp_path / "there", opened[0])
    assert run.info.status == "RUNNING"
    assert "failure" not in run.data.tags
    assert run.data.tags["attempt"] == "2"
    assert curve(tmp_path / "there", opened[0]) == each_once(2)


# --- models and views -----------------------------------------------------------------------------


def test_a_network_is_logged_once_and_predicts_as_before(opened: Opened, tmp_path: Path) -> None:
    client = opened[0]
    begun(tmp_path, 1, network=with_network(tmp_path))
    ended(tmp_path)
    told(tmp_path, opened)
    told(tmp_path, opened)
    run = run_in(tmp_path, client)
    (output,) = run.outputs.model_outputs
    assert output.step == 0
    logged = client.get_logged_model(output.model_id)
    assert logged.status == "READY"
    folder = Path(logged.artifact_location.removeprefix("file://"))
    assert ["scratchgrid" in path.name for path in (folder / "code").iterdir()] == [True]
    assert "numpy==" in (folder / "requirements.txt").read_text()
    (network,) = folder.rglob("network.json")
    served = Classifier(network.parent)
    images = np.random.default_rng(1).integers(0, 255, (6, 4))
    found = served.predict(images.tolist())
    layers = served.model.layers
    weights = load_weights(tmp_path / WEIGHTS, layers, np.dtype(np.float32))
    logits = forward(layers, weights, images.astype(np.float32) * np.float32(0.5))[-1]
    np.testing.assert_array_equal(found["label"], logits.argmax(axis=1))
    np.testing.assert_allclose(found["probabilities"].sum(axis=1), 1, rtol=1e-6)
    for wrong in (images[:, :3], images[0], images.astype(str), images.astype(complex)):
        with pytest.raises(ValueError, match="images of"):
            served.predict(wrong)


def test_a_model_whose_logging_dies_at_any_call_is_one_model(
    opened: Opened, tmp_path: Path
) -> None:
    begun(tmp_path / "whole", 1, network=with_network(tmp_path / "whole"))
    ended(tmp_path / "whole")
    spy: Any = Spy(opened[0])
    told(tmp_path / "whole", (spy, opened[1]))
    names = [name for name, _ in spy.calls]
    expected = in_mlflow(opened, tmp_path / "whole")
    first = names.index("search_logged_models") + 1
    for call in range(first + 1, names.index("set_terminated") + 1):

        def die(number: int, *_: Any, call: int = call) -> None:
            if number == call:
                raise Killed

        folder = tmp_path / str(call)
        begun(folder, 1, network=with_network(folder))
        ended(folder)
        dying: Any = Spy(opened[0], after=die)
        with pytest.raises(Killed):
            told(folder, (dying, opened[1]))
        told(folder, opened)
        assert in_mlflow(opened, folder) == expected, names[call - 1]


@pytest.mark.parametrize(
    ("changes", "is_best", "is_logged"),
    [
        ({}, False, True),
        ({"sweep_id": "s"}, False, False),
        ({"sweep_id": "s"}, True, True),
        ({"sweep_id": "s", "models": "all"}, False, True),
        ({"sweep_id": "s", "away_from": "/far"}, False, True),  # the weights are there only
    ],
)
def test_which_runs_are_logged_as_models(
    changes: dict[str, Any], is_best: bool, is_logged: bool, opened: Opened, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    logged: list[Any] = []
    monkeypatch.setattr(upload_module, "log_model", lambda *given: logged.append(given))
    begun(tmp_path, 1, network=with_network(tmp_path), **changes)
    upload = told(tmp_path, opened)
    upload.is_best = is_best
    ended(tmp_path)
    upload.advance(*opened)
    assert bool(logged) == upload.told.has_model == is_logged
    assert upload.is_complete


def test_the_views_of_a_sweep_are_of_the_settings_in_which_its_runs_differ(tmp_path: Path) -> None:
    begun(tmp_path)
    assert Upload(tmp_path).views == {}
    begun(tmp_path, sweep_id="s", varied=["lr", "gone"])
    (view,) = Upload(tmp_path).views.items()
    assert view[0] == view_tag("s")
    assert json.loads(view[1])["selectedColumns"] == ["metrics.`val/loss`", "params.`lr`"]
