"""Reads what a finished sweep took, group by group, from the times of its files."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from src.runs.folder import RESULT
from src.sweep.plan import PLAN, Plan


@dataclass(frozen=True)
class Measured:
    """The groups of a sweep; all times are in seconds."""

    runs: int
    workers: int
    before: float  # from the plan to the begin of the first group
    groups: Sequence[tuple[float, float]]  # begin and end of each, from the first begin

    @property
    def span(self) -> float:
        """From the begin of the first group to the end of the last one."""
        return max(end for _, end in self.groups)

    @property
    def mean(self) -> float:
        """The mean of what a group takes."""
        return statistics.fmean(end - begin for begin, end in self.groups)

    @property
    def spread(self) -> float:
        """The standard deviation of what a group takes, as a share of its mean."""
        return statistics.pstdev(end - begin for begin, end in self.groups) / self.mean

    @property
    def gap(self) -> float:
        """The mean time from the end of a group to the begin of the next one on its worker."""
        free: list[float] = []
        gaps = []
        for begin, end in sorted(self.groups):
            if len(free) == self.workers:
                before = min(free)
                free.remove(before)
                gaps.append(max(0.0, begin - before))
            free.append(end)
        return statistics.fmean(gaps) if gaps else 0.0


def measure(folder: Path, workers: int) -> Measured:
    """Return what a finished sweep took that ran on so many workers.

    A group begins when it writes the configuration of its first run and ends with its last result.
    Raises ValueError if the folder is not that of a finished sweep.
    """
    plan = Plan.load(folder)
    if plan is None or not plan.stacks:
        raise ValueError(f"{folder}: holds no {PLAN} with the stacks of a sweep")
    times = []
    for stack in plan.stacks:
        own = [folder / plan.folders[number] for number in stack]
        missing = [run for run in own if not (run / RESULT).exists()]
        if missing:
            raise ValueError(f"{missing[0]}: has no {RESULT}: the sweep is not finished")
        begin = min((run / ".hydra/config.yaml").stat().st_mtime for run in own)
        times.append((begin, max((run / RESULT).stat().st_mtime for run in own)))
    first = min(begin for begin, _ in times)
    groups = [(begin - first, end - first) for begin, end in times]
    return Measured(
        len(plan.overrides), workers, first - (folder / PLAN).stat().st_mtime, sorted(groups)
    )
