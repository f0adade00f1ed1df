"""Runs the jobs of a sweep in stacks that train together, divided over worker processes.

Hydra imports this module at every start, so what it needs of ours is imported where it is used.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_plugins.scratchgrid._composing import Composer

if TYPE_CHECKING:
    from src.data import Source
    from src.experiment.experiment import Prepared

# What takes seconds to import is imported once, by the process that the workers come from.
_PRELOAD = ["hydra_plugins.scratchgrid._group", "src.sweep.preload"]


class StackedLauncher(Launcher):
    """Hydra's launcher of jobs that train together where they can.

    ``workers`` processes, by default one a core; ``together`` networks in a stack at most, by default as many as are
    measured to be faster together than one after another.
    """

    def __init__(self, workers: int | None, together: int | None) -> None:
        self._workers, self._together = workers, together
        self._config: DictConfig | None = None
        self._context: HydraContext | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        from src.support.errors import ConfigError
        from src.sweep.workers import start_method

        for name, value in (("workers", self._workers), ("together", self._together)):
            if value is not None and not (type(value) is int and value >= 1):
                raise ConfigError(f"hydra.launcher.{name}={value}: must be 1 or more, or null")
        self._config, self._context = config, hydra_context
        self._method = start_method(_PRELOAD)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the jobs and return what came of each, in their order."""
        from hydra_plugins.scratchgrid._group import Group, run_group
        from src.experiment.results import RESULT, Result
        from src.support.threads import available_cores
        from src.sweep.groups import group
        from src.sweep.workers import work_through
        from src.terminal import report

        assert self._context is not None
        setup_globals()
        returns: dict[int, JobReturn] = {}
        with tempfile.TemporaryDirectory(prefix="scratchgrid-") as folder:
            configs, prepared, data = self._ready(job_overrides, initial_job_idx, Path(folder))
            groups = group(prepared, self._workers or available_cores(), self._together)
            workers = min(self._workers or available_cores(), len(groups))
            cores = max(1, available_cores() // workers)
            tasks = [
                Group([configs[n] for n in numbers], self._context, data, cores)
                for numbers in groups
            ]
            report.sweep_plan(map(len, groups), workers)
            ended: list[Path] = []
            with report.sweep_progress(
                sum(ready.experiment.epochs for ready in prepared)
            ) as advance:

                def hear(news: int | Path) -> None:
                    if isinstance(news, int):
                        advance(news)
                    elif (news / RESULT).exists():
                        ended.append(news)
                        report.job_line(Result.load(news), f"{len(ended)}/{len(configs)}")

                for k, result in work_through(self._method, run_group, tasks, workers, hear):
                    returns |= zip(
                        groups[k], _returns(result, groups[k], job_overrides), strict=True
                    )
        return [returns[n] for n in range(len(job_overrides))]

    def _ready(
        self, job_overrides: Sequence[Sequence[str]], first: int, folder: Path
    ) -> "tuple[list[DictConfig], list[Prepared], dict[Source, Path]]":
        """Return the jobs' configurations, their experiments made ready, and where their data is kept in a folder."""
        from src.config.preflight import check
        from src.sweep.sharing import keep, load

        assert self._config is not None
        assert self._context is not None
        compose = Composer(self._context.config_loader, self._config)
        configs, prepared = [], []
        data: dict[Source, Path] = {}
        for number, overrides in enumerate(job_overrides, first):
            config = compose(overrides, number)
            configs.append(config)
            job, ready = check(config)
            source = job.experiment.data
            if source not in data:
                data[source] = keep(ready.dataset, folder)
            prepared.append(
                replace(ready, dataset=load(data[source]))
            )  # mapped: many splits would fill the memory
        return configs, prepared, data


def _returns(
    result: Any, numbers: Sequence[int], overrides: Sequence[Sequence[str]]
) -> Sequence[JobReturn]:
    """Return what came of each job of a group; of all of them what befell their worker, where something did."""
    if not isinstance(result, Exception):
        return list(result)
    return [
        JobReturn(overrides=overrides[n], status=JobStatus.FAILED, _return_value=result)
        for n in numbers
    ]
