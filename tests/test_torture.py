"""The harness of ``make torture`` for a moment, and that it finds what is broken."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from src.runs.folder import HISTORY, RESULT, RUN
from tests.conftest import ROOT
from tests.torture import comparing
from tests.torture.faulty import Fault, Injector

KINDS = ("kill", "kill-write", "kill-mlflow", "signal", "disk", "damage")


@pytest.mark.long
def test_a_trial_of_each_kind_is_survived(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.torture", f"--trials={len(KINDS)}", "--seed=11"]
    command += [f"--into={tmp_path}", "--minutes=60", *(f"--kind={kind}" for kind in KINDS)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (written,) = tmp_path.iterdir()
    figures = json.loads(written.read_text())
    done = {own["kind"]: own["survived"] for own in figures["kinds"]}
    allowed = set(KINDS) - ({"disk"} if "disk is left out" in ended.stdout else set())
    assert {kind for kind, survived in done.items() if survived == 1} == allowed
    assert sum(own["kills"] for own in figures["kinds"]) >= 1


# --- the harness finds what is broken -------------------------------------------------------------


class Struck(Exception):
    """Stands for the signal that would have ended the process."""


@pytest.mark.parametrize(
    ("fault", "left"),
    [
        (Fault("write", 2), "onetw"),
        (Fault("write", 2, after=True), "onetwo!!"),
        (Fault("write", 9), "onetwo!!three"),
    ],
    ids=str,
)
def test_a_write_is_torn_at_the_chosen_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, left: str
) -> None:
    import builtins
    import io

    monkeypatch.setattr(io, "open", io.open)  # restored afterwards, as is builtins.open
    monkeypatch.setattr(builtins, "open", builtins.open)
    injector = Injector(fault, tmp_path)
    monkeypatch.setattr(injector, "_replace", lambda *_: None)  # os and MLflow stay as they are

    def strike() -> None:
        raise Struck

    monkeypatch.setattr(injector, "_strike", strike)
    injector.install()
    try:
        with (tmp_path / "a").open("w") as file:
            for word in ("one", "two!!", "three"):
                file.write(word)
    except Struck:
        pass
    assert (tmp_path / "a").read_text() == left


def make_run(folder: Path, **result: Any) -> Path:
    folder.mkdir()
    (folder / HISTORY).write_text("epoch,train/loss,seconds,time\n1,0.5,0.1,9\n2,0.25,0.2,10\n")
    known = {"status": "FINISHED", "metrics": {}, "value": 0.5, "failure": None, **result}
    (folder / RESULT).write_text(json.dumps(known))
    (folder / RUN).write_text("{}")
    return folder


def test_the_harness_names_what_differs(tmp_path: Path) -> None:
    whole, ours = make_run(tmp_path / "whole"), make_run(tmp_path / "ours")
    assert comparing.differences(ours, whole) == []
    path = ours / HISTORY
    path.write_text(path.read_text().replace("0.1,9", "0.3,11"))  # the clock's
    assert comparing.differences(ours, whole) == []
    path.write_text(path.read_text().replace("0.25", "0.26"))
    (ours / "weights.npz").write_bytes(b"other")
    found = "\n".join(comparing.differences(ours, whole))
    assert "history.csv" in found
    assert "weights.npz: other bytes" in found
    assert comparing.torn(ours) == ["weights.npz: File is not a zip file"]
    other = make_run(tmp_path / "other", status="FAILED")
    assert "expected FINISHED" in "\n".join(comparing.differences(other, whole))
