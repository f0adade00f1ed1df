"""What each signal does to a process: real processes, real signals, at any moment."""

import contextlib
import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.runs.folder import CHECKPOINT
from src.runs.history import read_history
from src.runs.record import Record
from src.runs.recorder import Recorder
from src.support import signals
from src.support.temporary import remove_abandoned, temporary_folder, using
from src.sweep.executors import _sockets, start_method
from tests.conftest import ROOT, command
from tests.resuming import train

ENDING = {
    signal.SIGTERM: (143, "terminated"),
    signal.SIGHUP: (129, "terminated"),
    signal.SIGINT: (130, "interrupted"),
    signal.SIGQUIT: (131, "terminated"),
}
OTHERS = [
    pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    pytest.param(signal.SIGQUIT, marks=pytest.mark.slow),
]


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


def members(process: "subprocess.Popen[Any]") -> list[int]:
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


OFFLINE = ("tracking.offline=true", "checkpoint.every=1000000", "model=relu2_small")


def epochs_kept(folder: Path) -> int:
    """Return how many epochs the checkpoint of the one run holds, or 0 without one."""
    (run,) = folder.glob("runs/*")
    try:
        with np.load(run / CHECKPOINT) as kept:
            return len(kept["epochs"])
    except FileNotFoundError:
        return 0


def epochs_shown(folder: Path) -> int:
    (history,) = folder.glob("runs/*/history.csv")
    return history.read_bytes().count(b"\n") - 1


@pytest.mark.slow
def test_a_signal_closes_the_run_in_the_store(tmp_path: Path) -> None:
    process = training(tmp_path)
    wait_for_open_runs(process, tmp_path)
    process.terminate()
    _, err = process.communicate()
    assert process.returncode == 143, err
    assert stored(tmp_path) == ["KILLED"]


@pytest.mark.parametrize("number", [signal.SIGTERM, *OTHERS])
def test_a_signal_ends_the_run_with_a_checkpoint_of_its_last_epoch_and_its_exit_code(
    number: signal.Signals, tmp_path: Path
) -> None:
    code, reason = ENDING[number]
    process = training(tmp_path, *OFFLINE)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == code, err
    kept = result(tmp_path)
    assert (kept["status"], kept["failure"]) == ("KILLED", reason)
    assert epochs_kept(tmp_path) == epochs_shown(tmp_path)
    assert "Traceback" not in err
    assert ("most recent call first" in err) == (number == signal.SIGQUIT)


# A run that gets one signal in its third epoch, and another one in the checkpoint that follows.
TWICE = """
import os, signal, sys
from src.runs import checkpoints, recorder
from src.run import main

number, add, save = int(sys.argv.pop(1)), recorder.Recorder.add, checkpoints.save_checkpoint

def first(self, given):
    add(self, given)
    if given.number == 3:
        os.kill(os.getpid(), number)

def second(*arguments):
    os.kill(os.getpid(), number)
    save(*arguments)

recorder.Recorder.add, checkpoints.save_checkpoint = first, second
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_waits_for_the_checkpoint_and_the_result(
    number: signal.Signals, tmp_path: Path
) -> None:
    arguments = [str(int(number)), f"outputs={tmp_path}", "epochs=50", *OFFLINE]
    process = start([sys.executable, "-c", TWICE, *arguments], tmp_path)
    _, err = process.communicate()
    assert process.returncode == ENDING[number][0], err
    assert result(tmp_path)["status"] == "KILLED"
    assert epochs_kept(tmp_path) == epochs_shown(tmp_path) == 3
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "pause"),
    [
        (signal.SIGINT, 0),
        (signal.SIGINT, 0.003),
        (signal.SIGTERM, 0.001),
        (signal.SIGTERM, 0.01),  # which may find Python shutting down
    ],
)
def test_two_signals_milliseconds_apart_leave_a_result(
    number: signal.Signals, pause: float, tmp_path: Path
) -> None:
    process = training(tmp_path, *OFFLINE)
    process.send_signal(number)
    time.sleep(pause)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == ENDING[number][0], err
    assert result(tmp_path)["status"] == "KILLED"
    assert epochs_kept(tmp_path) == epochs_shown(tmp_path)
    assert "Traceback" not in err


# A run that gets a signal while it writes its third epoch, or its result.
MEANWHILE = """
import os, sys
from src.runs.history import History
from src.runs.record import Record
from src.run import main

number, place = int(sys.argv.pop(1)), sys.argv.pop(1)
add, write = History.add, Record.write

def add_and_signal(self, epoch):
    if place == "epoch" and epoch.number == 3:
        os.kill(os.getpid(), number)
    add(self, epoch)

def signal_and_write(self, folder):
    if place == "result" and self.has_ended:
        os.kill(os.getpid(), number)
    write(self, folder)

History.add, Record.write = add_and_signal, signal_and_write
main()
"""


@pytest.mark.parametrize(
    ("place", "status"),
    [pytest.param("epoch", "KILLED", marks=pytest.mark.slow), ("result", "FINISHED")],
)
def test_a_signal_waits_until_an_epoch_or_the_result_is_kept_whole(
    place: str, status: str, tmp_path: Path
) -> None:
    arguments = [str(int(signal.SIGTERM)), place, f"outputs={tmp_path}", "epochs=5", *OFFLINE]
    process = start([sys.executable, "-c", MEANWHILE, *arguments], tmp_path)
    _, err = process.communicate()
    assert process.returncode == 143, err
    assert result(tmp_path)["status"] == status
    assert epochs_kept(tmp_path) == epochs_shown(tmp_path) == (3 if place == "epoch" else 5)


def test_a_run_ends_after_the_epoch_in_which_python_dropped_a_signal_s_exception(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = Recorder.add

    def drop(self: Recorder, given: Any) -> None:
        add(self, given)
        if given.number == 3:
            monkeypatch.setattr(signals, "_first", signal.SIGTERM)

    monkeypatch.setattr(Recorder, "add", drop)
    with pytest.raises(SystemExit) as ended:
        train(tmp_path / "run", "epochs=9")
    assert ended.value.code == 143
    kept = Record.load(tmp_path / "run")
    assert (kept.status, kept.failure) == ("KILLED", "terminated")
    assert len(read_history(tmp_path / "run")) == 3


@pytest.mark.slow
def test_a_request_for_a_checkpoint_is_met_and_does_not_end_training(tmp_path: Path) -> None:
    process = training(tmp_path, *OFFLINE)
    for number in (signal.SIGUSR1, signal.SIGXCPU):
        before = epochs_kept(tmp_path)
        process.send_signal(number)
        process.send_signal(number)
        while epochs_kept(tmp_path) == before:
            assert process.poll() is None
            time.sleep(0.02)
    size = epochs_shown(tmp_path)
    while epochs_shown(tmp_path) < size + 10:
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    process.communicate()
    assert process.returncode == 143


@pytest.mark.slow
def test_an_ignored_hangup_stays_ignored(tmp_path: Path) -> None:
    process = start(["nohup", *command(tmp_path, "epochs=300", *OFFLINE)], tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch "):
            break
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert result(tmp_path)["status"] == "FINISHED"


@pytest.mark.slow
def test_training_goes_on_when_nobody_reads_its_output(tmp_path: Path) -> None:
    process = training(tmp_path, "epochs=300", *OFFLINE)  # the last epochs= counts
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as errors:
        assert errors.read() == ""
    assert process.wait() == 0
    assert result(tmp_path)["status"] == "FINISHED"


@pytest.mark.slow
def test_training_goes_on_when_its_output_s_disk_is_full(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            command(tmp_path, "epochs=2", *OFFLINE), cwd=ROOT, stdout=full, stderr=full, check=False
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


@pytest.mark.parametrize(
    "module",
    [
        "src.run",
        *(
            pytest.param(f"src.{name}", marks=pytest.mark.slow)
            for name in ("ui", "pictures", "sync")
        ),
    ],
)
@pytest.mark.parametrize(("number", "after"), [(signal.SIGTERM, 40)])
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


def sweeping_offline(folder: Path) -> "subprocess.Popen[str]":
    """Start a sweep of four runs in two workers, and return when all train."""
    process = start(command(folder, *SWEEP, *OFFLINE), folder)
    while len([p for p in folder.glob("sweeps/*/*/history.csv") if p.stat().st_size]) < 4:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return process


def results(folder: Path) -> list[str]:
    """Return the status of each run of a sweep, from its folder."""
    found = sorted(folder.glob("sweeps/*/[0-9]*/result.json"))
    return [json.loads(path.read_text())["status"] for path in found]


@pytest.mark.slow
def test_ctrl_c_to_all_processes_of_a_sweep_closes_its_runs(tmp_path: Path) -> None:
    process = sweeping(tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert stored(tmp_path) == results(tmp_path) == ["KILLED"] * 4
    assert "Traceback" not in err
    wait_until_alone(process)
    assert list(temporary(tmp_path).iterdir()) == []


@pytest.mark.slow
def test_a_sweep_passes_requests_for_a_checkpoint_on_and_lives(tmp_path: Path) -> None:
    process = sweeping_offline(tmp_path)
    os.killpg(process.pid, signal.SIGUSR1)
    process.send_signal(signal.SIGUSR1)
    while len(list(tmp_path.glob(f"sweeps/*/*/{CHECKPOINT}"))) < 4:
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 143, err
    assert results(tmp_path) == ["KILLED"] * 4
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_killed_sweep_leaves_no_data_behind_its_workers(tmp_path: Path) -> None:
    process = sweeping_offline(tmp_path)
    assert leftovers(tmp_path)  # the data, the socket
    process.kill()
    process.communicate()
    wait_until_alone(process)
    assert leftovers(tmp_path) == []
    assert results(tmp_path) == ["KILLED"] * 4


@pytest.mark.slow
def test_the_next_command_removes_what_a_dead_sweep_left(tmp_path: Path) -> None:
    process = sweeping_offline(tmp_path)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until_alone(process)
    assert leftovers(tmp_path)
    following = start(command(tmp_path, "-m", "lr=0.1,0.2", "epochs=1", *OFFLINE), tmp_path)
    _, err = following.communicate()
    assert following.returncode == 0, err
    assert leftovers(tmp_path) == []


def test_a_sweep_that_is_refused_leaves_no_process(tmp_path: Path) -> None:
    process = start(command(tmp_path, "-m", "lr=0.1,-1"), tmp_path)
    _, err = process.communicate()
    assert process.returncode == 2, err
    wait_until_alone(process, 2)  # the imports that go on take longer
    assert list(temporary(tmp_path).iterdir()) == []


# --- the parts --------------------------------------------------------------------------------


def test_no_package_for_clusters_takes_ctrl_c_away() -> None:
    pytest.importorskip("dask_jobqueue")
    script = """
import contextlib, os, signal
from pathlib import Path
from src.support import signals
from src.support.errors import ConfigError
from src.sweep.clusters import Slurm

signals.end_in_order_on_signals()
os.environ["PATH"] = ""  # where there is no sbatch
with contextlib.suppress(ConfigError), Slurm(1, 1, "1GB", "00:01:00", None, Path("x")).open():
    pass
os.kill(os.getpid(), signal.SIGINT)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == -signal.SIGINT, ended.stderr  # KeyboardInterrupt, not exit code 0
    assert "KeyboardInterrupt" in ended.stderr


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


def test_a_signal_that_python_drops_is_repeated() -> None:
    script = (
        "import os, signal, time\n"
        "from src.support import signals\n"
        "signals.end_in_order_on_signals()\n"
        "class Gone:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(0)\n"
        "gone = Gone()\n"
        "del gone\n"
        "print('dropped', flush=True)\n"
        "try: time.sleep(600)\n"
        "finally: print('in order')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (143, "dropped\nin order\n", "")


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


def test_a_forked_process_removes_nothing_of_its_parent() -> None:
    start_method()
    folder = _sockets()
    forked = multiprocessing.get_context("fork").Process(target=int)  # it drops our finalizers
    forked.start()
    forked.join()
    assert folder.is_dir()


def test_a_folder_that_another_process_uses_outlives_the_one_that_was_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    script = (
        "import os, signal\n"
        "from src.support.temporary import temporary_folder\n"
        "with temporary_folder() as folder:\n"
        "    print(folder, flush=True)\n"
        "    signal.pause()\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert owner.stdout
    folder = Path(owner.stdout.readline().strip())
    with using(folder):
        owner.kill()
        owner.communicate()
        remove_abandoned()
        (folder / "data").write_text("1")
    remove_abandoned()
    assert not list(tmp_path.iterdir())
