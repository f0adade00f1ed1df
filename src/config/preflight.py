"""Finds what is wrong before anything starts: a bad configuration leaves no run and no folder."""

import contextlib
import functools
import tempfile
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from src.config.choices import Choices
from src.config.describe import listed
from src.config.reader import read
from src.data import Dataset, Source
from src.runs.experiment import Prepared
from src.runs.folder import disown, own, refuse_taken
from src.runs.job import Job
from src.support import plugins
from src.support.errors import ConfigError, DataError, InvalidValue, UserError, suggest, within
from src.support.paths import CONF
from src.tracking.process import check_mirror


@dataclass(frozen=True)
class Known:
    """What the jobs of a sweep that are checked already have shown, so that it is done once."""

    built: dict[Hashable, Any] = field(default_factory=dict)  # see Choices
    unreadable: dict[Source, DataError] = field(default_factory=dict)  # data, and why


def check(config: DictConfig, known: Known | None = None) -> tuple[Job, Prepared]:
    """Return what a configuration describes: the job, and its experiment ready to train.

    The configuration may come with Hydra's own node or without it. Raises UserError where it is
    wrong or does not fit the data. What is found is added to ``known``.
    """
    known = known or Known()
    hydra = _hydra_node(config)
    _check_hydra(hydra)
    _import_plugins(config)
    job = read(config, Choices(_folders(hydra), known.built))
    if job.gradcheck and hydra is not None and hydra.mode == RunMode.MULTIRUN:
        raise ConfigError("gradcheck=true: checks one configuration at a time: leave out -m")
    source = job.experiment.data
    if source in known.unreadable:
        raise known.unreadable[source]
    try:
        with within("data"):
            dataset = _load(source)
        prepared = job.experiment.prepare(dataset)
    except InvalidValue as error:
        raise ConfigError(str(error)) from None
    except DataError as error:
        known.unreadable[source] = error
        raise
    _check_metric(job.metric, dataset)
    return job, prepared


def _hydra_node(config: DictConfig) -> DictConfig | None:
    """Return Hydra's own part of a configuration, or None outside Hydra."""
    if "hydra" in config:
        return config.hydra  # type: ignore[no-any-return]
    return HydraConfig.get() if HydraConfig.initialized() else None  # type: ignore[return-value]


def _check_hydra(hydra: DictConfig | None) -> None:
    """Raise ConfigError for what Hydra allows and a run does not."""
    if hydra is None:
        return
    if hydra.job.chdir:
        raise ConfigError("hydra.job.chdir=true: not supported: relative paths would change")
    if plugins.VARIABLE in hydra.job.env_set:
        raise ConfigError(
            f"hydra.job.env_set.{plugins.VARIABLE}: can't be set here: "
            "write plugins=[my_module] on the command line"
        )
    for override in hydra.overrides.task:
        key, _, value = override.lstrip("+").partition("=")
        choice = (CONF / key).is_dir() and key not in ("experiment", "debug")
        if choice and value.startswith("["):  # Hydra would merge the options into one
            raise ConfigError(
                f"{override}: must be one option; "
                f"a sweep over several is written -m {key}={value.strip('[]')}"
            )


def _import_plugins(config: DictConfig) -> None:
    """Import the plugins that the user asked for. Raises ConfigError for any that a file names."""
    wanted = config.get("plugins")
    names = wanted if OmegaConf.is_list(wanted) else [wanted]
    refused = [str(name) for name in names if name and name not in plugins.accepted()]
    if refused:
        raise ConfigError(
            f"plugins=[{','.join(refused)}]: set in a file. A plugin runs code, so only the "
            f"command line can ask for it: add plugins=[{','.join(refused)}] there"
        )
    plugins.load()


def _folders(hydra: DictConfig | None) -> tuple[Path, ...]:
    """Return the folders that options come from: ours, and those of --config-dir."""
    sources = hydra.runtime.config_sources if hydra is not None else []
    found = [Path(source.path) for source in sources if source.schema == "file"]
    return (CONF, *(folder for folder in found if folder != CONF))


def _check_metric(metric: str, dataset: Dataset) -> None:
    """Raise ConfigError unless the data has the set that the metric is measured on."""
    part = metric.split("/")[0]
    parts = [name for name, _ in dataset.splits()]
    if part not in parts:
        near = suggest(metric, [f"{part}/accuracy" for part in parts])
        raise ConfigError(f"metric={metric}: {dataset.name} has only {listed(parts)} sets{near}")


def claim(job: Job, folder: Path, *, goes_on: bool = False) -> None:
    """Make the folder of a run or a sweep, own it, and check the store that will keep its results.

    With ``goes_on`` the folder holds a run already that goes on.

    Raises UserError where the folder can't be written, has another owner or holds another run, or
    the store can't be opened; whatever was made until then is removed again.
    """
    made: list[Path] = []
    try:
        made += _make(job.outputs)
        made = _make(folder) + made
        check_mirror(job)
        own(folder)
        if not goes_on:
            refuse_taken(folder)
    except UserError:
        disown(folder)
        _unmake(made)
        raise


def exists(path: Path) -> bool:
    """Return whether a path exists; False where no such path can be, as with too long a name."""
    try:
        return path.exists()
    except OSError:
        return False


def _make(folder: Path) -> list[Path]:
    """Make a folder that can be written to; return the folders that did not exist before."""
    made: list[Path] = []
    try:
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:  # ValueError: the name holds a null byte
        _unmake(made)
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"can't write to the folder {folder}: {reason}; choose another with outputs=…"
        ) from None
    return made


def _unmake(folders: list[Path]) -> None:
    for path in folders:
        with contextlib.suppress(OSError):  # never made, or another run uses it by now
            path.rmdir()


_provided: dict[Source, Dataset] = {}


def provide(source: Source, dataset: Dataset) -> None:
    """Use this dataset for a source instead of reading it again."""
    _provided[source] = dataset


def withdraw(sources: Iterable[Source]) -> None:
    """Forget the datasets that were provided for these sources."""
    for source in sources:
        _provided.pop(source, None)


def _load(source: Source) -> Dataset:
    return _provided[source] if source in _provided else _read(source)


@functools.lru_cache(maxsize=2)
def _read(source: Source) -> Dataset:
    """Read a source once for the check and the run, and for the jobs of a sweep."""
    return source.load()
