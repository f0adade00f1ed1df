"""The plan of a sweep, written before the first run starts, and the results that the runs leave."""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from operator import itemgetter
from pathlib import Path

from src.config.arguments import setting
from src.runs.record import Identity, Record, Status
from src.support.errors import ConfigError, DataError
from src.support.files import write_whole

PLAN = "plan.json"


@dataclass(frozen=True)
class Wanted:
    """A job of the command: its overrides, and the identity that its run would have."""

    overrides: tuple[str, ...]
    identity: Identity


@dataclass(frozen=True)
class Plan:
    """The jobs of a sweep: the overrides of each, and a name that tells it from the others.

    A sweep that goes on keeps the numbers of its jobs; new ones are added at the end.
    """

    sweep_id: str
    overrides: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]
    identities: tuple[str, ...] = ()  # the key of each job's identity
    folders: tuple[str, ...] = ()  # of each run, within the sweep's
    stacks: tuple[tuple[int, ...], ...] = ()  # the jobs that train together, as far as is decided

    @staticmethod
    def of(
        sweep_id: str,
        jobs: Sequence[Sequence[str]],
        identities: Sequence[str] = (),
        folders: Sequence[str] = (),
        stacks: Sequence[Sequence[int]] = (),
    ) -> "Plan":
        """Make the plan of these jobs, each given by its overrides."""
        common = set(jobs[0]).intersection(*jobs[1:]) if len(jobs) > 1 else set()
        names = (
            run_name([override for override in job if override not in common])
            or run_name(job)
            or f"job {number}"
            for number, job in enumerate(jobs)
        )
        return Plan(
            sweep_id,
            tuple(tuple(job) for job in jobs),
            tuple(names),
            tuple(identities),
            tuple(folders),
            tuple(map(tuple, stacks)),
        )

    @staticmethod
    def extended(
        before: "Plan | None", folder: Path, jobs: Sequence[tuple[int, Wanted, Path]]
    ) -> "Plan":
        """Return the plan of the sweep in ``folder`` with these jobs.

        Each is given by its number, what is wanted, and the folder of its run. Those that the plan
        of ``before`` holds stay.
        """
        known = before or Plan(folder.name, (), ())
        added = sorted((job for job in jobs if job[0] >= len(known.overrides)), key=itemgetter(0))
        return Plan.of(
            known.sweep_id,
            [*known.overrides, *(wanted.overrides for _, wanted, _ in added)],
            [*known.identities, *(wanted.identity.key for _, wanted, _ in added)],
            [*known.folders, *(str(own.relative_to(folder)) for _, _, own in added)],
            known.stacks,
        )

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
        write_whole(folder / PLAN, json.dumps(asdict(self), indent=1).encode())

    @staticmethod
    def load(folder: Path) -> "Plan | None":
        """Return the plan in a sweep's folder, or None if another sweeper than ours left none.

        Raises ConfigError if the file is damaged.
        """
        path = folder / PLAN
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            lists = (known.get(key, ()) for key in ("identities", "folders", "stacks"))
            plan = replace(
                Plan.of(known["sweep_id"], known["overrides"], *lists), names=tuple(known["names"])
            )
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"{path}: not the plan of a sweep ({error})") from None
        jobs = len(plan.overrides)
        if len(plan.names) != jobs or {len(plan.identities), len(plan.folders)} - {0, jobs}:
            raise ConfigError(f"{path}: not the plan of a sweep: it says too little of a job")
        return plan

    def part(self, numbers: Sequence[int]) -> "Plan":
        """Return the plan of some of the jobs only, in this order."""
        jobs, names = ([given[n] for n in numbers] for given in (self.overrides, self.names))
        return Plan(self.sweep_id, tuple(jobs), tuple(names))  # type: ignore[arg-type]


def run_name(overrides: Sequence[str]) -> str:
    """Return a run's name: its overrides, the seed first, since MLflow cuts after 25 characters.

    Overrides that do not change the result, such as a folder or a tag, are left out.
    """
    telling = [override for override in overrides if not _is_bookkeeping(setting(override))]
    return ", ".join(sorted(telling, key=lambda override: setting(override) != "seed"))


def _is_bookkeeping(name: str) -> bool:
    first = name.partition(".")[0].partition("/")[0]
    return first in ("outputs", "name", "note", "tags", "tracking", "checkpoint", "hydra", "sweep")


def collect(
    plan: Plan, folders: Sequence[Path], reasons: Mapping[int, tuple[Status, str]], metric: str
) -> list[Record]:
    """Return the results of a sweep in the order of its plan, read from the folders of its runs.

    ``reasons`` gives by a job's number the status and the reason for a run without a result.
    Without either the run is LOST.
    """
    results = []
    for number, (name, overrides, folder) in enumerate(
        zip(plan.names, plan.overrides, folders, strict=True)
    ):
        try:
            record = Record.load(folder)
        except ConfigError:
            record = Record(name, overrides, metric)
        except DataError as error:
            record = Record(name, overrides, metric, status="LOST", failure=str(error))
        if not record.has_ended:
            status, failure = reasons.get(
                number, ("LOST", "did not start, or ended without a result")
            )
            record = replace(record, status=status, failure=failure)
        results.append(record)
    return results


def in_metric(result: Record, metric: str) -> Record:
    """Return a result with the value of a metric that an earlier command may not have asked for."""
    if result.value is None or result.metric == metric or metric not in result.metrics:
        return result
    return replace(result, metric=metric, value=result.metrics[metric])
