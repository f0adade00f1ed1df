"""Runs every combination of the values given: all are checked before the first begins, each fails alone, all are reported.

Hydra imports this module at every start, so what it needs of ours is imported where it is used.
"""

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from hydra_plugins.scratchgrid._composing import Composer

if TYPE_CHECKING:
    from src.config import Job
    from src.data import Source
    from src.errors import DataError
    from src.sweep.plan import Plan


class GridSweeper(BasicSweeper):
    """Hydra's basic sweeper with a check before and a table after."""

    def sweep(self, arguments: list[str]) -> Any:
        """Run the grid. Raises UserError where a job is wrong, before any is run; exits with 1 where a run failed."""
        assert self.config is not None
        assert self.launcher is not None
        assert self.hydra_context is not None
        from src import report
        from src.preflight import claim
        from src.sweep.plan import Plan

        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        self.overrides = self.split_arguments(
            parser.parse_overrides([*self._parse_config(), *arguments]), self.max_batch_size
        )
        jobs = list(itertools.chain(*self.overrides))
        example = self._check(jobs)
        folder = Path(self.config.hydra.sweep.dir)
        claim(example, folder)
        plan = Plan.of(folder.name, jobs)
        plan.write(folder)
        OmegaConf.save(self.config, folder / "multirun.yaml")

        returns: list[Sequence[JobReturn]] = []
        interruption: BaseException | None = None
        try:
            while not self.is_done():
                returns.append(self.launcher.launch(self.get_job_batch(), initial_job_idx=sum(map(len, returns))))
        except BaseException as error:
            interruption = error
        all_finished = self._report(plan, folder, list(itertools.chain(*returns)), example, interruption)
        if isinstance(interruption, Exception):  # such as that the system killed a worker
            report.problem(
                f"the launcher gave up: {str(interruption).strip() or type(interruption).__name__}".splitlines()[0]
            )
            sys.exit(1)
        if interruption:
            raise interruption
        if not all_finished:
            sys.exit(1)
        return returns

    def _check(self, jobs: Sequence[Sequence[str]]) -> "Job":
        """Compose and check every job and return the first. Raises UserError, which names each that is wrong."""
        from src.errors import ConfigError, UserError
        from src.explain import COMPOSITION_ERRORS, explain
        from src.preflight import check

        assert self.config is not None
        assert self.hydra_context is not None
        compose = Composer(self.hydra_context.config_loader, self.config)
        checked, wrong = [], []
        unreadable: dict[Source, DataError] = {}
        for overrides in jobs:
            try:
                job, _ = check(compose(overrides), unreadable)
                checked.append(job)
            except UserError as error:
                wrong.append(f"{' '.join(overrides)}: {error}")
            except COMPOSITION_ERRORS as error:
                wrong.append(f"{' '.join(overrides)}: {explain(error, overrides)}")
        if wrong:
            rest = f"\n… and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            raise ConfigError(
                f"{len(wrong)} of {len(jobs)} jobs can't be run, so none was:\n" + "\n".join(wrong[:5]) + rest
            )
        if len({(job.outputs, job.tracking) for job in checked}) > 1:
            raise ConfigError("outputs and tracking can't be swept: a sweep keeps all its runs in one place")
        return checked[0]

    def _report(
        self,
        plan: "Plan",
        folder: Path,
        returns: Sequence[JobReturn],
        example: "Job",
        interruption: BaseException | None,
    ) -> bool:
        """Show the table of all runs; return whether every one finished."""
        from src import report
        from src.sweep.plan import collect
        from src.tracking.links import view_link, with_ui
        from src.tracking.store import close_abandoned
        from src.tracking.tracker import ending

        # Where a run's folder is called otherwise (hydra.sweep.subdir), what Hydra returned knows it.
        folders = [folder / str(number) for number in range(len(plan.names))]
        reasons: dict[int, tuple[str, str]] = {}
        for number, job in enumerate(returns):
            folders[number] = Path(job.hydra_cfg.hydra.runtime.output_dir) if job.hydra_cfg else folders[number]
            if job.status == JobStatus.FAILED:
                reasons[number] = ("FAILED", str(job._return_value))
        results = collect(plan, folders, reasons, example.metric)
        if interruption or any(result.status == "LOST" for result in results) or reasons:
            # A launcher ends its workers, or they die, in ways that leave them no time to close their runs.
            status, reason = ending(interruption) if interruption else ("FAILED", "its worker process died")
            client, experiment_id = example.tracking.open(example.outputs)
            abandoned = close_abandoned(client, experiment_id, plan.sweep_id, status, reason.splitlines()[0])
            reasons |= {n: (status, reason) for n, place in enumerate(folders) if place.absolute() in abandoned}
            results = collect(plan, folders, reasons, example.metric)
        report.sweep_table(results, plan.sweep_id)
        store = example.tracking.store(example.outputs)
        known = next((result.experiment_id for result in results if result.experiment_id), None)
        link = view_link(store, known or example.tracking.open(example.outputs)[1], plan.sweep_id)
        report.whereabouts(folder, with_ui(link, store, example.outputs))
        return all(result.status == "FINISHED" for result in results)
