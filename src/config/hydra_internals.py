"""Everything of Hydra that this project uses beyond what Hydra documents for applications.

``tests/test_hydra_internals.py`` has one test per function: it names what broke when Hydra changes.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, configure_log, env_override
from hydra.types import HydraContext
from omegaconf import DictConfig


@contextmanager
def hydra_set_aside() -> Iterator[None]:
    """Let the block initialize Hydra anew; afterwards the Hydra of before is back."""
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = before


def check_compositions(check: Callable[[DictConfig, Sequence[str]], None]) -> None:
    """Call ``check`` with every configuration that Hydra composes and with its overrides.

    Hydra's entry point, its jobs and its compose API all load through this one method. What the
    check raises reaches the caller before Hydra uses the configuration.
    """
    load = ConfigLoaderImpl.load_configuration
    if hasattr(load, "__wrapped__"):  # this process checks already
        return

    @functools.wraps(load)
    def checked(
        self: ConfigLoaderImpl,
        config_name: str | None,
        overrides: list[str],
        *arguments: Any,
        **settings: Any,
    ) -> DictConfig:
        config = load(self, config_name, overrides, *arguments, **settings)
        check(config, overrides)
        return config

    ConfigLoaderImpl.load_configuration = checked  # type: ignore[method-assign]


def config_loader() -> ConfigLoader:
    """Return the loader of the Hydra that is initialized."""
    return GlobalHydra.instance().config_loader()


def context_without_callbacks() -> HydraContext:
    """Return what ``run_job`` needs, with no callbacks."""
    return HydraContext(config_loader=config_loader(), callbacks=Callbacks())


def context_with_starts_only(context: HydraContext) -> HydraContext:
    """Return a context whose callbacks hear ``on_job_start`` and nothing else."""
    return HydraContext(context.config_loader, _StartsOnly(context.callbacks))  # type: ignore[arg-type]


class _StartsOnly:
    """Passes on the start of a job; its end is announced later, when training has ended."""

    def __init__(self, callbacks: Any) -> None:
        self.on_job_start = callbacks.on_job_start

    def on_job_end(self, **_: Any) -> None:
        """Do nothing."""


@contextmanager
def hydra_config(config: DictConfig) -> Iterator[None]:
    """Make ``config`` what ``HydraConfig`` and the resolver ``${hydra:…}`` see in the block."""
    instance = HydraConfig.instance()
    before = instance.cfg
    instance.cfg = config  # type: ignore[assignment]
    try:
        yield
    finally:
        instance.cfg = before


def set_job_name(name: str) -> None:
    """Set the name that ``run_job`` gives to the jobs of this process."""
    JobRuntime.instance().set("name", name)


def log_as_configured(hydra: Any) -> None:
    """Send the log where a job's ``hydra`` node says."""
    configure_log(hydra.job_logging, hydra.verbose)


def job_environment(hydra: Any) -> AbstractContextManager[None]:
    """Set the environment variables of ``hydra.job.env_set`` for the block."""
    overridden: AbstractContextManager[None] = env_override(hydra.job.env_set)
    return overridden


def failed(overrides: Sequence[str], error: Exception) -> JobReturn:
    """Return what a launcher returns for a job that failed."""
    returned = JobReturn(overrides=list(overrides), status=JobStatus.FAILED)
    returned.return_value = error
    return returned


def value_or_error(returned: JobReturn) -> Any:
    """Return what a job returned or raised; ``JobReturn.return_value`` prints and raises it."""
    return returned._return_value


def override_dirname(overrides: Sequence[Override], settings: Mapping[str, Any]) -> str:
    """Return what Hydra 1.3 makes ``hydra.job.override_dirname`` of a job's overrides.

    ``settings`` is ``hydra.job.config.override_dirname``.
    """
    excluded = settings["exclude_keys"]
    lines = sorted(str(o.input_line) for o in overrides if o.key_or_group not in excluded)
    return str(settings["item_sep"]).join(lines).replace("=", settings["kv_sep"])
