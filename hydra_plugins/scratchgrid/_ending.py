"""Ends a sweep: closes what is open, compares the runs, and shows what came out."""

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn, JobStatus

from src.compare import compare_results
from src.comparison.summary import track_summary, write_summary
from src.config.hydra_internals import value_or_error
from src.experiment.job import Job
from src.experiment.results import RESULT, Result
from src.support.errors import UserError, first_line
from src.sweep.jobs import SweepJob
from src.sweep.plan import Plan, collect, in_metric
from src.terminal import report
from src.tracking.links import view_link, with_ui
from src.tracking.store import close_abandoned
from src.tracking.sync import left_open, sync_all
from src.tracking.tracker import ending
from src.tracking.view import SEEDS, run_by_run
from src.tracking.writer import writer

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from src.comparison.comparison import Comparison

    Opened = tuple[MlflowClient, str]  # a client, and the id of the experiment

log = logging.getLogger(__name__)

_OPENING = 10.0  # seconds for the store to be opened in another thread
_FAILED_DRAWN = 5  # failed runs whose pictures are drawn

Reasons = dict[int, tuple[str, str]]  # status and failure of jobs without a result, by their places


def end_sweep(
    folder: Path,
    jobs: Sequence[SweepJob],
    outcomes: Mapping[int, JobReturn],
    interruption: BaseException | None,
) -> bool:
    """Close what is still open, show what came out, and return whether every run finished.

    ``outcomes`` are what the jobs that ran returned, by their numbers.
    """
    whole = Plan.load(folder)
    assert whole is not None
    plan = whole.part([job.number for job in jobs])
    job, folders = jobs[0].job, [one.folder for one in jobs]
    reasons: Reasons = {}
    for place, one in enumerate(jobs):
        returned = outcomes.get(one.number)
        if returned and returned.status == JobStatus.FAILED:
            reasons[place] = ("FAILED", str(value_or_error(returned)))
    opened = _open(job, folder)
    results = _closed(plan, job, folders, reasons, opened, interruption)
    results = [in_metric(one, own.job.metric) for one, own in zip(results, jobs, strict=True)]
    best = _best(results)
    if outcomes and not interruption:
        _draw(results, folders, best)
    if best is not None and opened is not None and not interruption:
        _log_network(results[best], folders[best])
    comparison = compare_results(results, folders, job.metric)
    report.sweep_table(results, plan.sweep_id, comparison)
    page = None
    if comparison and not interruption:
        page = _summarize(comparison, folder, plan, job, is_open=opened is not None)
    _show_whereabouts(folder, plan, job, opened, page)
    return all(result.status in ("FINISHED", "PRUNED") for result in results)


def _open(job: Job, folder: Path) -> "Opened | None":
    """Return MLflow's client and the experiment's id; None if MLflow is away or not used."""
    if job.tracking.offline:
        return None
    try:
        with contextlib.suppress(TimeoutError):  # it may be opening the store at this moment
            writer().submit(lambda: None).result(_OPENING)
        return job.tracking.open(job.outputs)
    except UserError as error:  # the runs' folders hold what MLflow was not told
        report.problem(f"{error}; python -m src.sync {folder} tells it later")
        return None


def _closed(
    plan: Plan,
    job: Job,
    folders: Sequence[Path],
    reasons: Reasons,
    opened: "Opened | None",
    interruption: BaseException | None,
) -> list[Result]:
    """Close in MLflow what is still open, and return the result of each run."""
    results = collect(plan, folders, reasons, job.metric)
    if opened is None:
        return results
    if interruption or any(result.run_id is None for result in results):
        # A worker that is killed, or that a launcher ends, leaves its MLflow runs open.
        status, reason = (
            ending(interruption) if interruption else ("FAILED", "its worker process died")
        )
        client, experiment_id = opened
        told = reason.splitlines()[0]
        abandoned: set[Path] = set()
        if not interruption:  # with their points, which takes a while
            left = [own for own in folders if not (own / RESULT).exists()]
            abandoned = sync_all(left, (status, told))
        abandoned |= close_abandoned(client, experiment_id, plan.sweep_id, status, told)
        reasons |= {
            place: (status, reason)
            for place, own in enumerate(folders)
            if own.absolute() in abandoned
        }
    sync_all([own for own in folders if (own / RESULT).exists()])
    results = collect(plan, folders, reasons, job.metric)
    sync_all(left_open(job.outputs.absolute()))
    return results


def _summarize(
    comparison: "Comparison", folder: Path, plan: Plan, job: Job, *, is_open: bool
) -> Path | None:
    """Write the report and keep it in MLflow; return the page. The runs are kept in any case."""
    try:
        page = write_summary(comparison, folder)
        tracking = job.tracking if is_open else replace(job.tracking, offline=True)
        track_summary(comparison, folder, plan.sweep_id, tracking, job.outputs)
    except Exception as error:
        log.exception("the report failed")
        report.problem(
            f"no report: {first_line(error)}; the runs are kept: "
            f"python -m src.compare {folder} --html FILE writes it"
        )
        return None
    return page


def _show_whereabouts(
    folder: Path, plan: Plan, job: Job, opened: "Opened | None", page: Path | None
) -> None:
    if opened is None:
        report.whereabouts(folder, f"not told yet: python -m src.sync {folder}", page)
        return
    store = job.tracking.store(job.outputs)
    link = with_ui(view_link(store, opened[1], plan.sweep_id), store, job.outputs)
    has_seeds = any(name in SEEDS for name in plan.varied)
    single = view_link(store, opened[1], run_by_run(plan.sweep_id)) if has_seeds else ""
    report.whereabouts(folder, link, page, single)


def _best(results: Sequence[Result]) -> int | None:
    """Return the place of the best run; None if none has finished, or they are not comparable."""
    finished = [n for n, result in enumerate(results) if result.value is not None]
    if len({results[n].metric for n in finished}) != 1:
        return None
    sign = -1 if results[finished[0]].metric.endswith("loss") else 1
    return max(finished, key=lambda n: sign * (results[n].value or 0.0))


def _log_network(result: Result, folder: Path) -> None:
    """Log the network of the best run as a model; ``src.sync --model`` logs that of any other."""
    if result.run_id is None or not (folder / "weights.npz").exists():
        return  # a worker that keeps them has logged it
    from src.sync import log_network

    try:
        log_network(folder)
    except Exception as error:  # whatever fails, the runs are kept and the sweep ends in order
        log.exception("the best run's network can't be logged")
        report.problem(
            f"no model of {result.name}: {first_line(error)}; "
            f"python -m src.sync --model {folder} logs it later"
        )


def _draw(results: Sequence[Result], folders: Sequence[Path], best: int | None) -> None:
    """Draw the pictures of the best run and of the first failed ones.

    ``python -m src.pictures`` draws those of any other.
    """
    drawn = [n for n, result in enumerate(results) if result.status == "FAILED"][:_FAILED_DRAWN]
    if best is not None:
        drawn.append(best)
    for number in drawn:
        if not (folders[number] / ".hydra").exists():
            continue  # it did not start
        from src.pictures import draw_run  # Matplotlib takes half a second to import

        try:
            draw_run(folders[number], log=results[number].run_id is not None)
        except UserError as error:
            report.problem(f"no pictures of {results[number].name}: {error}")
