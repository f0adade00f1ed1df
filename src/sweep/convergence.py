"""Decides what is left to do of a sweep: the same command again runs only what is missing."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from src.config.rerun import Rerun
from src.runs.folder import CHECKPOINT, PREVIOUS, RUN, is_alive
from src.runs.record import Identity, Record, status
from src.support.errors import ConfigError, UserError
from src.sweep.plan import PLAN, Plan, Wanted

_PATIENCE = 30.0  # seconds for the workers of a sweep whose process died: they close their runs
_LOOK = 0.1


class State(Enum):
    """How far a job has come. Only those that are done need nothing more."""

    DONE = "done"
    GOES_ON = "goes on from a checkpoint"
    AGAIN = "begins again in its folder, without a checkpoint"
    NEW = "new"


@dataclass(frozen=True)
class Standing:
    """Where a job of the command stands: its number in the plan, and how far it has come.

    ``other_code`` says that the earlier run was computed by other code or another NumPy.
    """

    number: int
    state: State
    other_code: bool = False


def earlier_sweep(sweeps: Path, wanted: Sequence[Wanted]) -> Path | None:
    """Return the folder of the sweep among ``sweeps`` that the command goes on with, or None.

    Of several, it is the one with the most jobs in common, and of those the newest.
    """
    found = []
    for path in sweeps.glob(f"*/{PLAN}"):
        try:
            plan = Plan.load(path.parent)
        except ConfigError:  # damaged: no reason to refuse another sweep
            continue
        if plan and (shared := in_common(plan, wanted)):
            found.append((shared, path.stat().st_mtime_ns, path.parent))
    return max(found)[-1] if found else None


def in_common(plan: Plan, wanted: Sequence[Wanted]) -> int:
    """Return how many jobs a sweep has in common with the command; 0 if it is another sweep.

    It is the same sweep if one of the two holds all jobs of the other, or both vary the same
    settings.
    """
    keys, known = {job.identity.key for job in wanted}, set(plan.identities)
    same = known <= keys or keys <= known
    if not same and keys & known:
        same = set(plan.varied) == set(Plan.of("", [job.overrides for job in wanted]).varied)
    return len(keys & known) if same else 0


def stand(
    folder: Path, plan: Plan | None, wanted: Sequence[Wanted], rerun: Rerun = "missing"
) -> list[Standing]:
    """Return where each job of the command stands in the sweep of ``folder``.

    A job that the plan does not hold, or whose earlier run does not count, gets a new number.
    Waits for the workers of a process that died. Raises ConfigError if they stay.
    """
    known = len(plan.overrides) if plan else 0
    numbers = _by_identity(plan) if plan else {}
    standings = []
    for job in wanted:
        standing = None
        if earlier := numbers.get(job.identity.key):
            assert plan is not None
            # Jobs that differ in what decides no result, such as tags, have one identity.
            same = (n for n in earlier if plan.overrides[n] == job.overrides)
            number = next(same, earlier[0])
            earlier.remove(number)
            standing = _standing(folder / plan.folders[number], number, job.identity, rerun)
        if standing is None or standing.number < 0:
            standing = Standing(known, State.NEW, standing is not None and standing.other_code)
            known += 1
        standings.append(standing)
    return standings


def _by_identity(plan: Plan) -> dict[str, list[int]]:
    """Return the numbers of the jobs by the key of their identity, the newest first."""
    numbers: dict[str, list[int]] = {}
    for number, key in list(enumerate(plan.identities))[::-1]:
        numbers.setdefault(key, []).append(number)
    return numbers


def _standing(folder: Path, number: int, identity: Identity, rerun: Rerun) -> Standing:
    """Return where a job stands whose run is in this folder, if it has one.

    The number is -1 if the run that the folder holds can't be this job's.
    """
    try:
        record = Record.asked(folder)
    except UserError:
        return Standing(-1 if (folder / RUN).exists() else number, State.NEW)
    if record.identity.key != identity.key:  # it was resumed with more epochs
        return Standing(-1, State.NEW)
    other_code = record.identity.code != identity.code
    if status(folder) != "FINISHED":
        wait_for_owner(folder)
    if status(folder) == "FINISHED":
        if other_code and rerun == "code":
            return Standing(-1, State.NEW, other_code)
        return Standing(number, State.DONE, other_code)
    if not identity.may_follow(record.identity):
        return Standing(-1, State.NEW, other_code=True)
    kept = (folder / CHECKPOINT).exists() or (folder / PREVIOUS).exists()
    return Standing(number, State.GOES_ON if kept else State.AGAIN)


def wait_for_owner(folder: Path) -> None:
    """Wait until no process owns the folder of a run. Raises ConfigError after some time."""
    deadline = time.monotonic() + _PATIENCE
    while is_alive(folder):
        if time.monotonic() > deadline:
            raise ConfigError(
                f"{folder}: another process is training this run: wait until it has ended, or "
                "add rerun=true to run the sweep again in another folder"
            )
        time.sleep(_LOOK)


def told(standings: Sequence[Standing]) -> str | None:
    """Return in a line what was done before and what is left; None if all is new."""
    done, goes_on, again, new = (
        sum(standing.state == state for standing in standings) for state in State
    )
    if new == len(standings):
        return None
    parts = [f"{done} of {len(standings)} runs {'was' if done == 1 else 'were'} done before"]
    if goes_on:
        parts.append(f"{goes_on} {'goes' if goes_on == 1 else 'go'} on from a checkpoint")
    if again:
        parts.append(f"{again} {'begins' if again == 1 else 'begin'} again")
    if new:
        parts.append(f"{new} {'is' if new == 1 else 'are'} new")
    return "; ".join(parts)


def told_of_code(standings: Sequence[Standing], rerun: Rerun) -> str | None:
    """Return in a line what other code has computed, and what becomes of it; None if nothing."""
    done = sum(one.other_code and one.state == State.DONE for one in standings)
    anew = sum(one.other_code and one.state == State.NEW for one in standings)
    parts = []
    if done:
        word = "1 run was" if done == 1 else f"{done} runs were"
        parts.append(f"{word} computed by other code: rerun=code computes them again")
    if anew:
        word = "1 run of other code begins" if anew == 1 else f"{anew} runs of other code begin"
        parts.append(
            f"{word} anew" + ("" if rerun == "code" else ": it can't go on with this code")
        )
    return "; ".join(parts) or None
