"""Has Optuna choose the runs of a sweep, batch by batch: ``hydra/sweeper=optuna``."""

import contextlib
import itertools
import re
import sys
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn
from omegaconf import open_dict

from src.config.preflight import claim
from src.config.resume import quoted
from src.config.sweep_settings import SweepSettings
from src.runs.folder import disown
from src.runs.job import Job
from src.runs.record import Record
from src.support.errors import ConfigError, UserError
from src.sweep.ending import end_sweep
from src.sweep.grammar import fitting, settings
from src.sweep.grid import GridSweeper
from src.sweep.jobs import SweepJob
from src.sweep.pruning import configuration
from src.sweep.sampling import Setting, combinations, zipped
from src.sweep.sharing import SharedData
from src.terminal import report

if TYPE_CHECKING:  # Optuna may not be installed
    from src.sweep.study import Asked, Study


class OptunaSweeper(GridSweeper):
    """Hydra's sweeper over configurations that Optuna chooses, each with every seed.

    ``study`` names a study, which is continued if it exists; ``batch`` is the number of
    configurations that are chosen at a time.
    """

    def __init__(
        self,
        max_batch_size: int | None,
        params: dict[str, Any] | None,
        study: str | None,
        batch: int,
        pruner: str,
    ) -> None:
        super().__init__(max_batch_size, params)
        self._name, self._batch, self._pruner = study, batch, pruner
        self._trials: dict[Hashable, list[Asked]] = {}  # of the batch, by their configurations

    def sweep(self, arguments: list[str]) -> Any:
        """Run as many configurations as ``samples`` says. Raises UserError if one is wrong.

        Exits with 1 if a run failed.
        """
        assert self.config is not None
        assert self.hydra_context is not None

        chosen = SweepSettings.of(self.config)
        samples, folder = self._check_settings(chosen), self._folder()
        loader = self.hydra_context.config_loader
        swept = zipped(settings(loader, self._params, arguments), chosen.zip)
        fixed = [one for one in swept if not _is_searched(one) and not _seed(one)]
        common = list(itertools.chain(*combinations(fixed)))
        seeds = combinations([one for one in swept if _seed(one)])
        self._reach()
        study = self._open(folder, [one for one in swept if _is_searched(one)])
        jobs: list[SweepJob] = []
        outcomes: dict[int, JobReturn] = {}
        interruption: BaseException | None = None
        with SharedData() as data, self._owned(folder) as take:
            while (left := samples - study.counted) > 0 and interruption is None:
                asked = study.ask(min(left, self._batch))
                try:
                    batch = self._compose(asked, common, seeds, folder, data)
                    take(batch[0].job)
                    ran, returned, interruption = self._run(folder, batch, data, chosen)
                except BaseException:
                    study.forget(asked)
                    raise
                self._tell(study, asked, {job.overrides: job.folder for job in ran})
                jobs = list({job.number: job for job in (*jobs, *ran)}.values())
                outcomes |= returned
            all_finished = end_sweep(folder, jobs, outcomes, interruption)
            report.study(study.name, study.counts(), study.best(), study.importances())
        if interruption:
            raise interruption
        if not all_finished:
            sys.exit(1)
        return []

    def _check_settings(self, chosen: SweepSettings) -> int:
        """Return how many configurations to try. Raises ConfigError for what makes no sense."""
        if chosen.samples is None:
            raise ConfigError(
                "hydra/sweeper=optuna: say how many configurations to try, as with samples=50"
            )
        if chosen.plan:
            raise ConfigError(
                "plan=true: Optuna decides on the way what it runs; a sweep without "
                "hydra/sweeper=optuna has a plan"
            )
        if chosen.halving is not None:
            raise ConfigError(
                f"sweep.halving={chosen.halving}: Optuna has pruners of its own: "
                "use hydra.sweeper.pruner=halving"
            )
        if not (type(self._batch) is int and self._batch >= 1):
            raise ConfigError(f"hydra.sweeper.batch={self._batch}: must be 1 or more")
        return chosen.samples

    def _folder(self) -> Path:
        """Return the folder of the sweep: that of the study, if it has a name."""
        assert self.config is not None

        folder = Path(self.config.hydra.sweep.dir)
        if self._name is None:
            return folder
        if not re.fullmatch(r"\w[\w.-]{0,99}", str(self._name)):
            raise ConfigError(
                f"hydra.sweeper.study={self._name}: must be a name of letters, digits, "
                "dots and dashes"
            )
        folder = folder.parent / str(self._name)
        with open_dict(self.config):
            self.config.hydra.sweep.dir = str(folder)
            of_each_job = self.config.hydra.overrides.hydra
            of_each_job.append(f"hydra.sweep.dir={quoted(folder)}")
        return folder

    def _open(self, folder: Path, searched: Sequence[Setting]) -> "Study":
        """Open or continue the study. Raises ConfigError."""
        assert self.config is not None

        metric = str(self.config.metric)
        if metric.startswith("test/"):
            instead = metric.replace("test/", "val/")
            raise ConfigError(
                f"metric={metric}: Optuna would choose by the test set, which is for reporting: "
                f"use metric={instead}"
            )
        if not searched:
            raise ConfigError(
                "hydra/sweeper=optuna: give at least one setting several values or an interval, "
                "such as lr=tag(log,interval(0.001,1))"
            )
        try:
            from src.sweep.study import Study
        except ModuleNotFoundError:
            raise ConfigError(
                "hydra/sweeper=optuna: Optuna is not installed; pip install '.[optuna]' adds it"
            ) from None
        database = Path(self.config.outputs) / "optuna.db"
        return Study(database, folder.name, searched, metric, self._pruner)

    @contextlib.contextmanager
    def _owned(self, folder: Path) -> Iterator[Callable[[Job], None]]:
        """Yield what makes the sweep's folder this process's own, given one of its jobs."""
        owned: list[Path] = []

        def take(job: Job) -> None:
            if not owned:
                claim(job, folder)
                owned.append(folder)

        try:
            yield take
        finally:
            for own in owned:
                disown(own)

    def _compose(
        self,
        asked: "Sequence[Asked]",
        common: Sequence[str],
        seeds: Sequence[Sequence[str]],
        folder: Path,
        data: SharedData,
    ) -> list[SweepJob]:
        """Compose and check the jobs of a batch: each configuration with each seed."""
        assert self.config is not None
        assert self.hydra_context is not None

        wanted = [[*common, *trial.overrides, *seed] for trial in asked for seed in seeds]
        fitted = fitting(self.hydra_context.config_loader, self.config, wanted)
        for number, trial in enumerate(asked):
            own = fitted[number * len(seeds) : (number + 1) * len(seeds)]
            trial.jobs = [tuple(job) for job in own]
        unique = list(map(list, dict.fromkeys(map(tuple, fitted))))
        jobs = self._check(unique, folder, data)
        by_overrides = {job.overrides: configuration(job.job.experiment) for job in jobs}
        self._trials = {}
        for trial in asked:
            if (first := trial.jobs[0]) in by_overrides:
                self._trials.setdefault(by_overrides[first], []).append(trial)
        return jobs

    def _halve(self, chosen: SweepSettings, jobs: Sequence[SweepJob]) -> None:
        """Let the study's pruner end the worse runs of a batch early. Raises ConfigError."""
        from src.sweep.study import Pruning

        if self._pruner == "none":
            return
        place = f"hydra.sweeper.pruner={self._pruner}"
        epochs = {job.job.experiment.epochs for job in jobs}
        if len(epochs) > 1:
            raise ConfigError(f"{place}: needs equal epochs for all runs; or pruner=none")
        prune_by = getattr(self.launcher, "prune_by", None)
        if prune_by is None:
            raise ConfigError(f"{place}: needs hydra/launcher=stacked; or pruner=none")
        runs = {job.number: configuration(job.job.experiment) for job in jobs}
        prune_by(Pruning(self._trials, runs, epochs.pop()), chosen.exact)

    def _tell(
        self, study: "Study", asked: "Sequence[Asked]", folders: Mapping[tuple[str, ...], Path]
    ) -> None:
        """Tell the study what came of each trial."""
        for trial in asked:
            results = [_result(folders[job]) for job in trial.jobs if job in folders]
            if len(results) < len(trial.jobs) or any(
                result is None or result.status == "KILLED" for result in results
            ):
                study.forget([trial])
                continue
            known = [result for result in results if result]
            finished = [one.value if one.status == "FINISHED" else None for one in known]
            study.tell(trial, finished)


def _result(folder: Path) -> Record | None:

    try:
        record = Record.load(folder)
    except UserError:
        return None
    return record if record.has_ended else None


def _seed(setting: Setting) -> bool:
    return setting.key == "seed"


def _is_searched(setting: Setting) -> bool:
    """Return whether Optuna chooses the value of a setting."""
    single = len(getattr(setting, "values", (0, 0))) == 1
    return not (_seed(setting) or single)
