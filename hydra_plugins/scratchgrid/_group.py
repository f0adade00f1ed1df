"""Runs a group of jobs in a worker: together, while Hydra sees each as a run of its own."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig

from src.config.hydra_internals import (
    context_with_starts_only,
    hydra_config,
    job_environment,
    log_as_configured,
    set_job_name,
)
from src.data import Dataset, Source
from src.experiment.recorder import RunContext
from src.support.threads import use_at_most
from src.sweep.company import PlannedStack, run_planned
from src.sweep.jobs import SweepJob
from src.sweep.run_context import swept
from src.sweep.sharing import load
from src.sweep.stack import Assignment


@dataclass(frozen=True)
class Group:
    """Jobs that train in one stack, as a worker receives them."""

    planned: PlannedStack
    context: HydraContext
    data: Mapping[Source, Path]
    cores: int  # for this worker

    @property
    def jobs(self) -> Sequence[SweepJob]:
        """Its jobs that have not ended."""
        return self.planned.jobs


def run_group(group: Group, tell: Callable[[int | Path], None]) -> Sequence[JobReturn]:
    """Run the jobs of a group and return the outcome of each, in their order.

    ``tell`` receives how many epochs were trained, and the folder of each run that has ended.
    """
    setup_globals()
    use_at_most(group.cores)
    datasets = load(group.data)
    configs = [job.config() for job in group.jobs]
    set_job_name(configs[0].hydra.job.name)
    context = context_with_starts_only(group.context)
    returns = []
    for job, config in zip(group.jobs, configs, strict=True):
        ready = functools.partial(
            _assignment, config, job=job, dataset=datasets[job.job.experiment.data], group=group
        )
        returned = run_job(
            hydra_context=context,
            task_function=ready,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        returns.append(returned)
    _train(returns, [_along(job, datasets) for job in group.planned.ended], group, tell)
    for config, returned in zip(configs, returns, strict=True):
        with hydra_config(config):
            group.context.callbacks.on_job_end(config=config, job_return=returned)
        returned.cfg = returned.hydra_cfg = None  # nobody needs them, and a sweep may be long
    return returns


def _train(
    returns: Sequence[JobReturn],
    ended: Sequence[Assignment],
    group: Group,
    tell: Callable[[int | Path], None],
) -> None:
    """Train the jobs that are ready, and replace what each returned by its outcome."""
    ready = [returned for returned in returns if returned.status == JobStatus.COMPLETED]
    own = [returned.return_value for returned in ready]
    outcomes = run_planned(group.planned.numbers, own, ended, tell)
    for returned, outcome in zip(ready, outcomes, strict=True):
        if isinstance(outcome, Exception):
            returned.status, returned.return_value = JobStatus.FAILED, outcome
        else:
            returned.return_value = outcome.result.value


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
    return Assignment(
        job.job, prepared, swept(config, context, job.job, group.planned.numbers), scope
    )
