"""Runs trials for some minutes or of some number, and prints what they survived."""

import argparse
import itertools
import json
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.torture import clusters, damage, kills, surroundings, sweeps
from tests.torture.trial import Trial

# Each kind of trial, and how many of it belong to a round of all kinds.
KINDS: dict[str, tuple[Callable[[Trial], None], int]] = {
    "kill": (kills.at_random_moments, 3),
    "kill-10": (kills.ten_times, 1),
    "kill-write": (kills.at_a_write, 4),
    "kill-mlflow": (kills.at_a_call_of_mlflow, 3),
    "signal": (kills.by_a_signal, 2),
    "sweep": (sweeps.killed, 1),
    "cluster": (clusters.killed, 1),
    "cluster-away": (clusters.killed_away, 1),
    "server": (surroundings.server_killed, 1),
    "disk": (surroundings.disk_full, 2),
    "damage": (damage.mutated, 4),
}


@dataclass
class Figures:
    """What was done and found by the trials of one kind."""

    kind: str
    trials: int = 0
    kills: int = 0
    killed_of: dict[str, int] = field(default_factory=dict)  # kills by what was killed
    survived: int = 0
    faults: int = 0
    longest: float = 0.0  # seconds from a signal to the end of a process
    seconds: float = 0.0


def main() -> None:
    """Run trials, print a table and write it to ``outputs/torture``. Exits with 1 on a fault."""
    chosen = _arguments()
    figures = {kind: Figures(kind) for kind in chosen.kind}
    base = chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(10**6)
    rounds = itertools.cycle(_round(chosen.kind))
    end = time.monotonic() + 60 * chosen.minutes
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the table comes all the same
    working = Path(tempfile.mkdtemp(prefix="torture."))
    try:
        for number, kind in enumerate(rounds):
            if number == chosen.trials or time.monotonic() > end:
                break
            _try(kind, base + number, working, figures[kind], keep=chosen.keep)
    except KeyboardInterrupt:
        print("interrupted")
    finally:
        surroundings.end_server(working)
        if fault := clusters.end(working):
            print(f"fault: {fault}")
            next(iter(figures.values())).faults += 1
        if not chosen.keep:
            shutil.rmtree(working, ignore_errors=True)
    _print(list(figures.values()))
    _write(chosen.into, base, list(figures.values()))
    sys.exit(1 if any(found.faults for found in figures.values()) else 0)


def _round(kinds: list[str]) -> list[str]:
    """Return the kinds of a round of trials: each once, then those again that come more often."""
    most = max(KINDS[kind][1] for kind in kinds)
    return [kind for turn in range(most) for kind in kinds if turn < KINDS[kind][1]]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="begin no trial after these")
    parser.add_argument("--trials", type=int, default=-1, help="at most so many")
    parser.add_argument("--seed", type=int, help="of the first trial; the next has the next seed")
    parser.add_argument("--kind", choices=KINDS, action="append", help="these kinds only")
    parser.add_argument("--keep", action="store_true", help="leave the folders of the trials")
    parser.add_argument(
        "--into", type=Path, default=Path("outputs/torture"), help="the folder of the figures"
    )
    chosen = parser.parse_args()
    chosen.kind = chosen.kind or list(KINDS)
    return chosen


def _try(kind: str, seed: int, working: Path, figures: Figures, *, keep: bool) -> None:
    """Run a trial, and print its faults with what repeats it."""
    trial = Trial(random.Random(seed), working, working / f"{kind}.{seed}")
    trial.folder.mkdir()
    begin = time.monotonic()
    try:
        KINDS[kind][0](trial)
    except surroundings.NotPossible as reason:
        print(f"{kind} is left out: {reason}")
        return
    except Exception:  # what breaks a trial is a fault, of the run or of the trial
        trial.faults.append(traceback.format_exc())
    figures.trials += 1
    figures.kills += trial.kills
    figures.killed_of = dict(Counter(figures.killed_of) + Counter(trial.killed_of))
    figures.survived += not trial.faults
    figures.faults += len(trial.faults)
    figures.longest = max(figures.longest, trial.longest)
    figures.seconds += time.monotonic() - begin
    if trial.faults:
        print(f"fault in: python -m tests.torture --kind {kind} --seed {seed} --trials 1")
        for fault in trial.faults:
            print(f"  {fault}")
    if not keep:
        shutil.rmtree(trial.folder, ignore_errors=True)
    sys.stdout.flush()


def _print(figures: list[Figures]) -> None:
    print(f"{'kind':<14}{'trials':>8}{'SIGKILLs':>10}{'survived':>10}{'faults':>8}{'seconds':>9}")
    for own in figures:
        print(
            f"{own.kind:<14}{own.trials:>8}{own.kills:>10}{own.survived:>10}{own.faults:>8}"
            f"{own.seconds:>9.0f}"
        )
        if own.killed_of:
            parts = ", ".join(f"{part} {kills}" for part, kills in sorted(own.killed_of.items()))
            print(f"{'':<14}{parts}; {own.longest:.1f} s at most until runs were closed")


def _write(folder: Path, seed: int, figures: list[Figures]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    named = folder / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{seed}.json"
    content = {"seed": seed, "kinds": [asdict(own) for own in figures]}
    named.write_text(json.dumps(content, indent=1))
    print(f"written to {named}")


if __name__ == "__main__":
    main()
