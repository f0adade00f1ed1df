"""Reads the configuration that a run keeps in its folder, by the same checks as a new run's."""

from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf

from src.config.preflight import check
from src.runs.experiment import Prepared
from src.runs.job import Job
from src.support.errors import ConfigError, DataError, in_one_line
from src.support.input_files import read_text

_CONFIG = ".hydra/config.yaml"


def check_kept(folder: Path) -> tuple[Job, Prepared]:
    """Return the configuration of a run, with its data loaded.

    Relative paths in it start from the current folder, as they did when the run began.
    Raises ConfigError if the folder is not a run's or its configuration no longer fits the project,
    and DataError if the data cannot be read.
    """
    config = read_kept(folder)
    try:
        return check(config)
    except ConfigError as error:
        raise ConfigError(f"{folder / _CONFIG}: {error}") from None
    except DataError as error:
        raise DataError(f"{error} (the data of {folder})") from None


def read_kept(folder: Path) -> DictConfig:
    """Return the settings in a run's folder, unchecked. Raises ConfigError if they are damaged."""
    path = folder / _CONFIG
    if not path.exists():
        raise ConfigError(f"{folder}: holds no {_CONFIG}: {_advice(folder)}")
    try:
        text = read_text(path)
        # A few lines of YAML can repeat a value a billion times by its alias.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ConfigError(f"{path}: uses YAML's aliases, which no run writes")
        config = OmegaConf.create(text)
    except ConfigError:
        raise
    except Exception as error:  # YAML and OmegaConf raise a dozen different types, assertions too
        raise ConfigError(f"{path}: cannot be read ({in_one_line(error)})") from None
    if not isinstance(config, DictConfig):
        raise ConfigError(f"{path}: holds no settings by name, as a run's configuration does")
    return config


def _advice(folder: Path) -> str:
    """Return what would be right in place of a folder that is not a run's."""
    runs = sorted(folder.glob(f"*/{_CONFIG}"))
    if runs:
        return f"give one of the runs in it, such as {runs[0].parents[1]}"
    return "give the folder of a run, such as one of those in outputs/runs"
