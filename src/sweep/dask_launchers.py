"""Runs the jobs of a sweep on a Dask cluster: one launcher for each way to get a cluster."""

import contextlib
import secrets
import sys
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from src.runs.folder import RESULT
from src.support.errors import ConfigError
from src.support.extras import require_package
from src.support.threads import available_cores
from src.sweep.company import form
from src.sweep.jobs import SweepJob
from src.sweep.launcher import PRELOAD, Opened, StackedLauncher
from src.sweep.pruning import Judge
from src.tracking.links import is_server
from src.tracking.store import database_file

if TYPE_CHECKING:  # Dask may not be installed
    from src.sweep.clusters import Cluster

_MARK = ".cluster"  # a file by which workers tell whether they see the sweep's folder


class _DaskLauncher(StackedLauncher):
    """Trains jobs as the ``stacked`` launcher does, on the workers of a cluster.

    ``together`` is the most networks in a stack. ``shared`` tells whether workers keep runs in the
    sweep's own folder; by default they do where they see it.
    """

    _package = "distributed"

    def __init__(self, workers: int | None, together: int | None, shared: bool | None) -> None:
        super().__init__(workers, together)
        self._shared = shared

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives. Raises ConfigError."""
        self._check_counts()
        if self._shared not in (None, True, False):
            raise ConfigError(f"hydra.launcher.shared={self._shared}: must be true, false or null")
        require_package(self._package, "hydra/launcher", "cluster")
        self._config, self._context = config, hydra_context

    def prune_by(self, judge: Judge, exact: bool) -> None:
        """Raise ConfigError: runs of several machines can't wait for each other at a rung."""
        raise ConfigError(
            "sweep.halving: can't be used on a cluster, where not all runs train at the same time; "
            "leave it out, or use hydra/launcher=stacked"
        )

    @abstractmethod
    def _cluster(self) -> "Cluster":
        """Return the cluster that runs the jobs."""

    @contextlib.contextmanager
    def _opened(self, jobs: Sequence[SweepJob]) -> Iterator[Opened]:
        from src.sweep.dask_executor import DaskExecutor
        from src.sweep.dask_worker import Driver

        cluster, job = self._cluster(), jobs[0].job
        store = job.tracking.store(job.outputs)
        with self._token() as token, cluster.open() as client:
            client.wait_for_workers(1)
            offline = job.tracking.offline
            driver = Driver.here(
                token,
                self._shared,
                needs_this_machine=database_file(store) is not None and not offline,
                keeps_runs=is_server(store) and not offline,
            )
            slots = cluster.slots(client)
            stacks = form(self._folder, jobs, self._ended, self._together, slots)
            for own in jobs:  # so that what a group finds there is of an earlier attempt
                (own.folder / RESULT).unlink(missing_ok=True)
            with DaskExecutor(client, driver, PRELOAD, local=cluster.local) as executor:
                executor.check()
                yield Opened(executor, stacks, 1, slots, str(cluster))

    @contextlib.contextmanager
    def _token(self) -> Iterator[Path]:
        """Leave a token in the sweep's folder for the time of the sweep."""
        path = self._folder / _MARK
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(secrets.token_hex(16), encoding="utf-8")
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


class DaskLauncher(_DaskLauncher):
    """Runs jobs on the cluster whose scheduler listens at ``address``."""

    def __init__(self, address: str, together: int | None, shared: bool | None) -> None:
        super().__init__(None, together, shared)
        self._address = address

    def reach(self) -> None:
        """Raise ConfigError if no scheduler answers."""
        with self._cluster().open():
            pass

    def _cluster(self) -> "Cluster":
        from src.sweep.clusters import Existing

        return Existing(self._address)


class _Growing(_DaskLauncher):
    """A launcher whose cluster may have ``minimum`` workers, and more while there is work."""

    def __init__(
        self, workers: int | None, minimum: int | None, together: int | None, shared: bool | None
    ) -> None:
        super().__init__(workers, together, shared)
        self._minimum = minimum

    def _check_counts(self) -> None:
        super()._check_counts()
        least, most = self._minimum, self._most()
        if least is not None and not (type(least) is int and 1 <= least <= most):
            raise ConfigError(
                f"hydra.launcher.minimum={least}: must be from 1 to the number of workers, {most}, "
                "or null"
            )

    def _most(self) -> int:
        """Return the number of workers, or the most of them."""
        return self._workers or available_cores()


class LocalDaskLauncher(_Growing):
    """Runs jobs on ``workers`` Dask workers of this machine, by default one per core."""

    def _cluster(self) -> "Cluster":
        from src.sweep.clusters import Local

        return Local(self._most(), self._minimum)


class SlurmLauncher(_Growing):
    """Runs jobs on ``workers`` Dask workers, each of which is a job of SLURM.

    Such a job has ``cores``, ``memory`` and ``walltime`` in SLURM's partition ``queue``.
    """

    _package = "dask_jobqueue"

    def __init__(
        self,
        workers: int,
        minimum: int | None,
        cores: int,
        memory: str,
        walltime: str,
        queue: str | None,
        together: int | None,
        shared: bool | None,
    ) -> None:
        super().__init__(workers, minimum, together, shared)
        self._cores, self._memory = cores, str(memory)
        self._walltime, self._queue = walltime, queue

    def _check_counts(self) -> None:
        super()._check_counts()
        _check_cores(self._cores)
        if not isinstance(self._walltime, str):  # YAML reads 1:00:00 as a number of seconds
            raise ConfigError(
                f"hydra.launcher.walltime={self._walltime}: must be a string such as '01:00:00'"
            )

    def _cluster(self) -> "Cluster":
        from src.sweep.clusters import Slurm

        return Slurm(
            self._most(),
            self._cores,
            self._memory,
            self._walltime,
            self._queue,
            self._folder / "slurm",
            self._minimum,
        )


class SshLauncher(_DaskLauncher):
    """Runs jobs on Dask workers that are started through SSH, one for each entry of ``hosts``.

    Each trains ``cores`` groups at a time with the interpreter ``python``, by default the path of
    this one.
    """

    _package = "asyncssh"

    def __init__(
        self,
        hosts: Sequence[str],
        cores: int,
        python: str | None,
        together: int | None,
        shared: bool | None,
    ) -> None:
        super().__init__(None, together, shared)
        self._hosts, self._cores, self._python = hosts, cores, python

    def _check_counts(self) -> None:
        super()._check_counts()
        _check_cores(self._cores)
        if isinstance(self._hosts, str) or not isinstance(self._hosts, Sequence) or not self._hosts:
            raise ConfigError(
                f"hydra.launcher.hosts={self._hosts}: must be a list such as [alpha,beta]"
            )

    def _cluster(self) -> "Cluster":
        from src.sweep.clusters import Ssh

        return Ssh([str(host) for host in self._hosts], self._cores, self._python or sys.executable)


def _check_cores(cores: int) -> None:

    if not (type(cores) is int and cores >= 1):
        raise ConfigError(f"hydra.launcher.cores={cores}: must be 1 or more")
