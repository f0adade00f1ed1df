"""Says in a line or two what Hydra says in ten: which override is wrong, and what would be right."""

from collections.abc import Iterable, Sequence

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)

from src.config.composition import compose, composer
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
        group, _, name = error.missing_cfg_file.rpartition("/")
        return (
            f"{group}={name}: no such option{suggest(name, error.options or [])}"
            if group
            else f"{name}: no such configuration"
        )
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        quoted = (
            f"""; a text with other signs than letters and digits wants quotes: "{key}='{value}'" """
            if value
            else ""
        )
        return f"{error.override}: can't be read as key=value{quoted}".rstrip()
    if isinstance(error, InterpolationResolutionError | InterpolationKeyError):
        return f"{error.full_key}: {str(error).splitlines()[0]}"
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if first.startswith("Ambiguous value for argument"):
        key, _, value = first.split("'")[1].partition("=")
        as_list = "" if (CONF / key).is_dir() else f"; one list would be written [{value}]"
        return f"{key}={value}: several values make a sweep: add -m{as_list}"
    if first.startswith(("Could not override", "Could not delete")):
        key = first.split("'")[1]
        override = next((o for o in overrides if o.lstrip("+~").startswith(key)), key)
        swept = any((CONF / o.partition("=")[0]).is_dir() and "," in o for o in overrides)
        force = f"; for a setting of a choice that is swept, write ++{override}" if swept else ""
        return f"{override}: no such key or option as {key}{suggest(key, _known(overrides))}{force}"
    return f"the overrides can't be composed: {first}" if type(error) is ValueError else first


def _known(overrides: Sequence[str]) -> list[str]:
    """Return every key that can be set when the overrides that do compose are taken, and every group."""
    with composer():
        taken: list[str] = []
        for override in (
            o for o in overrides if "@" in o or "." not in o
        ):  # the groups, which decide what keys there are
            try:
                compose([*taken, override])
            except COMPOSITION_ERRORS:
                continue
            taken.append(override)
        config = compose(taken)
    groups = [path.relative_to(CONF).as_posix() for path in CONF.rglob("*") if path.is_dir()]
    return [*_keys(config), *groups]


def _keys(config: DictConfig, place: str = "") -> Iterable[str]:
    for key, node in config.items_ex(resolve=False):
        key = str(key)
        if key.startswith("_"):  # which class it is, is the choice's to say
            continue
        yield f"{place}{key}"
        if (
            isinstance(node, DictConfig)
            and not node._is_none()
            and not node._is_missing()
            and not node._is_interpolation()
        ):
            yield from _keys(node, f"{place}{key}.")
