"""SIGKILL for a worker, the parent or all processes of a sweep; the same command then finishes."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from src.runs.folder import RESULT
from src.runs.record import status
from tests.conftest import ROOT
from tests.test_signals import members
from tests.torture.comparing import differences, torn, untold
from tests.torture.processes import PATIENCE, Ended, new_outputs
from tests.torture.trial import Trial

_SWEEPS = (  # stacks of three; runs by themselves; stacks whose runs leave early
    ["lr=0.05,0.1,0.2", "optimizer=sgd,momentum", "epochs=120", "model=sigmoid3"],
    ["seed=range(5)", "model=relu2_dropout", "epochs=30", "hydra.launcher.together=1"],
    ["lr=0.02,0.1,0.3", "seed=1,2", "stopping=early", "stopping.patience=3", "epochs=100"],
)


def killed(trial: Trial) -> None:
    """Kill a part of a sweep one to three times, and give the same command again."""
    number = trial.draw.randrange(len(_SWEEPS))
    whole, duration = _undisturbed(trial.working, number)
    outputs = trial.outputs("killed")
    temporary = Path(tempfile.mkdtemp(prefix="t"))
    try:
        for _ in range(trial.draw.randint(1, 3)):
            _kill(trial, outputs, number, duration, temporary)
        before = _finished_files(outputs)
        again = _start(outputs, number, temporary)
        trial.faults += _end(again, outputs).faults((0,))
        after = _finished_files(outputs)
        trial.faults += [
            f"{path} was written again" for path in before if before[path] != after[path]
        ]
        trial.faults += [f"left: {path.name}" for path in temporary.iterdir()]
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    (folder,) = outputs.glob("sweeps/*")
    for expected in sorted(whole.glob("[0-9]*")):
        ours = folder / expected.name
        found = [*differences(ours, expected, pictures=False), *untold(ours, outputs)]
        trial.faults += [f"run {expected.name}: {fault}" for fault in found]


def _kill(trial: Trial, outputs: Path, number: int, duration: float, temporary: Path) -> None:
    """Start the sweep, or go on with it, and kill one of its processes or all of them."""
    target = trial.draw.choice(["worker", "parent", "group"])
    process = _start(outputs, number, temporary)
    end = time.monotonic() + duration * trial.draw.uniform(0.1, 1.0)
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    if process.poll() is None:
        if target == "group":
            os.killpg(process.pid, signal.SIGKILL)
        elif target == "parent":
            process.kill()
        else:
            # Of the processes that were forked last, one trains.
            os.kill(max(members(process)), signal.SIGKILL)
        trial.kills += 1
    ended = _end(process, outputs)
    trial.faults += ended.faults((0, 1, -9))
    for folder in outputs.glob("sweeps/*/[0-9]*"):
        trial.faults += torn(folder)


def _undisturbed(working: Path, number: int) -> tuple[Path, float]:
    """Return the folder of a sweep that nobody disturbs, and how many seconds it took."""
    outputs = working / f"sweep{number}"
    took = working / f"sweep{number}.seconds"
    if not outputs.exists():
        new_outputs(outputs, working)
        begin = time.monotonic()
        ended = _end(_start(outputs, number, working), outputs)
        assert ended.code == 0, ended.said
        took.write_text(str(time.monotonic() - begin))
    (folder,) = outputs.glob("sweeps/*")
    return folder, float(took.read_text())


def _start(outputs: Path, number: int, temporary: Path) -> "subprocess.Popen[bytes]":
    console = outputs.with_suffix(".console").open("wb")
    with console:
        return subprocess.Popen(
            [sys.executable, "-m", "src.run", "-m", f"outputs={outputs}", *_SWEEPS[number]],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(temporary)},
            stdout=console,
            stderr=console,
            start_new_session=True,
        )


def _end(process: "subprocess.Popen[bytes]", outputs: Path) -> Ended:
    """Wait for the end of a sweep and of every process that it has started."""
    end = time.monotonic() + PATIENCE
    while process.poll() is None or members(process):
        if time.monotonic() > end:
            os.killpg(process.pid, signal.SIGKILL)
            return Ended(-99, f"it hung for {PATIENCE:.0f} s")
        time.sleep(0.05)
    return Ended(process.returncode, outputs.with_suffix(".console").read_text(errors="replace"))


def _finished_files(outputs: Path) -> dict[Path, tuple[int, bytes]]:
    """Return the results of the runs that have finished."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for folder in outputs.glob("sweeps/*/[0-9]*")
        if status(folder) == "FINISHED"
        for path in (folder / RESULT, folder / "weights.npz", folder / "history.csv")
    }
