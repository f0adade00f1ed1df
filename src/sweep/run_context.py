"""Says where a run comes from: its name, what was asked for, and the sweep that it belongs to."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from src.config.reader import SWEEP_KEYS, flatten
from src.runs.context import RunContext
from src.runs.folder import RUN
from src.runs.job import Job
from src.runs.record import Record
from src.sweep.plan import PLAN, Plan, run_name

# A URI may hold a password; name, note and tags are MLflow's own. Checkpoints decide no result.
_NO_PARAMETERS = ("tracking.uri", "name", "note", "tags", "checkpoint", *SWEEP_KEYS)


def single(config: DictConfig, context: Any, job: Job) -> RunContext:
    """Return the run context of a run outside a sweep.

    ``config`` comes without Hydra's own node, which is ``context``.
    """
    overrides = list(context.overrides.task)
    name = job.name or run_name(overrides) or str(context.runtime.choices["model"])
    return RunContext(Path(context.runtime.output_dir), name, overrides, _settings(config, context))


def swept(config: DictConfig, context: Any, job: Job, stack: Sequence[int] = ()) -> RunContext:
    """Return the run context of a job of a sweep.

    ``stack`` holds the numbers of the jobs that train in one stack with it, its own included. A run
    of this sweep that the folder holds already goes on.
    """
    folder, number = Path(context.runtime.output_dir), int(context.job.num)
    overrides = list(context.overrides.task)
    settings = _settings(config, context)
    plan = _plan(Path(context.sweep.dir))
    varied: Sequence[str] = ()
    if plan is None:  # of another sweeper
        name, sweep_id = run_name(overrides), Path(context.sweep.dir).name
        position = f"{number + 1}/?"
    else:
        name, sweep_id = plan.names[number], plan.sweep_id
        position, varied = f"{number + 1}/{len(plan.names)}", plan.varied
    goes_on = plan is not None and (folder / RUN).exists()
    return RunContext(
        folder,
        Record.asked(folder).name if goes_on else job.name or name,
        overrides,
        settings,
        position,
        sweep_id,
        varied,
        tuple(stack),
        stack.index(number) if stack else None,
        goes_on,
    )


def _plan(folder: Path) -> Plan | None:
    """Return a sweep's plan, or None if another sweeper than ours left none."""
    try:
        return _load_plan(folder, (folder / PLAN).stat().st_mtime_ns)
    except FileNotFoundError:
        return None


@functools.lru_cache(maxsize=1)
def _load_plan(folder: Path, _changed: int) -> Plan | None:
    """Read a sweep's plan once per process, unless it changes: it is as long as the sweep."""
    return Plan.load(folder)


def _settings(config: DictConfig, context: Any) -> dict[str, Any]:
    """Return MLflow's parameters: each resolved setting, and the choice of each group."""
    chosen = [(group, choice) for group, choice in context.runtime.choices.items() if choice]
    # The choice distribution@initializer.weights=he is listed as initializer.weights=he.
    choices = {
        group.rpartition("@")[2]: choice
        for group, choice in chosen
        if not group.startswith("hydra/") and group != "sweep"
    }
    settings = {
        key: value for key, value in flatten(config).items() if not key.startswith(_NO_PARAMETERS)
    }
    return {**choices, **settings}
