"""Turns what a person types into what Hydra takes: short forms, plugins and common slips."""

import dataclasses
import re
from collections.abc import Iterable, Sequence

from omegaconf import ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from src.config.choices import SHORT_FORMS
from src.config.describe import shortened
from src.config.swept_choices import forced
from src.runs.experiment import Experiment
from src.runs.job import Job
from src.support import plugins
from src.support.errors import ConfigError
from src.support.masking import has_secret, mask
from src.support.paths import CONF

_MULTIRUN = ("-m", "--multirun")
_LONGEST_NAME = 200  # bytes, so that it can be a file's name
_GROUPS = ("experiment", "debug", "hydra", *SHORT_FORMS)


def prepare(arguments: Sequence[str]) -> list[str]:
    """Return the command line's arguments as Hydra takes them, and import the plugins they name.

    Raises ConfigError for a setting with dashes and for a plugin that can't be imported.
    """
    for number, argument in enumerate(arguments):
        _refuse_dashes(argument, arguments[number + 1 : number + 2])
    # Hydra's parser takes no settings before -m; people do write them there.
    in_order = sorted(arguments, key=lambda argument: argument not in _MULTIRUN)
    written_out = overrides(in_order)
    return forced(written_out) if in_order[:1] in ([name] for name in _MULTIRUN) else written_out


def overrides(given: Iterable[str]) -> list[str]:
    """Return overrides with their short forms written out, and import the plugins they name.

    ``activation=tanh`` becomes ``model.activation=tanh``. Raises ConfigError.
    """
    given = list(given)
    for override in given:
        _refuse_long(override)
    _refuse_secrets(given)
    plugins.accept(_plugins(given))
    return [_written_out(override, given) for override in given]


def setting(override: str) -> str:
    """Return the setting that an override sets, under the key of the run's settings.

    A choice for a place, such as ``distribution@initializer.output=he``, is known by its place.
    """
    return override.partition("=")[0].lstrip("+~").rpartition("@")[2]


def _refuse_long(override: str) -> None:
    """Raise ConfigError for keys and options that are too long: Hydra looks for files of them."""
    key, _, value = override.partition("=")
    option = max(value.split(","), key=len)
    if len(key.encode()) > _LONGEST_NAME:
        raise ConfigError(f"{shortened(key)}: a key has at most {_LONGEST_NAME} bytes")
    if len(option.encode()) > _LONGEST_NAME and (CONF / key.partition("@")[0]).is_dir():
        name = shortened(option)
        raise ConfigError(f"{key}={name}: an option has at most {_LONGEST_NAME} bytes")


def _refuse_secrets(given: Iterable[str]) -> None:
    """Raise ConfigError if a URI holds a password: overrides are stored with the run."""
    for override in given:
        key, _, uri = override.partition("=")
        if key.lstrip("+") == "tracking.uri" and has_secret(uri):
            raise ConfigError(
                f"tracking.uri={mask(uri)}: holds a password or token, which would be stored "
                "with the run: set the environment variable MLFLOW_TRACKING_URI instead"
            )


def _refuse_dashes(argument: str, following: Sequence[str]) -> None:
    """Raise ConfigError for ``--lr=0.1`` and ``--lr 0.1``; Hydra's own options pass."""
    if not argument.startswith("--"):
        return
    key, equals, value = argument[2:].partition("=")
    settings = {field.name for cls in (Experiment, Job) for field in dataclasses.fields(cls)}
    if re.split("[.@/]", key)[0] not in {*settings, *_GROUPS} or key.startswith("hydra-"):
        return
    if not equals:
        value = following[0] if following else "…"
    raise ConfigError(f"{argument}: settings have no dashes: write {key}={value}")


def _written_out(override: str, given: Sequence[str]) -> str:
    key, equals, value = override.partition("=")
    if key == "sweep":
        return f"+{override}"  # a preset is chosen beside the defaults
    if key.startswith("tags."):
        return f"++{override}"  # Hydra's form of a key that may be new
    for group, place in SHORT_FORMS.items():
        if equals and key in (group, f"{group}@{place}"):
            # The option's own settings can be set only where its file is composed.
            settings = (f"{group}.", f"{place}.")
            if not any(other.startswith(settings) for other in given):
                return f"{place}={value}"
            return f"{'+' if group == 'activation' else ''}{group}@{place}={value}"
        if key.startswith(f"{group}."):
            return f"{place}.{override.removeprefix(f'{group}.')}"
    return override


def _plugins(given: Iterable[str]) -> list[str]:
    """Return the modules that ``plugins=[…]`` names. Raises ConfigError if it is not a list."""
    names: list[str] = []
    for override in given:
        key, equals, value = override.partition("=")
        if key.lstrip("+") == "plugins" and equals:
            names = _names(value)
    return names


def _names(value: str) -> list[str]:
    try:
        parsed = OmegaConf.from_dotlist([f"plugins={value}"]).plugins
    except (OmegaConfBaseException, YAMLError):
        parsed = None
    if isinstance(parsed, ListConfig) and all(
        isinstance(name, str) and re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name)
        for name in parsed
    ):
        return list(parsed)
    raise ConfigError(f"plugins={value}: must be a list of module names such as [my_module]")
