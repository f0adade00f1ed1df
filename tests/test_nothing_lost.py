"""What is kept when a run ends at a bad moment, and what a damaged file of a run does."""

import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from matplotlib.figure import Figure

from src.config.composition import compose, composer
from src.config.preflight import check
from src.experiment import history as history_module
from src.experiment.history import HistoryFile
from src.experiment.kept_epochs import KeptEpochs
from src.experiment.pictures import style
from src.experiment.predictions import Predictions
from src.experiment.results import RESULT, Result
from src.experiment.run_context import RunContext
from src.experiment.run_folder import HISTORY, RUN, Identity, RunRecord
from src.nn.layers import Sigmoid
from src.nn.network import MLP
from src.nn.weights import save_weights
from src.support.errors import ConfigError, DataError, UserError
from src.support.sealed import read_sealed, sealed
from src.sweep.executors import LocalExecutor, start_method
from src.sweep.stack import Assignment, run_stack
from src.tracking.journal import JOURNAL, Entry, Journal
from src.tracking.settings import Tracking
from src.tracking.sync import left_open, sync
from tests import labour
from tests.conftest import ROOT
from tests.resuming import NoTracker
from tests.test_checkpoint import records, training_run
from tests.test_tracking import kept, recorded

# --- the order in which things are kept -----------------------------------------------------------


class Spy(NoTracker):
    """Notes which results are on disk when MLflow is waited for."""

    def __init__(self, folder: Path, seen: list[int]) -> None:
        self._folder, self._seen = folder, seen

    def identity(self) -> None:
        self._seen.append(len(list(self._folder.glob(f"*/{RESULT}"))))


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_stack_keeps_every_result_before_it_waits_for_mlflow(
    tmp_path: Path, interrupted: bool
) -> None:
    assignments = []
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        with composer():
            job, prepared = check(compose(["epochs=2", f"seed={number}", f"outputs={tmp_path}"]))
        context = RunContext(folder, "a run", [], {}, "", "a sweep", stack=(0, 1, 2))
        assignments.append(Assignment(job, prepared, context))
    seen: list[int] = []

    def tell(_: object) -> None:
        if interrupted:
            raise KeyboardInterrupt

    with patch.object(Tracking, "start", lambda *_: Spy(tmp_path, seen)):
        expectation = pytest.raises(KeyboardInterrupt) if interrupted else contextlib.nullcontext()
        with expectation:
            run_stack(assignments, tell)
    assert seen == [3, 3, 3]
    expected = "KILLED" if interrupted else "FINISHED"
    assert [Result.load(tmp_path / str(n)).status for n in range(3)] == [expected] * 3


def test_a_full_disk_at_the_result_fails_the_run_and_mlflow_hears_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Result, "write", full)
    prepared, recording = recorded(tmp_path)
    with pytest.raises(OSError, match="No space left"):  # noqa: PT012, SIM117
        with recording as recorder:
            for epoch in prepared.train():
                recorder.epoch(epoch)
            recorder.finish()
    assert not (tmp_path / "run" / RESULT).exists()
    client, experiment_id = Tracking(None, "scratchgrid").open(tmp_path)
    (run,) = client.search_runs([experiment_id])
    assert run.info.status == "FAILED"
    assert "No space left" in run.data.tags["failure"]


@pytest.mark.slow
def test_a_run_that_died_between_its_result_and_mlflow_is_closed_as_its_result_says(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    Tracking(None, "mine").open(tmp_path)
    script = (
        "import os, sys, time; from pathlib import Path\n"
        "from src.tracking.settings import Tracking\n"
        "outputs = Path(sys.argv[1]); folder = outputs / 'runs' / 'one'\n"
        "tracker = Tracking(None, 'mine').start(outputs, 'one', {}, folder=folder)\n"
        "assert tracker.identity()\n"
        "if sys.argv[2] == 'noted': tracker._upload.stopped = True; tracker.end('FINISHED', 1.0)\n"
        "os._exit(9)\n"
    )
    for noted in ("not noted", "noted"):
        command = [sys.executable, "-c", script, str(tmp_path), noted]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert ended.returncode == 9, ended.stderr
        Result("one", [], "FINISHED", "val/accuracy").write(folder)
        assert left_open(tmp_path) == [folder]
        synced = sync(folder)
        assert synced
        assert kept(tmp_path, synced.run_id).info.status == "FINISHED"
        assert left_open(tmp_path) == []


def _saved_weights(folder: Path, number: int) -> None:
    weights = (np.full((2, 2), number, np.float32), np.zeros((1, 2), np.float32))
    save_weights(folder / "weights.npz", MLP(2, (), 2, Sigmoid()).layers, (weights,))


def _saved_predictions(folder: Path, number: int) -> None:
    label, shares = np.array([number]), np.full((1, 3), 1 / 3)
    Predictions("val", "0" * 32, label, label, shares).save(folder / "predictions.npz")


def _saved_picture(folder: Path, number: int) -> None:
    figure = Figure(figsize=(number, 1))
    style.save(figure, folder / "a.png")


def _saved_record(folder: Path, number: int) -> None:
    RunRecord("a", [], 1, number, Identity("c", "c", "d", "e", {})).write(folder)


def _saved_journal(folder: Path, number: int) -> None:
    with Journal(Entry("mine", None, "", "a", number, {}, owner={}), folder).change():
        pass


SAVED: dict[str, Callable[[Path, int], None]] = {
    "run.json": _saved_record,
    RESULT: lambda folder, number: Result("a", [str(number)], "FAILED", "val/loss").write(folder),
    JOURNAL: _saved_journal,
    "weights.npz": _saved_weights,
    "predictions.npz": _saved_predictions,
    "a.png": _saved_picture,
}


@pytest.mark.parametrize("name", SAVED)
def test_a_file_that_is_written_again_stays_as_it_was_until_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    save, path = SAVED[name], tmp_path / name
    save(tmp_path, 1)
    before = path.read_bytes()

    def killed(*_: Any) -> Any:
        assert path.read_bytes() == before
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(OSError, match="No space"):
            save(tmp_path, 2)
    assert path.read_bytes() == before
    save(tmp_path, 2)
    assert path.read_bytes() != before


def test_nothing_is_recorded_in_a_folder_that_holds_a_run(tmp_path: Path) -> None:
    _, recording = recorded(tmp_path)
    _saved_record(tmp_path / "run", 5)
    before = (tmp_path / "run" / RUN).read_bytes()
    with pytest.raises(ConfigError, match="holds a run already"), recording:
        pass
    assert (tmp_path / "run" / RUN).read_bytes() == before


# --- damaged files --------------------------------------------------------------------------------


def flipped(content: bytes, draw: random.Random) -> bytes:
    damaged = bytearray(content)
    damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def test_a_flipped_bit_in_a_json_file_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    values = {"name": "a run", "value": 0.9523, "steps": [1, 2, 30], "inner": {"a": None, "é": 1}}
    draw, path = random.Random(3), tmp_path / "a.json"
    path.write_bytes(sealed(values))
    assert read_sealed(path) == values
    for _ in range(500):
        path.write_bytes(flipped(sealed(values), draw))
        with contextlib.suppress(ValueError):
            found = read_sealed(path)
            found.pop(next((key for key in found if key not in values), ""), None)
            assert found == values


def test_damaged_files_of_a_run_are_named(tmp_path: Path) -> None:
    record = RunRecord("a", [], 1, 5, Identity("c", "c", "d", "e", {}))
    record.write(tmp_path)
    Result("a", [], "FINISHED", "val/accuracy", value=0.5).write(tmp_path)
    for name, load in (("run.json", RunRecord.load), (RESULT, Result.load)):
        path = tmp_path / name
        path.write_text(path.read_text().replace('"name": "a"', '"name": "b"'))
        with pytest.raises(UserError, match=rf"{name}: .*checksum is wrong"):
            load(tmp_path)
        for content in ("[]", "", '{"name": 1}', "\0"):
            path.write_text(content)
            with pytest.raises((ConfigError, DataError), match=name):
                load(tmp_path)


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    Tracking(None, "mine", offline=True).start(tmp_path, "a", {}, folder=tmp_path)
    path = tmp_path / JOURNAL
    path.write_text(path.read_text().replace('"name": "a"', '"name": "b"'))
    with pytest.raises(UserError, match=r"tracking\.json: .*checksum is wrong"):
        Journal.load(tmp_path)


def test_lines_of_the_history_are_mended_from_the_checkpoint_s(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    rows = [{"epoch": n, "val/loss": 1 / n, "time": 5} for n in range(1, 5)]
    rows[1]["val/loss"] = float("nan")
    with HistoryFile(path) as history:
        for row in rows:
            history.add(row)
    sound = path.read_bytes()
    path.write_bytes(sound.replace(b"0.3333", b"0.3433"))
    with HistoryFile(path) as history:
        assert history.mend(rows[:3]) == 4
        assert np.allclose(history.rows[2]["val/loss"], 1 / 3, atol=0)
    assert path.read_bytes() == sound
    with HistoryFile(path) as history:
        assert history.mend(rows[:3]) is None
    path.write_bytes(sound.splitlines(keepends=True)[0])
    with HistoryFile(path) as history:
        assert history.mend(rows) is None
    assert path.read_bytes() == sound


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_history_whose_mending_is_cut_short_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "history.csv"
    rows = [{"epoch": n, "val/loss": 1 / n, "time": 5} for n in range(1, 5)]
    with HistoryFile(path) as history:
        for row in rows:
            history.add(row)
    sound = path.read_bytes()
    damaged = sound.replace(b"0.3333", b"0.3433")
    path.write_bytes(damaged)

    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, HistoryFile(path) as history:
        if call == "write":
            patched.setattr(history_module, "_line", full)
        else:
            patched.setattr({"fsync": os, "replace": Path}[call], call, full)
        with pytest.raises(OSError, match="No space"):
            history.mend(rows[:3])
        assert path.read_bytes() == damaged
    with HistoryFile(path) as history:
        assert history.mend(rows[:3]) == 4
        history.add({"epoch": 5, "val/loss": 0.2, "time": 6})
    assert path.read_bytes() == sound + b"5,0.2,6\r\n"
    assert [path.name for path in tmp_path.iterdir()] == ["history.csv"]


def test_an_epoch_that_is_computed_again_keeps_its_first_time(tmp_path: Path) -> None:
    run, begin = training_run()
    epochs = list(records(run, begin))
    for slower in (1, 2):
        with HistoryFile(tmp_path / HISTORY) as history:
            kept = KeptEpochs(history, 0, begin.parameters, is_exact=True)
            for epoch in epochs:
                is_new = kept.add(replace(epoch, seconds=slower * epoch.number))
                assert is_new == (slower == 1)
            assert [row["seconds"] for row in history.rows] == [one.number for one in epochs]
            assert [one.seconds for one in kept.epochs] == [one.number for one in epochs]


# --- src.sync -------------------------------------------------------------------------------------


def test_sync_fails_for_no_reader_of_its_output(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "src.sync", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as errors:
        assert errors.read() == b""
    assert process.wait() == 0


def test_json_that_no_checksum_protects_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"a": 1}))
    assert read_sealed(tmp_path / "a.json") == {"a": 1}


def test_a_line_of_the_log_that_cannot_be_written_shows_no_traceback(
    capfd: pytest.CaptureFixture[str],
) -> None:
    command = (
        "from src.terminal.console import never_fail; never_fail(); from tests import labour; "
    )
    command += "labour.note('/dev/full', print)"
    subprocess.run([sys.executable, "-c", command], cwd=ROOT, check=True)
    with LocalExecutor(1, start_method()) as executor:
        executor.submit(labour.note, "/dev/full")
        for future in executor.as_completed(print):
            assert future.exception() is None
    assert capfd.readouterr().err == ""
