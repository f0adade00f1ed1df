"""The sweepers and launchers, where Hydra looks for them.

Hydra imports this module at every start. So each class stands for one of ``src.sweep``, which is
imported when a sweep begins.
"""

import importlib
from collections.abc import Sequence
from typing import Any, ClassVar

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class _Shim:
    """Stands for the class ``place``, which is made with the same settings."""

    place: ClassVar[str]

    def __init__(self, **settings: Any) -> None:
        self._settings = settings
        self.real: Any = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Make the real one, and give it what Hydra gives."""
        module, _, name = self.place.rpartition(".")
        self.real = getattr(importlib.import_module(module), name)(**self._settings)
        self.real.setup(hydra_context=hydra_context, task_function=task_function, config=config)


class _Sweeper(_Shim, Sweeper):
    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep that the arguments describe."""
        return self.real.sweep(arguments)


class _Launcher(_Shim, Launcher):
    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the jobs and return the outcome of each, in their order."""
        returned: Sequence[JobReturn] = self.real.launch(job_overrides, initial_job_idx)
        return returned


class GridSweeper(_Sweeper):
    """Runs every combination of the given values."""

    place = "src.sweep.grid.GridSweeper"


class OptunaSweeper(_Sweeper):
    """Has Optuna choose the runs, batch by batch."""

    place = "src.sweep.optuna_search.OptunaSweeper"


class StackedLauncher(_Launcher):
    """Trains jobs as stacks in processes of this machine."""

    place = "src.sweep.launcher.StackedLauncher"


class DaskLauncher(_Launcher):
    """Trains jobs on a Dask cluster that is there."""

    place = "src.sweep.dask_launchers.DaskLauncher"


class LocalDaskLauncher(_Launcher):
    """Trains jobs on Dask workers of this machine."""

    place = "src.sweep.dask_launchers.LocalDaskLauncher"


class SlurmLauncher(_Launcher):
    """Trains jobs on Dask workers that SLURM starts."""

    place = "src.sweep.dask_launchers.SlurmLauncher"


class SshLauncher(_Launcher):
    """Trains jobs on Dask workers that are started through SSH."""

    place = "src.sweep.dask_launchers.SshLauncher"
