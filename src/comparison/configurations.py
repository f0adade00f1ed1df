"""Tells which runs repeat one configuration, and in which settings the configurations differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from src.comparison.kept import KeptRun
from src.config.arguments import setting
from src.config.reader import SWEEP_KEYS
from src.tracking.view import DIVISION, SEED

# Settings that name, place or watch a run: they decide no result.
_BOOKKEEPING = {
    *("outputs", "name", "note", "tags", "tracking", "checkpoint", "hydra", "plugins"),
    *("metric", "diagnose", "gradcheck", "reference"),
    *SWEEP_KEYS,
}
REPLICATES = (SEED, DIVISION)  # chosen at random
# Choices that only stand for other settings.
_SHORTHANDS = ("experiment", "debug")
DATA = "data digest"  # stands beside the settings where equal settings read different data


@dataclass(frozen=True)
class Grouping:
    """How runs divide into configurations."""

    of_run: Sequence[int]  # each run's configuration, numbered from 0 in order of appearance
    seed: Sequence[str]  # each run's seed
    division: Sequence[str]  # the seed of each run's division of the data; "" where all share one
    differing: Sequence[str]  # the settings that tell configurations apart, without those implied
    common: Mapping[str, str]  # the settings that all runs share

    @property
    def number(self) -> int:
        """How many configurations there are."""
        return max(self.of_run, default=-1) + 1


def group(runs: Sequence[KeptRun]) -> Grouping:
    """Return how runs divide into configurations."""
    settings = [_deciding(run) for run in runs]
    keys = list(dict.fromkeys(key for own in settings for key in own))
    values = {key: [own.get(key, "") for own in settings] for key in keys}
    varying = [key for key in keys if len(set(values[key])) > 1]
    deciding = [key for key in varying if key not in REPLICATES]
    if DATA in deciding and _determined(values, [*varying[: varying.index(DATA)]], DATA):
        deciding.remove(DATA)
    numbers: dict[tuple[str, ...], int] = {}
    of_run = [
        numbers.setdefault(tuple(values[key][i] for key in deciding), len(numbers))
        for i in range(len(runs))
    ]
    # A run of unknown seed is a replicate of its own, paired with no other.
    seeds = [run.settings.get(SEED) or f"run {i}" for i, run in enumerate(runs)]
    common = {key: values[key][0] for key in keys if key not in varying and key != DATA}
    return Grouping(
        of_run, seeds, _divisions(runs, of_run), _telling(runs, deciding, values), common
    )


def _divisions(runs: Sequence[KeptRun], of_run: Sequence[int]) -> list[str]:
    """Return the seed of each run's division, or "" for all if there is only one.

    Seeds that divide the data alike are one division.
    """
    first: dict[tuple[int, str], str] = {}
    found = []
    for run, configuration in zip(runs, of_run, strict=True):
        own = run.settings.get(DIVISION, "")
        found.append(first.setdefault((configuration, run.data), own) if run.data else own)
    return found if len(set(found)) > 1 else [""] * len(runs)


def _deciding(run: KeptRun) -> dict[str, str]:
    """Return the settings of a run that decide its result, and the digest of its data."""
    settings = {
        key: str(value)
        for key, value in run.settings.items()
        if key.partition(".")[0].partition("/")[0] not in _BOOKKEEPING
    }
    return {**settings, DATA: run.data}


def _telling(
    runs: Sequence[KeptRun], deciding: Sequence[str], values: Mapping[str, Sequence[str]]
) -> list[str]:
    """Return those of the deciding settings that a reader needs to tell configurations apart.

    What was typed is kept, in the order in which it was typed. What a choice implies, as
    ``model=relu2`` implies ``model.hidden``, is left out.
    """
    typed = dict.fromkeys(setting(override) for run in runs for override in run.overrides)
    kept = [key for key in typed if key in deciding]
    all_known = all(run.overrides for run in runs)
    for key in deciding:
        if key in typed or key in _SHORTHANDS:
            continue
        causes = [other for other in kept if all_known or key.startswith(f"{other}.")]
        if not (causes and _determined(values, causes, key)):
            kept.append(key)
    return kept or [key for key in deciding if key in _SHORTHANDS]


def _determined(values: Mapping[str, Sequence[str]], causes: Sequence[str], key: str) -> bool:
    """Tell whether equal values of the causes come with equal values of a setting."""
    seen: dict[tuple[str, ...], str] = {}
    for i, value in enumerate(values[key]):
        cause = tuple(values[other][i] for other in causes)
        if seen.setdefault(cause, value) != value:
            return False
    return True
