"""Connects to a Dask cluster that is there, or starts one and ends it with the sweep."""

import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from distributed import Client

from src.support import signals
from src.support.errors import ConfigError, first_line

_CONNECTING = 15.0  # seconds to wait for a scheduler's answer
# Of the clusters that we start: three workers may die with a task, and none holds tasks in advance,
# which would be blamed for its death. Processes of ours get the environment as it is.
_SETTINGS = {
    "distributed.scheduler.allowed-failures": 2,
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.nanny.pre-spawn-environ": {},
    "distributed.worker.profile.enabled": False,
}
# Nobody looks at Dask's pages. With any free port, sweeps don't get in each other's way.
_NO_PAGES = {"dashboard": False, "dashboard_address": ":0"}
_IDLE = "60 s"  # after which a scheduler on another machine ends: its driver may have been killed
_FOR_EVER = "1000 days"
_AT_ONCE = "1 ms"  # how long the work may take: so there is a worker for each group, up to the most


class Cluster(ABC):
    """Where groups of runs train: on ``slots`` workers, or threads of workers, at a time."""

    local = False  # whether its workers are processes of this terminal

    @abstractmethod
    def open(self) -> AbstractContextManager[Client]:
        """Return a context manager that yields a client. Raises ConfigError if there is none."""

    @abstractmethod
    def slots(self, client: Client) -> int:
        """Return how many groups can train at the same time."""

    @abstractmethod
    def __str__(self) -> str: ...


@dataclass(frozen=True)
class Existing(Cluster):
    """The cluster whose scheduler listens at an address."""

    address: str

    @contextlib.contextmanager
    def open(self) -> Iterator[Client]:
        with _quiet():
            try:
                client = Client(self.address, timeout=_CONNECTING, set_as_default=False)
            except (OSError, ValueError, TypeError) as error:
                raise ConfigError(
                    f"hydra.launcher.address={self.address}: no Dask scheduler answers: "
                    f"{first_line(error)}; give the address that dask scheduler shows"
                ) from None
            with client:
                yield client

    def slots(self, client: Client) -> int:
        threads: dict[str, int] = client.nthreads()
        return max(1, sum(threads.values()))

    def __str__(self) -> str:
        return f"the cluster {self.address}"


@dataclass(frozen=True)
class Local(Cluster):
    """Workers in processes of this machine.

    With ``minimum`` there are at least so many, and up to ``workers`` while there is work for them.
    """

    workers: int
    minimum: int | None = None
    local = True

    @contextlib.contextmanager
    def open(self) -> Iterator[Client]:
        from dask import config
        from distributed import LocalCluster

        with _quiet(), config.set(_SETTINGS), contextlib.ExitStack() as stack:
            with signals.ignoring_interrupts():
                cluster = LocalCluster(
                    n_workers=self.minimum or self.workers,
                    threads_per_worker=1,
                    memory_limit=0,
                    host="127.0.0.1",
                    silence_logs=logging.CRITICAL,
                    scheduler_kwargs={**_NO_PAGES, "dashboard_address": "127.0.0.1:0"},
                )
                stack.enter_context(cluster)
                if self.minimum:
                    cluster.adapt(
                        minimum=self.minimum, maximum=self.workers, target_duration=_AT_ONCE
                    )
                client = Client(cluster, set_as_default=False)
            with client:
                yield client

    def slots(self, client: Client) -> int:
        return self.workers

    def __str__(self) -> str:
        return "Dask on this machine"


@dataclass(frozen=True)
class Slurm(Cluster):
    """Workers that SLURM starts, one in each of ``workers`` jobs.

    A worker trains as many groups at a time as it has ``cores``. SLURM may requeue its job: the
    worker then joins again. The output of the jobs is kept in ``log``. With ``minimum`` there are
    at least so many jobs, and up to ``workers`` while there is work for them.
    """

    workers: int
    cores: int
    memory: str  # of a job, such as 2GB
    walltime: str  # of a job, such as 01:00:00
    queue: str | None  # SLURM's partition; None: its default
    log: Path
    minimum: int | None = None

    @contextlib.contextmanager
    def open(self) -> Iterator[Client]:
        from dask import config

        with signals.keeping_handlers():  # dask_jobqueue would end the command on Ctrl-C, with 0
            from dask_jobqueue.slurm import SLURMCluster

        # A job that SLURM requeues is away for minutes. Dask would cancel it, and submit another
        # one only if the cluster grows with the work.
        waits = {} if self.minimum else {"distributed.deploy.lost-worker-timeout": _FOR_EVER}
        settings = config.set({**_SETTINGS, **waits})
        with _quiet(), settings, contextlib.ExitStack() as stack:
            try:
                cluster = SLURMCluster(
                    cores=self.cores,
                    processes=1,
                    memory=self.memory,
                    walltime=self.walltime,
                    queue=self.queue,
                    job_extra_directives=["--requeue"],
                    log_directory=str(self.log),
                    silence_logs=logging.CRITICAL,
                    scheduler_options=_NO_PAGES,
                )
                stack.enter_context(cluster)
                if self.minimum:
                    cluster.adapt(
                        minimum_jobs=self.minimum,
                        maximum_jobs=self.workers,
                        target_duration=_AT_ONCE,
                    )
                else:
                    cluster.scale(jobs=self.workers)
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"hydra/launcher=dask_slurm: SLURM refuses the jobs: {first_line(error)}; "
                    "workers, cores, memory, walltime and queue must be what it allows"
                ) from None
            with Client(cluster, set_as_default=False) as client:
                yield client

    def slots(self, client: Client) -> int:
        return self.workers * self.cores

    def __str__(self) -> str:
        return "Dask on SLURM"


@dataclass(frozen=True)
class Ssh(Cluster):
    """Workers that are started through SSH, one for each entry of ``hosts``.

    The scheduler runs on the first host. A worker trains as many groups at a time as it has
    ``cores``. ``python`` is the interpreter on the hosts. Users, ports and keys are those of
    ``~/.ssh/config``; hosts must be in ``~/.ssh/known_hosts``.
    """

    hosts: Sequence[str]
    cores: int
    python: str

    @contextlib.contextmanager
    def open(self) -> Iterator[Client]:
        from dask import config
        from distributed import SSHCluster

        with _quiet(), config.set(_SETTINGS), contextlib.ExitStack() as stack:
            try:
                cluster = SSHCluster(
                    [self.hosts[0], *self.hosts],
                    worker_options={
                        "nthreads": self.cores,
                        "memory_limit": 0,
                        "death_timeout": _IDLE,
                    },
                    scheduler_options={**_NO_PAGES, "port": 0, "idle_timeout": _IDLE},
                    remote_python=self.python,
                )
                stack.enter_context(cluster)
            except Exception as error:  # of SSH, of the network, or of Dask
                raise ConfigError(
                    f"hydra.launcher.hosts=[{','.join(self.hosts)}]: no worker can be started "
                    f"there: {first_line(error)}; ssh HOST must work without a question, and "
                    f"{self.python} must be a Python there with scratchgrid installed"
                ) from None
            with Client(cluster, set_as_default=False) as client:
                yield client

    def slots(self, client: Client) -> int:
        return len(self.hosts) * self.cores

    def __str__(self) -> str:
        return "Dask through SSH"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask's log off the terminal: what matters is told in the sweep's own words."""
    loggers = [
        logging.getLogger(name) for name in ("distributed", "tornado", "asyncio", "asyncssh")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
