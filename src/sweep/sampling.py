"""Makes the jobs of a sweep from the values of its settings: all combinations, or some drawn."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.support.errors import ConfigError
from src.support.randomness import stream

_TRIES = 100  # draws in a row that may repeat an earlier one, until there are no more to be found


@dataclass(frozen=True)
class Listed:
    """A setting with its values, each as an override; zipped settings have several overrides."""

    key: str
    values: tuple[tuple[str, ...], ...]

    def draw(self, rng: np.random.Generator) -> tuple[str, ...]:
        """Return one of the values."""
        return self.values[int(rng.integers(len(self.values)))]


@dataclass(frozen=True)
class Interval:
    """A setting that takes any value from ``low`` to below ``high``; ``log`` evenly by magnitude.

    A ``whole`` one takes integers.
    """

    key: str
    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        given = f"{self.key}=interval({self.low:g},{self.high:g})"
        if not -math.inf < self.low < self.high < math.inf:
            raise ConfigError(f"{given}: the first number must be below the second")
        if self.log and self.low <= 0:
            raise ConfigError(f"{given}: with tag(log,…), both numbers must be above 0")

    def draw(self, rng: np.random.Generator) -> tuple[str]:
        """Return a value, with four significant digits."""
        if self.log:
            value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = rng.uniform(self.low, self.high)
        return (self.override(value),)

    def override(self, value: float) -> str:
        """Return a value of the interval as the override that sets it."""
        return f"{self.key}={math.floor(value)}" if self.whole else f"{self.key}={value:.4g}"


Setting = Listed | Interval


def zipped(settings: Sequence[Setting], keys: Sequence[str]) -> list[Setting]:
    """Return the settings with those named by ``keys`` as one, whose values go side by side.

    Raises ConfigError unless each of them has a list, and all lists are equally long.
    """
    if not keys:
        return list(settings)
    place = f"sweep.zip=[{','.join(keys)}]"
    lists = {setting.key: setting for setting in settings if isinstance(setting, Listed)}
    for key in keys:
        if key not in lists:
            raise ConfigError(f"{place}: {key} has no list of values; write {key}=…,…")
    own = [lists[key] for key in keys]
    lengths = {len(setting.values) for setting in own}
    if len(lengths) > 1:
        counts = ", ".join(f"{setting.key} {len(setting.values)}" for setting in own)
        raise ConfigError(
            f"{place}: the lists must be equally long, but they have: {counts} values"
        )
    rows = zip(*(setting.values for setting in own), strict=True)
    together = Listed(" ".join(keys), tuple(sum(row, ()) for row in rows))
    others = [setting for setting in settings if setting.key not in keys]
    return [together, *others]


def combinations(settings: Sequence[Setting]) -> list[list[str]]:
    """Return the overrides of each combination of the values.

    Raises ConfigError for an interval, which has no number of values.
    """
    lists = []
    for setting in settings:
        if isinstance(setting, Interval):
            raise ConfigError(
                f"{setting.key}=interval({setting.low:g},{setting.high:g}): "
                "say how many values to draw, as with samples=20"
            )
        lists.append(setting.values)
    return [list(itertools.chain(*row)) for row in itertools.product(*lists)]


def drawn(settings: Sequence[Setting], samples: int) -> list[list[str]]:
    """Return the overrides of the jobs of ``samples`` random configurations, no two of them equal.

    Each is combined with every seed: seeds are repetitions. Equal settings give equal draws, of
    which more samples repeat the first. There are fewer where the lists hold fewer combinations.
    """
    seeds = [setting for setting in settings if setting.key == "seed"]
    others = [setting for setting in settings if setting.key != "seed"]
    found: dict[tuple[str, ...], None] = {}
    rng, tries = stream(0, "samples"), 0
    while len(found) < samples and tries < _TRIES:
        tries += 1
        configuration = tuple(itertools.chain(*(setting.draw(rng) for setting in others)))
        if configuration not in found:
            found[configuration], tries = None, 0
    return [[*own, *seed] for own in found for seed in combinations(seeds)]
