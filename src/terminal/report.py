"""What a person sees in the terminal: the choice, the progress, the result and where to look next."""

import contextlib
import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from src.experiment.experiment import Prepared
from src.experiment.job import Job, Reference
from src.experiment.results import Result, Summary
from src.nn.losses import SoftmaxCrossEntropy
from src.nn.network import parameter_count
from src.training.schedules import Constant
from src.training.stopping import Never
from src.training.training_run import Epoch

_PLAIN_WIDTH = 160
_PLAIN_LINES = 20  # about how many epochs are shown where the output is not a terminal


_silent = ContextVar("silent", default=False)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Show nothing in the block."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def _console() -> Console:
    """Return the terminal, or a console wide enough for any table where the output goes elsewhere."""
    # In a notebook Rich would make of each line a page of HTML.
    screen = Console(highlight=False, quiet=_silent.get(), force_jupyter=False)
    if screen.is_terminal:
        return screen
    return Console(highlight=False, quiet=_silent.get(), force_jupyter=False, width=_PLAIN_WIDTH)


def _say(markup: str) -> None:
    _console().print(markup, soft_wrap=True)


def opening(job: Job, prepared: Prepared, choices: Mapping[str, str]) -> None:
    """Show the composed choice."""
    experiment = job.experiment
    updates = experiment.batching.updates(len(prepared.dataset.train))
    rows = {
        "model": f"{experiment.model}  ({parameter_count(prepared.network):,} parameters)",
        "initializer": f"{choices.get('initializer', '')}: {experiment.initializer}",
        "batching": f"{choices.get('batching', '')}: {_count(updates, 'update')} an epoch",
        "data": str(prepared.dataset),
        "training": f"{_count(experiment.epochs, 'epoch')}, {choices.get('optimizer', '')} at lr {experiment.lr:g}, "
        f"{experiment.dtype}, seed {experiment.seed}",
    }
    # Only what somebody chose: the usual needs no line.
    if not isinstance(experiment.schedule, Constant) or experiment.schedule.warmup:
        rows["schedule"] = f"{choices.get('schedule', '')}: {_fields(experiment.schedule)}"
        if experiment.schedule.warmup >= experiment.epochs:
            rows["schedule"] += "; the warm-up is as long as training, or longer"
    if not isinstance(experiment.stopping, Never):
        rows["stopping"] = f"{choices.get('stopping', '')}: {_fields(experiment.stopping)}"
    if experiment.loss != SoftmaxCrossEntropy():
        rows["loss"] = f"{choices.get('loss', '')}: {_fields(experiment.loss)}".rstrip(": ")
    for key, value in rows.items():
        fact(key, value)


@contextlib.contextmanager
def progress(epochs: int) -> Iterator[Callable[[Epoch], None]]:
    """Give a function that shows an epoch: on a bar in a terminal, elsewhere as a line now and then."""
    console = _console()
    if console.is_terminal:
        # What matters most first: a narrow terminal cuts on the right.
        counts, scores = (
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[scores]}"),
        )
        with Progress(
            counts, BarColumn(10), TimeRemainingColumn(), scores, console=console, transient=True
        ) as bar:
            task = bar.add_task("", total=epochs, scores="")
            yield lambda epoch: bar.update(task, completed=epoch.number, scores=_short_line(epoch))
    else:
        every = max(1, epochs // _PLAIN_LINES)

        def show(epoch: Epoch) -> None:
            if epoch.number % every == 0 or epoch.number in (1, epochs):
                _say(f"epoch {epoch.number}/{epochs}  {_line(epoch)}")

        yield show


def sweep_plan(groups: Iterable[int], workers: int) -> None:
    """Show how the runs of a sweep are divided, given how many are in each group."""
    sizes = Counter(groups)
    parts = [
        f"{_count(n, 'stack')} of {size}"
        if size > 1
        else f"{n} by {'itself' if n == 1 else 'themselves'}"
        for size, n in sorted(sizes.items(), reverse=True)
    ]
    runs = sum(size * n for size, n in sizes.items())
    fact(
        "sweep",
        f"{_count(runs, 'run')}: {', '.join(parts)}; {_count(workers, 'process', 'processes')}",
    )


@contextlib.contextmanager
def sweep_progress(epochs: int) -> Iterator[Callable[[int], None]]:
    """Give a function that is told of epochs done, of all of a sweep's: shown on a bar, in a terminal alone."""
    console = _console()
    if not console.is_terminal:
        yield lambda done: None
        return
    columns = (
        TextColumn("{task.completed}/{task.total} epochs"),
        BarColumn(30),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=epochs)
        yield lambda done: bar.advance(task, done)


def closing(summary: Summary, reference: Reference | None) -> None:
    """Show what came out, and what was published."""
    if summary.stopped:
        fact("stopped", f"after epoch {summary.epochs}: {summary.stopped}")
    if summary.kept != summary.epochs:
        fact("kept", f"the weights of epoch {summary.kept}, and its scores")
    table = _table("", "loss", "accuracy", "best accuracy", "at epoch")
    for part, score in summary.final.items():
        best = summary.best[part]
        table.add_row(
            part,
            f"{score.loss:.4f}",
            f"{score.accuracy:.4f}",
            f"{best.accuracy:.4f}",
            str(best.epoch),
        )
    _console().print(table)
    if reference and reference.figures:
        fact("published", reference.source)
        _console().print(_published(summary, reference))
    findings(summary.findings)
    fact("time", f"{summary.seconds:.1f} s of training, {_count(summary.updates, 'update')}")


def findings(sentences: Sequence[str]) -> None:
    """Show what is wrong in the layers."""
    for sentence in sentences:
        fact("look at", sentence)


def whereabouts(folder: Path, link: str) -> None:
    """Show where to look."""
    here = Path.cwd()
    fact("folder", str(folder.relative_to(here) if folder.is_relative_to(here) else folder))
    fact("MLflow", link)


def job_line(result: Result, position: str) -> None:
    """Show one run of a sweep in one line."""
    if result.value is None:
        outcome = f"[red]{result.status}: {escape(result.failure or '')}[/red]"
    else:
        outcome = f"{result.metric} {result.value:.4f}"
    _say(f"{escape(position)}  {escape(result.name)}  {outcome}  {result.seconds:.1f} s")


def sweep_table(results: Sequence[Result], sweep_id: str) -> None:
    """Show the runs of a sweep, the best first, and the failed ones with what was asked of them."""
    finished = [(result.value, result) for result in results if result.value is not None]
    finished.sort(key=lambda pair: pair[0] if pair[1].metric.endswith("loss") else -pair[0])
    if finished:
        metrics = {result.metric for _, result in finished}
        shared = metrics.pop() if len(metrics) == 1 else None
        accuracies = [f"{part}/accuracy" for part in ("train", "val", "test")]
        others = [
            key
            for key in accuracies
            if key != shared and any(key in result.metrics for _, result in finished)
        ]
        # Unlike metrics have no common order.
        table = _table(
            "rank" if shared else "", "run", shared or "metric", *others, "seconds", left="run"
        )
        for rank, (value, result) in enumerate(finished, 1):
            best = f"{value:.4f}" if shared else f"{result.metric} {value:.4f}"
            cells = (
                f"{result.metrics[key]:.4f}" if key in result.metrics else "" for key in others
            )
            table.add_row(
                str(rank) if shared else "",
                escape(result.name),
                best,
                *cells,
                f"{result.seconds:.1f}",
            )
        _console().print(table)
    for result in results:
        if result.value is None:
            _say(
                f"[red]{result.status}[/red]  {escape(' '.join(result.overrides))}: {escape(result.failure or '')}"
            )
    fact("runs", f"{len(finished)} of {len(results)} finished, sweep_id {sweep_id}")


def claims(rows: Sequence[tuple[str, str, str, str, str, str]]) -> None:
    """Show what was published beside what was reached here, and the verdicts."""
    table = _table("recipe", "metric", "published", "here", "tolerance", "verdict", left="recipe")
    for *cells, verdict in rows:
        colour = {"worse": "red", "": "default"}.get(verdict, "green")
        table.add_row(*cells, f"[{colour}]{verdict or 'ours alone'}[/{colour}]")
    _console().print(table)


def fact(key: str, value: str) -> None:
    """Show a line of the form key, value."""
    _say(f"[bold]{key:<12}[/bold]{escape(value)}")


def show_log() -> None:
    """Show on standard error what our readers of data log, such as that a download has begun."""
    log = logging.getLogger("src.data")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)


def problem(message: str) -> None:
    """Say on standard error what is wrong."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"[red bold]error[/red bold] {escape(message)}"
    )


def _published(summary: Summary, reference: Reference) -> Table:
    table = _table("metric", "published", "here", "difference", left="metric")
    measured = summary.metrics()
    for metric, published in reference.figures.items():
        here = measured.get(metric)
        ours = ("", "") if here is None else (f"{here:.4f}", f"{here - published:+.4f}")
        table.add_row(metric, f"{published:.4f}", *ours)
    return table


def _table(*headings: str, left: str = "") -> Table:
    """Return a table without lines, its figures to the right and the column ``left`` to the left."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == left else "right", overflow="fold")
    return table


def _short_line(epoch: Epoch) -> str:
    """Return the scores in a form that leaves room for the bar in 80 columns: of the losses only the training set's."""
    accuracies = "  ".join(f"{name} {score.accuracy:.2%}" for name, score in epoch.scores.items())
    return f"loss {epoch.scores['train'].loss:.4f}  {accuracies}"


def _line(epoch: Epoch) -> str:
    return "  ".join(
        f"{name} {score.loss:.4f} {score.accuracy:.2%}" for name, score in epoch.scores.items()
    )


def _fields(value: Any) -> str:
    """Return the settings of a configured object as a person would write them."""
    settings = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    return ", ".join(f"{name} {setting}" for name, setting in settings)


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
