"""Ends a sweep: closes what is open, compares the runs, and shows what came out."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus

from src.comparison.comparison import Comparison
from src.comparison.kept import read_folder
from src.comparison.summary import write_summary
from src.config.hydra_internals import value_or_error
from src.config.kept_configuration import check_kept
from src.runs.folder import RUN
from src.runs.job import Job
from src.runs.record import Record, Status
from src.runs.recorder import ending
from src.support.errors import UserError, first_line
from src.sweep.jobs import SweepJob
from src.sweep.plan import Plan, collect, in_metric
from src.terminal import report
from src.tracking.links import sync_command, view_link, with_ui
from src.tracking.process import PATIENCE, PATIENCE_WHEN_KILLED, mirror
from src.tracking.told import ids
from src.tracking.view import SEEDS, run_by_run

log = logging.getLogger(__name__)

_FAILED_DRAWN = 5  # failed runs whose pictures are drawn
_DIED = ("FAILED", "its worker process died")


def end_sweep(
    folder: Path,
    jobs: Sequence[SweepJob],
    outcomes: Mapping[int, JobReturn],
    interruption: BaseException | None,
) -> bool:
    """Show what came out of a sweep, tell MLflow, and return whether every run finished.

    ``outcomes`` are what the jobs that ran returned, by their numbers.
    """
    whole = Plan.load(folder)
    assert whole is not None
    plan = whole.part([job.number for job in jobs])
    job, folders = jobs[0].job, [one.folder for one in jobs]
    died: tuple[Status, str] = ending(interruption) if interruption else _DIED  # type: ignore[assignment]
    own = mirror(job)
    if own:
        own.send(died=[died[0], died[1].splitlines()[0]])
    results = collect(plan, folders, _reasons(jobs, outcomes, died), job.metric)
    results = [in_metric(one, own.job.metric) for one, own in zip(results, jobs, strict=True)]
    best = _best(results)
    if outcomes and not interruption:
        drawn = _draw(results, folders, best)
        if own:
            own.follow(drawn)  # it may have told the end of these runs by now
    has_all = not own or own.flush(PATIENCE_WHEN_KILLED if interruption else PATIENCE)
    comparison = _compare(results, folders, job.metric)
    report.sweep_table(results, plan.sweep_id, comparison)
    page = None
    if comparison and not interruption:
        page = _summarize(comparison, folder, plan, None if best is None else folders[best])
        if own and page and has_all:
            own.send(summary=str(folder.absolute()))
            with report.waiting("telling MLflow"):
                has_all = own.flush()
    _show_whereabouts(folder, folders, plan, job, page, has_all=has_all)
    return all(result.status in ("FINISHED", "PRUNED") for result in results)


def _reasons(
    jobs: Sequence[SweepJob], outcomes: Mapping[int, JobReturn], died: tuple[Status, str]
) -> dict[int, tuple[Status, str]]:
    """Return the status and the reason of jobs without a result, by their places."""
    reasons: dict[int, tuple[Status, str]] = {}
    for place, one in enumerate(jobs):
        returned = outcomes.get(one.number)
        if returned and returned.status == JobStatus.FAILED:
            reasons[place] = ("FAILED", str(value_or_error(returned)))
        elif (one.folder / RUN).exists():
            reasons[place] = died
    return reasons


def _compare(results: Sequence[Record], folders: Sequence[Path], metric: str) -> Comparison | None:
    """Return the comparison of the runs.

    None if fewer than two finished, if they name different metrics, since there is no order then,
    or if a file is damaged, which is printed.
    """
    finished = [result for result in results if result.value is not None]
    if len(finished) < 2 or len({result.metric for result in finished}) > 1:
        return None
    try:
        kept = [read_folder(folder) for folder in folders if (folder / RUN).exists()]
        comparison = Comparison(kept, metric)
        assert comparison.answer  # reads everything
    except UserError as error:
        report.problem(f"the runs can't be compared: {error}")
        return None
    return comparison


def _summarize(comparison: Comparison, folder: Path, plan: Plan, best: Path | None) -> Path | None:
    """Write the summary of the sweep; return the page. The runs are there in any case."""
    try:
        return write_summary(comparison, folder, plan.sweep_id, best)
    except Exception as error:
        log.exception("the report failed")
        report.problem(
            f"no report: {first_line(error)}; the runs are kept: "
            f"python -m src.compare {folder} --html FILE writes it"
        )
        return None


def _show_whereabouts(
    folder: Path,
    folders: Sequence[Path],
    plan: Plan,
    job: Job,
    page: Path | None,
    *,
    has_all: bool,
) -> None:
    own = mirror(job)
    for place, refused in own.lacking.items() if own else ():
        report.problem(f"{place}: MLflow refuses a part of the run: {refused}")
    known = next(filter(None, map(ids, folders)), None)
    if own is None or not has_all or known is None:
        report.whereabouts(folder, f"not told yet: {sync_command(folder, job.outputs)}", page)
        return
    store = job.tracking.store(job.outputs)
    link = with_ui(view_link(store, known[0], plan.sweep_id), store, job.outputs)
    has_seeds = any(name in SEEDS for name in plan.varied)
    single = view_link(store, known[0], run_by_run(plan.sweep_id)) if has_seeds else ""
    report.whereabouts(folder, link, page, single)


def _best(results: Sequence[Record]) -> int | None:
    """Return the place of the best run; None if none has finished, or they are not comparable."""
    finished = [n for n, result in enumerate(results) if result.value is not None]
    if len({results[n].metric for n in finished}) != 1:
        return None
    sign = -1 if results[finished[0]].metric.endswith("loss") else 1
    return max(finished, key=lambda n: sign * (results[n].value or 0.0))


def _draw(results: Sequence[Record], folders: Sequence[Path], best: int | None) -> list[Path]:
    """Draw the pictures of the best run and of the first failed ones; return their folders.

    ``python -m src.pictures`` draws those of any other.
    """
    drawn = [n for n, result in enumerate(results) if result.status == "FAILED"][:_FAILED_DRAWN]
    if best is not None:
        drawn.append(best)
    for number in drawn:
        if not (folders[number] / ".hydra").exists():
            continue  # it did not start
        from src.runs.pictures.folder import draw  # Matplotlib takes half a second to import

        folder, name = folders[number], results[number].name
        try:
            draw(folder, *check_kept(folder), name)
        except (UserError, OSError) as error:
            report.problem(f"no pictures of {name}: {error}")
    return [folders[number] for number in drawn]
