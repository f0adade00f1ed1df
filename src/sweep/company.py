"""Forms the stacks of a sweep, and forms them again when the sweep goes on.

A network's last bits depend on its stack. So the stacks are kept in the plan, and the runs of one
go on after an epoch of which all have a checkpoint. Runs that have finished meanwhile are trained
along without being recorded, where they were still there in the epochs to come.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from src.runs.checkpoints import checkpointed_epochs, forget_previous
from src.runs.folder import RUN
from src.runs.history import read_history
from src.runs.record import Identity, Record, status
from src.support.errors import Diverged, UserError
from src.sweep.convergence import wait_for_owner
from src.sweep.grouping import group, likeness
from src.sweep.jobs import SweepJob
from src.sweep.plan import Plan
from src.sweep.stack import Assignment


@dataclass(frozen=True)
class PlannedStack:
    """A stack: the numbers of all its jobs, those to run, and those that have ended."""

    numbers: Sequence[int]
    jobs: Sequence[SweepJob]
    ended: Sequence[SweepJob] = ()


def form(
    folder: Path,
    jobs: Sequence[SweepJob],
    ended: Sequence[SweepJob],
    most: int | None,
    workers: int | None = None,
) -> list[PlannedStack]:
    """Return the stacks in which the jobs train, and keep them in the plan in the sweep's folder.

    Jobs that the plan has in a stack are in that stack again. The stack with the most work comes
    first. ``most`` is the largest number of networks in a new one, ``workers`` the size of the
    cluster if the sweep runs on one.
    """
    plan = Plan.load(folder)
    left = {job.number: job for job in jobs}
    others = {job.number: job for job in ended}
    formed = []
    for numbers in plan.stacks if plan else ():
        own = [left[n] for n in numbers if n in left]
        along = [others[n] for n in numbers if n in others]
        if own and _alike([*own, *along]):
            formed.append(PlannedStack(numbers, own, along))
            left = {n: job for n, job in left.items() if n not in numbers}
    fresh = list(left.values())
    places = group([job.member for job in fresh], most, workers)
    new = [[fresh[i] for i in own_places] for own_places in places]
    formed += [PlannedStack([job.number for job in stack], stack) for stack in new]
    if plan and new:
        stacks = (*plan.stacks, *(tuple(job.number for job in stack) for stack in new))
        replace(plan, stacks=stacks).write(folder)
    return sorted(formed, key=lambda stack: -sum(job.member.work for job in stack.jobs))


def attempted(planned: PlannedStack) -> PlannedStack:
    """Return a stack as it is when an earlier attempt at it was lost: what has ended stays so.

    Waits for processes of that attempt, which close their runs. Raises ConfigError if they stay.
    """
    begun = [job for job in planned.jobs if (job.folder / RUN).exists()]
    for job in begun:
        wait_for_owner(job.folder)
    ended = [job for job in begun if status(job.folder) in ("FINISHED", "FAILED")]
    left = [job for job in planned.jobs if job not in ended]
    return replace(planned, jobs=left, ended=[*planned.ended, *ended])


def _alike(jobs: Sequence[SweepJob]) -> bool:
    """Return whether jobs may train in one stack; a plan that was edited may say so wrongly."""
    return len(jobs) == 1 or len({likeness(job.member) or job.number for job in jobs}) == 1


@dataclass(frozen=True)
class Stage:
    """How far a run of a stack has come.

    It can go on after any of ``epochs``, of which 0 is the beginning. After the epoch ``left`` it
    took no part in its stack any more; None if it takes part until the end.
    """

    epochs: frozenset[int]
    left: int | None


def common_start(stages: Sequence[Stage]) -> int:
    """Return the latest epoch after which a stack can go on as it would have.

    Each of its runs has a checkpoint of that epoch, or took no part any more.
    """
    known = sorted({epoch for stage in stages for epoch in stage.epochs}, reverse=True)
    return next(
        epoch for epoch in known if all(epoch in s.epochs or _is_gone(s, epoch) for s in stages)
    )


def _is_gone(stage: Stage, epoch: int) -> bool:
    return stage.left is not None and stage.left <= epoch


def settle(runs: Sequence[Assignment]) -> None:
    """Remove what runs that have finished keep for their stack only, when all of it has ended."""
    for one in runs:
        if status(one.run_context.folder) == "FINISHED":
            forget_previous(one.run_context.folder)


def divided(
    numbers: Sequence[int], own: Sequence[Assignment], ended: Sequence[Assignment]
) -> list[list[Assignment]]:
    """Return in which stacks the runs of a planned stack go on, each after an epoch of all of it.

    ``numbers`` are those of the planned stack's jobs, in order; ``own`` are the runs to train, and
    ``ended`` those of it that have ended.
    """
    goes_on = any(one.run_context.goes_on for one in own)
    if len(numbers) == 1 or not (goes_on or ended):
        return [list(own)]
    stages = {one.number: _stage(one) for one in (*own, *ended)}
    by_number = {one.number: one for one in (*own, *ended)}
    members = [by_number[n] for n in numbers if n in by_number]
    start = common_start([stages[n] for n in numbers if n in stages])
    along = [one for one in ended if not _is_gone(stages[one.number], start)]
    is_exact = len(members) == len(numbers)
    # To train more along than the runs would take from their beginning is not worth it.
    if sum((stages[one.number].left or 0) - start for one in along) > sum(map(_epochs, own)):
        members, along, is_exact = list(own), [], False
        start = common_start([stages[one.number] for one in own])
    present = [
        one
        for one in members
        if (one in along if one.has_ended else not _is_gone(stages[one.number], start))
    ]
    alone = [one for one in own if one not in present]
    together = [_from(one, start, is_exact) for one in present]
    return [together, *([_from(one, None, False)] for one in alone)]


def _epochs(assignment: Assignment) -> int:
    return assignment.job.experiment.epochs


def _from(assignment: Assignment, start: int | None, is_exact: bool) -> Assignment:
    context = replace(assignment.run_context, start_at=start, is_exact=is_exact)
    return replace(assignment, run_context=context)


def _stage(assignment: Assignment) -> Stage:
    """Return how far a run has come, from what its folder holds."""
    prepared, folder = assignment.prepared, assignment.run_context.folder
    if not (assignment.run_context.goes_on or assignment.has_ended):
        return Stage(frozenset({0}), None)
    begin = prepared.training_run().begin(prepared.parameters)
    epochs = checkpointed_epochs(folder, begin, Identity.of(prepared))
    return Stage(frozenset({0, *epochs}), _left(folder))


def _left(folder: Path) -> int | None:
    """Return the epoch after which a run took no part in its stack any more, if it has ended so."""
    try:
        record, done = Record.load(folder), len(read_history(folder))
    except UserError:
        return None
    if record.status == "FINISHED":
        return done
    return done + 1 if record.cause == Diverged.__name__ else None
