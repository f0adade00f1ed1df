"""What a single run prints before and after its training."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from src.data import Dataset
from src.nn.losses import SoftmaxCrossEntropy
from src.nn.network import parameter_count
from src.runs.experiment import Prepared
from src.runs.job import Job, Reference
from src.runs.summary import Summary
from src.terminal.console import console, count, fact, paragraph, table
from src.training.schedules import Constant
from src.training.stopping import Never


def opening(job: Job, prepared: Prepared, choices: Mapping[str, str]) -> None:
    """Print what will be trained; ``choices`` are the chosen options by group."""
    experiment = job.experiment
    updates = count(experiment.batching.updates(len(prepared.dataset.train)), "update")
    epochs = count(experiment.epochs, "epoch")
    optimizer = choices.get("optimizer", "")
    fact("model", f"{experiment.model}  ({parameter_count(prepared.network):,} parameters)")
    fact("initializer", f"{choices.get('initializer', '')}: {experiment.initializer}")
    fact("batching", f"{choices.get('batching', '')}: {updates} per epoch")
    fact("data", str(prepared.dataset))
    fact("shapes", _shapes(prepared.dataset))
    fact(
        "training",
        f"{epochs}, {optimizer} at lr {experiment.lr:g}, "
        f"{experiment.dtype}, seed {experiment.seed}",
    )
    _opening_of_the_unusual(job, choices)


def _shapes(dataset: Dataset) -> str:
    """Return the shapes of the training set's arrays."""
    x, y = dataset.train.images, dataset.train.labels
    return f"X {x.shape} {x.dtype}, y {y.shape} {y.dtype}, {dataset.classes} classes"


def _opening_of_the_unusual(job: Job, choices: Mapping[str, str]) -> None:
    """Print the schedule, the stopping rule and the loss where they are not the defaults."""
    experiment = job.experiment
    if not isinstance(experiment.schedule, Constant) or experiment.schedule.warmup:
        schedule = f"{choices.get('schedule', '')}: {_settings(experiment.schedule)}"
        if experiment.schedule.warmup >= experiment.epochs:
            schedule += "; the warm-up lasts as long as the training, or longer"
        fact("schedule", schedule)
    if not isinstance(experiment.stopping, Never):
        fact("stopping", f"{choices.get('stopping', '')}: {_settings(experiment.stopping)}")
    if experiment.loss != SoftmaxCrossEntropy():
        fact("loss", f"{choices.get('loss', '')}: {_settings(experiment.loss)}".rstrip(": "))


def _settings(configured: Any) -> str:
    """Return the settings of a configured object as a person writes them."""
    fields = dataclasses.fields(configured)
    return ", ".join(f"{field.name} {getattr(configured, field.name)}" for field in fields)


def closing(summary: Summary, reference: Reference | None, deviations: Sequence[str] = ()) -> None:
    """Print the scores, and the published figures beside ours.

    ``deviations`` are the settings in which the run differs from its published recipe.
    """
    if summary.stopped:
        fact("stopped", f"after epoch {summary.epochs}: {summary.stopped}")
    if summary.kept != summary.epochs:
        fact("kept", f"the weights of epoch {summary.kept}, and its scores")
    _print_scores(summary)
    if reference and reference.figures:
        _print_published(summary, reference, deviations)
    findings(summary.findings)
    chance(summary.chance)
    fact("time", f"{summary.seconds:.1f} s of training, {count(summary.updates, 'update')}")


def _print_scores(summary: Summary) -> None:
    scores = table("", "loss", "accuracy", "best accuracy", "at epoch")
    for part, score in summary.final.items():
        best = summary.best.get(part)
        best_cells = (f"{best.accuracy:.4f}", str(best.epoch)) if best else ("", "")
        scores.add_row(part, f"{score.loss:.4f}", f"{score.accuracy:.4f}", *best_cells)
    console().print(scores)


def _print_published(summary: Summary, reference: Reference, deviations: Sequence[str]) -> None:
    fact("published", reference.source)
    if deviations:
        fact("", f"not comparable: this run differs from the recipe in {', '.join(deviations)}")
    difference = "difference (not comparable)" if deviations else "difference"
    figures = table("metric", "published", "here", difference, left="metric")
    measured = summary.metrics()
    for metric, published in reference.figures.items():
        here = measured.get(metric)
        ours = ("", "") if here is None else (f"{here:.4f}", f"{here - published:+.4f}")
        figures.add_row(metric, f"{published:.4f}", *ours)
    console().print(figures)


def findings(sentences: Sequence[str]) -> None:
    """Print what is wrong in the layers."""
    for sentence in sentences:
        fact("look at", sentence)


def chance(said: str | None) -> None:
    """Print that a network answers no better than a guess, and the likely reason, if it does."""
    if said:
        paragraph("chance", said)


def whereabouts(folder: Path, link: str, page: Path | None = None, runs: str = "") -> None:
    """Print where the results are; of a sweep also its report, and the link to the single runs."""
    fact("folder", _near(folder))
    if page:
        fact("report", _near(page))
    fact("MLflow", link)
    if runs:
        fact("single runs", runs)


def _near(path: Path) -> str:
    """Return a path from the current folder, if it is below."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def claims(rows: Sequence[tuple[str, str, str, str, str, str]]) -> None:
    """Print published figures beside ours: recipe, metric, published, here, tolerance, verdict."""
    headings = ("recipe", "metric", "published", "here", "tolerance", "verdict")
    shown = table(*headings, left="recipe")
    for *cells, verdict in rows:
        style = {"worse": "red", "": ""}.get(verdict, "green")
        shown.add_row(*cells, Text(verdict or "ours alone", style=style))
    console().print(shown)
