"""Where a run comes from, read off what Hydra knows of it: what it is called, what was asked for, which sweep it is of."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from src.config.reader import flatten
from src.experiment.job import Job
from src.experiment.recorder import RunContext
from src.sweep.plan import Plan


def single(config: DictConfig, context: Any, job: Job) -> RunContext:
    """Return the run_context of a run by itself; ``context`` is Hydra's own part of the configuration."""
    overrides = list(context.overrides.task)
    # Where results go says nothing about a run, and the address of a store may hold a password.
    telling = [item for item in overrides if not item.startswith(("outputs=", "tracking."))]
    name = job.name or ", ".join(telling) or str(context.runtime.choices["model"])
    return RunContext(Path(context.runtime.output_dir), name, overrides, _settings(config, context))


def swept(config: DictConfig, context: Any, job: Job) -> RunContext:
    """Return the run_context of a job of a sweep."""
    folder, number = Path(context.runtime.output_dir), int(context.job.num)
    overrides = list(context.overrides.task)
    settings = _settings(config, context)
    plan = Plan.load(Path(context.sweep.dir))
    if plan is None:  # another sweeper's
        name, sweep_id = ", ".join(overrides), Path(context.sweep.dir).name
        return RunContext(
            folder, job.name or name, overrides, settings, f"{number + 1}/?", sweep_id
        )
    position = f"{number + 1}/{len(plan.names)}"
    return RunContext(
        folder,
        job.name or plan.names[number],
        overrides,
        settings,
        position,
        plan.sweep_id,
        plan.varied,
    )


def _settings(config: DictConfig, context: Any) -> dict[str, Any]:
    """Return what MLflow keeps as parameters: each resolved setting, and which option was chosen of each group."""
    chosen = [(group, choice) for group, choice in context.runtime.choices.items() if choice]
    # A choice made for a place, distribution@initializer.weights, is known by its place.
    choices = {
        group.rpartition("@")[2]: choice
        for group, choice in chosen
        if not group.startswith("hydra/")
    }
    settings = flatten(config)
    settings.pop("tracking.uri")  # may hold a password
    return {**choices, **settings}
