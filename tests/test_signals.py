"""What each signal does to a process: real processes, real signals, at any moment."""

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from src.support import signals
from src.support.temporary import remove_abandoned, temporary_folder
from tests.conftest import ROOT, command

SIGNALS = int(os.environ.get("SCRATCHGRID_SIGNALS", "40"))  # at random moments, in all
ENDING = {
    signal.SIGTERM: (143, "terminated"),
    signal.SIGHUP: (129, "terminated"),
    signal.SIGINT: (130, "interrupted"),
    signal.SIGQUIT: (131, "terminated"),
}


def temporary(folder: Path) -> Path:
    return folder / "temporary"


def start(arguments: list[str], folder: Path, **environment: str) -> "subprocess.Popen[str]":
    """Start a process in a session of its own, with temporary files in a folder of its own.

    That folder has a short name: sockets in it have paths of about 100 characters at most.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not temporary(folder).exists():
        temporary(folder).symlink_to(tempfile.mkdtemp(prefix="t"))

    def notice_every_signal() -> None:  # background jobs of a shell ignore Ctrl-C
        for number in ENDING:
            signal.signal(number, signal.SIG_DFL)

    return subprocess.Popen(
        arguments,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary(folder).resolve()), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=notice_every_signal,
    )


def training(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Start a run that lasts, and return when it has shown its first epoch."""
    process = start(command(folder, "epochs=1000000", *arguments), folder)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch "):
            return process
    raise AssertionError(process.communicate()[1])


def members(process: "subprocess.Popen[str]") -> list[int]:
    """Return the living processes of a process's session."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(session) == process.pid and state != "Z":
                found.append(int(entry.name))
    return found


def wait_until_alone(process: "subprocess.Popen[str]", seconds: float = 60) -> None:
    """Wait until nothing that a process has started lives any more."""
    end = time.monotonic() + seconds
    while left := members(process):
        assert time.monotonic() < end, left
        time.sleep(0.02)


def result(folder: Path) -> dict[str, object]:
    (path,) = folder.glob("runs/*/result.json")
    kept: dict[str, object] = json.loads(path.read_text())
    return kept


def stored(folder: Path) -> list[str]:
    """Return the status of each run in the store, which must be whole."""
    if not (folder / "mlflow.db").exists():
        return []
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as store:
        assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [status for (status,) in store.execute("SELECT status FROM runs")]


def wait_for_open_runs(process: "subprocess.Popen[str]", folder: Path, count: int = 1) -> None:
    """Wait until so many runs are open in the store, which is opened beside training."""
    while process.poll() is None:
        with contextlib.suppress(sqlite3.Error):
            if stored(folder).count("RUNNING") >= count:
                return
        time.sleep(0.2)
    raise AssertionError(process.communicate())


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in temporary(folder).iterdir() if "scratchgrid" in path.name]


# --- one run ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_closes_the_run_and_gives_its_exit_code(
    number: signal.Signals, tmp_path: Path
) -> None:
    code, reason = ENDING[number]
    process = training(tmp_path)
    wait_for_open_runs(process, tmp_path)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == code, err
    kept = result(tmp_path)
    assert (kept["status"], kept["failure"]) == ("KILLED", reason)
    assert stored(tmp_path) == ["KILLED"]
    assert "Traceback" not in err
    assert ("most recent call first" in err) == (number == signal.SIGQUIT)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGXCPU])
def test_a_request_for_a_checkpoint_does_not_end_training(
    number: signal.Signals, tmp_path: Path
) -> None:
    process = training(tmp_path)
    process.send_signal(number)
    (history,) = tmp_path.glob("runs/*/history.csv")
    size = history.stat().st_size
    while history.stat().st_size < size + 1000:
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    process.communicate()
    assert process.returncode == 143


def test_an_ignored_hangup_stays_ignored(tmp_path: Path) -> None:
    process = start(["nohup", *command(tmp_path, "epochs=300")], tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch "):
            break
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert result(tmp_path)["status"] == "FINISHED"


def test_training_goes_on_when_nobody_reads_its_output(tmp_path: Path) -> None:
    process = training(tmp_path, "epochs=300")  # the last epochs= counts
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as errors:
        assert errors.read() == ""
    assert process.wait() == 0
    assert result(tmp_path)["status"] == "FINISHED"


def test_training_goes_on_when_its_output_s_disk_is_full(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            command(tmp_path, "epochs=2"), cwd=ROOT, stdout=full, stderr=full, check=False
        )
    assert ended.returncode == 0
    assert result(tmp_path)["status"] == "FINISHED"


# --- the first moments ------------------------------------------------------------------------

IMPORTING = """
import os, runpy, signal, sys
import builtins
number, after, module = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
original, seen = builtins.__import__, 0
def importing(name, globals=None, *rest, **named):
    global seen
    if signal.getsignal(number) not in (signal.SIG_DFL, signal.default_int_handler):
        seen += 1
        if seen == after:
            os.kill(os.getpid(), number)
    return original(name, globals, *rest, **named)
builtins.__import__ = importing
sys.argv = [module, *sys.argv[4:]]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("module", ["src.run", "src.ui", "src.pictures", "src.baselines"])
@pytest.mark.parametrize(("number", "after"), [(signal.SIGINT, 5), (signal.SIGTERM, 40)])
def test_a_signal_while_python_imports_shows_no_traceback(
    module: str, number: signal.Signals, after: int, tmp_path: Path
) -> None:
    arguments = [sys.executable, "-c", IMPORTING, str(int(number)), str(after), module, "--help"]
    process = start(arguments, tmp_path)
    out, err = process.communicate()
    assert (process.returncode, out, err) == (ENDING[number][0], "", "")


# --- sweeps -----------------------------------------------------------------------------------

SWEEP = ("-m", "lr=0.05,0.1", "batching.size=32,64", "epochs=1000000")


def sweeping(folder: Path) -> "subprocess.Popen[str]":
    """Start a sweep of four runs in two workers, and return when all are open in the store."""
    process = start(command(folder, *SWEEP), folder)
    wait_for_open_runs(process, folder, 4)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_to_all_processes_of_a_sweep_closes_its_runs(
    number: signal.Signals, tmp_path: Path
) -> None:
    process = sweeping(tmp_path)
    os.killpg(process.pid, number)
    _, err = process.communicate()
    assert process.returncode == ENDING[number][0], err
    assert stored(tmp_path) == ["KILLED"] * 4
    assert "Traceback" not in err
    wait_until_alone(process)
    assert list(temporary(tmp_path).iterdir()) == []


def test_a_sweep_passes_requests_for_a_checkpoint_on_and_lives(tmp_path: Path) -> None:
    process = sweeping(tmp_path)
    os.killpg(process.pid, signal.SIGUSR1)
    process.send_signal(signal.SIGUSR1)
    histories = list(tmp_path.glob("sweeps/*/*/history.csv"))
    sizes = {path: path.stat().st_size for path in histories}
    while any(path.stat().st_size < size + 1000 for path, size in sizes.items()):
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    process.communicate()
    assert process.returncode == 143


def test_a_killed_sweep_leaves_no_data_behind_its_workers(tmp_path: Path) -> None:
    process = sweeping(tmp_path)
    assert leftovers(tmp_path)  # the data, the socket
    process.kill()
    process.communicate()
    wait_until_alone(process)
    assert leftovers(tmp_path) == []
    assert stored(tmp_path) == ["KILLED"] * 4


def test_the_next_command_removes_what_a_dead_sweep_left(tmp_path: Path) -> None:
    process = sweeping(tmp_path)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until_alone(process)
    assert leftovers(tmp_path)
    following = start(command(tmp_path, "-m", "lr=0.1,0.2", "epochs=1"), tmp_path)
    _, err = following.communicate()
    assert following.returncode == 0, err
    assert leftovers(tmp_path) == []


def test_a_sweep_that_is_refused_leaves_no_process(tmp_path: Path) -> None:
    process = start(command(tmp_path, "-m", "lr=0.1,-1"), tmp_path)
    _, err = process.communicate()
    assert process.returncode == 2, err
    wait_until_alone(process, 2)  # the imports that go on take longer
    assert list(temporary(tmp_path).iterdir()) == []


# --- any moment -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(max(1, SIGNALS // 10)))
def test_signals_at_random_moments_leave_everything_whole(seed: int, tmp_path: Path) -> None:
    """One in two signals is doubled, one in two goes to a sweep."""
    draw = random.Random(seed)
    for turn in range(10):
        folder = tmp_path / str(turn)
        arguments = SWEEP if turn % 2 else ("epochs=1000000",)
        process = start(command(folder, *arguments), folder)
        moment = draw.uniform(0.1, 6.0)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        number = draw.choice(list(ENDING))
        deliver = draw.choice([os.kill, os.killpg])
        for _ in range(draw.choice([1, 2])):
            with contextlib.suppress(ProcessLookupError):
                deliver(process.pid, number)
            time.sleep(draw.uniform(0.0, 0.5))
        _, err = process.communicate()
        where = f"{number.name} {deliver.__name__} after {moment:.2f} s: {err}"
        # Before its first line, the interpreter itself is ended.
        assert process.returncode in (ENDING[number][0], -number), where
        if process.returncode != -number:
            assert "Traceback" not in err, where
        wait_until_alone(process)
        stored(folder)
        for path in folder.glob("**/result.json"):
            json.loads(path.read_text())
        assert leftovers(folder) == [], where


# --- the parts --------------------------------------------------------------------------------


def test_held_signals_act_when_the_block_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_begin_ending", lambda number: None)
    before = signal.getsignal(signal.SIGTERM)
    signals.end_in_order_on_signals()
    reached = False
    try:
        with pytest.raises(SystemExit, match="143"):  # noqa: PT012, SIM117
            with signals.held():
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0)
                reached = True
    finally:
        signal.signal(signal.SIGTERM, before)
    assert reached


def test_a_folder_in_use_is_not_taken_to_be_abandoned(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "scratchgrid.mine").mkdir()  # a user's own folder
    with temporary_folder() as folder:
        (folder / "data").write_text("1")
        remove_abandoned()
        assert (folder / "data").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["scratchgrid.mine"]
