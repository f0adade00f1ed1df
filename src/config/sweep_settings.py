"""What a sweep as a whole can be told, in keys of their own beside those of its runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.config.arguments import setting
from src.config.reader import SWEEP_KEYS, convert
from src.support.errors import ConfigError, InvalidValue, require


@dataclass(frozen=True)
class SweepSettings:
    """What ``plan``, ``samples`` and ``sweep`` say of a sweep."""

    plan: bool = False
    samples: int | None = None  # configurations to draw
    halving: int | None = None  # one in so many configurations stays at each rung
    exact: bool = False  # whether the runs that stay keep their bytes
    zip: tuple[str, ...] = ()  # settings whose values are taken side by side

    def __post_init__(self) -> None:
        few = self.samples is None or self.samples >= 1
        require(few, "samples", self.samples, "must be 1 or more, or null")
        none = self.halving is None or self.halving >= 2
        rule = "must be 2 or more: with 3, a third stays at each rung; or null"
        require(none, "sweep.halving", self.halving, rule)

    @staticmethod
    def of(config: DictConfig) -> "SweepSettings":
        """Return the settings of a sweep's composed configuration. Raises ConfigError."""
        nodes = OmegaConf.to_container(
            OmegaConf.masked_copy(config, [key for key in SWEEP_KEYS if key in config]),
            resolve=True,
        )
        assert isinstance(nodes, dict)
        own = nodes.pop("sweep", None) or {}
        known = {field.name for field in fields(SweepSettings)} - {"plan", "samples"}
        if not isinstance(own, Mapping) or not own.keys() <= known:
            settings = " and ".join(f"sweep.{name}" for name in sorted(known))
            raise ConfigError(f"sweep={own}: there are the settings {settings}")
        return _built({**{str(key): value for key, value in nodes.items()}, **own})


def _built(values: Mapping[str, Any]) -> SweepSettings:
    """Return the settings with these values, each checked under the key that sets it."""
    kinds: dict[str, Any] = {
        "plan": bool,
        "samples": int | None,
        "halving": int | None,
        "exact": bool,
        "zip": tuple[str, ...],
    }
    places = {"plan": "plan", "samples": "samples"}
    given = {
        name: convert(value, kinds[name], places.get(name, f"sweep.{name}"))
        for name, value in values.items()
        if not (name == "zip" and value is None)
    }
    try:
        return SweepSettings(**given)
    except InvalidValue as error:
        raise ConfigError(str(error)) from None


def is_of_the_sweep(override: str) -> bool:
    """Tell whether an override sets something of the sweep as a whole, which no run has."""
    key = setting(override)
    return key in ("plan", "samples") or key.startswith("sweep.")


def refuse_in_single_run(overrides: Sequence[str]) -> None:
    """Raise ConfigError if a single run is given a setting of a sweep, or a preset."""
    for override in overrides:
        if is_of_the_sweep(override):
            raise ConfigError(
                f"{override}: belongs to a sweep: add -m on the command line, and values to sweep"
            )
        if setting(override) == "sweep":
            raise ConfigError(f"{override}: a preset is a sweep: add -m on the command line")
