"""Where compared runs come from: the commands that made them, versions and digests."""

import itertools
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from src.comparison.kept import KeptRun
from src.config.arguments import setting

_SINGLE = "python -m src.run"
_FIRST_COMMANDS = 5
_NEW_SEEDS = 4
_LONGEST_COMMAND = 1000  # characters


def sweep_overrides(folder: Path) -> list[str] | None:
    """Return the overrides that a sweep was started with, values to sweep included, or None."""
    try:
        text = (folder / "multirun.yaml").read_text(encoding="utf-8")
        overrides = yaml.load(text, yaml.CSafeLoader)["hydra"]["overrides"]["task"]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return None
    return [str(override) for override in overrides]


def sweep_folders(runs: Sequence[KeptRun]) -> list[Path]:
    """Return the folders of the sweeps that runs belong to."""
    found = [run.folder.parent for run in runs if run.folder and run.sweep_id]
    return [folder for folder in dict.fromkeys(found) if (folder / "multirun.yaml").exists()]


def command(overrides: Sequence[str], swept: bool) -> str:
    """Return the command line that gives these overrides."""
    return " ".join([_SINGLE, *(["-m"] if swept else []), *map(shlex.quote, overrides)])


def provenance(runs: Sequence[KeptRun]) -> Mapping[str, str]:
    """Return the commands that made the runs, the versions and the digests, by what they are."""
    commands = {
        command(overrides, swept=True): None
        for folder in sweep_folders(runs)
        if (overrides := sweep_overrides(folder)) is not None
    }
    single = {
        command(run.overrides, swept=False): None
        for run in runs
        if not (run.sweep_id and commands) and run.overrides
    }
    shown = [*commands, *single]
    more = [f"… and {len(shown) - _FIRST_COMMANDS} more"] if len(shown) > _FIRST_COMMANDS else []
    sweeps = dict.fromkeys(run.sweep_id for run in runs if run.sweep_id)
    found = {
        "command": "\n".join([*shown[:_FIRST_COMMANDS], *more]),
        "sweep": ", ".join(sweeps),
        "data digest": _all(run.data for run in runs),
        "code digest": _all(run.code for run in runs),
    }
    for library in dict.fromkeys(name for run in runs for name in run.versions):
        found[library] = _all(run.versions.get(library, "") for run in runs)
    return {name: text for name, text in found.items() if text}


def _all(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(value for value in values if value))


def seeds_command(single: Sequence[KeptRun], known: Iterable[int]) -> str:
    """Return the command that adds four seeds to each of some configurations, and nothing else.

    Nothing is returned if no command does exactly that, or only a very long one.

    Args:
        single: The only run of each of these configurations.
        known: The seeds of all runs that are compared. New seeds are those first, so that pairs
            of configurations share them.
    """
    seeds = [run.settings.get("seed", "") for run in single]
    if not all(run.overrides and seed.isdecimal() for run, seed in zip(single, seeds, strict=True)):
        return ""
    chosen = _swept([_without_seed(run.overrides) for run in single])
    if chosen is None:
        return ""
    own = sorted(set(map(int, seeds)))
    candidates = itertools.chain(sorted(set(known)), itertools.count(max([*own, *known]) + 1))
    added = itertools.islice((seed for seed in candidates if seed not in own), _NEW_SEEDS)
    # With a seed that all of them have, the command goes on with their sweep.
    made = command([*chosen, _seeds([*(own if len(own) == 1 else ()), *added])], swept=True)
    return made if len(made) <= _LONGEST_COMMAND else ""


def _without_seed(overrides: Sequence[str]) -> list[str]:
    return [override for override in overrides if setting(override) != "seed"]


def _seeds(seeds: Sequence[int]) -> str:
    """Return seeds as an override, as short as possible."""
    seeds = sorted(seeds)
    if seeds != list(range(seeds[0], seeds[-1] + 1)):
        return f"seed={','.join(map(str, seeds))}"
    first = f"{seeds[0]}," if seeds[0] else ""
    return f"seed=range({first}{seeds[-1] + 1})"


def _swept(configurations: Sequence[Sequence[str]]) -> list[str] | None:
    """Return the overrides of the sweep whose jobs have these overrides, one list each.

    None if there is no such sweep: some set what others do not.
    """
    by_key = [{o.partition("=")[0]: o.partition("=")[2] for o in own} for own in configurations]
    first = by_key[0]
    if any(own.keys() != first.keys() for own in by_key):
        return None
    values = {key: list(dict.fromkeys(own[key] for own in by_key)) for key in first}
    varying = [key for key in first if len(values[key]) > 1]
    rows = {tuple(own[key] for key in varying) for own in by_key}
    if len(rows) == math.prod(len(values[key]) for key in varying):  # all combinations
        return [f"{key}={','.join(values[key])}" for key in first]
    if not all(re.fullmatch(r"[\w./]+", key) for key in varying):
        return None
    zipped = {key: [own[key] for own in by_key] for key in varying}
    overrides = [f"{key}={','.join(zipped.get(key, values[key]))}" for key in first]
    return [*overrides, f"sweep.zip=[{','.join(varying)}]"]
