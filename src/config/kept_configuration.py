"""Reads the configuration that a run keeps in its folder, by the same checks as a new run's."""

from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.config.preflight import check
from src.experiment.experiment import Prepared
from src.experiment.job import Job
from src.support.errors import ConfigError, DataError


def check_kept(folder: Path) -> tuple[Job, Prepared]:
    """Return the configuration of a run, with its data loaded.

    Relative paths in it start from the current folder, as they did when the run began.
    Raises ConfigError if the folder is not a run's or its configuration no longer fits the project,
    and DataError if the data cannot be read.
    """
    path = folder / ".hydra" / "config.yaml"
    if not path.exists():
        raise ConfigError(f"{folder}: holds no .hydra/config.yaml: {_advice(folder)}")
    try:
        config = OmegaConf.load(path)
    except (OSError, UnicodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    if not isinstance(config, DictConfig):
        raise ConfigError(f"{path}: holds no settings by name, as a run's configuration does")
    try:
        return check(config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except DataError as error:
        raise DataError(f"{error} (the data of {folder})") from None


def _advice(folder: Path) -> str:
    """Return what would be right in place of a folder that is not a run's."""
    runs = sorted(folder.glob("*/.hydra/config.yaml"))
    if runs:
        return f"give one of the runs in it, such as {runs[0].parents[1]}"
    return "give the folder of a run, such as one of those in outputs/runs"
