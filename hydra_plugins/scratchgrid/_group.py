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
from src.support.errors import Pruned
from src.support.threads import use_at_most
from src.sweep.company import PlannedStack, divided, settle
from src.sweep.jobs import SweepJob
from src.sweep.run_context import swept
from src.sweep.sharing import load
from src.sweep.stack import Assignment, Stack


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
    opened = OpenedGroup(group)
    for stack in opened.stacks(tell):
        with stack:
            stack.train()
            stack.finish()
    return opened.close()


class OpenedGroup:
    """A group whose jobs Hydra has started: ready to train in stacks, or failed."""

    def __init__(self, group: Group) -> None:
        setup_globals()
        use_at_most(group.cores)
        self._group, self._datasets = group, load(group.data)
        self._configs = [job.config() for job in group.jobs]
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
                returned.return_value = outcome.result.value
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
    return Assignment(
        job.job, prepared, swept(config, context, job.job, group.planned.numbers), scope
    )
