"""The entry point of the command line: composes a configuration, checks it, runs it and reports."""

from src.support import signals

if __name__ == "__main__":  # the imports below take a second, and show no traceback of a signal
    signals.leave_at_once_on_signals()
    import sys

    from src.tracking import process

    process.start(sys.argv[1:])  # MLflow is imported meanwhile

import logging
import os
import secrets
import sys
import traceback
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from src.config.explain import COMPOSITION_ERRORS, explain
from src.config.preflight import check, claim
from src.config.recipes import deviations
from src.config.rerun import take_rerun
from src.config.resume import resume_or_prepare, resumed_run
from src.config.sweep_settings import refuse_in_single_run
from src.runs.experiment import Prepared
from src.runs.folder import PICTURES
from src.runs.job import Job
from src.runs.record import Record, status
from src.runs.recorder import Finished
from src.runs.runner import Display, execute, gradcheck
from src.support.errors import ConfigError, TrainingFailed, UserError, first_line
from src.support.paths import CONF
from src.sweep.run_context import single, swept
from src.terminal import report
from src.terminal.ending import ending_in_order
from src.tracking.links import run_link, sync_command, with_ui
from src.tracking.process import PATIENCE, PATIENCE_WHEN_KILLED, closing_mirrors, mirror
from src.tracking.told import ids

log = logging.getLogger(__name__)

# Part of a folder's name: two runs that start in the same second need two folders.
OmegaConf.register_new_resolver(
    "unique", lambda: secrets.token_hex(3), use_cache=True, replace=True
)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def task(config: DictConfig) -> float:
    """Run one composed configuration and return its metric.

    Hydra calls this once, or for each job of a sweep.
    """
    context = HydraConfig.get()
    if context.mode == RunMode.MULTIRUN:
        return _sweep_job(config, context)
    try:
        finished = single_run(config, report.progress)
        assert finished.record.value is not None
        return finished.record.value
    except TrainingFailed as error:
        report.problem(str(error))
    except UserError as error:  # the run's folder was found damaged
        report.problem(str(error))
        sys.exit(2)
    except Exception as error:
        log.exception("the run failed")
        where = f"{context.runtime.output_dir}/{context.job.name}.log"
        report.problem(f"{first_line(error)}; the traceback is in {where}")
    sys.exit(1)


def single_run(config: DictConfig, display: Display) -> Finished:
    """Run a composed configuration whose folder exists, and print its results.

    Raises UserError and TrainingFailed.
    """
    context = HydraConfig.get()
    job, prepared = check(config)
    if job.gradcheck:
        raise ConfigError(
            "gradcheck=true: checks the gradient and trains nothing: use python -m src.run"
        )
    report.opening(job, prepared, context.runtime.choices)
    run_context = single(config, context, job)
    if resume := resumed_run():
        run_context = resume.context(run_context)
        report.fact("resumed", resume.summary(prepared))
    if own := mirror(job):
        own.follow([run_context.folder])
    try:
        finished = execute(job, prepared, run_context, display)
    except BaseException:
        if status(run_context.folder) != "RUNNING":
            record = Record.load(run_context.folder)
            report.findings(record.findings)
            report.chance(record.chance)
            _show_whereabouts(job, run_context.folder)
        raise
    differing = deviations(job, config, context)  # type: ignore[arg-type] # a DictConfig of its form
    report.closing(finished.summary, job.reference, differing)
    _draw(job, prepared, run_context.folder)
    _show_whereabouts(job, run_context.folder)
    return finished


def _draw(job: Job, prepared: Prepared, folder: Path) -> None:
    """Draw the pictures of a run, for which nobody has to wait any more."""
    from src.runs.pictures.folder import draw  # Matplotlib takes a second to import

    try:
        draw(folder, job, prepared, Record.load(folder).name)
    except Exception as error:
        log.exception("the pictures failed")
        report.problem(f"no pictures: {first_line(error)}")
    if own := mirror(job):
        own.follow([folder])  # it may have told the end of the run by now


def _show_whereabouts(job: Job, folder: Path) -> None:
    """Wait until MLflow has the run, and print where it is."""
    own = mirror(job)
    has_all = False
    if own:
        ends_soon = signals.exit_code() is not None
        with report.waiting("telling MLflow"):
            has_all = own.flush(PATIENCE_WHEN_KILLED if ends_soon else PATIENCE)
    if own and (refused := own.lacking.get(str(folder.absolute()))):
        report.problem(
            f"MLflow refuses a part of the run: {refused}; "
            f"{sync_command(folder, job.outputs)} tries again"
        )
    known = ids(folder)
    if not has_all or known is None:
        report.whereabouts(folder, f"not told yet: {sync_command(folder, job.outputs)}")
        return
    store = job.tracking.store(job.outputs)
    report.whereabouts(folder, with_ui(run_link(store, *known), store, job.outputs))


def _sweep_job(config: DictConfig, context: Any) -> float:
    """Run a job of a sweep under a launcher that runs one job at a time."""
    job, prepared = check(config)
    run_context = swept(config, context, job)
    try:
        finished = execute(job, prepared, run_context, lambda _: nullcontext(lambda epoch: None))
    except TrainingFailed:
        raise
    except Exception as error:
        log.exception("the run failed")
        # Every launcher can carry this exception from process to process.
        raise RuntimeError(first_line(error)) from None
    finally:
        if status(run_context.folder) != "RUNNING":
            report.job_line(Record.load(run_context.folder), run_context.position)
    assert finished.record.value is not None
    return finished.record.value


class Preflight(Callback):
    """Checks a single run before Hydra makes its folder; the sweeper checks a sweep's jobs."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Exit where something is wrong: Hydra turns exceptions of a callback into warnings."""
        try:
            refuse_in_single_run(config.hydra.overrides.task)
            job, prepared = check(config)
            if job.gradcheck:
                _check_gradient(job, prepared, config.hydra.runtime.choices)
            resume = resumed_run()
            claim(job, Path(config.hydra.run.dir), goes_on=resume is not None)
            if resume and resume.is_finished(config, job, prepared):
                report.fact("finished", f"{resume.folder}: nothing is left to train")
                if not (resume.folder / PICTURES[-1]).exists():  # it was killed before the last
                    _draw(job, prepared, resume.folder)
                if own := mirror(job):
                    own.follow([resume.folder])
                _show_whereabouts(job, resume.folder)
                sys.exit(0)
        except UserError as error:
            report.problem(str(error))
            sys.exit(2)
        except TrainingFailed as error:
            report.problem(str(error))
            sys.exit(1)
        except Exception:
            signals.raise_if_ending()  # an import that a signal ends may fail in any way
            traceback.print_exc()
            sys.exit(1)


def _check_gradient(job: Job, prepared: Prepared, choices: Mapping[str, str]) -> NoReturn:
    """Check the gradient, print the result and exit: nothing is trained or kept.

    Raises WrongGradient.
    """
    report.opening(job, prepared, choices)
    report.fact("gradient", f"correct: {gradcheck(prepared)}")
    sys.exit(0)


def main() -> None:
    """Run what the command line asks for.

    Exit codes: 0 finished, 1 failed or diverged, 2 wrong configuration or data, 128 plus its
    number if a signal ended the process: 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP, 131 SIGQUIT.
    """
    with ending_in_order(told=True), closing_mirrors():
        _main()


def _main() -> None:
    """Compose, check and run; explain what is wrong. Raises UserError, and what a signal raises."""
    wants_traceback = "HYDRA_FULL_ERROR" in os.environ
    report.show_log()
    # Hydra then raises composition errors instead of printing them, and we explain them.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        sys.argv[1:] = resume_or_prepare(take_rerun(sys.argv[1:]))
        task()
    except COMPOSITION_ERRORS as error:
        signals.raise_if_ending()  # the signal's exception reached Hydra's parser
        if wants_traceback:
            raise
        overrides = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
        report.problem(explain(error, overrides))
        sys.exit(2)


if __name__ == "__main__":
    from src.run import main as imported_main  # workers know this module by its name

    imported_main()
