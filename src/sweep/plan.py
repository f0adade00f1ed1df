"""The plan of a sweep, written before the first run starts, and the results that the runs leave."""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from src.config.arguments import setting
from src.experiment.results import Result

PLAN = "plan.json"


@dataclass(frozen=True)
class Plan:
    """The jobs of a sweep: the overrides of each, and a name that tells it from the others."""

    sweep_id: str
    overrides: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]

    @staticmethod
    def of(sweep_id: str, jobs: Sequence[Sequence[str]]) -> "Plan":
        """Make the plan of these jobs, each given by its overrides."""
        common = set(jobs[0]).intersection(*jobs[1:]) if len(jobs) > 1 else set()
        names = (
            run_name([override for override in job if override not in common])
            or run_name(job)
            or f"job {number}"
            for number, job in enumerate(jobs)
        )
        return Plan(sweep_id, tuple(tuple(job) for job in jobs), tuple(names))

    @functools.cached_property
    def varied(self) -> tuple[str, ...]:
        """The settings in which the jobs differ, in the order in which they were given."""
        overrides: dict[str, set[str]] = {}
        for job in self.overrides:
            for override in job:
                overrides.setdefault(setting(override), set()).add(override)
        return tuple(name for name, given in overrides.items() if len(given) > 1)

    def write(self, folder: Path) -> None:
        """Write the plan into the sweep's folder."""
        (folder / PLAN).write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> "Plan | None":
        """Return the plan in a sweep's folder, or None if another sweeper than ours left none."""
        try:
            content = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return Plan(
            content["sweep_id"], tuple(map(tuple, content["overrides"])), tuple(content["names"])
        )


def run_name(overrides: Sequence[str]) -> str:
    """Return a run's name: its overrides, the seed first, since MLflow cuts after 25 characters.

    Overrides that do not change the result, such as a folder or a tag, are left out.
    """
    telling = [override for override in overrides if not _is_bookkeeping(setting(override))]
    return ", ".join(sorted(telling, key=lambda override: setting(override) != "seed"))


def _is_bookkeeping(name: str) -> bool:
    first = name.partition(".")[0].partition("/")[0]
    return first in ("outputs", "name", "note", "tags", "tracking", "hydra")


def collect(
    plan: Plan, folders: Sequence[Path], reasons: Mapping[int, tuple[str, str]], metric: str
) -> list[Result]:
    """Return the results of a sweep in the order of its plan, read from the folders of its runs.

    ``reasons`` gives by a job's number the status and the reason for a run without a result.
    Without either the run is LOST.
    """
    results = []
    for number, (name, overrides, folder) in enumerate(
        zip(plan.names, plan.overrides, folders, strict=True)
    ):
        try:
            results.append(Result.load(folder))
        except FileNotFoundError:
            status, failure = reasons.get(
                number, ("LOST", "did not start, or ended without a result")
            )
            results.append(Result(name, overrides, status, metric, failure))
    return results
