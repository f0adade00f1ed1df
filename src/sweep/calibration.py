"""Estimates how long a sweep takes, from a few epochs of each kind of stack in it."""

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from src.data import Dataset, Source, Split
from src.runs.experiment import Experiment
from src.support.threads import at_most
from src.sweep.grouping import Member, likeness
from src.sweep.jobs import SweepJob
from src.training.loop import train

_FEW = 256  # training samples of the first epoch that is timed
_EPOCHS = 2  # that are timed, after a first one
_CHEAP = 0.1  # seconds: an epoch that takes no longer is timed with all samples
# Seconds that each run needs beside its training, for its folder and for MLflow's database, and
# that each stack needs for its process: estimated for two cores.
_KEEPING, _STARTING = 0.2, 0.5


class StackForecast(NamedTuple):
    """What to expect of one stack; ``seconds`` include what its runs need beside training."""

    runs: int
    epochs: int
    seconds: float


def forecast(
    stacks: Sequence[Sequence[SweepJob]], datasets: Mapping[Source, Dataset], cores: int
) -> list[StackForecast]:
    """Return what to expect of each stack, trained by a worker with so many cores.

    Stacks of one kind and size are timed once.
    """
    known: dict[Hashable, float] = {}
    found = []
    for jobs in stacks:
        kind = _kind(jobs)
        if kind not in known:
            with at_most(cores):
                known[kind] = epoch_seconds([job.job.experiment for job in jobs], datasets)
        epochs = jobs[0].job.experiment.epochs
        seconds = epochs * known[kind] + _KEEPING * len(jobs) + _STARTING
        found.append(StackForecast(len(jobs), epochs, seconds))
    return found


def total_seconds(stacks: Sequence[StackForecast], workers: int) -> float:
    """Return how long the stacks take when each worker takes the next as soon as it is free."""
    busy = [0.0] * workers
    for stack in stacks:
        busy[busy.index(min(busy))] += stack.seconds
    return max(busy)


def _kind(jobs: Sequence[SweepJob]) -> Hashable:
    member: Member = jobs[0].member
    orders = len({job.member.order for job in jobs})
    like = likeness(member) or replace(member.experiment, lr=1.0, seed=0, epochs=1)
    return repr(like), len(jobs), orders


def epoch_seconds(experiments: Sequence[Experiment], datasets: Mapping[Source, Dataset]) -> float:
    """Return about how long an epoch of these experiments takes as one stack, in seconds.

    Where an epoch is long, one with fewer training samples is timed, and scaled.
    """
    samples = len(datasets[experiments[0].data].train)
    few = min(_FEW, samples)
    seconds = _time(experiments, datasets, few) * samples / few
    if few < samples and seconds <= _CHEAP:
        return _time(experiments, datasets, samples)
    return seconds


def _time(
    experiments: Sequence[Experiment], datasets: Mapping[Source, Dataset], samples: int
) -> float:
    """Return the mean seconds of the second and the third epoch: the first makes the memory, too.

    On a machine that is busy with other work, the processor's time is nearer to what the epochs
    take without it. With several threads, the processors' time is longer than they take.
    """
    fewer: dict[Source, Dataset] = {}
    for experiment in experiments:
        whole = datasets[experiment.data]
        own = Split(whole.train.images[:samples], whole.train.labels[:samples])
        fewer.setdefault(experiment.data, replace(whole, train=own))
    runs = [replace(chosen, epochs=1 + _EPOCHS) for chosen in experiments]
    prepared = [own.prepare(fewer[own.data]) for own in runs]
    start = [own.parameters for own in prepared]
    training = train([own.training_run() for own in prepared], start, engine=runs[0].engine)
    clocks = [(time.perf_counter(), time.process_time()) for _ in training]
    return min(end - start for start, end in zip(clocks[0], clocks[-1], strict=True)) / _EPOCHS
