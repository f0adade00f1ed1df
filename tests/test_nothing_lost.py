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

import numpy as np
import pytest
from matplotlib.figure import Figure

from src.nn.layers import Sigmoid
from src.nn.network import MLP
from src.nn.weights import save_weights
from src.runs import history as history_module
from src.runs.folder import HISTORY, RESULT, RUN
from src.runs.history import History
from src.runs.pictures import style
from src.runs.predictions import Predictions
from src.runs.record import Record
from src.support.errors import ConfigError, DataError, UserError
from src.support.sealed import read_sealed, sealed
from src.sweep.executors import LocalExecutor, start_method
from src.tracking.told import TOLD, Told
from src.training.checkpoint import Checkpoint
from tests import labour
from tests.conftest import ROOT
from tests.test_checkpoint import records, training_run
from tests.test_tracking import Said, kept, recorded

# --- the order in which things are kept -----------------------------------------------------------


def test_a_full_disk_at_the_result_fails_the_run_and_mlflow_hears_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, mirror = Record.write, Said(tmp_path)

    def full(self: Record, folder: Path) -> None:
        if self.has_ended:
            raise OSError(28, "No space left on device")
        write(self, folder)

    monkeypatch.setattr(Record, "write", full)
    prepared, recording = recorded(tmp_path)
    mirror.follow([tmp_path / "run"])
    with pytest.raises(OSError, match="No space left"):  # noqa: PT012, SIM117
        with recording as recorder:
            for epoch in prepared.train():
                recorder.add(epoch)
            recorder.finish()
    assert not (tmp_path / "run" / RESULT).exists()
    mirror.close_dead("FAILED", "no room")
    mirror.turn()
    run = kept(tmp_path)
    assert (run.info.status, run.data.tags["failure"]) == ("FAILED", "no room")


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
    Record("a", [], "val/loss", started=number).write(folder)


def _saved_result(folder: Path, number: int) -> None:
    Record("a", [str(number)], "val/loss", status="FAILED").write(folder)


SAVED: dict[str, Callable[[Path, int], None]] = {
    RUN: _saved_record,
    RESULT: _saved_result,
    TOLD: lambda folder, number: Told(epochs=number).write(folder),
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
    for name, save in ((RUN, _saved_record), (RESULT, _saved_result)):
        save(tmp_path, 1)
        path = tmp_path / name
        path.write_text(path.read_text().replace('"name": "a"', '"name": "b"'))
        with pytest.raises(UserError, match=rf"{name}: .*checksum is wrong"):
            Record.load(tmp_path)
        for content in ("[]", "", '{"name": 1}', "\0"):
            path.write_text(content)
            with pytest.raises(DataError, match=name):
                Record.load(tmp_path)


class Kept:
    """The history of eight epochs, the checkpoint after the third, and the bytes of the file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / HISTORY
        run, begin = training_run()
        self.first, self.epochs = begin.parameters, records(run, begin)
        with self.open() as history:
            for epoch in self.epochs:
                history.add(epoch)
                if epoch.number == 3:
                    assert epoch.progress
                    self.checkpoint: Checkpoint = history.checkpoint(epoch.progress)
        self.sound = self.path.read_bytes()

    def open(self) -> History:
        return History(self.folder, 5, self.first, is_exact=True)

    def restore(self) -> None:
        with self.open() as history:
            history.restore(self.checkpoint)

    def damage(self) -> bytes:
        """Change a digit in the line of the second epoch."""
        line = self.sound.splitlines(keepends=True)[2]
        damaged = self.sound.replace(line, line.replace(b",0.", b",0.9", 1))
        assert damaged != self.sound
        self.path.write_bytes(damaged)
        return damaged


def test_lines_of_the_history_are_mended_from_the_checkpoint_s(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Kept(tmp_path)
    kept.damage()
    kept.restore()
    assert kept.path.read_bytes() == kept.sound
    assert "history.csv: line 3 is damaged; it is taken from the checkpoint" in caplog.text
    caplog.clear()
    kept.restore()
    lines = kept.sound.splitlines(keepends=True)
    kept.path.write_bytes(lines[0])  # a machine that died may have lost lines
    kept.restore()
    assert kept.path.read_bytes() == b"".join(lines[:4])
    assert caplog.text == ""


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_history_whose_mending_is_cut_short_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    kept = Kept(tmp_path)
    damaged = kept.damage()

    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        if call == "write":
            patched.setattr(history_module, "_line", full)
        else:
            patched.setattr({"fsync": os, "replace": Path}[call], call, full)
        with pytest.raises(OSError, match="No space"):
            kept.restore()
    assert kept.path.read_bytes() == damaged
    kept.restore()
    assert kept.path.read_bytes() == kept.sound
    assert [path.name for path in tmp_path.iterdir()] == [HISTORY]


def test_an_epoch_that_is_computed_again_keeps_its_first_time(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    seconds = [epoch.seconds for epoch in kept.epochs]
    with kept.open() as history:
        for epoch in kept.epochs:
            history.add(replace(epoch, seconds=2 * epoch.seconds + 1))
        assert [one.seconds for one in history.epochs] == seconds
    assert kept.path.read_bytes() == kept.sound


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
