"""Composes the jobs of a sweep: where two differ in plain values alone, the second is had from the first at a tenth."""

import copy
import functools
from collections.abc import Sequence

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf, open_dict


class Composer:
    """Composes what Hydra's ``load_sweep_config`` does, with the number of the job."""

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self._loader, self._master = loader, master
        self._known: dict[tuple[str, ...], DictConfig] = {}
        parser = OverridesParser.create(config_loader=loader)
        self._parse = functools.cache(parser.parse_override)
        self._is_group = functools.cache(lambda key: bool(loader.get_group_options(key)))

    def __call__(self, overrides: Sequence[str], number: int) -> DictConfig:
        """Return the configuration of a job. Raises what Hydra raises."""
        config = self._compose(overrides)
        with open_dict(config):
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
        return config

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        parsed = [self._parse(override) for override in overrides]
        values = [override for override in parsed if self._is_value(override, parsed)]
        # Jobs alike in all but these values differ in nothing else.
        likeness = tuple(str(o.key_or_group if o in values else o.input_line) for o in parsed)
        if likeness not in self._known:
            self._known[likeness] = self._loader.load_sweep_config(self._master, list(overrides))
            return copy.deepcopy(self._known[likeness])
        config = copy.deepcopy(self._known[likeness])
        for override in values:
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
        tasks = [override for override in parsed if not override.is_hydra_override()]
        config.hydra.overrides.task = [override.input_line for override in tasks]
        names = config.hydra.job.config.override_dirname
        config.hydra.job.override_dirname = get_overrides_dirname(
            tasks, exclude_keys=names.exclude_keys, item_sep=names.item_sep, kv_sep=names.kv_sep
        )
        return config

    def _is_value(self, override: Override, parsed: Sequence[Override]) -> bool:
        """Tell whether this does no more than to set a key to a number or a text, and no other has to do with that key."""
        key = override.key_or_group
        if (
            override.type != OverrideType.CHANGE
            or override.is_hydra_override()
            or self._is_group(key)
        ):
            return False
        others = [other.key_or_group for other in parsed if other is not override]
        return isinstance(override.value(), str | int | float | None) and not any(
            _nested(key, o) for o in others
        )


def _nested(key: str, other: str) -> bool:
    """Tell whether one key is the other, or within it."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")
