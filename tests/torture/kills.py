"""SIGKILL for single runs: at random moments, at each write, and at each call of MLflow."""

import json
import signal
import time
from pathlib import Path

import numpy as np

from src.runs.folder import CHECKPOINT, RESULT, RUN
from tests.torture.comparing import rows, torn
from tests.torture.faulty import Fault
from tests.torture.processes import calls, new_outputs
from tests.torture.trial import RUN_FOLDER, Trial, draw_run, start


def at_random_moments(trial: Trial) -> None:
    """Kill a run one to three times, and let it go on each time."""
    _chain(trial, trial.draw.randint(1, 3))


def ten_times(trial: Trial) -> None:
    """Kill the same run ten times."""
    _chain(trial, 10)


def _chain(trial: Trial, kills: int) -> None:
    settings = draw_run(trial.draw)
    begin = time.monotonic()
    whole, ended = trial.whole(settings)
    duration = time.monotonic() - begin
    outputs = trial.outputs("killed")
    for _ in range(kills):
        # Most kills early, so that the run does not end before the last of them.
        moment = duration * trial.draw.uniform(0.05, 1.2 if kills < 4 else 0.6)
        trial.killed(outputs, start(outputs, settings).kill_after(moment))
    trial.resume(outputs, settings, ended.code)
    trial.compare(outputs, whole)


def by_a_signal(trial: Trial) -> None:
    """End a run by one or two signals, and let it go on."""
    settings = draw_run(trial.draw)
    begin = time.monotonic()
    whole, expected = trial.whole(settings)
    duration = time.monotonic() - begin
    outputs = trial.outputs("ended")
    for _ in range(trial.draw.randint(1, 2)):
        number = trial.draw.choice(_SIGNALS)
        numbers = [number] * trial.draw.choice([1, 2])
        process = start(outputs, settings)
        seconds = process.signal_after(duration * trial.draw.uniform(0.05, 1.1), *numbers)
        ended = process.end()
        trial.longest = max(trial.longest, seconds)
        trial.faults += ended.faults((expected.code, 128 + number))
        trial.faults += torn(outputs / RUN_FOLDER)
        if ended.code == 128 + number and len(numbers) == 1:
            trial.faults += _unkept(outputs / RUN_FOLDER)
    trial.resume(outputs, settings, expected.code)
    trial.compare(outputs, whole)


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def _unkept(folder: Path) -> list[str]:
    """Return what a run lacks that one signal has ended: its result, or its last epochs."""
    if not (folder / RUN).exists():
        return []  # it had not begun
    found = [] if (folder / RESULT).exists() else [f"no {RESULT} after a signal"]
    epochs = len(rows(folder))
    if epochs:
        with np.load(folder / CHECKPOINT) as kept:
            if len(kept["epochs"]) != epochs:
                found.append(f"the checkpoint has {len(kept['epochs'])} of {epochs} epochs")
    return found


_SMALL = ["model=relu2_small", "optimizer=adam", "lr=0.002", "epochs=4", "checkpoint.every=1"]


def at_a_write(trial: Trial) -> None:
    """Kill a run at a write (half of it is done), a sync or a rename, and let it go on."""
    _at_a_call(trial, ["write", "sync", "rename"])


def at_a_call_of_mlflow(trial: Trial) -> None:
    """Kill a run's mirror before or after it changes something in MLflow."""
    _at_a_call(trial, ["mlflow"])


def _at_a_call(trial: Trial, kinds: list[str]) -> None:
    whole, counts = _reference(trial.working)
    kind = trial.draw.choice([kind for kind in kinds for _ in range(counts[kind])])
    outputs = trial.outputs("killed")
    for _ in range(trial.draw.choice([1, 1, 2])):
        fault = Fault(kind, trial.draw.randint(1, counts[kind]), trial.draw.random() < 0.5)
        ended = start(outputs, _SMALL, fault=fault).end()
        trial.killed(outputs, ended.code == -9 or kind == "mlflow")
        trial.faults += ended.faults((0, -9))
    trial.resume(outputs, _SMALL)
    trial.compare(outputs, whole)


def _reference(working: Path) -> tuple[Path, dict[str, int]]:
    """Return the folder of the undisturbed small run, and how many calls it makes of each kind."""
    outputs = working / "small"
    counts = working / "small.calls.json"
    if not outputs.exists():
        new_outputs(outputs, working)
        process = start(outputs, _SMALL, fault=Fault("none", 0))
        ended = process.end()
        assert ended.code == 0, ended.said
        counts.write_text(json.dumps(calls(process)))
    return outputs / RUN_FOLDER, json.loads(counts.read_text())
