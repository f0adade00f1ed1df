"""One run from its first epoch to its last picture: trains, and keeps what comes of it in its folder and in MLflow."""

import contextlib
import csv
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from src.config import Job, read_curve
from src.experiment import Prepared
from src.nn.network import Parameters
from src.nn.weights import save_weights
from src.tracking.provenance import code_digest, git_tags
from src.tracking.tracker import Tracker, ending
from src.training import Epoch, Score

log = logging.getLogger(__name__)

RESULT = "result.json"
_PICTURED = 10_000  # samples at most that a confusion matrix and a page of predictions are made of


@dataclass(frozen=True)
class Best:
    """The best scores that a set had after any epoch; ``epoch`` is that of the best accuracy, the first one."""

    loss: float
    accuracy: float
    epoch: int


@dataclass(frozen=True)
class Summary:
    """What a whole training came to."""

    final: Mapping[str, Score]
    best: Mapping[str, Best]
    updates: int
    samples: int
    seconds: float

    def metrics(self) -> dict[str, float]:
        """Return every figure under the name that MLflow and the configuration know it by."""
        figures: dict[str, float] = {}
        for name, score in self.final.items():
            figures |= {f"{name}/loss": score.loss, f"{name}/accuracy": score.accuracy}
            best = self.best[name]
            figures |= {
                f"best/{name}/loss": best.loss,
                f"best/{name}/accuracy": best.accuracy,
                f"best/{name}/epoch": best.epoch,
            }
        return figures


@dataclass(frozen=True)
class Origin:
    """Where a run comes from: what was asked for, and what it is called."""

    folder: Path  # exists
    name: str
    overrides: Sequence[str]
    settings: Mapping[str, Any]  # every resolved setting by its dotted key, and every choice by its group
    sweep_id: str | None = None
    varied: Sequence[str] = ()  # the settings in which the runs of its sweep differ


@dataclass(frozen=True)
class Result:
    """What is known of a run when it has ended, however it did; kept as ``result.json`` in its folder."""

    name: str
    overrides: Sequence[str]
    status: str
    metric: str
    failure: str | None = None
    value: float | None = None  # of the metric
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    experiment_id: str | None = None
    run_id: str | None = None

    def write(self, folder: Path) -> None:
        (folder / RESULT).write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> "Result":
        """Raises FileNotFoundError where the run has not ended."""
        return Result(**json.loads((folder / RESULT).read_text(encoding="utf-8")))


def summarize(history: Sequence[Epoch]) -> Summary:
    """Return the last and the best scores of a training."""
    last = history[-1]
    best = {}
    for name in last.scores:
        scores = [epoch.scores[name] for epoch in history]
        at = int(np.argmax([score.accuracy for score in scores]))
        best[name] = Best(min(score.loss for score in scores), scores[at].accuracy, history[at].number)
    return Summary(last.scores, best, last.updates, last.samples, last.seconds)


def measurements(epoch: Epoch) -> dict[str, float]:
    """Return an epoch's record as metrics."""
    scores = {
        f"{name}/{measure}": value for name, score in epoch.scores.items() for measure, value in asdict(score).items()
    }
    return {**scores, "updates": epoch.updates, "samples": epoch.samples, "seconds": epoch.seconds}


# Opens a display of progress over so many epochs and gives the function that shows one.
Display = Callable[[int], contextlib.AbstractContextManager[Callable[[Epoch], None]]]


def execute(job: Job, prepared: Prepared, origin: Origin, display: Display) -> tuple[Result, Summary]:
    """Train, track, draw, and leave in the run's folder the history, the weights, the pictures and the result.

    Raises UserError where the store can't be opened, and Diverged; a run that had begun leaves its result even then.
    """
    start = time.perf_counter()
    with job.tracking.start(job.outputs, origin.name) as tracker:
        result = Result(
            origin.name,
            list(origin.overrides),
            "FINISHED",
            job.metric,
            experiment_id=tracker.experiment_id,
            run_id=tracker.run_id,
        )
        log.info("%s: MLflow run %s of experiment %s", origin.name, tracker.run_id, tracker.experiment_id)
        try:
            summary = _train_and_keep(job, prepared, origin, tracker, display)
        except BaseException as error:
            status, reason = ending(error)
            replace(result, status=status, failure=reason, seconds=time.perf_counter() - start).write(origin.folder)
            raise
    metrics = summary.metrics()
    result = replace(result, value=metrics[job.metric], metrics=metrics, seconds=time.perf_counter() - start)
    result.write(origin.folder)
    log.info("finished in %.1f s: %s", result.seconds, metrics)
    return result, summary


def _train_and_keep(job: Job, prepared: Prepared, origin: Origin, tracker: Tracker, display: Display) -> Summary:
    folder = origin.folder
    tags = {
        "overrides": " ".join(origin.overrides),
        "output_dir": str(folder.absolute()),
        "config_digest": job.experiment.digest,
        "data_digest": prepared.dataset.digest,
        "code_digest": code_digest(),
        **git_tags(),
    }
    tracker.tags(tags)
    if origin.sweep_id:
        tracker.sweep(origin.sweep_id, job.metric, [name for name in origin.varied if name in origin.settings])
    tracker.parameters(origin.settings)
    tracker.dataset(prepared)
    tracker.files(sorted(folder.glob(".hydra/*.yaml")), "config")

    history, trained = _train(prepared, job.experiment.epochs, tracker, folder / "history.csv", display)
    summary = summarize(history)
    finals_and_bests = {
        key if key.startswith("best/") else f"final/{key}": value for key, value in summary.metrics().items()
    }
    tracker.metrics(finals_and_bests, 0)  # of no epoch: the UI draws them as bars with their numbers

    save_weights(folder / "weights.npz", prepared.network, trained)
    tracker.files(draw(job, prepared, history, trained, folder), "pictures")
    tracker.files([folder / "history.csv"])
    tracker.model(prepared, trained)
    return summary


def _train(
    prepared: Prepared, epochs: int, tracker: Tracker, path: Path, display: Display
) -> tuple[list[Epoch], Parameters]:
    history: list[Epoch] = []
    trained = prepared.parameters
    with display(epochs) as show, _history_file(path) as keep:
        for epoch in prepared.train():
            keep(epoch)
            tracker.metrics(measurements(epoch), epoch.number)
            show(epoch)
            trained = epoch.parameters
            history.append(replace(epoch, parameters=()))  # the curve is kept, not every epoch's weights
    return history, trained


@contextlib.contextmanager
def _history_file(path: Path) -> Iterator[Callable[[Epoch], None]]:
    """Keep each epoch as a line of a CSV, on disk before it is shown: what was seen survives whatever dies."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)

        def keep(epoch: Epoch) -> None:
            row = {"epoch": epoch.number, **measurements(epoch)}
            if epoch.number == 1:
                writer.writerow(row)
            writer.writerow(row.values())
            file.flush()

        yield keep


def draw(job: Job, prepared: Prepared, history: Sequence[Epoch], trained: Parameters, folder: Path) -> list[Path]:
    """Write the run's pictures into its folder and return their paths."""
    from src import plots  # Matplotlib takes half a second to import: not before training

    dataset = prepared.dataset
    name, judged = list(dataset.splits())[-1]  # the test set where there is one
    images, labels = judged.images[:_PICTURED], judged.labels[:_PICTURED]
    probabilities = prepared.probabilities(trained, images)
    outputs = prepared.experiment.model.outputs
    curve = job.reference.curve if job.reference else None
    published = {curve.metric: read_curve(curve)} if curve else None
    figures = {
        "curves": plots.curves(history, published),
        "confusion": plots.confusion(labels, probabilities.argmax(axis=-1), outputs, name=name),
        "predictions": plots.predictions(images, labels, probabilities, dataset.shape, name=name),
        "first_layer": plots.first_layer(trained[0][0], dataset.shape),
    }
    paths = []
    for title, figure in figures.items():
        paths.append(folder / f"{title}.png")
        plots.save(figure, paths[-1])
    return paths
