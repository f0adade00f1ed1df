"""Lets a sweep set what only some options of a swept choice have, such as a size of batches.

``-m batching=full,mini batching.size=16,64`` is then three runs: the setting counts
where the option has it.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from src.support.paths import CONF

_SWEEPS = ("choice(", "glob(", "range(", "shuffle(", "sort(", "tag(")


def forced(overrides: Sequence[str]) -> list[str]:
    """Return the overrides of a sweep so that Hydra composes what all its jobs have in common.

    A setting of a swept choice is written with ``++``: the default option may not have it.
    """
    swept = swept_choices([*_preset(overrides), *overrides])
    return [f"++{o}" if o[:1] not in "+~" and of_choice(o, swept) else o for o in overrides]


def swept_choices(overrides: Iterable[str]) -> set[str]:
    """Return the choices to which the overrides give several options."""
    return {
        key
        for key, _, value in (override.partition("=") for override in overrides)
        if (CONF / key).is_dir() and ("," in value or value.startswith(_SWEEPS))
    }


def of_choice(override: str, choices: Iterable[str]) -> str | None:
    """Return the choice, among these, that an override sets something of; else None."""
    key = override.partition("=")[0].lstrip("+~")
    return next((choice for choice in choices if key.startswith(f"{choice}.")), None)


def _preset(overrides: Sequence[str]) -> list[str]:
    """Return what the preset among the overrides sweeps, as overrides.

    A file that can't be read is left to Hydra, which says so.
    """
    found: list[str] = []
    for override in overrides:
        key, _, name = override.lstrip("+").partition("=")
        if key == "sweep":
            found += [f"{key}={value}" for key, value in _params(name, overrides).items()]
    return found


def _params(name: str, overrides: Sequence[str]) -> Mapping[str, object]:
    arguments = list(overrides)
    own = [
        Path(arguments[i + 1])
        for i, argument in enumerate(arguments[:-1])
        if argument in ("--config-dir", "-cd")
    ]
    for folder in [CONF, *own]:
        try:
            node = yaml.safe_load((folder / "sweep" / f"{name}.yaml").read_text(encoding="utf-8"))
            params = node["hydra"]["sweeper"]["params"]
        except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
            continue
        if isinstance(params, Mapping):
            return params
    return {}
