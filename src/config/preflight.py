"""Finds what is wrong before anything is begun: no run, no folder and no half-done work comes of a bad configuration."""

import contextlib
import functools
import tempfile
from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from src.config.reader import read
from src.data import Dataset, Source
from src.experiment.experiment import Prepared
from src.experiment.job import Job
from src.support.errors import ConfigError, DataError, InvalidValue, UserError, suggest, within


def check(
    config: DictConfig, unreadable: dict[Source, DataError] | None = None
) -> tuple[Job, Prepared]:
    """Return a configuration as it will be run, its data loaded and found to fit. Raises UserError.

    With Hydra's own part or without it. Data that can't be read is added to ``unreadable``, and not tried again.
    """
    if OmegaConf.select(config, "hydra.job.chdir"):
        raise ConfigError(
            "hydra.job.chdir=true: not supported, since relative paths would no longer lead where they did"
        )
    job = read(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]))
    source = job.experiment.data
    if unreadable and source in unreadable:
        raise unreadable[source]
    try:
        with within("data"):
            dataset = _load(source)
        prepared = job.experiment.prepare(dataset)
    except InvalidValue as error:
        raise ConfigError(str(error)) from None
    except DataError as error:
        if unreadable is not None:
            unreadable[source] = error
        raise
    part = job.metric.split("/")[-2]
    parts = [name for name, _ in dataset.splits()]
    if part not in parts:
        near = suggest(job.metric, [f"{part}/accuracy" for part in parts])
        raise ConfigError(
            f"metric={job.metric}: {dataset.name} is split without a {part} set{near}"
        )
    return job, prepared


def claim(job: Job, folder: Path) -> None:
    """Make the folder of a run or a sweep, and see that the store that will keep its results can be had.

    Raises UserError where either can't be had; whatever was made until then is removed again.
    """
    made: list[Path] = []
    try:
        made += _make(job.outputs)
        made = _make(folder) + made
        job.tracking.check(job.outputs)
    except UserError:
        _unmake(made)
        raise


def _make(folder: Path) -> list[Path]:
    """Make a folder that can be written to, if there is none; return the folders that were made on the way."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        _unmake(made)
        raise ConfigError(
            f"can't write to the folder {folder}: {error.strerror}; outputs=FOLDER names another"
        ) from None
    return made


def _unmake(folders: list[Path]) -> None:
    for path in folders:
        with contextlib.suppress(OSError):  # never made, or another run has moved in
            path.rmdir()


_provided: dict[Source, Dataset] = {}


def provide(source: Source, dataset: Dataset) -> None:
    """Take this for what a source holds, in place of reading it: somebody has."""
    _provided[source] = dataset


def withdraw(sources: Iterable[Source]) -> None:
    """Forget the datasets that were provided for these sources."""
    for source in sources:
        _provided.pop(source, None)


def _load(source: Source) -> Dataset:
    return _provided[source] if source in _provided else _read(source)


@functools.lru_cache(maxsize=2)
def _read(source: Source) -> Dataset:
    """Read data once where the check and the run, or the jobs of a sweep, share it."""
    return source.load()
