"""Runs a group of jobs in a worker: together, while Hydra sees each as a run of its own."""

import contextlib
import functools
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig

from src.config.hydra_internals import (
    context_with_starts_only,
    failed,
    hydra_config,
    job_environment,
    log_as_configured,
    set_job_name,
)
from src.data import Dataset, Source
from src.runs.context import RunContext
from src.runs.folder import refuse_links
from src.runs.record import Record, status
from src.support.errors import ConfigError, Pruned
from src.support.temporary import using
from src.support.threads import use_at_most
from src.sweep.away import Returned, fetch
from src.sweep.company import PlannedStack, attempted, divided, settle
from src.sweep.composing import placed
from src.sweep.dask_worker import Place
from src.sweep.jobs import SweepJob
from src.sweep.plan import PLAN
from src.sweep.run_context import swept
from src.sweep.sharing import load
from src.sweep.stack import Assignment, Stack
from src.tracking.process import mirror


@dataclass(frozen=True)
class Group:
    """Jobs that train in one stack, as a worker receives them."""

    planned: PlannedStack
    context: HydraContext
    data: Mapping[Source, Path]
    cores: int  # for this worker
    sweep: Path  # the folder of the sweep
    may_be_repeated: bool = False  # whether this may be another attempt, after a worker was lost
    # The runs' folders in the sweep, by number, if this worker does not see them.
    away_from: Mapping[int, Path] = field(default_factory=dict)
    kept_in: Path | None = None  # then, the worker's own folder

    def files(self) -> list[Path]:
        """Return the files that its worker reads: the data, and the sweep's plan if it has one."""
        plan = self.sweep / PLAN
        return [*sorted(set(self.data.values())), *([plan] if plan.exists() else [])]

    def at(self, place: "Place") -> "Group":
        """Return the group as it is on a worker of a cluster, which may not see our files."""
        data, planned, away_from = self.data, self.planned, dict[int, Path]()
        if place.data is not None:
            data = {source: place.data / path.name for source, path in data.items()}
        if place.runs is not None:
            if place.data is None:  # it joined after the files were found to be seen by all
                raise ConfigError(
                    f"a worker does not see {self.sweep}, as the first ones did: set "
                    "hydra.launcher.shared=false, so that no worker needs to"
                )
            here, own = Path(place.folder), place.runs / self.sweep.name
            own.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(place.data / PLAN, own / PLAN)
            away_from = {job.number: here / job.folder for job in (*planned.jobs, *planned.ended)}
            planned = replace(
                planned,
                jobs=[_moved(job, self.sweep, own) for job in planned.jobs],
                ended=[_moved(job, self.sweep, own) for job in planned.ended],
            )
        return replace(
            self,
            data=data,
            planned=planned,
            away_from=away_from,
            kept_in=place.runs,
            may_be_repeated=True,
        )

    def carry(self, news: Any) -> Any:
        """Return news of the group as they are sent to the driver: it may not see our files."""
        if isinstance(news, Path) and self.away_from:
            own = (job.number for job in self.jobs if job.folder == news)
            return next((Returned.of(number, news) for number in own), news)
        return news

    def remains(self) -> list[Any]:
        """Return what the driver must have at the end, whatever it was sent before."""
        ended = [job for job in self.jobs if status(job.folder) != "RUNNING"]
        if not self.away_from:
            return []
        return [Returned.of(job.number, job.folder, is_last=True) for job in ended]

    @property
    def jobs(self) -> Sequence[SweepJob]:
        """Its jobs that have not ended."""
        return self.planned.jobs


def run_group(group: Group, tell: Callable[[int | Path], None]) -> Sequence[JobReturn]:
    """Run the jobs of a group and return the outcome of each, in their order.

    ``tell`` receives how many epochs were trained, and the folder of each run that has ended. Runs
    that an earlier attempt at the group has ended stay as they are; the others go on.
    """
    setup_globals()
    # The runs are closed there even after the worker was killed.
    with using(group.kept_in) if group.kept_in else contextlib.nullcontext():
        return _run_group(group, tell)


def _run_group(group: Group, tell: Callable[[int | Path], None]) -> Sequence[JobReturn]:
    left = group
    if group.away_from:
        folders = {job.number: job.folder for job in (*group.jobs, *group.planned.ended)}
        some = group.jobs[0]
        fetch(some.job, some.folder.parent.name, list(group.planned.numbers), folders)
    if group.may_be_repeated:
        left = replace(group, planned=attempted(group.planned))
    own = mirror(group.jobs[0].job) if group.away_from else None
    if own:  # MLflow is told from here: the driver does not see the folders
        own.follow(job.folder for job in group.jobs)
    returns = _run_jobs(left, tell) if left.jobs else {}
    if own:
        own.flush()
        own.close()
    return [returns.get(job.number) or _ended(job) for job in group.jobs]


def _run_jobs(group: Group, tell: Callable[[int | Path], None]) -> dict[int, JobReturn]:
    """Run the jobs of a group and return the outcome of each by its number."""
    opened = OpenedGroup(group)
    for stack in opened.stacks(tell):
        with stack:
            stack.train()
            stack.finish()
    return {job.number: returned for job, returned in zip(group.jobs, opened.close(), strict=True)}


def _moved(job: SweepJob, sweep: Path, own: Path) -> SweepJob:
    """Return a job of a sweep whose run is kept in the worker's ``own`` folder for the sweep."""
    return placed(job, job.number, own, str(job.folder.relative_to(sweep)))


def _ended(job: SweepJob) -> JobReturn:
    """Return the outcome of a run that ended in an earlier attempt."""
    record = Record.load(job.folder)
    if record.status != "FINISHED":
        return failed(job.overrides, RuntimeError(record.failure or record.status))
    returned = JobReturn(overrides=list(job.overrides), status=JobStatus.COMPLETED)
    returned.return_value = record.value
    return returned


class OpenedGroup:
    """A group whose jobs Hydra has started: ready to train in stacks, or failed."""

    def __init__(self, group: Group) -> None:
        setup_globals()
        use_at_most(group.cores)
        for job in group.jobs:
            refuse_links(job.folder)  # before Hydra writes there
        self._group, self._datasets = group, load(group.data)
        self._configs = [job.composed.config() for job in group.jobs]
        set_job_name(self._configs[0].hydra.job.name)
        context = context_with_starts_only(group.context)
        self._returns = [
            run_job(
                hydra_context=context,
                task_function=functools.partial(
                    _assignment,
                    config,
                    job=job,
                    dataset=self._datasets[job.job.experiment.data],
                    group=group,
                ),
                config=config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
            for job, config in zip(group.jobs, self._configs, strict=True)
        ]
        self._stacks: list[Stack] = []
        self._runs: list[Assignment] = []

    def stacks(
        self, tell: Callable[[int | Path], None], *, shrinks: bool = False
    ) -> Sequence[Stack]:
        """Return the stacks in which the jobs that are ready train."""
        ready = [one.return_value for one in self._returns if one.status == JobStatus.COMPLETED]
        ended = [_along(job, self._datasets) for job in self._group.planned.ended]
        self._runs = [*ready, *ended]
        formed = divided(self._group.planned.numbers, ready, ended) if ready else []
        self._stacks = [Stack(assignments, tell, shrinks=shrinks) for assignments in formed]
        return self._stacks

    def close(self) -> Sequence[JobReturn]:
        """Return the outcome of each job, in their order, when all have ended."""
        settle(self._runs)
        outcomes = {
            number: stack.outcomes[place]
            for stack in self._stacks
            for number, place in stack.numbers.items()
        }
        for job, returned in zip(self._group.jobs, self._returns, strict=True):
            if returned.status != JobStatus.COMPLETED:
                continue
            outcome = outcomes[job.number]
            if isinstance(outcome, Pruned):
                returned.return_value = None
            elif isinstance(outcome, Exception):
                returned.status, returned.return_value = JobStatus.FAILED, outcome
            else:
                returned.return_value = outcome.record.value
        for config, returned in zip(self._configs, self._returns, strict=True):
            with hydra_config(config):
                self._group.context.callbacks.on_job_end(config=config, job_return=returned)
            returned.cfg = returned.hydra_cfg = None  # nobody needs them, and a sweep may be long
        return self._returns


def _along(job: SweepJob, datasets: Mapping[Source, Dataset]) -> Assignment:
    """Return a run that has ended, as it trains along with the others of its stack."""
    experiment = job.job.experiment
    prepared = experiment.prepare(datasets[experiment.data])
    number = job.number
    context = RunContext(job.folder, "", job.overrides, {}, stack=(number,), stack_position=0)
    return Assignment(job.job, prepared, context, has_ended=True)


def _assignment(
    whole: DictConfig, config: DictConfig, *, job: SweepJob, dataset: Dataset, group: Group
) -> Assignment:
    """Make a job ready: this is the task that Hydra runs.

    ``whole`` is the configuration with Hydra's own node, ``config`` without it.
    """
    context = HydraConfig.get()

    @contextlib.contextmanager
    def scope() -> Iterator[None]:
        with hydra_config(whole), job_environment(context):
            log_as_configured(context)
            yield

    prepared = job.job.experiment.prepare(dataset)
    run_context = swept(config, context, job.job, group.planned.numbers)
    run_context = replace(run_context, away_from=group.away_from.get(job.number))
    return Assignment(job.job, prepared, run_context, scope)
