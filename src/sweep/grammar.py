"""Reads what a command line sweeps, in the terms of Hydra's own override grammar."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, Sweep
from omegaconf import DictConfig, OmegaConf

from src.config.sweep_settings import is_of_the_sweep
from src.config.swept_choices import of_choice, swept_choices
from src.support.errors import ConfigError
from src.sweep.sampling import Interval, Listed, Setting


def settings(
    loader: ConfigLoader, params: Mapping[str, Any] | None, arguments: Sequence[str]
) -> list[Setting]:
    """Return the settings of a sweep with their values, in the order in which they are given.

    ``params`` are those of the sweeper; an argument for the same setting takes their place. What
    belongs to the sweep as a whole is left out. Raises ConfigError.
    """
    if params is not None and not isinstance(params, Mapping):
        raise ConfigError(
            f"hydra.sweeper.params={params}: must be settings and their values, "
            "such as {lr: '0.1,0.3'}"
        )
    given = [f"{key}={value}" for key, value in (params or {}).items()]
    parser = OverridesParser.create(config_loader=loader)
    found = {}
    for override in parser.parse_overrides([*given, *arguments]):
        if not is_of_the_sweep(override.input_line or ""):
            key = override.get_key_element()
            found[key.lstrip("+")] = _setting(key, override)
    return list(found.values())


def _setting(key: str, override: Override) -> Setting:
    """Return a setting with its values. Raises ConfigError if there are none."""
    if not override.is_sweep_override():
        return Listed(key, ((f"{key}={override.get_value_element_as_str()}",),))
    sweep = override.value()
    tags = sweep.tags if isinstance(sweep, Sweep) else set()  # glob(…) has none
    if unknown := sorted(tags - {"log", "int"}):
        raise ConfigError(f"{override.input_line}: unknown tag {unknown[0]}; there are log and int")
    if isinstance(sweep, IntervalSweep):
        assert sweep.start is not None
        assert sweep.end is not None
        whole = "int" in tags or type(sweep.start) is type(sweep.end) is int
        return Interval(key, sweep.start, sweep.end, "log" in tags, whole)
    values = tuple((f"{key}={value}",) for value in override.sweep_string_iterator())
    if not values:
        raise ConfigError(
            f"{override.input_line}: gives no values, so the sweep has no jobs; glob(…) matches "
            "the options of a choice such as model, range(a,b) counts from a to below b"
        )
    return Listed(key, values)


def fitting(loader: ConfigLoader, master: DictConfig, jobs: Sequence[list[str]]) -> list[list[str]]:
    """Return the jobs without the settings that the job's option of a swept choice does not have.

    A setting that no option has stays: its composition says what is wrong. Jobs may become equal.
    """
    every = list(dict.fromkeys(override for job in jobs for override in job))
    options: dict[str, set[str]] = {}
    for override in every:
        key, _, value = override.partition("=")
        options.setdefault(key.lstrip("+"), set()).add(value)
    swept = {key for key, values in options.items() if len(values) > 1}
    swept = swept_choices(f"{key}=…,…" for key in swept)

    @functools.cache
    def keys_of(choice: str, option: str) -> DictConfig:
        return loader.load_sweep_config(master, [f"{choice}={option}"])

    @functools.cache
    def has(choice: str, option: str, key: str) -> bool:
        place, _, name = key.rpartition(".")
        node = OmegaConf.select(keys_of(choice, option), place)
        return OmegaConf.is_dict(node) and name in node

    return [_fitted(job, swept, options, has) for job in jobs]


def _fitted(
    job: Sequence[str],
    swept: set[str],
    options: Mapping[str, set[str]],
    has: Callable[[str, str, str], bool],
) -> list[str]:
    """Return the overrides of a job that its options have, or that none has."""
    chosen = dict(override.lstrip("+").split("=", 1) for override in job if "=" in override)
    kept = []
    for override in job:
        choice = None if override.startswith("~") else of_choice(override, swept)
        key = override.partition("=")[0].lstrip("+")
        if choice is None or not any(has(choice, option, key) for option in options[choice]):
            kept.append(override)
        elif has(choice, chosen[choice], key):
            kept.append(override.removeprefix("++"))
    return kept
