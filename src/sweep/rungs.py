"""Runs all groups of a worker at once, from rung to rung: at each, some jobs leave."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn

from src.support.files import open_many_files
from src.sweep.group import Group, OpenedGroup
from src.sweep.pruning import Reached, Saved, await_verdict


@dataclass(frozen=True)
class Rungs:
    """The groups of one worker. At each rung it waits until the sweep's process has decided."""

    groups: Sequence[Group]
    rungs: Sequence[int]  # epochs
    folder: Path  # where the decisions appear
    shrinks: bool  # whether a stack trains without the networks that have left


def deal(work: Sequence[float], hands: int) -> list[list[int]]:
    """Return the places of tasks, given the work of each, dealt evenly to at most so many hands."""
    dealt: list[list[int]] = [[] for _ in range(min(hands, len(work)))]
    loads = [0.0] * len(dealt)
    for place in sorted(range(len(work)), key=lambda place: -work[place]):
        least = loads.index(min(loads))
        dealt[least].append(place)
        loads[least] += work[place]
    return dealt


def run_rungs(task: Rungs, tell: Callable[[Any], None]) -> list[JobReturn]:
    """Run the jobs of all groups and return the outcome of each, in their order.

    Networks that stay go on in memory, without a restart. ``tell`` receives what ``run_group``
    tells, and the metrics at each rung.
    """
    open_many_files()
    opened = [OpenedGroup(group) for group in task.groups]
    stacks = [stack for own in opened for stack in own.stacks(tell, shrinks=task.shrinks)]
    there = {number: (stack, i) for stack in stacks for number, i in stack.numbers.items()}
    with ExitStack() as running:
        for stack in stacks:
            running.enter_context(stack)
        for rung in task.rungs:
            for stack in stacks:
                stack.train(until=rung)
            tell(Reached(rung, {n: stack.value(i, rung) for n, (stack, i) in there.items()}))
            leaving = await_verdict(task.folder, rung)
            mine = [(*there.pop(n), reason) for n, reason in leaving.items() if n in there]
            saved = [stack.prune(i, reason) for stack, i, reason in mine]
            tell(Saved(sum(epochs > 0 for epochs in saved), sum(saved)))
        for stack in stacks:
            stack.train()
            stack.finish()
    tell(Saved(idle=sum(stack.idle for stack in stacks)))
    return [returned for own in opened for returned in own.close()]
