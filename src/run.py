"""The entry point of the command line: composes a configuration, checks it, runs it and reports."""

from src.support import signals

if __name__ == "__main__":  # the imports below take a second, and show no traceback of a signal
    signals.leave_at_once_on_signals()

import logging
import os
import secrets
import shlex
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
from src.experiment.experiment import Prepared
from src.experiment.job import Job
from src.experiment.recorder import Finished
from src.experiment.results import RESULT, Result
from src.experiment.runner import Display, execute, gradcheck
from src.support.errors import ConfigError, TrainingFailed, UserError, first_line
from src.support.paths import CONF
from src.sweep.run_context import single, swept
from src.terminal import report
from src.terminal.ending import ending_in_order
from src.tracking.journal import JOURNAL
from src.tracking.links import run_link, with_ui

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
        assert finished.result.value is not None
        return finished.result.value
    except TrainingFailed as error:
        report.problem(str(error))
    except UserError as error:  # the store was found broken after training had started
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
    try:
        finished = execute(job, prepared, run_context, display)
    except BaseException:
        if (run_context.folder / RESULT).exists():
            result = Result.load(run_context.folder)
            report.findings(result.findings)
            report.chance(result.chance)
            _show_whereabouts(job, result, run_context.folder)
        raise
    differing = deviations(job, config, context)  # type: ignore[arg-type] # a DictConfig of its form
    report.closing(finished.summary, job.reference, differing)
    _show_whereabouts(job, finished.result, run_context.folder)
    return finished


def _show_whereabouts(job: Job, result: Result, folder: Path) -> None:
    if result.run_id is None:  # MLflow is offline, or away
        report.whereabouts(folder, _told_later(folder))
        return
    store = job.tracking.store(job.outputs)
    link = run_link(store, str(result.experiment_id), result.run_id)
    report.whereabouts(folder, with_ui(link, store, job.outputs))


def _told_later(folder: Path) -> str:
    return f"not told yet: python -m src.sync {shlex.quote(str(folder))}"


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
        if (run_context.folder / RESULT).exists():
            report.job_line(Result.load(run_context.folder), run_context.position)
    assert finished.result.value is not None
    return finished.result.value


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
                if (resume.folder / JOURNAL).exists():
                    report.fact("MLflow", _told_later(resume.folder))
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
    with ending_in_order(told=True):
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
