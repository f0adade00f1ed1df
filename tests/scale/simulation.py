"""Simulates a sweep on a cluster: a driver, Dask's scheduler, workers that die, and a database.

Each group of runs waits for the scheduler, trains on a worker, and is written to the database. The
scheduler and the database serve one at a time, which is what ends the growth.
"""

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy

Steps = Generator[simpy.Event, Any, None]  # what simpy takes as a process


@dataclass(frozen=True)
class Stages:
    """What each stage takes, in seconds."""

    driver: float  # to compose and check a job; all are checked before the first one runs
    scheduler: float  # of Dask's scheduler, for a group
    gap: float  # of a worker between two groups
    database: float  # to write a run, while many write


@dataclass(frozen=True)
class Sweep:
    """So many runs in groups of equal size, and how long a group trains, in seconds."""

    runs: int
    together: int  # runs in a group
    seconds: float  # mean of a group
    spread: float  # standard deviation over the mean
    checkpoint: float = 30.0  # between two checkpoints


@dataclass(frozen=True)
class Workers:
    """How many workers there are, when they come, and how long they live, in seconds."""

    count: int
    arrival: float = 0.0  # between one worker and the next at the start
    lifetime: float = math.inf  # mean time to the loss of a worker
    replaced: float = 60.0  # until another worker takes the place of a lost one


@dataclass(frozen=True)
class Outcome:
    """What came out, in seconds and in shares of the workers' time."""

    span: float  # from the first worker to the last run in the database
    driver: float  # before the first group
    trained: float  # the share of the workers' time in which they trained what counts
    lost: float  # the share in which they trained what was trained again
    scheduler: float  # the share of the time in which the scheduler worked
    database: float  # and the database


class _Group:
    def __init__(self, seconds: float) -> None:
        self.seconds = self.left = seconds


class _Simulation:
    def __init__(self, sweep: Sweep, workers: Workers, stages: Stages, seed: int) -> None:
        self.sweep, self.workers, self.stages = sweep, workers, stages
        self.rng = np.random.default_rng(seed)
        self.clock = simpy.Environment()
        self.scheduler = simpy.Resource(self.clock)
        self.database = simpy.Resource(self.clock)
        self.waiting: Any = simpy.Store(self.clock)
        self.open = -(-sweep.runs // sweep.together)
        self.finished = self.clock.event()
        self.trained = self.lost = self.scheduled = self.written = 0.0

    def run(self) -> Outcome:
        for seconds in sorted(self._seconds(), reverse=True):  # the longest first, as ours does
            self.waiting.put(_Group(seconds))
        for number in range(self.workers.count):
            self.clock.process(self._worker(number * self.workers.arrival))
        self.clock.run(until=self.finished)
        span = self.clock.now
        own = span * self.workers.count
        return Outcome(
            span,
            self.sweep.runs * self.stages.driver,
            self.trained / own,
            self.lost / own,
            self.scheduled / span,
            self.written / span,
        )

    def _seconds(self) -> list[float]:
        """Draw how long each group trains, from a log-normal distribution."""
        variance = math.log(1 + self.sweep.spread**2)
        mean = math.log(self.sweep.seconds) - variance / 2
        drawn: list[float] = self.rng.lognormal(mean, math.sqrt(variance), self.open).tolist()
        return drawn

    def _worker(self, begin: float) -> Steps:
        yield self.clock.timeout(begin)
        end = self.clock.now + self._lifetime()
        while True:
            group: Any = yield self.waiting.get()
            with self.scheduler.request() as turn:
                yield turn
                yield self.clock.timeout(self.stages.scheduler)
                self.scheduled += self.stages.scheduler
            yield self.clock.timeout(self.stages.gap)
            works = min(group.left, max(0.0, end - self.clock.now))
            yield self.clock.timeout(works)
            if works < group.left:  # the worker is lost; another goes on from the checkpoint
                kept = works // self.sweep.checkpoint * self.sweep.checkpoint
                group.left -= kept
                self.trained += kept
                self.lost += works - kept
                self.waiting.put(group)
                yield self.clock.timeout(self.workers.replaced)
                end = self.clock.now + self._lifetime()
                continue
            self.trained += works
            yield from self._write()

    def _lifetime(self) -> float:
        mean = self.workers.lifetime
        return math.inf if math.isinf(mean) else float(self.rng.exponential(mean))

    def _write(self) -> Steps:
        """Write the runs of a group; others write in between, so each run waits for its turn."""
        for _ in range(self.sweep.together):
            with self.database.request() as turn:
                yield turn
                yield self.clock.timeout(self.stages.database)
                self.written += self.stages.database
        self.open -= 1
        if self.open == 0:
            self.finished.succeed()


def simulate(sweep: Sweep, workers: Workers, stages: Stages, seed: int = 0) -> Outcome:
    """Return what a sweep would take. Times of groups are log-normal, lifetimes exponential."""
    return _Simulation(sweep, workers, stages, seed).run()
