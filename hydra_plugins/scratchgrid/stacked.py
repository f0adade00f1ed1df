"""Runs the jobs of a sweep as stacks of networks, distributed over worker processes.

Hydra imports this module at every start, so it imports what it needs of ours where it is used.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from src.sweep.jobs import SweepJob
    from src.sweep.sharing import SharedData

# The process that workers are forked from imports these once.
_PRELOAD = ["src.sweep.preload", "hydra_plugins.scratchgrid._group"]


class StackedLauncher(Launcher):
    """Hydra's launcher that trains jobs as stacks where this is faster.

    ``workers`` is the number of processes, by default one per core; ``together`` the most networks
    in a stack, by default as many as were measured to be faster than one after another.
    """

    def __init__(self, workers: int | None, together: int | None) -> None:
        self._workers, self._together = workers, together
        self._config: DictConfig | None = None
        self._context: HydraContext | None = None
        self._composed: tuple[Sequence[SweepJob], SharedData] | None = None
        self._ended: Sequence[SweepJob] = ()

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives, and begin to start workers. Raises ConfigError."""
        from src.support.errors import ConfigError
        from src.sweep.executors import start_method

        for name, value in (("workers", self._workers), ("together", self._together)):
            if value is not None and not (type(value) is int and value >= 1):
                raise ConfigError(f"hydra.launcher.{name}={value}: must be 1 or more, or null")
        self._config, self._context = config, hydra_context
        self._method = start_method(_PRELOAD)

    def accept(
        self, jobs: "Sequence[SweepJob]", data: "SharedData", ended: "Sequence[SweepJob]" = ()
    ) -> None:
        """Take the jobs of the sweep, which its sweeper has composed and checked.

        ``jobs`` are those to run; their places in this list are what ``launch`` counts by. Others
        of the sweep may have ``ended``. Without them, as from Hydra's own sweepers, ``launch``
        composes and checks.
        """
        self._composed, self._ended = (jobs, data), ended

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the jobs and return the outcome of each, in their order."""
        from src.sweep.sharing import SharedData

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
        self, job_overrides: Sequence[Sequence[str]], first: int, data: "SharedData"
    ) -> "list[SweepJob]":
        from hydra_plugins.scratchgrid._composing import Composer, make_job

        assert self._config is not None
        assert self._context is not None
        compose = Composer(self._context.config_loader, self._config)
        folder = Path(self._config.hydra.sweep.dir)
        return [
            make_job(compose, overrides, number, folder, data)
            for number, overrides in enumerate(job_overrides, first)
        ]

    def _run(self, jobs: "Sequence[SweepJob]", data: "SharedData") -> dict[int, JobReturn]:
        """Run the jobs in workers and return the outcomes by the jobs' numbers."""
        from hydra_plugins.scratchgrid._group import Group, run_group
        from src.config.hydra_internals import failed
        from src.experiment.results import RESULT, Result
        from src.support.threads import available_cores
        from src.sweep.company import form
        from src.sweep.executors import LocalExecutor
        from src.terminal import report

        assert self._config is not None
        assert self._context is not None
        folder = Path(self._config.hydra.sweep.dir)
        grouped = form(folder, jobs, self._ended, self._together)
        workers = min(self._workers or available_cores(), len(grouped))
        cores = max(1, available_cores() // workers)
        report.sweep_plan([len(planned.jobs) for planned in grouped], workers)
        epochs = sum(job.member.experiment.epochs for job in jobs)
        ended: list[Path] = []
        returns: dict[int, JobReturn] = {}
        with (
            report.sweep_progress(epochs) as advance,
            LocalExecutor(workers, self._method) as executor,
        ):

            def hear(news: int | Path) -> None:
                if isinstance(news, int):
                    advance(news)
                elif (news / RESULT).exists():  # written whole, by its worker, a moment ago
                    ended.append(news)
                    report.job_line(Result.load(news), f"{len(ended)}/{len(jobs)}")

            own = {}
            for planned in grouped:
                sources = {job.job.experiment.data for job in (*planned.jobs, *planned.ended)}
                paths = {source: data.paths[source] for source in sources}
                task = Group(planned, self._context, paths, cores)
                own[executor.submit(run_group, task)] = planned.jobs
            for future in executor.as_completed(hear):
                members = own.pop(future)
                if error := future.exception():
                    assert isinstance(error, Exception)
                    returns |= {job.number: failed(job.overrides, error) for job in members}
                else:
                    returned = zip(members, future.result(), strict=True)
                    returns |= {job.number: outcome for job, outcome in returned}
        return returns
