"""Finds what is wrong before anything is begun: no run, no folder and no half-done work comes of a bad configuration."""

import contextlib
import functools
import tempfile
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from src.config import Job, read
from src.data import Dataset, Source
from src.errors import ConfigError, InvalidValue, suggest, within
from src.experiment import Prepared


def check(config: DictConfig) -> tuple[Job, Prepared]:
    """Return a configuration as it will be run, its data loaded and found to fit. Raises UserError.

    With Hydra's own part or without it.
    """
    if OmegaConf.select(config, "hydra.job.chdir"):
        raise ConfigError(
            "hydra.job.chdir=true: not supported, since relative paths would no longer lead where they did"
        )
    job = read(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]))
    try:
        with within("data"):
            dataset = _load(job.experiment.data)
        prepared = job.experiment.prepare(dataset)
    except InvalidValue as error:
        raise ConfigError(str(error)) from None
    part = job.metric.split("/")[-2]
    parts = [name for name, _ in dataset.splits()]
    if part not in parts:
        near = suggest(job.metric, [f"{part}/accuracy" for part in parts])
        raise ConfigError(f"metric={job.metric}: {dataset.name} is split without a {part} set{near}")
    return job, prepared


def claim(*folders: Path) -> None:
    """Make sure that files can be written to these folders, which are made where they don't exist.

    Raises ConfigError where one can't be had; whatever was made until then is removed again.
    """
    made: list[Path] = []
    for folder in folders:
        try:
            missing = [path for path in (folder, *folder.parents) if not path.exists()]
            for path in reversed(missing):
                path.mkdir(exist_ok=True)  # a run that starts at the same moment may be the first
                made.append(path)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            for path in reversed(made):
                with contextlib.suppress(OSError):  # another run may have moved in
                    path.rmdir()
            raise ConfigError(
                f"can't write to the folder {folder}: {error.strerror}; another can be set with outputs=FOLDER"
            ) from None


@functools.lru_cache(maxsize=2)
def _load(source: Source) -> Dataset:
    """Load data once where the check and the run, or the jobs of a sweep, share it."""
    return source.load()
