"""Runs every combination of the values given: all are checked before the first begins, each fails alone, all are reported.

Hydra imports this module at every start, so what it needs of ours is imported where it is used.
"""

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.scratchgrid._composing import Composer

if TYPE_CHECKING:
    from src.data import Source
    from src.experiment.job import Job
    from src.support.errors import DataError
    from src.sweep.plan import Plan


class GridSweeper(BasicSweeper):
    """Hydra's basic sweeper with a check before and a table after."""

    def sweep(self, arguments: list[str]) -> Any:
        """Run the grid. Raises UserError where a job is wrong, before any is run; exits with 1 where a run failed."""
        assert self.config is not None
        assert self.launcher is not None
        assert self.hydra_context is not None
        from src.config.preflight import claim
        from src.support.errors import ConfigError
        from src.sweep.plan import PLAN, Plan
        from src.terminal import report

        most = self.max_batch_size
        if most is not None and not (type(most) is int and most >= 1):
            raise ConfigError(f"hydra.sweeper.max_batch_size={most}: must be 1 or more, or null")
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        self.overrides = self.split_arguments(
            parser.parse_overrides([*self._parse_config(), *arguments]), self.max_batch_size
        )
        jobs = list(itertools.chain(*self.overrides))
        folder = Path(self.config.hydra.sweep.dir)
        if (folder / PLAN).exists():
            raise ConfigError(
                f"hydra.sweep.dir={folder}: holds another sweep; choose another folder"
            )
        example, folders = self._check(jobs, folder)
        claim(example, folder)
        plan = Plan.of(folder.name, jobs)
        plan.write(folder)
        OmegaConf.save(self.config, folder / "multirun.yaml")

        returns: list[Sequence[JobReturn]] = []
        interruption: BaseException | None = None
        try:
            while not self.is_done():
                returns.append(
                    self.launcher.launch(
                        self.get_job_batch(), initial_job_idx=sum(map(len, returns))
                    )
                )
        except BaseException as error:
            interruption = error
        all_finished = self._report(
            plan, folder, folders, list(itertools.chain(*returns)), example, interruption
        )
        if isinstance(interruption, Exception):  # such as that the system killed a worker
            report.problem(
                f"the launcher gave up: {str(interruption).strip() or type(interruption).__name__}".splitlines()[
                    0
                ]
            )
            sys.exit(1)
        if interruption:
            raise interruption
        if not all_finished:
            sys.exit(1)
        return returns

    def _check(self, jobs: Sequence[Sequence[str]], folder: Path) -> "tuple[Job, list[Path]]":
        """Compose and check every job; return the first, and the folder of each in that of the sweep.

        Raises UserError, which names each that is wrong.
        """
        from src.config.explain import COMPOSITION_ERRORS, explain
        from src.config.preflight import check
        from src.support.errors import ConfigError, UserError

        assert self.config is not None
        assert self.hydra_context is not None
        compose = Composer(self.hydra_context.config_loader, self.config)
        checked, wrong = [], []
        unreadable: dict[Source, DataError] = {}
        folders: list[Path] = []
        for number, overrides in enumerate(jobs):
            try:
                config = compose(overrides, number)
                folders.append(folder / _subfolder(config))
                job, _ = check(config, unreadable)
                checked.append(job)
            except UserError as error:
                wrong.append(f"{' '.join(overrides)}: {error}")
            except COMPOSITION_ERRORS as error:
                wrong.append(f"{' '.join(overrides)}: {explain(error, overrides)}")
        if wrong:
            rest = f"\n… and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            raise ConfigError(
                f"{len(wrong)} of {len(jobs)} jobs can't be run, so none was:\n"
                + "\n".join(wrong[:5])
                + rest
            )
        if len({(job.outputs, job.tracking) for job in checked}) > 1:
            raise ConfigError(
                "outputs and tracking can't be swept: a sweep keeps all its runs in one place"
            )
        if len(set(folders)) < len(folders):
            raise ConfigError("hydra.sweep.subdir: gives several jobs one folder")
        return checked[0], folders

    def _report(
        self,
        plan: "Plan",
        folder: Path,
        folders: list[Path],
        returns: Sequence[JobReturn],
        example: "Job",
        interruption: BaseException | None,
    ) -> bool:
        """Show the table of all runs; return whether every one finished."""
        from src.sweep.plan import collect
        from src.terminal import report
        from src.tracking.links import view_link, with_ui
        from src.tracking.store import close_abandoned
        from src.tracking.tracker import ending

        reasons: dict[int, tuple[str, str]] = {}
        for number, job in enumerate(returns):
            if job.status == JobStatus.FAILED:
                reasons[number] = ("FAILED", str(job._return_value))
        results = collect(plan, folders, reasons, example.metric)
        if interruption or any(result.run_id is None for result in results):
            # A launcher ends its workers, or they die, in ways that leave them no time to close their runs.
            status, reason = (
                ending(interruption) if interruption else ("FAILED", "its worker process died")
            )
            client, experiment_id = example.tracking.open(example.outputs)
            abandoned = close_abandoned(
                client, experiment_id, plan.sweep_id, status, reason.splitlines()[0]
            )
            reasons |= {
                n: (status, reason)
                for n, place in enumerate(folders)
                if place.absolute() in abandoned
            }
            results = collect(plan, folders, reasons, example.metric)
        report.sweep_table(results, plan.sweep_id)
        store = example.tracking.store(example.outputs)
        known = next((result.experiment_id for result in results if result.experiment_id), None)
        link = view_link(store, known or example.tracking.open(example.outputs)[1], plan.sweep_id)
        report.whereabouts(folder, with_ui(link, store, example.outputs))
        return all(result.status == "FINISHED" for result in results)


def _subfolder(config: DictConfig) -> str:
    """Return what the folder of a job is called; by default its number."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().cfg = config  # type: ignore[assignment]
    try:
        return str(config.hydra.sweep.subdir)
    finally:
        HydraConfig.instance().cfg = before
