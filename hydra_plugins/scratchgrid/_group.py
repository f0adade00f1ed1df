"""What a worker does for a sweep: it runs jobs side by side, and Hydra sees each as it would see it run by itself."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import (
    JobReturn,
    JobRuntime,
    JobStatus,
    configure_log,
    env_override,
    run_job,
    setup_globals,
)
from hydra.types import HydraContext
from omegaconf import DictConfig

from src.config.preflight import check
from src.data import Source
from src.support.threads import use_at_most
from src.sweep.run_context import swept
from src.sweep.sharing import take
from src.sweep.together import Assignment, execute_together


@dataclass(frozen=True)
class Group:
    """Jobs that train together, as a worker is given them."""

    jobs: Sequence[DictConfig]
    context: HydraContext
    data: Mapping[Source, Path]
    cores: int  # that are the worker's


def run_group(group: Group, tell: Callable[[int | Path], None]) -> Sequence[JobReturn]:
    """Run the jobs of a group and return what came of each."""
    setup_globals()
    JobRuntime.instance().set("name", group.jobs[0].hydra.job.name)
    take(group.data)
    use_at_most(group.cores)
    starting = HydraContext(group.context.config_loader, _StartsOnly(group.context.callbacks))  # type: ignore[arg-type]
    returns = []
    for config in group.jobs:
        returned = run_job(
            hydra_context=starting,
            task_function=_assignment,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        returns.append(returned)
    begun = [returned for returned in returns if returned.status == JobStatus.COMPLETED]
    outcomes = execute_together([returned.return_value for returned in begun], tell)
    for returned, outcome in zip(begun, outcomes, strict=True):
        if isinstance(outcome, Exception):
            returned.status, returned.return_value = JobStatus.FAILED, outcome
        else:
            returned.return_value = outcome.result.value
    for config, returned in zip(group.jobs, returns, strict=True):
        group.context.callbacks.on_job_end(config=config, job_return=returned)
    return returns


def _assignment(config: DictConfig) -> Assignment:
    """What Hydra runs for a job: make it ready, with the others of its group."""
    context = HydraConfig.get()
    job, prepared = check(config)
    hydra = HydraConfig.instance()
    whole = hydra.cfg

    @contextlib.contextmanager
    def scope() -> Iterator[None]:
        hydra.cfg = whole
        configure_log(context.job_logging, context.verbose)  # type: ignore[arg-type]
        with env_override(context.job.env_set):
            yield

    return Assignment(job, prepared, swept(config, context, job), scope)


class _StartsOnly:
    """Lets callbacks know that a job starts; when Hydra says that it has ended, it has only been made ready."""

    def __init__(self, callbacks: Any) -> None:
        self.on_job_start = callbacks.on_job_start

    def on_job_end(self, **_: Any) -> None:
        pass
