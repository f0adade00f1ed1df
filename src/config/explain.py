"""Says in one line what Hydra says in ten: which override is wrong, and what would be right."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)

from src.config.choices import SHORT_FORMS
from src.config.composition import compose, composer
from src.config.describe import listed, suggest_option
from src.support.errors import suggest
from src.support.extras import missing_extra
from src.support.paths import CONF

COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, ValueError)


def explain(error: Exception, overrides: Sequence[str]) -> str:
    """Return what is wrong with the composition of ``overrides`` that raised ``error``."""
    if isinstance(error, MissingConfigException) and (
        told := missing_extra(error.missing_cfg_file)
    ):
        return told
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing_option(error.missing_cfg_file, error.options or [])
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    if isinstance(error, InterpolationResolutionError | InterpolationKeyError):
        return f"{error.full_key}: {str(error).splitlines()[0]}"
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if first.startswith("Ambiguous value for argument"):
        return _several_values(first.split("'")[1])
    if first.startswith(("Could not override", "Could not delete")):
        return _unknown_key(first.split("'")[1], overrides)
    if first.startswith("Config group override must be a string or a list. Got NoneType"):
        override = next((o for o in overrides if o.endswith("=null")), "null")
        return f"{override}: must be the name of an option; leave it out for the default"
    return f"the overrides can't be composed: {first}" if type(error) is ValueError else first


def _missing_option(file: str, options: Sequence[str]) -> str:
    group, _, name = file.rpartition("/")
    if not group:
        return f"{name}: no such configuration file"
    return f"{group}={name}: no such option{suggest_option(group, name, options)}"


def _unreadable(override: str) -> str:
    key, _, value = override.partition("=")
    message = f"{override}: not of the form key=value"
    if not value:
        return message
    return f"""{message}; quote values that contain special characters: "{key}='{value}'\""""


def _several_values(override: str) -> str:
    key, _, value = override.partition("=")
    as_list = "" if (CONF / key).is_dir() else f"; for one list write {key}=[{value}]"
    return f"{override}: several values are a sweep: add -m{as_list}"


def _unknown_key(key: str, overrides: Sequence[str]) -> str:
    """Say of an unknown key which option has it, or which key was meant."""
    override = next((o for o in overrides if o.lstrip("+~").startswith(key)), key)
    place, _, name = key.rpartition(".")
    known, chosen = _composable(overrides)
    group = {setting: group for group, setting in SHORT_FORMS.items()}.get(place, place)
    owners = [option for option in _options_with(group, name) if option != chosen.get(group)]
    if owners and group in SHORT_FORMS:
        return f"{override}: name the {group} too: {group}={listed(owners, 'or')}"
    if owners:
        has = "has" if len(owners) == 1 else "have"
        message = f"{override}: {group}={chosen.get(group)} has no setting {name}"
        return f"{message}; {listed(owners)} {has} it{_forced(override, overrides)}"
    near = suggest(key, known) if get_close_matches(key, known) else "; --help lists them all"
    return f"{override}: there is no key or choice {key}{near}{_forced(override, overrides)}"


def _forced(override: str, overrides: Sequence[str]) -> str:
    """Return how a setting is set that only some of the swept options have."""
    swept = [o for o in overrides if (CONF / o.partition("=")[0]).is_dir() and "," in o]
    return f"; for a setting of a swept choice, write ++{override}" if swept else ""


def _options_with(group: str, setting: str) -> list[str]:
    """Return the options of a group whose file has a setting."""
    found = []
    for path in sorted((CONF / group).glob("*.yaml")) if group else []:
        node = OmegaConf.load(path)
        if isinstance(node, DictConfig) and setting in node:
            found.append(path.stem)
    return found


def _composable(overrides: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Return every key and group that can be set, and the option that is chosen of each group.

    Takes the choices among the overrides that do compose: they decide which keys there are.
    """
    with composer():
        taken: list[str] = []
        for override in overrides:
            if "=" not in override or ("." in override and "@" not in override):
                continue
            try:
                compose([*taken, override])
            except COMPOSITION_ERRORS:
                continue
            taken.append(override)
        config = compose(taken, with_hydra=True)
    chosen = dict(config.hydra.runtime.choices)
    groups = [path.relative_to(CONF).as_posix() for path in CONF.rglob("*") if path.is_dir()]
    settings = OmegaConf.to_container(config, resolve=False)
    assert isinstance(settings, dict)
    settings.pop("hydra")
    return [*_keys(settings), *groups], chosen


def _keys(settings: Mapping[Any, Any], place: str = "") -> Iterator[str]:
    for name, node in settings.items():
        key = str(name)
        if key.startswith("_"):  # the option decides its class
            continue
        yield f"{place}{key}"
        if isinstance(node, dict):
            yield from _keys(node, f"{place}{key}.")
