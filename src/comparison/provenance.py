"""Where compared runs come from: the commands that made them, versions and digests."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from src.comparison.kept import KeptRun
from src.config.arguments import setting

_SINGLE = "python -m src.run"
_FIRST_COMMANDS = 5
_NEW_SEEDS = 4


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


def seeds_command(runs: Sequence[KeptRun], configurations: Sequence[Sequence[KeptRun]]) -> str:
    """Return the command that adds four seeds to each configuration.

    Args:
        runs: All that are compared.
        configurations: The runs of each configuration.
    """
    known = sorted(
        {int(seed) for run in runs if (seed := run.settings.get("seed", "")).isdecimal()}
    )
    most = max(known, default=-1) + 1
    if known == list(range(most)):
        seeds = f"seed=range({most + _NEW_SEEDS})"
    else:
        seeds = f"seed={','.join(map(str, [*known, *range(most, most + _NEW_SEEDS)]))}"
    sweeps = sweep_folders(runs)
    whole = len(sweeps) == 1 and all(run.folder and run.folder.parent == sweeps[0] for run in runs)
    if whole and (overrides := sweep_overrides(sweeps[0])) is not None:
        own = [override for override in overrides if setting(override) != "seed"]
        return command([*own, seeds], swept=True)
    best = configurations[0][0]
    own = [override for override in best.overrides if setting(override) != "seed"]
    return command([*own, seeds], swept=True) if best.overrides else ""
