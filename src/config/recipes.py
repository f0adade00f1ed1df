"""Compares a run with the published recipe that it starts from."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig

from src.config.arguments import setting
from src.config.composition import compose, composer
from src.config.explain import COMPOSITION_ERRORS
from src.config.reader import flatten
from src.runs.experiment import Experiment
from src.runs.job import Job

# Settings that published figures don't depend on beyond their tolerance.
_FREE = ("seed", "engine", "dtype", "data.path", "data.test_path")


def deviations(job: Job, config: DictConfig, hydra: DictConfig) -> list[str]:
    """Return what makes a run differ from the recipe of its ``experiment=…``.

    Each entry is the override that makes the difference, or else the setting that differs.
    """
    recipe = hydra.runtime.choices.get("experiment")
    if job.reference is None or recipe is None:
        return []
    folders = [
        f"file://{source.path}"
        for source in hydra.runtime.config_sources
        if source.schema == "file"
    ]
    try:
        with composer():
            published = flatten(
                compose([f"hydra.searchpath=[{','.join(folders)}]", f"experiment={recipe}"])
            )
    except COMPOSITION_ERRORS:  # such as a recipe that needs another option beside it
        return []
    same_data = hydra.runtime.choices.get("data") in job.reference.same_data
    differing = _differing(flatten(config), published, same_data)
    return _as_overrides(differing, hydra.overrides.task)


def _differing(ours: dict[str, Any], published: dict[str, Any], same_data: bool) -> dict[str, Any]:
    """Return the settings of ours, by key, that decide a result and differ from the recipe's."""
    deciding = {field.name for field in dataclasses.fields(Experiment)}
    found = {}
    for key in [*ours, *(key for key in published if key not in ours)]:
        if key.partition(".")[0] not in deciding or key in _FREE:
            continue
        if same_data and key == "data._target_":
            continue
        if key not in ours or key not in published or ours[key] != published[key]:
            found[key] = ours.get(key)
    return found


def _as_overrides(differing: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """Return differing settings as the overrides that set them, or else as key=value."""
    causes: dict[str, None] = {}
    for key, value in differing.items():
        causing = [
            override for override in overrides if f"{key}.".startswith(f"{setting(override)}.")
        ]
        closest = max(causing, key=lambda override: len(setting(override)), default=None)
        causes[closest or f"{key}={value}"] = None
    return list(causes)
