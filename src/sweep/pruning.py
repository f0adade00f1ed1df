"""Lets the worse runs of a sweep leave at rungs: all runs meet there, and a judge decides.

A worker tells the sweep's process the metric of its runs at a rung, and waits for the file with the
decision. The file stays in the sweep's folder, as the record of what left when.
"""

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from src.runs.experiment import Experiment
from src.runs.record import status
from src.support import signals
from src.support.errors import ConfigError
from src.support.files import write_whole
from src.sweep.convergence import Standing, State
from src.sweep.jobs import SweepJob
from src.sweep.plan import Plan

_WAIT = 0.02  # seconds between two looks for a decision

Values = Mapping[int, float | None]  # of the metric, by the job's number; None: the run has failed


@dataclass(frozen=True)
class Verdict:
    """What a judge decides at a rung: the reason for each job that leaves, and one sentence."""

    leaving: Mapping[int, str]
    sentence: str


class Judge(ABC):
    """Decides at each rung which runs leave; ``rungs`` are numbers of epochs, in their order.

    ``name`` is that of the folder with its decisions.
    """

    name: str
    rungs: Sequence[int]

    @abstractmethod
    def judge(self, epoch: int, values: Values) -> Verdict:
        """Return what leaves after an epoch, given the metric of each run that is still there."""


@dataclass(frozen=True)
class Reached:
    """What a worker tells at a rung: the metric of each of its runs that has not left."""

    epoch: int
    values: Values


@dataclass(frozen=True)
class Saved:
    """What the runs that have left would have trained; ``idle`` of it was trained all the same."""

    runs: int = 0
    epochs: int = 0
    idle: int = 0  # beside other networks of their stacks

    def __add__(self, other: "Saved") -> "Saved":
        return Saved(self.runs + other.runs, self.epochs + other.epochs, self.idle + other.idle)


@dataclass
class Rounds:
    """Collects what the workers tell at a rung, and has the judge decide when all have told.

    Where the sweep was interrupted and goes on, earlier decisions on the same jobs stay.
    """

    judge: Judge
    folder: Path  # for the decisions
    numbers: Iterable[int]  # of the jobs that take part
    announce: Callable[[str], None] = lambda sentence: None

    def __post_init__(self) -> None:
        self._there, self._lost = set(self.numbers), set[int]()
        self._told: dict[int, dict[int, float | None]] = {}
        for rung in self.judge.rungs:
            path = _place(self.folder, rung)
            known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
            if known and not self._told and self._there <= set(known["jobs"]):
                self._there -= {int(number) for number in known["leaving"]}
            else:
                path.unlink(missing_ok=True)
                self._told[rung] = {}

    def hear(self, news: Reached) -> None:
        """Take what a worker tells."""
        if news.epoch in self._told:  # else that was decided before
            self._told[news.epoch] |= news.values
            self._decide()

    def lose(self, numbers: Iterable[int]) -> None:
        """Take note that the worker with these jobs has ended: nobody waits for them any more."""
        self._lost |= set(numbers)
        self._decide()

    def _decide(self) -> None:
        """Decide at the next rung if all that are still there have told."""
        for rung, told in list(self._told.items()):
            if not self._there <= told.keys() | self._lost:
                return
            del self._told[rung]
            verdict = Verdict({}, "")  # where none is left to judge
            if self._there - self._lost:
                values = {number: told.get(number) for number in sorted(self._there)}
                verdict = self.judge.judge(rung, values)
            decision = {"jobs": sorted(self._there), "leaving": dict(verdict.leaving)}
            self._there -= verdict.leaving.keys()
            if verdict.leaving:
                self.announce(verdict.sentence)
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(_place(self.folder, rung), json.dumps(decision).encode())


def await_verdict(folder: Path, epoch: int) -> dict[int, str]:
    """Wait for the decision at a rung; return the jobs that leave, with their reasons."""
    path = _place(folder, epoch)
    while not path.exists():
        signals.raise_if_ending()
        time.sleep(_WAIT)
    leaving = json.loads(path.read_text(encoding="utf-8"))["leaving"]
    return {int(number): reason for number, reason in leaving.items()}


def _place(folder: Path, epoch: int) -> Path:
    return folder / f"left_after_epoch_{epoch}.json"


class Halving(Judge):
    """Successive halving (Jamieson and Talwalkar 2016): one configuration in ``factor`` stays.

    A configuration is ranked by the mean of its seeds, and leaves with all of them. One with a run
    that has failed is behind all others.
    """

    def __init__(
        self, factor: int, configurations: Mapping[int, Hashable], epochs: int, metric: str
    ):
        self._factor, self._epochs, self._metric = factor, epochs, metric
        self._of, self.name = configurations, f"halving_{factor}"
        self.rungs = rungs(len(set(configurations.values())), epochs, factor)

    @staticmethod
    def of(factor: int, jobs: Sequence[SweepJob]) -> "Halving":
        """Return the judge of a sweep. Raises ConfigError if its runs can't be compared."""
        place = f"sweep.halving={factor}"
        epochs = {job.job.experiment.epochs for job in jobs}
        metrics = {job.job.metric for job in jobs}
        if len(epochs) > 1 or len(metrics) > 1:
            what = "epochs" if len(epochs) > 1 else "metric"
            raise ConfigError(f"{place}: the runs differ in {what}; it must be equal for all")
        (metric,) = metrics
        if metric.startswith("test/"):
            instead = metric.replace("test/", "val/")
            raise ConfigError(
                f"{place}: would choose by metric={metric}; the test set is for reporting, not for "
                f"choosing: use metric={instead}"
            )
        configurations = {job.number: configuration(job.job.experiment) for job in jobs}
        return Halving(factor, configurations, epochs.pop(), metric)

    def judge(self, epoch: int, values: Values) -> Verdict:
        runs: dict[Hashable, list[int]] = {}
        for number in values:
            runs.setdefault(self._of[number], []).append(number)
        ranked = sorted(runs.values(), key=lambda numbers: self._rank([values[n] for n in numbers]))
        stay = math.ceil(len(ranked) / self._factor)
        leaving = {}
        for rank, numbers in enumerate(ranked[stay:], stay + 1):
            mean = _mean([values[n] for n in numbers])
            scored = "a run failed" if mean is None else f"{self._metric} {mean:.4f}"
            for n in numbers:
                leaving[n] = (
                    f"left after {epoch} of {self._epochs} epochs: rank {rank} of {len(ranked)} "
                    f"configurations ({scored}), and {stay} stay"
                )
        last = _mean([values[n] for n in ranked[stay - 1]])
        limit = "" if last is None else f", with {self._metric} from {last:.4f}"
        sentence = (
            f"after {epoch} of {self._epochs} epochs, {stay} of {len(ranked)} configurations "
            f"stay{limit}"
        )
        return Verdict(leaving, sentence)

    def _rank(self, values: Sequence[float | None]) -> tuple[int, float]:
        """Return what sorts the best first: by failed runs, then by the mean of the others."""
        sign = 1 if self._metric.endswith("loss") else -1
        known = [value for value in values if value is not None]
        mean = sum(known) / len(known) if known else 0.0
        return len(values) - len(known), sign * mean


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def rungs(configurations: int, epochs: int, factor: int) -> list[int]:
    """Return after how many epochs the worse configurations leave.

    The last rung is at 1/factor of the epochs, the one before at 1/factor² …, as many as it takes
    until one configuration is left.
    """
    count, left = 0, configurations
    while left > 1:
        left, count = math.ceil(left / factor), count + 1
    places = (math.ceil(epochs / factor**k) for k in range(count, 0, -1))
    return sorted({place for place in places if place < epochs})


def configuration(experiment: Experiment) -> Hashable:
    """Return what is equal for the runs of one configuration, which differ in their seeds."""
    return repr(replace(experiment, seed=0))


def with_pruned(folder: Path, plan: Plan, standing: Standing) -> Standing:
    """Return where a job stands in a sweep that halves: one that has left before is done."""
    goes_on = standing.state in (State.GOES_ON, State.AGAIN)
    if goes_on and status(folder / plan.folders[standing.number]) == "PRUNED":
        return replace(standing, state=State.DONE)
    return standing
