"""Runs every combination of the given values: checks all jobs first, and reports all at the end."""

import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from src.config.explain import COMPOSITION_ERRORS, explain
from src.config.preflight import Known, claim, exists
from src.config.rerun import wanted_again
from src.config.resume import quoted
from src.config.sweep_settings import SweepSettings
from src.runs.folder import disown, is_alive, tidy
from src.support.errors import ConfigError, UserError
from src.support.threads import available_cores
from src.sweep.calibration import forecast, total_seconds
from src.sweep.composing import Composer, make_job, placed
from src.sweep.convergence import (
    Standing,
    State,
    earlier_sweep,
    in_common,
    stand,
    told,
    told_of_code,
)
from src.sweep.grammar import fitting, settings
from src.sweep.jobs import SweepJob
from src.sweep.plan import PLAN, Plan
from src.sweep.pruning import Halving, with_pruned
from src.sweep.sampling import combinations, drawn, zipped
from src.sweep.sharing import SharedData, load
from src.terminal import report
from src.tracking.process import mirror


class GridSweeper:
    """A sweeper over a grid, with a check before the first run and a table after the last.

    ``params`` holds settings to sweep, as the command line would; ``max_batch_size`` is how many
    jobs are given to the launcher at a time, by default all.
    """

    def __init__(self, max_batch_size: int | None, params: dict[str, Any] | None) -> None:
        self._max_batch_size, self._params = max_batch_size, params
        self.hydra_context: HydraContext | None = None
        self.config: DictConfig | None = None
        self.launcher: Any = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives, and make the launcher."""
        self.hydra_context, self.config = hydra_context, config
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.launcher = getattr(launcher, "real", launcher)  # Hydra's own are no shims

    def sweep(self, arguments: list[str]) -> Any:
        """Run what is left to do of the grid. Raises UserError if a job is wrong, before any runs.

        Exits with 1 if a run failed.
        """
        assert self.config is not None
        assert self.launcher is not None

        chosen = SweepSettings.of(self.config)
        combinations = self._combinations(arguments, chosen)
        with SharedData() as data:
            jobs = self._check(combinations, Path(self.config.hydra.sweep.dir), data)
            self._halve(chosen, jobs)  # raises what is wrong before anything is written
            if len(combinations) == 1:
                report.fact("note", "nothing is swept: lr=0.03,0.1 would give a run for each value")
            if chosen.plan:
                self._show_plan(jobs, data, chosen)
                return []
            self._reach()
            folder = self._claim(jobs)
            try:
                all_finished, returns, interruption = self._converge(folder, jobs, data, chosen)
            finally:
                disown(folder)
        if isinstance(interruption, Exception):
            message = str(interruption).strip() or type(interruption).__name__
            report.problem(f"the launcher gave up: {message}".splitlines()[0])
            sys.exit(1)
        if interruption:
            raise interruption
        if not all_finished:
            sys.exit(1)
        return returns

    def _reach(self) -> None:
        """Raise ConfigError, before anything is written, if the launcher's cluster is not there."""
        if reach := getattr(self.launcher, "reach", None):
            reach()

    def _combinations(self, arguments: Sequence[str], chosen: SweepSettings) -> list[list[str]]:
        """Return the overrides of each job."""
        assert self.hydra_context is not None
        assert self.config is not None

        most = self._max_batch_size
        if most is not None and not (type(most) is int and most >= 1):
            raise ConfigError(f"hydra.sweeper.max_batch_size={most}: must be 1 or more, or null")
        loader = self.hydra_context.config_loader
        swept = zipped(settings(loader, self._params, arguments), chosen.zip)
        jobs = drawn(swept, chosen.samples) if chosen.samples else combinations(swept)
        # A setting that does not count makes jobs equal; those typed twice are told of later.
        kept: dict[tuple[str, ...], None] = {}
        repeated = []
        for job, typed in zip(fitting(loader, self.config, jobs), jobs, strict=True):
            if tuple(job) in kept and list(job) == list(typed):
                repeated.append(job)
            kept[tuple(job)] = None
        return [*map(list, kept), *repeated]

    def _check(
        self, combinations: Sequence[Sequence[str]], folder: Path, data: SharedData
    ) -> list[SweepJob]:
        """Compose and check every job, and return those that differ.

        Raises ConfigError, which lists the jobs that are wrong.
        """
        assert self.config is not None
        assert self.hydra_context is not None
        compose = Composer(self.hydra_context.config_loader, self.config)
        jobs: dict[object, SweepJob] = {}
        wrong, repeated = [], []
        known = Known()
        for overrides in combinations:
            try:
                job = make_job(compose, overrides, len(jobs), folder, data, known)
                own = jobs.setdefault(_identity(job), job)
                if own is not job:
                    repeated.append(" ".join(overrides))
            except UserError as error:
                wrong.append(f"{' '.join(overrides)}: {error}")
            except COMPOSITION_ERRORS as error:
                wrong.append(f"{' '.join(overrides)}: {explain(error, overrides)}")
        if wrong:
            raise ConfigError(
                f"{len(wrong)} of {len(combinations)} jobs are wrong, so none was run:\n"
                + _listed(wrong)
            )
        _check_places(list(jobs.values()))
        _tell_repeated(repeated)
        return list(jobs.values())

    def _show_plan(self, jobs: Sequence[SweepJob], data: SharedData, chosen: SweepSettings) -> None:
        """Print what the sweep would do and how long it would take; nothing is written."""
        assert self.config is not None

        folder, rerun = Path(self.config.hydra.sweep.dir), wanted_again()
        wanted = [job.wanted for job in jobs]
        if rerun != "true" and not (folder / PLAN).exists():
            folder = earlier_sweep(folder.parent, wanted) or folder
        before = Plan.load(folder)
        standings = stand(folder, before, wanted, rerun)
        if before and chosen.halving:
            standings = [with_pruned(folder, before, standing) for standing in standings]
        left = [
            job
            for job, standing in zip(jobs, standings, strict=True)
            if standing.state != State.DONE
        ]
        report.planned(len(jobs), [standing.state.value for standing in standings])
        if not left:
            return
        stacks, workers = [[job] for job in left], 1
        if divide := getattr(self.launcher, "stacks", None):
            stacks, workers = divide(left)
        cores = max(1, available_cores() // workers)
        expected = forecast(stacks, load(data.paths), cores)
        report.forecast(expected, workers, total_seconds(expected, workers))

    def _converge(
        self,
        folder: Path,
        jobs: Sequence[SweepJob],
        data: SharedData,
        chosen: SweepSettings,
    ) -> tuple[bool, list[Sequence[JobReturn]], BaseException | None]:
        """Run the jobs that are left, and report on all.

        Returns whether all have finished, what those that ran returned, and what ended the sweep.
        """
        jobs, outcomes, interruption = self._run(folder, jobs, data, chosen)
        from src.sweep.ending import end_sweep  # pandas and SciPy: no run waits for them

        all_finished = end_sweep(folder, jobs, outcomes, interruption)
        return all_finished, [list(outcomes.values())], interruption

    def _run(
        self,
        folder: Path,
        jobs: Sequence[SweepJob],
        data: SharedData,
        chosen: SweepSettings,
    ) -> tuple[list[SweepJob], dict[int, JobReturn], BaseException | None]:
        """Run the jobs that are left.

        Returns the jobs in their places, what those that ran returned, by their numbers, and what
        ended the sweep early.
        """
        jobs, standings = self._place(folder, jobs, chosen)
        self._halve(chosen, jobs)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        is_done = [standing.state == State.DONE for standing in standings]
        left = [job for job, is_over in zip(jobs, is_done, strict=True) if not is_over]
        done = [job for job, is_over in zip(jobs, is_done, strict=True) if is_over]
        for job in done:
            tidy(job.folder)
        # Hydra executes a plugin's module twice, so the classes of ours can't be compared.
        if accept := getattr(self.launcher, "accept", None):
            accept(left, data, done)
        if own := mirror(jobs[0].job):
            own.follow(job.folder for job in jobs)
        returns, interruption = self._launch(left)
        outcomes = dict(zip([job.number for job in left], itertools.chain(*returns), strict=False))
        return jobs, outcomes, interruption

    def _halve(self, chosen: SweepSettings, jobs: Sequence[SweepJob]) -> None:
        """Let the launcher end the worse runs early, if this is asked for.

        Raises ConfigError where it can't.
        """
        if chosen.halving is None:
            return
        prune_by = getattr(self.launcher, "prune_by", None)
        if prune_by is None:
            raise ConfigError(
                f"sweep.halving={chosen.halving}: compares runs on the way, which needs "
                "hydra/launcher=stacked"
            )
        prune_by(Halving.of(chosen.halving, jobs), chosen.exact)

    def _claim(self, jobs: Sequence[SweepJob]) -> Path:
        """Return the folder of the sweep, which this process owns from now on.

        It is that of an earlier sweep if the command goes on with it. Raises UserError if another
        process owns it.
        """
        assert self.config is not None

        folder, wanted = Path(self.config.hydra.sweep.dir), [job.wanted for job in jobs]
        # Unresolved: an override may name what a job has and the sweep has not.
        overrides: Any = OmegaConf.to_container(self.config.hydra.overrides.hydra, resolve=False)
        typed = [str(override).lstrip("+").partition("=")[0] for override in overrides]
        if exists(folder / PLAN):
            before = Plan.load(folder)
            if wanted_again() == "true" or not (before and in_common(before, wanted)):
                raise ConfigError(
                    f"hydra.sweep.dir={folder}: holds another sweep; choose another folder"
                )
        elif wanted_again() != "true" and "hydra.sweep.dir" not in typed:
            folder = earlier_sweep(folder.parent, wanted) or folder
        if exists(folder) and is_alive(folder):
            raise ConfigError(
                f"{folder}: another process is running this sweep: wait until it has ended, "
                "or add rerun=true to run it a second time, in another folder"
            )
        claim(jobs[0].job, folder)
        if folder != Path(self.config.hydra.sweep.dir):
            with open_dict(self.config):
                self.config.hydra.sweep.dir = str(folder)
                # Other launchers compose the jobs themselves, from the overrides.
                self.config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(folder)}")
        return folder

    def _place(
        self, folder: Path, jobs: Sequence[SweepJob], chosen: SweepSettings
    ) -> tuple[list[SweepJob], list[Standing]]:
        """Write the plan; return the jobs in their places, and how far each has come.

        Says what was done before. Raises ConfigError if two jobs would share a folder.
        """
        before, rerun = Plan.load(folder), wanted_again()
        standings = stand(folder, before, [job.wanted for job in jobs], rerun)
        if before and chosen.halving:
            standings = [with_pruned(folder, before, standing) for standing in standings]
        folders = dict(enumerate(before.folders)) if before else {}
        jobs = [
            placed(job, standing.number, folder, folders.get(standing.number))
            for job, standing in zip(jobs, standings, strict=True)
        ]
        plan = Plan.extended(before, folder, [(job.number, job.wanted, job.folder) for job in jobs])
        _check_folders([folder / own for own in plan.folders])
        plan.write(folder)
        for line in (told(standings), told_of_code(standings, rerun)):
            if line:
                report.fact("resumed", line)
        return jobs, standings

    def _launch(
        self, jobs: Sequence[SweepJob]
    ) -> tuple[list[Sequence[JobReturn]], BaseException | None]:
        """Launch the jobs in batches; return what they returned, and what ended the sweep early."""
        assert self.launcher is not None
        returns: list[Sequence[JobReturn]] = []
        size = self._max_batch_size or len(jobs) or 1
        # Ours counts by the list that it has accepted, others by the numbers of the jobs.
        is_ours = hasattr(self.launcher, "accept")
        try:
            for first, last in _batches([job.number for job in jobs], size, split=not is_ours):
                batch = [list(job.overrides) for job in jobs[first:last]]
                index = first if is_ours else jobs[first].number
                returns.append(self.launcher.launch(batch, initial_job_idx=index))
        except BaseException as error:
            return returns, error
        return returns, None


def _identity(job: SweepJob) -> object:
    """Return what is equal for jobs that would do the same."""
    return repr(job.job), tuple(o for o in job.overrides if o.lstrip("+~").startswith("hydra"))


def _batches(numbers: Sequence[int], size: int, split: bool) -> Iterator[tuple[int, int]]:
    """Yield where each batch of jobs begins and ends; with ``split`` its numbers are in a row."""
    first = 0
    for place in range(1, len(numbers) + 1):
        is_last = place == len(numbers)
        if is_last or place - first == size or (split and numbers[place] != numbers[place - 1] + 1):
            yield first, place
            first = place


def _check_places(jobs: Sequence[SweepJob]) -> None:
    """Raise ConfigError unless the runs go to one store, each to its own folder."""
    if len({(job.job.outputs, job.job.tracking) for job in jobs}) > 1:
        raise ConfigError(
            "outputs and tracking can't be swept: all runs of a sweep go to one store"
        )
    _check_folders([job.folder for job in jobs])


def _check_folders(folders: Sequence[Path]) -> None:
    """Raise ConfigError if two runs have one folder."""
    if len(set(folders)) < len(folders):
        raise ConfigError(
            "hydra.sweep.subdir: gives several jobs one folder; "
            "it must differ from job to job, as ${hydra:job.num} does"
        )


def _tell_repeated(repeated: Sequence[str]) -> None:

    if repeated:
        jobs = "1 job repeats" if len(repeated) == 1 else f"{len(repeated)} jobs repeat"
        report.fact("note", f"{jobs} another; each runs once:\n{_listed(repeated)}")


def _listed(lines: Sequence[str]) -> str:
    more = [f"… and {len(lines) - 5} more"] if len(lines) > 5 else []
    return "\n".join([*lines[:5], *more])
