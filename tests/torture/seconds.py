"""Measures two promises of docs/resume.md: ``python -m tests.torture.seconds``.

How many seconds pass from a signal to the results on disk and to the end of the process, and what
share of the training time the checkpoints take. The machine must be quiet. SCRATCHGRID_MNIST names
the folder of MNIST.
"""

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from src.runs.folder import HISTORY, RESULT
from src.tracking.told import ids
from tests.conftest import ROOT

_MNIST = ["data=mnist", f"data.path={os.environ.get('SCRATCHGRID_MNIST')}", "model=relu2"]
RUNS = {  # by name: the settings of a run, and epochs for some ten seconds of training
    "digits, mini-batches": (["model=sigmoid3"], 1000),
    "MNIST, mini-batches": ([*_MNIST, "lr=0.05"], 25),
    "MNIST, per sample": ([*_MNIST, "batching=sample", "lr=0.01"], 8),
}
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LOOK = 0.002  # seconds
_PATIENCE = 300.0
# A run that says what its checkpoints took, but for the last one, which every run writes.
_COUNTED = """
import json, sys, time
from src.runs.recorder import Recorder
from src.run import main

checkpoint, taken = Recorder.checkpoint, []

def timed(self):
    begin = time.perf_counter()
    checkpoint(self)
    taken.append(time.perf_counter() - begin)

Recorder.checkpoint = timed
main()
print(json.dumps(taken), file=sys.stderr)
"""


def main() -> None:
    """Measure both, or one of them, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.seconds", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["signals", "checkpoints"])
    parser.add_argument("--times", type=int, default=10, help="signals of each kind")
    parser.add_argument("--rounds", type=int, default=6, help="runs with and without checkpoints")
    chosen = parser.parse_args()
    if chosen.what != "checkpoints":
        _signals(chosen.times)
    if chosen.what != "signals":
        _checkpoints(chosen.rounds)


def _signals(times: int) -> None:
    print("seconds from a signal: to the results on disk (median, longest), to the end of the run")
    draw = random.Random(1)
    for name, (settings, _) in RUNS.items():
        for number in _SIGNALS:
            took = [_signalled(settings, number, draw.uniform(0, 2)) for _ in range(times)]
            kept, ended = zip(*took, strict=True)
            print(
                f"{name:<22}{number.name:<9}{statistics.median(kept):6.2f}{max(kept):6.2f}"
                f"{statistics.median(ended):6.2f}{max(ended):6.2f}",
                flush=True,
            )


def _signalled(settings: list[str], number: signal.Signals, later: float) -> tuple[float, float]:
    """Return the seconds to ``result.json``, which follows the checkpoint, and to the end."""
    outputs = Path(tempfile.mkdtemp(prefix="seconds."))
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "src.run", f"outputs={outputs}", "epochs=1000000", *settings],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _wait(process, lambda: _is_under_way(outputs))
        time.sleep(later)
        (folder,) = outputs.glob("runs/*")
        begin = time.perf_counter()
        process.send_signal(number)
        _wait(process, (folder / RESULT).exists)
        kept = time.perf_counter() - begin
        process.wait(_PATIENCE)
        ended = time.perf_counter() - begin
        assert process.returncode == 128 + number, process.returncode
        assert (folder / "checkpoint.npz").exists()
        return kept, ended
    finally:
        shutil.rmtree(outputs, ignore_errors=True)


def _is_under_way(outputs: Path) -> bool:
    """Return whether a run has an epoch, and MLflow has the run."""
    for folder in outputs.glob("runs/*"):
        history = folder / HISTORY
        if history.exists() and history.read_bytes().count(b"\n") > 1:
            return ids(folder) is not None
    return False


def _wait(process: "subprocess.Popen[bytes]", reached: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE
    while not reached():
        if process.poll() is not None and reached():
            return
        assert process.poll() is None, f"exit code {process.returncode}"
        assert time.monotonic() < end
        time.sleep(_LOOK)


def _checkpoints(rounds: int) -> None:
    print("what checkpoints cost: their number, their share of the training time as each run")
    print("measures it (median, largest), and how much longer runs with them took (median)")
    for name, (settings, epochs) in RUNS.items():
        shares, longer, counts = [], [], []
        for _ in range(rounds):
            with_them, taken = _trained([*settings, f"epochs={epochs}"])
            without, _ = _trained([*settings, f"epochs={epochs}", "checkpoint.every=1000000"])
            shares.append(sum(taken) / with_them)
            counts.append(len([one for one in taken if one > 1e-4]))
            longer.append((with_them + sum(taken)) / without - 1)
        print(
            f"{name:<22}{statistics.median(counts):6.0f}{statistics.median(shares):8.2%}"
            f"{max(shares):8.2%}{statistics.median(longer):8.2%}"
            f"   of {with_them:.1f} s; each pair: {' '.join(f'{one:.2%}' for one in longer)}",
            flush=True,
        )


def _trained(settings: list[str]) -> tuple[float, list[float]]:
    """Return the seconds that a run has trained, and those of each of its checkpoints."""
    with tempfile.TemporaryDirectory(prefix="seconds.") as outputs:
        ended = subprocess.run(
            [sys.executable, "-c", _COUNTED, f"outputs={outputs}", *settings],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=True,
        )
        (history,) = Path(outputs).glob(f"runs/*/{HISTORY}")
        head, *_, last = history.read_text().splitlines()
        seconds = float(dict(zip(head.split(","), last.split(","), strict=True))["seconds"])
        return seconds, json.loads(ended.stderr.splitlines()[-1])


if __name__ == "__main__":
    main()
