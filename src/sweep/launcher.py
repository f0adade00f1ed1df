"""Runs the jobs of a sweep as stacks of networks, distributed over worker processes."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from src.config.hydra_internals import failed
from src.runs.record import Record, status
from src.support.errors import ConfigError
from src.support.threads import available_cores
from src.sweep.away import Returned
from src.sweep.company import PlannedStack, form
from src.sweep.composing import Composer, make_job
from src.sweep.executors import Executor, LocalExecutor, Work, start_method
from src.sweep.group import Group, run_group
from src.sweep.grouping import group
from src.sweep.jobs import SweepJob
from src.sweep.pruning import Judge, Reached, Rounds, Saved
from src.sweep.rungs import Rungs, deal, run_rungs
from src.sweep.sharing import SharedData
from src.terminal import report

# The process that workers are forked from imports these once.
PRELOAD = ["src.sweep.preload", "src.sweep.rungs"]


@dataclass(frozen=True)
class Opened:
    """An executor that is ready, and the stacks for it."""

    executor: Executor
    stacks: Sequence[PlannedStack]
    cores: int  # for each stack
    workers: int  # stacks that train at the same time
    place: str | None = None  # in words, if it is not this machine alone


class StackedLauncher:
    """A launcher that trains jobs as stacks where this is faster.

    ``workers`` is the number of processes, by default one per core; ``together`` the most networks
    in a stack, by default as many as were measured to be faster than one after another.
    """

    def __init__(self, workers: int | None, together: int | None) -> None:
        self._workers, self._together = workers, together
        self._config: DictConfig | None = None
        self._context: HydraContext | None = None
        self._composed: tuple[Sequence[SweepJob], SharedData] | None = None
        self._judge: Judge | None = None
        self._exact = True
        self._ended: Sequence[SweepJob] = ()

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives, and begin to start workers. Raises ConfigError."""
        self._check_counts()
        self._config, self._context = config, hydra_context
        self._method = start_method(PRELOAD)

    def _check_counts(self) -> None:
        for name, value in (("workers", self._workers), ("together", self._together)):
            if value is not None and not (type(value) is int and value >= 1):
                raise ConfigError(f"hydra.launcher.{name}={value}: must be 1 or more, or null")

    def accept(
        self, jobs: Sequence[SweepJob], data: SharedData, ended: Sequence[SweepJob] = ()
    ) -> None:
        """Take the jobs of the sweep, which its sweeper has composed and checked.

        ``jobs`` are those to run; their places in this list are what ``launch`` counts by. Others
        of the sweep may have ``ended``. Without them, as from Hydra's own sweepers, ``launch``
        composes and checks.
        """
        self._composed, self._ended = (jobs, data), ended

    def stacks(self, jobs: Sequence[SweepJob]) -> tuple[list[list[SweepJob]], int]:
        """Return the stacks in which these jobs would train, and the number of workers."""
        grouped = group([job.member for job in jobs], self._together)
        workers = min(self._workers or available_cores(), len(grouped))
        return [[jobs[n] for n in numbers] for numbers in grouped], workers

    def prune_by(self, judge: Judge, exact: bool) -> None:
        """Let runs leave at the rungs of this judge; it is asked anew in each ``launch``.

        With ``exact`` the networks that stay keep the bytes that they would have without a judge.
        """
        self._judge, self._exact = judge, exact

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the jobs and return the outcome of each, in their order."""
        setup_globals()
        with ExitStack() as stack:
            if self._composed:
                composed, data = self._composed
                jobs = composed[initial_job_idx : initial_job_idx + len(job_overrides)]
            else:
                data = stack.enter_context(SharedData())
                jobs = self._compose(job_overrides, initial_job_idx, data)
            assert [list(job.overrides) for job in jobs] == [list(job) for job in job_overrides]
            returns = self._run(jobs, data)
        return [returns[job.number] for job in jobs]

    def _compose(
        self, job_overrides: Sequence[Sequence[str]], first: int, data: SharedData
    ) -> list[SweepJob]:
        assert self._config is not None
        assert self._context is not None
        compose = Composer(self._context.config_loader, self._config)
        folder = Path(self._config.hydra.sweep.dir)
        return [
            make_job(compose, overrides, number, folder, data)
            for number, overrides in enumerate(job_overrides, first)
        ]

    @contextmanager
    def _opened(self, jobs: Sequence[SweepJob]) -> Iterator[Opened]:
        """Yield what runs the jobs, and their groups."""
        stacks = form(self._folder, jobs, self._ended, self._together)
        workers = min(self._workers or available_cores(), len(stacks))
        cores = max(1, available_cores() // workers)
        with LocalExecutor(workers, self._method) as executor:
            yield Opened(executor, stacks, cores, workers)

    @property
    def _folder(self) -> Path:
        """The folder of the sweep."""
        assert self._config is not None
        return Path(self._config.hydra.sweep.dir)

    def _run(self, jobs: Sequence[SweepJob], data: SharedData) -> dict[int, JobReturn]:
        """Run the jobs in workers and return the outcomes by the jobs' numbers."""
        assert self._context is not None
        epochs = sum(job.member.experiment.epochs for job in jobs)
        ended: set[Path] = set()
        rounds = self._rounds(jobs)
        saved = Saved()
        returns: dict[int, JobReturn] = {}
        with ExitStack() as stack:
            # Entered first, so that the display ends after the executor is closed.
            display = stack.enter_context(ExitStack())
            opened = stack.enter_context(self._opened(jobs))
            sizes = [len(planned.jobs) for planned in opened.stacks]
            report.sweep_plan(sizes, opened.workers, opened.place)
            advance = display.enter_context(report.sweep_progress(epochs))
            folders = {job.number: job.folder for job in jobs}

            def hear(news: int | Reached | Saved | Path | Returned) -> None:
                nonlocal saved
                if isinstance(news, Returned):
                    news.write(folders[news.number])
                    news = folders[news.number]
                if isinstance(news, int):
                    advance(news)
                elif isinstance(news, Saved):
                    saved += news
                    advance(news.epochs)
                elif isinstance(news, Reached):
                    assert rounds
                    rounds.hear(news)
                elif status(news) != "RUNNING" and news not in ended:  # written whole, a moment ago
                    ended.add(news)
                    report.job_line(Record.load(news), f"{len(ended)}/{len(jobs)}")

            groups = []
            for planned in opened.stacks:
                sources = {job.job.experiment.data for job in (*planned.jobs, *planned.ended)}
                paths = {source: data.paths[source] for source in sources}
                groups.append(Group(planned, self._context, paths, opened.cores, self._folder))
            own: dict[Future[Any], Sequence[SweepJob]] = {}
            for work, task, members in self._tasks(groups, opened.workers, rounds):
                files = task.files() if isinstance(task, Group) else []
                own[opened.executor.submit(work, task, files)] = members
            for future in opened.executor.as_completed(hear):
                ran = own.pop(future)
                if error := future.exception():
                    assert isinstance(error, Exception)
                    if rounds:
                        rounds.lose(job.number for job in ran)
                    returns |= {job.number: failed(job.overrides, error) for job in ran}
                else:
                    returned = zip(ran, future.result(), strict=True)
                    returns |= {job.number: outcome for job, outcome in returned}
        report.pruned((saved.runs, len(jobs)), (saved.epochs, epochs), saved.idle)
        return returns

    def _rounds(self, jobs: Sequence[SweepJob]) -> Rounds | None:
        """Return what has the judge decide at the rungs, if there is a judge."""
        if self._judge is None:
            return None
        assert self._config is not None
        numbers = [job.number for job in jobs]
        folder = Path(self._config.hydra.sweep.dir) / "rungs" / self._judge.name
        return Rounds(self._judge, folder, numbers, report.rung)

    def _tasks(
        self, groups: Sequence[Group], workers: int, rounds: Rounds | None
    ) -> Iterator[tuple[Work, Any, Sequence[SweepJob]]]:
        """Yield what the workers do: one group at a time, or with a judge all groups of a worker.

        Each task comes with the jobs that it runs, in their order.
        """
        if rounds is None:
            for group in groups:
                yield run_group, group, group.jobs
            return
        work = [sum(job.member.work for job in group.jobs) for group in groups]
        for places in deal(work, workers):
            dealt = [groups[place] for place in places]
            task = Rungs(dealt, rounds.judge.rungs, rounds.folder, not self._exact)
            yield run_rungs, task, [job for group in dealt for job in group.jobs]
